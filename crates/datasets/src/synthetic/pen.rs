//! Curves and how they are drawn: the primitives of the synthetic digits.

/// A point; x to the right, y down.
pub(super) type Point = [f32; 2];

/// How a stroke connects its points.
#[derive(Clone, Copy)]
pub(super) enum Stroke {
    /// Straight from point to point.
    Line(&'static [Point]),
    /// A smooth curve through the points.
    Curve(&'static [Point]),
}

impl Stroke {
    pub(super) fn points(&self) -> &'static [Point] {
        match self {
            Stroke::Line(points) | Stroke::Curve(points) => points,
        }
    }

    /// The path through `points`, which replace the stroke's own, in short line segments.
    pub(super) fn flatten(&self, points: &[Point], path: &mut Vec<Point>) {
        const PIECES: usize = 5;
        path.clear();
        for i in 0..points.len().saturating_sub(1) {
            // Catmull-Rom; a closed curve (last point near the first) continues smoothly at its seam.
            let last = points.len() - 1;
            let closed = distance(points[0], points[last]) < 0.12 && last > 3;
            let before = if i > 0 {
                points[i - 1]
            } else if closed {
                points[last - 1]
            } else {
                points[0]
            };
            let after = if i + 2 <= last {
                points[i + 2]
            } else if closed {
                points[1]
            } else {
                points[last]
            };
            for step in 0..PIECES {
                let t = step as f32 / PIECES as f32;
                path.push(match self {
                    Stroke::Line(_) => mix(points[i], points[i + 1], t),
                    Stroke::Curve(_) => catmull_rom([before, points[i], points[i + 1], after], t),
                });
            }
        }
        path.extend(points.last());
    }
}

fn mix(a: Point, b: Point, t: f32) -> Point {
    [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t]
}

fn distance(a: Point, b: Point) -> f32 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

fn catmull_rom([a, b, c, d]: [Point; 4], t: f32) -> Point {
    std::array::from_fn(|k| {
        let (a, b, c, d) = (a[k], b[k], c[k], d[k]);
        b + 0.5 * t * (c - a + t * (2.0 * a - 5.0 * b + 4.0 * c - d + t * (3.0 * (b - c) + d - a)))
    })
}

/// A grayscale image with ink between 0 and 1.
pub(super) struct Canvas<const SIDE: usize> {
    pub(super) ink: [[f32; SIDE]; SIDE],
}

impl<const SIDE: usize> Canvas<SIDE> {
    pub(super) fn new() -> Self {
        Canvas { ink: [[0.0; SIDE]; SIDE] }
    }

    /// Draws a line segment whose radius goes from `from_radius` to `to_radius`, with a soft edge.
    pub(super) fn segment(&mut self, from: Point, to: Point, from_radius: f32, to_radius: f32, soft: f32) {
        let reach = from_radius.max(to_radius) + soft;
        let span = |k: usize| {
            let low = (from[k].min(to[k]) - reach).floor().max(0.0) as usize;
            let high = (from[k].max(to[k]) + reach).ceil().min(SIDE as f32 - 1.0);
            low..if high < 0.0 { 0 } else { high as usize + 1 }
        };
        let along = [to[0] - from[0], to[1] - from[1]];
        let length = (along[0] * along[0] + along[1] * along[1]).max(1e-9);
        for y in span(1) {
            for x in span(0) {
                let away = [x as f32 - from[0], y as f32 - from[1]];
                let t = ((away[0] * along[0] + away[1] * along[1]) / length).clamp(0.0, 1.0);
                let (dx, dy) = (away[0] - t * along[0], away[1] - t * along[1]);
                let radius = from_radius + (to_radius - from_radius) * t;
                let ink = ((radius - (dx * dx + dy * dy).sqrt()) / soft + 0.5).clamp(0.0, 1.0);
                self.ink[y][x] = self.ink[y][x].max(ink);
            }
        }
    }
}
