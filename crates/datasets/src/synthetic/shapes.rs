//! Colored shapes on a varied background.

use super::pen::Point;
use rand::{Rng, RngExt};
use tapegrad_tape::Generator;

const SIDE: usize = 32;
/// Each pixel is sampled at this many points squared.
const SUB: usize = 3;

/// Draws one shape; it depends on the seed and the index only.
pub(super) fn draw(seed: u64, index: u64, image: &mut [u8]) -> i64 {
    let mut rng = Generator::stream(seed, "shape", [index, 0]);
    let label = rng.below(10);
    let background = Paint::new(&mut rng, None);
    let paint = Paint::new(&mut rng, Some(background.color));
    let place = Place::new(&mut rng);
    let clutter: Vec<(Place, usize, Paint)> = (0..rng.below(4))
        .map(|_| {
            let mut small = Place::new(&mut rng);
            small.size *= 0.28;
            let angle = rng.random_range(0.0..std::f32::consts::TAU);
            let away = place.size * 0.95 + small.size;
            small.center = [place.center[0] + away * angle.cos(), place.center[1] + away * angle.sin()];
            (small, rng.below(10), Paint::new(&mut rng, Some(background.color)))
        })
        .collect();
    let grain = rng.random_range(2.0..20.0);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let at = [x as f32, y as f32];
            let mut color = background.at(at);
            for (place, kind, paint) in
                clutter.iter().map(|(p, k, c)| (p, *k, c)).chain([(&place, label, &paint)])
            {
                let cover = place.cover(kind, at);
                if cover > 0.0 {
                    let top = paint.at(at);
                    color = std::array::from_fn(|c| color[c] + cover * (top[c] - color[c]));
                }
            }
            for (c, value) in color.into_iter().enumerate() {
                let noise: u32 = rng.next_u32().to_le_bytes().into_iter().map(u32::from).sum();
                image[(c * SIDE + y) * SIDE + x] = (value + grain * (noise as f32 - 510.0) / 148.0) as u8;
            }
        }
    }
    label as i64
}

/// A color with a slow gradient and, at times, stripes.
struct Paint {
    color: [f32; 3],
    slope: [Point; 3],
    stripes: Option<(Point, f32, f32)>,
}

impl Paint {
    /// A random paint that contrasts with `other`.
    fn new(rng: &mut Generator, other: Option<[f32; 3]>) -> Self {
        let color = loop {
            let color: [f32; 3] = std::array::from_fn(|_| rng.random_range(15.0..240.0));
            let contrast = |o: [f32; 3]| (0..3).map(|c| (o[c] - color[c]).abs()).sum::<f32>();
            if other.is_none_or(|o| contrast(o) > 150.0) {
                break color;
            }
        };
        let slope = std::array::from_fn(|_| [1.1 * rng.next_normal() as f32, 1.1 * rng.next_normal() as f32]);
        let stripes = rng.random_bool(0.35).then(|| {
            let (angle, frequency) =
                (rng.random_range(0.0..std::f32::consts::TAU), rng.random_range(0.4..1.3));
            let direction = [frequency * angle.cos(), frequency * angle.sin()];
            (direction, rng.random_range(0.0..std::f32::consts::TAU), rng.random_range(10.0..34.0))
        });
        Paint { color, slope, stripes }
    }

    fn at(&self, [x, y]: Point) -> [f32; 3] {
        let stripe =
            self.stripes.map_or(0.0, |(d, phase, depth)| depth * (d[0] * x + d[1] * y + phase).sin());
        std::array::from_fn(|c| {
            self.color[c] + self.slope[c][0] * (x - 15.5) + self.slope[c][1] * (y - 15.5) + stripe
        })
    }
}

/// The position, size, rotation and stretch of a shape.
struct Place {
    center: Point,
    size: f32,
    inverse: [[f32; 2]; 2],
}

impl Place {
    fn new(rng: &mut Generator) -> Self {
        let size = rng.random_range(7.0..13.0);
        let room = 14.5 - size;
        let turn = 0.45 * rng.next_normal() as f32;
        let (sin, cos) = turn.sin_cos();
        let (stretch, shear) = (rng.random_range(0.82..1.22), 0.12 * rng.next_normal() as f32);
        // Image to shape: rotate back, then undo the stretch and the shear.
        let inverse = [[cos / stretch, sin / stretch], [-sin - shear * cos, cos - shear * sin]];
        let center = [15.5 + rng.random_range(-1.0..1.0) * room, 15.5 + rng.random_range(-1.0..1.0) * room];
        Place { center, size, inverse }
    }

    /// The fraction of the pixel that the shape covers.
    fn cover(&self, kind: usize, pixel: Point) -> f32 {
        let away = [pixel[0] - self.center[0], pixel[1] - self.center[1]];
        if away[0] * away[0] + away[1] * away[1] > (1.5 * self.size + 1.0).powi(2) {
            return 0.0;
        }
        let hit = |i: usize, j: usize| {
            let offset = |k: usize| (k as f32 + 0.5) / SUB as f32 - 0.5;
            let at = [(away[0] + offset(i)) / self.size, (away[1] + offset(j)) / self.size];
            let [x, y] = std::array::from_fn(|k| self.inverse[k][0] * at[0] + self.inverse[k][1] * at[1]);
            usize::from(contains(kind, x, y))
        };
        // Only at an edge do the samples within a pixel differ.
        let last = SUB - 1;
        match hit(0, 0) + hit(last, 0) + hit(0, last) + hit(last, last) {
            0 => 0.0,
            4 => 1.0,
            _ => (0..SUB * SUB).map(|k| hit(k % SUB, k / SUB)).sum::<usize>() as f32 / (SUB * SUB) as f32,
        }
    }
}

/// Whether a point is in the shape, which fills about the unit circle (y down).
fn contains(kind: usize, x: f32, y: f32) -> bool {
    let radius = (x * x + y * y).sqrt();
    match kind {
        0 => radius < 0.9,
        1 => (0.5..0.95).contains(&radius),
        2 => x.abs().max(y.abs()) < 0.78,
        3 => y < 0.62 && y > -0.95 && x.abs() < (y + 0.95) * 0.6,
        4 => {
            // Five points: fold the plane into a tenth, where the edge is a straight line.
            let fifth = std::f32::consts::TAU / 5.0;
            let angle = (x.atan2(-y).rem_euclid(fifth) - fifth / 2.0).abs();
            let (px, py) = (radius * angle.cos(), radius * angle.sin());
            let (tip, inner) = ([(fifth / 2.0).cos(), (fifth / 2.0).sin()], [0.42, 0.0]);
            (tip[0] - inner[0]) * py - tip[1] * (px - inner[0]) > 0.0
        }
        5 => (x.abs() < 0.3 && y.abs() < 0.92) || (y.abs() < 0.3 && x.abs() < 0.92),
        6 => {
            let (u, v) = (1.25 * x, -1.25 * y + 0.15);
            let ball = u * u + v * v - 1.0;
            ball * ball * ball - u * u * v * v * v < 0.0
        }
        7 => radius < 0.95 && (x - 0.42).powi(2) + y * y > 0.72 * 0.72,
        8 => {
            let head = (-0.95..-0.1).contains(&y) && x.abs() < (y + 0.95) * 0.95;
            head || ((-0.1..0.92).contains(&y) && x.abs() < 0.27)
        }
        _ => y.abs() < 0.9 && x.abs() < 0.12 + 0.72 * y.abs(),
    }
}
