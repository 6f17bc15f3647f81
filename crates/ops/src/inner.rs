//! `inner`.

use crate::tensordot::tensordot_with;
use tapegrad_tape::Var;

/// The dot products of all vectors in the last dimensions of two tensors: `[..., n]` and `[___, n]` give `[..., ___]`
/// (`torch.inner`). With a tensor without dimensions it is a product.
///
/// # Panics
/// If the last dimensions differ.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0], &[2, 2]);
/// assert_eq!(tapegrad_ops::inner(&x, &x).to_vec::<f64>(), [5.0, 11.0, 11.0, 25.0]);
/// ```
#[track_caller]
pub fn inner(a: &Var, b: &Var) -> Var {
    if a.ndim() == 0 || b.ndim() == 0 {
        return a.mul(b);
    }
    assert!(
        a.size(-1) == b.size(-1),
        "inner: the last dimensions must match, but the shapes are {:?} and {:?}",
        a.shape(),
        b.shape()
    );
    tensordot_with(a, b, (&[-1isize][..], &[-1isize][..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn shapes_and_gradients() {
        let both = [parameter(&[2, 3], 1), parameter(&[4, 1, 3], 2)];
        assert_eq!(inner(&both[0], &both[1]).shape(), [2, 4, 1]);
        check_gradients(|v| inner(&v[0], &v[1]), &both);
        check_gradients(|v| inner(&v[0], &v[1]), &[parameter(&[], 1), parameter(&[2, 2], 2)]);
        assert_eq!(inner(&parameter(&[3], 1), &parameter(&[3], 1)).ndim(), 0);
    }
}
