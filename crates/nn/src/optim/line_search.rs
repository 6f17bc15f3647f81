//! The line search for a step length that fulfills the strong Wolfe conditions: the loss has decreased enough, and the
//! slope along the direction is flat enough (Nocedal and Wright, algorithms 3.5 and 3.6).

/// `c1` and `c2` of the conditions.
const DECREASE: f64 = 1e-4;
const CURVATURE: f64 = 0.9;

/// A length along the direction, with the loss, the gradient and the slope there.
#[derive(Clone)]
pub(super) struct Point {
    pub(super) t: f64,
    pub(super) loss: f64,
    pub(super) grad: Vec<f64>,
    pub(super) slope: f64,
}

pub(super) struct Found {
    pub(super) t: f64,
    pub(super) loss: f64,
    pub(super) grad: Vec<f64>,
    pub(super) evaluations: usize,
}

/// The minimum of the cubic through two points with their slopes, kept inside bounds.
fn cubic(a: &Point, b: &Point, bounds: (f64, f64)) -> f64 {
    let (a, b) = if a.t <= b.t { (a, b) } else { (b, a) };
    let d1 = a.slope + b.slope - 3.0 * (a.loss - b.loss) / (a.t - b.t);
    let square = d1 * d1 - a.slope * b.slope;
    if square >= 0.0 {
        let d2 = square.sqrt();
        let t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2.0 * d2));
        t.max(bounds.0).min(bounds.1)
    } else {
        (bounds.0 + bounds.1) / 2.0
    }
}

/// Searches from `start.t`; the other fields of `start` describe the point where the direction begins. Takes at
/// most `most` steps after the first one.
pub(super) fn strong_wolfe(
    evaluate: &mut dyn FnMut(f64) -> (f64, Vec<f64>),
    direction: &[f64],
    start: Point,
    tolerance: f64,
    most: usize,
) -> Found {
    let origin = Point { t: 0.0, ..start.clone() };
    let mut search = Search { evaluate, direction, origin, evaluations: 0, steps: 0, most };
    let p = match search.bracket(start.t) {
        Bracket::Accepted(point) => point,
        Bracket::Between(ends) => search.zoom(ends, tolerance),
    };
    Found { t: p.t, loss: p.loss, grad: p.grad, evaluations: search.evaluations }
}

/// The result of the first phase.
enum Bracket {
    /// A length that fulfills both conditions.
    Accepted(Point),
    /// The ends of an interval that contains one.
    Between([Point; 2]),
}

struct Search<'a> {
    evaluate: &'a mut dyn FnMut(f64) -> (f64, Vec<f64>),
    direction: &'a [f64],
    origin: Point,
    evaluations: usize,
    steps: usize,
    most: usize,
}

impl Search<'_> {
    fn at(&mut self, t: f64) -> Point {
        self.evaluations += 1;
        let (loss, grad) = (self.evaluate)(t);
        let slope = dot(&grad, self.direction);
        Point { t, loss, grad, slope }
    }

    /// Whether the loss has not decreased enough (the Armijo condition fails).
    fn is_too_high(&self, p: &Point) -> bool {
        p.loss > self.origin.loss + DECREASE * p.t * self.origin.slope
    }

    /// The curvature condition.
    fn is_flat(&self, p: &Point) -> bool {
        p.slope.abs() <= -CURVATURE * self.origin.slope
    }

    /// Extends the step until an interval is found that contains an acceptable length.
    fn bracket(&mut self, t: f64) -> Bracket {
        let mut new = self.at(t);
        let mut last = self.origin.clone();
        while self.steps < self.most {
            if self.is_too_high(&new)
                || (self.steps > 1 && new.loss >= last.loss)
                || (new.slope >= 0.0 && !self.is_flat(&new))
            {
                return Bracket::Between([last, new]);
            }
            if self.is_flat(&new) {
                return Bracket::Accepted(new);
            }
            let bounds = (new.t + 0.01 * (new.t - last.t), new.t * 10.0);
            let t = cubic(&last, &new, bounds);
            last = new;
            new = self.at(t);
            self.steps += 1;
        }
        Bracket::Between([self.origin.clone(), new])
    }

    /// Shrinks the interval around an acceptable length.
    fn zoom(&mut self, mut ends: [Point; 2], tolerance: f64) -> Point {
        let mut low = usize::from(ends[0].loss > ends[1].loss);
        let mut insufficient = false;
        let width = largest(self.direction.iter().copied());
        while self.steps < self.most && (ends[1].t - ends[0].t).abs() * width >= tolerance {
            let (least, most) = (ends[0].t.min(ends[1].t), ends[0].t.max(ends[1].t));
            let mut t = cubic(&ends[0], &ends[1], (least, most));
            // Too close to an end twice in a row, or at it: move a tenth of the interval inside.
            let margin = 0.1 * (most - least);
            if (most - t).min(t - least) < margin {
                if insufficient || t >= most || t <= least {
                    t = if (t - most).abs() < (t - least).abs() { most - margin } else { least + margin };
                    insufficient = false;
                } else {
                    insufficient = true;
                }
            } else {
                insufficient = false;
            }
            let new = self.at(t);
            self.steps += 1;
            let high = 1 - low;
            if self.is_too_high(&new) || new.loss >= ends[low].loss {
                ends[high] = new;
                low = usize::from(ends[0].loss > ends[1].loss);
            } else {
                let flat = self.is_flat(&new);
                if !flat && new.slope * (ends[high].t - ends[low].t) >= 0.0 {
                    ends[high] = ends[low].clone();
                }
                ends[low] = new;
                if flat {
                    break;
                }
            }
        }
        ends[low].clone()
    }
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(super) fn largest(a: impl IntoIterator<Item = f64>) -> f64 {
    a.into_iter().fold(0.0, |m, x| if x.abs() > m || x.is_nan() { x.abs() } else { m })
}
