//! `normalize`, `cosine_similarity`, `pairwise_distance`, `dist`.

use tapegrad_tape::{Int, Var};

/// `x` divided by its `p`-norm along a dimension, which is at least `eps` (`torch.nn.functional.normalize`): `p` is 2,
/// `dim` 1, `eps` 1e-12.
///
/// # Panics
/// If there is no such dimension.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![3f32, 4.0], &[1, 2]);
/// assert_eq!(tapegrad_ops::normalize(&x).to_vec::<f32>(), [0.6, 0.8]);
/// ```
#[track_caller]
pub fn normalize(x: &Var) -> Var {
    normalize_with(x, 2.0, 1, 1e-12)
}

/// [`normalize`] with another norm, dimension or bound.
///
/// # Panics
/// Same as [`normalize`].
#[track_caller]
pub fn normalize_with(x: &Var, p: f64, dim: impl Int, eps: f64) -> Var {
    x / x.norm_with(p, dim, true).clamp_min(eps)
}

/// The cosine of the angle between two vectors along a dimension (`torch.nn.functional.cosine_similarity`):
/// `dim` is 1, `eps` 1e-8. The shapes broadcast; a norm is at least `eps`.
///
/// # Panics
/// If the shapes do not broadcast, or there is no such dimension.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![1f64, 0.0], &[2]);
/// let b = Var::from_vec(vec![3f64, 4.0], &[2]);
/// assert_eq!(tapegrad_ops::cosine_similarity_with(&a, &b, 0, 1e-8).item(), 0.6);
/// ```
#[track_caller]
pub fn cosine_similarity(x1: &Var, x2: &Var) -> Var {
    cosine_similarity_with(x1, x2, 1, 1e-8)
}

/// [`cosine_similarity`] with another dimension or bound.
///
/// # Panics
/// Same as [`cosine_similarity`].
#[track_caller]
pub fn cosine_similarity_with(x1: &Var, x2: &Var, dim: impl Int, eps: f64) -> Var {
    let shape = tapegrad_tape::shape::broadcast_for("cosine_similarity", x1.shape(), x2.shape());
    let unit = |x: &Var| {
        let x = x.expand_to(&shape);
        let norm = x.norm_with(2.0, dim, true);
        // The bound changes the value, but the gradient passes.
        let bounded = &norm + (norm.clamp_min(eps) - &norm).detach();
        x / bounded
    };
    (unit(x1) * unit(x2)).sum(dim)
}

/// The `p`-norm of `x1 - x2 + eps` along the last dimension (`torch.nn.functional.pairwise_distance`): `p`
/// is 2, `eps` 1e-6. The shapes broadcast.
///
/// # Panics
/// If the shapes do not broadcast.
///
/// ```
/// use tapegrad_tape::Var;
/// let (a, b) = (Var::from_vec(vec![3f64, 4.0], &[1, 2]), Var::from_vec(vec![0f64, 0.0], &[1, 2]));
/// assert_eq!(tapegrad_ops::pairwise_distance_with(&a, &b, 2.0, 0.0, false).to_vec::<f64>(), [5.0]);
/// ```
#[track_caller]
pub fn pairwise_distance(x1: &Var, x2: &Var) -> Var {
    pairwise_distance_with(x1, x2, 2.0, 1e-6, false)
}

/// [`pairwise_distance`] with another norm or `eps`, or with the last dimension kept.
///
/// # Panics
/// Same as [`pairwise_distance`].
#[track_caller]
pub fn pairwise_distance_with(x1: &Var, x2: &Var, p: f64, eps: f64, keepdim: bool) -> Var {
    (x1 - x2 + eps).norm_with(p, -1, keepdim)
}

/// The `p`-norm of the difference of two tensors, whose shapes broadcast (`torch.dist`); `p` is 2.
///
/// # Panics
/// If the shapes do not broadcast.
///
/// ```
/// use tapegrad_tape::Var;
/// let (a, b) = (Var::from_vec(vec![3f64, 4.0], &[2]), Var::from_vec(vec![0f64], &[1]));
/// assert_eq!(tapegrad_ops::dist(&a, &b).item(), 5.0);
/// ```
#[track_caller]
pub fn dist(a: &Var, b: &Var) -> Var {
    dist_with(a, b, 2.0)
}

/// [`dist`] with another norm.
///
/// # Panics
/// Same as [`dist`].
#[track_caller]
pub fn dist_with(a: &Var, b: &Var, p: f64) -> Var {
    tapegrad_tape::shape::broadcast_for("dist", a.shape(), b.shape());
    (a - b).norm_with(p, (), false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn derivatives() {
        let both = [parameter(&[3, 4], 1), parameter(&[3, 4], 2)];
        check_gradients(|v| normalize_with(&v[0], 3.0, -1, 1e-12), &both[..1]);
        for dim in [0, 1] {
            check_gradients(|v| cosine_similarity_with(&v[0], &v[1], dim, 1e-8), &both);
        }
        check_gradients(|v| pairwise_distance_with(&v[0], &v[1], 3.0, 1e-6, true), &both);
        for p in [1.0, 2.0, 4.0, f64::INFINITY] {
            check_gradients(|v| dist_with(&v[0], &v[1].select(0, 0isize), p), &both);
        }
    }
}
