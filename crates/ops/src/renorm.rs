//! `renorm`.

use tapegrad_tape::shape::dim as check_dim;
use tapegrad_tape::{DType, Int, Var, where_};

/// `x` with each of its parts along `dim` scaled down to the `p`-norm `maxnorm`, where its norm is larger
/// (`torch.renorm`).
///
/// # Panics
/// If there are fewer than two dimensions, there is no such dimension, `p` is not positive, or `maxnorm` is negative.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![3f64, 4.0, 0.3, 0.4], &[2, 2]);
/// let y = tapegrad_ops::renorm(&x, 2.0, 0, 1.0).to_vec::<f64>();
/// assert!((y[0] - 0.6).abs() < 1e-6);
/// assert_eq!(y[2..], [0.3, 0.4]);
/// ```
#[track_caller]
pub fn renorm(x: &Var, p: f64, dim: impl Int, maxnorm: f64) -> Var {
    assert!(x.ndim() >= 2, "renorm: input needs at least 2 dimensions, but got shape {:?}", x.shape());
    assert!(p > 0.0, "renorm: non-positive norm not supported, got p = {p}");
    assert!(maxnorm >= 0.0, "renorm: expected maxnorm to be >= 0, but got {maxnorm}");
    let d = check_dim("renorm", dim, x.ndim()) as isize;
    let others: Vec<isize> = (0..x.ndim() as isize).filter(|&i| i != d).collect();
    // Sums in F32 for the smaller types.
    let wide = if matches!(x.dtype(), DType::F16 | DType::BF16) { x.cast(DType::F32) } else { x.clone() };
    let norm = wide.norm_with(p, &others, true);
    let scale = where_(&norm.gt(maxnorm), maxnorm / (&norm + 1e-7), 1.0);
    x.mul(scale.cast(x.dtype()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn gradients() {
        for p in [1.0, 2.0, 3.5, f64::INFINITY] {
            check_gradients(|v| renorm(&v[0], p, -1, 0.9), &[parameter(&[2, 3, 2], 1)]);
        }
    }
}
