//! The search for a step's length that fulfils the strong Wolfe conditions: the loss has fallen enough,
//! and the slope along the direction is flat enough (Nocedal and Wright, algorithms 3.5 and 3.6).

const FALL: f64 = 1e-4;
const FLAT: f64 = 0.9;
const MAX_STEPS: usize = 25;

/// A length along the direction, and what was found there.
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

/// The lowest point of the cubic through two points with their slopes, kept inside bounds.
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

/// Searches from `start.t`; the other fields of `start` describe where the direction begins.
pub(super) fn strong_wolfe(
    evaluate: &mut dyn FnMut(f64) -> (f64, Vec<f64>),
    direction: &[f64],
    start: Point,
    tolerance: f64,
) -> Found {
    let mut evaluations = 0;
    let mut at = |t: f64| {
        evaluations += 1;
        let (loss, grad) = evaluate(t);
        let slope = dot(&grad, direction);
        Point { t, loss, grad, slope }
    };
    let origin = Point { t: 0.0, ..start.clone() };
    let allowed = |p: &Point| origin.loss + FALL * p.t * origin.slope;
    let is_flat = |p: &Point| p.slope.abs() <= -FLAT * origin.slope;

    // Go on until a stretch is found in which there is a good length.
    let mut new = at(start.t);
    let mut last = origin.clone();
    let mut steps = 0;
    let mut stretch = None;
    let mut done = None;
    while steps < MAX_STEPS {
        if new.loss > allowed(&new)
            || (steps > 1 && new.loss >= last.loss)
            || (new.slope >= 0.0 && !is_flat(&new))
        {
            stretch = Some([last.clone(), new.clone()]);
            break;
        }
        if is_flat(&new) {
            done = Some(new.clone());
            break;
        }
        let bounds = (new.t + 0.01 * (new.t - last.t), new.t * 10.0);
        let t = cubic(&last, &new, bounds);
        last = new;
        new = at(t);
        steps += 1;
    }

    // Close in on it.
    if done.is_none() {
        let mut ends = stretch.unwrap_or_else(|| [origin.clone(), new.clone()]);
        let mut low = usize::from(ends[0].loss > ends[1].loss);
        let mut insufficient = false;
        let width = largest(direction.iter().copied());
        while steps < MAX_STEPS && (ends[1].t - ends[0].t).abs() * width >= tolerance {
            let (least, most) = (ends[0].t.min(ends[1].t), ends[0].t.max(ends[1].t));
            let mut t = cubic(&ends[0], &ends[1], (least, most));
            // Too near an end twice in a row, or at it: go a tenth of the way inside.
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
            let new = at(t);
            steps += 1;
            let high = 1 - low;
            if new.loss > allowed(&new) || new.loss >= ends[low].loss {
                ends[high] = new;
                low = usize::from(ends[0].loss > ends[1].loss);
            } else {
                let flat = is_flat(&new);
                if !flat && new.slope * (ends[high].t - ends[low].t) >= 0.0 {
                    ends[high] = ends[low].clone();
                }
                ends[low] = new;
                if flat {
                    break;
                }
            }
        }
        done = Some(ends[low].clone());
    }
    let p = done.expect("set above");
    Found { t: p.t, loss: p.loss, grad: p.grad, evaluations }
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(super) fn largest(a: impl IntoIterator<Item = f64>) -> f64 {
    a.into_iter().fold(0.0, |m, x| if x.abs() > m || x.is_nan() { x.abs() } else { m })
}
