//! `linalg.matrix_rank`.

use super::{PinvOptions, eigvalsh, matrix_size, svdvals};
use tapegrad_tape::{Var, no_grad};

/// The numerical ranks of matrices `[..., m, n]`, as I64: the number of singular values that do not count as zero
/// (`torch.linalg.matrix_rank`). Has no derivative.
///
/// # Panics
/// If the matrices have elements that are not finite, or are not square where `hermitian` is set.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![1f64, 2.0, 2.0, 4.0], &[2, 2]);
/// assert_eq!(tapegrad_ops::linalg::matrix_rank(&a).item(), 1.0);
/// ```
#[track_caller]
pub fn matrix_rank(a: &Var) -> Var {
    matrix_rank_with(a, PinvOptions::default())
}

/// [`matrix_rank`] with tolerances, or of a symmetric matrix.
///
/// # Panics
/// Same as [`matrix_rank`].
#[track_caller]
pub fn matrix_rank_with(a: &Var, options: PinvOptions) -> Var {
    let size = matrix_size("linalg.matrix_rank", a);
    no_grad(|| {
        let s = if options.hermitian { eigvalsh(a).abs() } else { svdvals(a) };
        s.gt(options.threshold(size, &s)).count_nonzero(&[-1])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::parameter;

    #[test]
    fn ranks_of_a_batch() {
        let a = crate::linalg::mm(&parameter(&[3, 4, 2], 1), &parameter(&[3, 2, 5], 2));
        assert_eq!(matrix_rank(&a).to_vec::<i64>(), [2, 2, 2]);
        let square = crate::linalg::mmt(&a, &a);
        let options = PinvOptions { hermitian: true, ..Default::default() };
        assert_eq!(matrix_rank_with(&square, options).to_vec::<i64>(), [2, 2, 2]);
        assert_eq!(matrix_rank(&parameter(&[2, 0, 3], 1)).to_vec::<i64>(), [0, 0]);
    }
}
