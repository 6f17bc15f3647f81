//! `linalg.cond`.

use super::{NormOrd, inv, matrix_norm_with, matrix_size, square_size, svdvals};
use tapegrad_tape::Var;

/// The condition numbers of matrices (`torch.linalg.cond`): without an order, and for 2 and -2, a ratio of singular
/// values; otherwise the product of the norms of the matrix and of its inverse.
///
/// # Panics
/// If the matrices have no elements; or, for orders that need the inverse, are not square or singular.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![1f64, 0.0, 0.0, 4.0], &[2, 2]);
/// assert_eq!(tapegrad_ops::linalg::cond(&a).item(), 4.0);
/// ```
#[track_caller]
pub fn cond(a: &Var) -> Var {
    cond_with(a, None)
}

/// [`cond`] with another norm.
///
/// # Panics
/// Same as [`cond`].
#[track_caller]
pub fn cond_with(a: &Var, ord: impl Into<Option<NormOrd>>) -> Var {
    let ord = ord.into();
    let op = "linalg.cond";
    let [m, n] = matrix_size(op, a);
    assert!(
        m > 0 && n > 0,
        "{op}: matrices without elements (shape {:?}) have no condition number",
        a.shape()
    );
    match ord {
        None | Some(NormOrd::P(2.0)) => {
            let s = svdvals(a);
            s.select(-1, 0isize) / s.select(-1, -1isize)
        }
        Some(NormOrd::P(-2.0)) => {
            let s = svdvals(a);
            s.select(-1, -1isize) / s.select(-1, 0isize)
        }
        Some(ord) => {
            square_size(op, a);
            matrix_norm_with(a, ord, [-2, -1], false) * matrix_norm_with(&inv(a), ord, [-2, -1], false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn gradients() {
        for ord in [None, Some(NormOrd::P(-2.0)), Some(NormOrd::Fro), Some(NormOrd::P(1.0))] {
            check_gradients(|v| cond_with(&v[0], ord), &[parameter(&[2, 3, 3], 1)]);
        }
    }
}
