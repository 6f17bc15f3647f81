//! Synthetic handwriting: glyphs made of strokes, distorted and with noise.

use super::pen::{Canvas, Point, Stroke};
use Stroke::{Curve, Line};
use rand::{Rng, RngExt};
use tapegrad_tape::Generator;

const SIDE: usize = 28;

/// Several glyphs of each digit, in a box from -0.5 to 0.5 in height.
#[rustfmt::skip]
const GLYPHS: [&[&[Stroke]]; 10] = [
    &[
        &[Curve(&[[0.02, -0.5], [-0.24, -0.34], [-0.32, 0.0], [-0.24, 0.34], [0.0, 0.5], [0.24, 0.34], [0.32, 0.0], [0.24, -0.34], [0.02, -0.5]])],
        &[Curve(&[[0.08, -0.5], [-0.14, -0.36], [-0.22, 0.05], [-0.12, 0.44], [0.06, 0.47], [0.2, 0.2], [0.24, -0.18], [0.12, -0.46], [-0.02, -0.4]])],
        &[Curve(&[[0.2, -0.4], [-0.05, -0.5], [-0.3, -0.25], [-0.34, 0.12], [-0.12, 0.46], [0.18, 0.42], [0.36, 0.08], [0.3, -0.28], [0.2, -0.4]])],
    ],
    &[
        &[Line(&[[0.0, -0.5], [0.0, 0.5]])],
        &[Line(&[[-0.18, -0.3], [0.03, -0.5], [0.03, 0.5]])],
        &[Line(&[[-0.2, -0.26], [0.02, -0.5], [0.02, 0.5]]), Line(&[[-0.22, 0.5], [0.25, 0.49]])],
        &[Curve(&[[0.12, -0.5], [0.02, -0.1], [-0.1, 0.5]])],
    ],
    &[
        &[Curve(&[[-0.28, -0.28], [-0.14, -0.47], [0.1, -0.49], [0.26, -0.32], [0.2, -0.06], [-0.05, 0.22], [-0.3, 0.48]]), Line(&[[-0.3, 0.48], [0.32, 0.46]])],
        &[Curve(&[[-0.26, -0.32], [-0.06, -0.5], [0.22, -0.4], [0.22, -0.1], [0.02, 0.22], [-0.2, 0.45], [-0.32, 0.38], [-0.22, 0.24], [0.0, 0.34], [0.2, 0.48], [0.36, 0.38]])],
        &[Curve(&[[-0.2, -0.4], [0.05, -0.5], [0.25, -0.36], [0.2, -0.1], [-0.24, 0.42]]), Curve(&[[-0.24, 0.42], [-0.05, 0.36], [0.12, 0.46], [0.3, 0.44]])],
    ],
    &[
        &[Curve(&[[-0.26, -0.38], [-0.04, -0.5], [0.22, -0.4], [0.2, -0.14], [-0.06, -0.03]]), Curve(&[[-0.06, -0.03], [0.24, 0.06], [0.3, 0.3], [0.04, 0.5], [-0.3, 0.38]])],
        &[Line(&[[-0.25, -0.48], [0.26, -0.48], [-0.03, -0.08]]), Curve(&[[-0.03, -0.08], [0.25, 0.05], [0.28, 0.3], [0.05, 0.5], [-0.3, 0.4]])],
        &[Curve(&[[-0.22, -0.42], [0.02, -0.5], [0.22, -0.34], [0.14, -0.12], [-0.02, -0.04], [0.2, 0.02], [0.3, 0.24], [0.14, 0.46], [-0.12, 0.5], [-0.28, 0.42]])],
    ],
    &[
        &[Line(&[[-0.2, -0.48], [-0.3, 0.08], [0.32, 0.08]]), Line(&[[0.16, -0.42], [0.12, 0.5]])],
        &[Line(&[[0.12, 0.5], [0.12, -0.5], [-0.34, 0.16], [0.34, 0.15]])],
        &[Curve(&[[-0.22, -0.46], [-0.28, -0.1], [-0.14, 0.06], [0.1, 0.02], [0.22, -0.08]]), Line(&[[0.24, -0.48], [0.14, 0.5]])],
    ],
    &[
        &[Line(&[[0.28, -0.48], [-0.2, -0.47], [-0.24, -0.04]]), Curve(&[[-0.24, -0.04], [0.04, -0.14], [0.28, 0.06], [0.25, 0.36], [-0.02, 0.5], [-0.3, 0.4]])],
        &[Curve(&[[-0.2, -0.44], [-0.22, -0.12], [0.06, -0.1], [0.25, 0.12], [0.16, 0.42], [-0.1, 0.5], [-0.28, 0.4]]), Line(&[[-0.2, -0.44], [0.3, -0.5]])],
        &[Curve(&[[0.3, -0.46], [0.0, -0.48], [-0.18, -0.34], [-0.12, -0.12], [0.14, 0.02], [0.24, 0.26], [0.06, 0.48], [-0.24, 0.44]])],
    ],
    &[
        &[Curve(&[[0.2, -0.5], [-0.1, -0.26], [-0.28, 0.1], [-0.22, 0.4], [0.02, 0.5], [0.26, 0.34], [0.22, 0.1], [-0.02, 0.02], [-0.26, 0.22]])],
        &[Curve(&[[0.02, -0.5], [-0.16, -0.2], [-0.24, 0.2], [-0.12, 0.46], [0.1, 0.48], [0.24, 0.3], [0.14, 0.1], [-0.06, 0.12], [-0.2, 0.3]])],
        &[Line(&[[0.06, -0.5], [-0.22, 0.1]]), Curve(&[[-0.22, 0.1], [-0.26, 0.36], [-0.04, 0.5], [0.24, 0.4], [0.26, 0.16], [0.04, 0.03], [-0.22, 0.18]])],
    ],
    &[
        &[Line(&[[-0.3, -0.47], [0.3, -0.48], [-0.06, 0.5]])],
        &[Line(&[[-0.3, -0.46], [0.28, -0.48], [-0.02, 0.5]]), Line(&[[-0.16, 0.03], [0.24, 0.0]])],
        &[Curve(&[[-0.32, -0.36], [-0.2, -0.46], [0.04, -0.42], [0.3, -0.48], [0.14, -0.14], [0.0, 0.14], [-0.04, 0.5]])],
        &[Line(&[[-0.28, -0.28], [-0.27, -0.47], [0.28, -0.46], [0.04, 0.0], [-0.02, 0.5]])],
    ],
    &[
        &[Curve(&[[0.0, -0.02], [0.21, -0.2], [0.18, -0.42], [0.0, -0.5], [-0.18, -0.42], [-0.21, -0.2], [0.0, -0.02], [0.26, 0.2], [0.2, 0.43], [0.0, 0.5], [-0.2, 0.43], [-0.26, 0.2], [0.0, -0.02]])],
        &[Curve(&[[0.24, -0.4], [0.02, -0.5], [-0.2, -0.36], [-0.12, -0.14], [0.14, 0.06], [0.24, 0.28], [0.08, 0.48], [-0.16, 0.46], [-0.24, 0.26], [-0.06, 0.06], [0.16, -0.14], [0.26, -0.36]])],
        &[Curve(&[[0.02, -0.5], [-0.17, -0.38], [-0.15, -0.14], [0.02, -0.04], [0.19, -0.14], [0.2, -0.38], [0.02, -0.5]]), Curve(&[[0.0, -0.04], [-0.24, 0.1], [-0.24, 0.38], [0.0, 0.5], [0.24, 0.38], [0.24, 0.1], [0.0, -0.04]])],
    ],
    &[
        &[Curve(&[[0.24, -0.26], [0.04, -0.03], [-0.22, -0.12], [-0.22, -0.4], [0.04, -0.5], [0.24, -0.36], [0.25, -0.1], [0.2, 0.2], [0.12, 0.5]])],
        &[Curve(&[[0.2, -0.38], [0.0, -0.5], [-0.22, -0.36], [-0.2, -0.1], [0.02, -0.02], [0.2, -0.2], [0.21, -0.4]]), Line(&[[0.21, -0.44], [0.18, 0.5]])],
        &[Curve(&[[0.22, -0.3], [0.02, -0.04], [-0.22, -0.18], [-0.14, -0.44], [0.1, -0.49], [0.24, -0.3], [0.26, 0.06], [0.16, 0.4], [-0.06, 0.5], [-0.26, 0.4]])],
    ],
];

/// Draws one digit; it depends on the seed and the index only.
pub(super) fn draw(seed: u64, index: u64, image: &mut [u8]) -> i64 {
    let mut rng = Generator::stream(seed, "digit", [index, 0]);
    let label = rng.below(10);
    let glyph = GLYPHS[label][rng.below(GLYPHS[label].len())];
    let hand = Hand::new(&mut rng);
    let mut canvas = Canvas::<SIDE>::new();
    let (mut points, mut path) = (Vec::with_capacity(16), Vec::with_capacity(80));
    for stroke in glyph {
        points.clear();
        points
            .extend(stroke.points().iter().map(|p| p.map(|v| v + hand.unsteady * rng.next_normal() as f32)));
        stroke.flatten(&points, &mut path);
        hand.ink(&mut canvas, &path, 1.0, &mut rng);
    }
    // Stray marks: a short line beside the digit, like part of a neighboring digit.
    for _ in 0..[0, 0, 0, 1][rng.below(4)] {
        let side = rng.random_range(0.0..std::f32::consts::TAU);
        let center = [0.62 * side.cos(), 0.62 * side.sin()];
        let (turn, length) = (rng.random_range(0.0..std::f32::consts::TAU), rng.random_range(0.05..0.16));
        let end = [center[0] + length * turn.cos(), center[1] + length * turn.sin()];
        hand.ink(&mut canvas, &[center, end], rng.random_range(0.5..0.9), &mut rng);
    }
    develop(&canvas, &mut rng, image);
    label as i64
}

/// The style of one digit: its slant and size, its distortion, its pen.
struct Hand {
    unsteady: f32,
    matrix: [[f32; 2]; 2],
    shift: Point,
    waves: [Wave; 4],
    radius: f32,
    soft: f32,
}

/// A smooth displacement of the plane along one axis: four of them make up the elastic distortion.
struct Wave {
    direction: Point,
    phase: f32,
    push: Point,
}

impl Hand {
    fn new(rng: &mut Generator) -> Self {
        let turn = 0.13 * (rng.next_normal() as f32).clamp(-2.2, 2.2);
        let shear = 0.19 * (rng.next_normal() as f32).clamp(-2.2, 2.2);
        let height = rng.random_range(17.0..22.0);
        let width = height * rng.random_range(0.74..1.18);
        let (sin, cos) = turn.sin_cos();
        let waves = std::array::from_fn(|_| {
            let (angle, frequency) =
                (rng.random_range(0.0..std::f32::consts::TAU), rng.random_range(2.5..7.5));
            let strength = 0.16 / frequency;
            Wave {
                direction: [frequency * angle.cos(), frequency * angle.sin()],
                phase: rng.random_range(0.0..std::f32::consts::TAU),
                push: [strength * rng.next_normal() as f32, strength * rng.next_normal() as f32],
            }
        });
        Hand {
            unsteady: rng.random_range(0.008..0.03),
            matrix: [
                [cos * width, (-sin - shear * cos) * height],
                [sin * width, (cos - shear * sin) * height],
            ],
            shift: [13.5 + rng.random_range(-1.7..1.7), 13.5 + rng.random_range(-1.5..1.5)],
            waves,
            radius: rng.random_range(0.7..1.75),
            soft: rng.random_range(0.9..1.7),
        }
    }

    fn place(&self, point: Point) -> Point {
        let mut bent = point;
        for wave in &self.waves {
            let lift = (wave.direction[0] * point[0] + wave.direction[1] * point[1] + wave.phase).sin();
            bent = [bent[0] + wave.push[0] * lift, bent[1] + wave.push[1] * lift];
        }
        std::array::from_fn(|k| self.matrix[k][0] * bent[0] + self.matrix[k][1] * bent[1] + self.shift[k])
    }

    /// Draws a path with a pen whose pressure varies.
    fn ink(&self, canvas: &mut Canvas<SIDE>, path: &[Point], scale: f32, rng: &mut Generator) {
        let (phase, speed) = (rng.random_range(0.0..std::f32::consts::TAU), rng.random_range(0.1..0.4));
        let radius = |i: usize| self.radius * scale * (1.0 + 0.2 * (phase + speed * i as f32).sin());
        for (i, ends) in path.windows(2).enumerate() {
            canvas.segment(self.place(ends[0]), self.place(ends[1]), radius(i), radius(i + 1), self.soft);
        }
    }
}

/// Converts ink to bytes: contrast, faded spots, grain.
fn develop(canvas: &Canvas<SIDE>, rng: &mut Generator, image: &mut [u8]) {
    let contrast = rng.random_range(170.0..262.0);
    let grain = rng.random_range(0f32..1.0).powi(2) * 30.0;
    let spots: [(Point, f32); 2] = std::array::from_fn(|_| {
        let depth = if rng.random_bool(0.2) { rng.random_range(0.3..1.0) } else { 0.0 };
        ([rng.random_range(4.0..24.0), rng.random_range(4.0..24.0)], depth)
    });
    for (y, (row, out)) in canvas.ink.iter().zip(image.chunks_exact_mut(SIDE)).enumerate() {
        for (x, (&ink, pixel)) in row.iter().zip(out).enumerate() {
            let mut level = contrast * ink;
            for ([cx, cy], depth) in spots {
                let far = ((x as f32 - cx).powi(2) + (y as f32 - cy).powi(2)) / 4.0;
                level *= 1.0 - depth / (1.0 + far * far);
            }
            // The sum of four bytes is approximately normal, with standard deviation 148.
            let noise: u32 = rng.next_u32().to_le_bytes().into_iter().map(u32::from).sum();
            *pixel = (level + grain * (noise as f32 - 510.0) / 148.0) as u8;
        }
    }
}
