//! `linalg.inv`.

use super::solve::Factored;
use super::{identity, mmt, square_size, tmm, with_batch};
use tapegrad_tape::kernels::list::list_for;
use tapegrad_tape::kernels::parallel::parallel_chunks;
use tapegrad_tape::shape::numel_for;
use tapegrad_tape::{Tensor, Var, record_with_output};

/// The inverses of square matrices `[..., n, n]` (`torch.linalg.inv`). To solve a system, [`solve`](super::solve()) is
/// faster and more accurate.
///
/// # Panics
/// If the matrices are not square or singular.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![2f64, 0.0, 0.0, 4.0], &[2, 2]);
/// assert_eq!(tapegrad_ops::linalg::inv(&a).to_vec::<f64>(), [0.5, 0.0, 0.0, 0.25]);
/// ```
#[track_caller]
pub fn inv(a: &Var) -> Var {
    inv_named("linalg.inv", a)
}

#[track_caller]
pub(super) fn inv_named(op: &'static str, a: &Var) -> Var {
    let n = square_size(op, a);
    let factors = Factored::new(op, a);
    factors.check(op, a);
    let one = identity(n, tapegrad_tape::DType::F64).to_vec::<f64>();
    let shape = with_batch(a, &[n, n]);
    let mut out = list_for(op, numel_for(op, &shape), |_| 0.0);
    parallel_chunks(&mut out, n * n, |i, x| factors.matrices[i].solve(&one, n, false, x));
    let value = Tensor::from_vec(out, &shape).cast(a.dtype());
    record_with_output(op, [a], value, |c| {
        let y = c.output();
        [Some(-mmt(&tmm(&y, c.grad()), &y))]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::mm;
    use crate::testing::{assert_close, check_gradients, parameter};

    #[test]
    fn an_inverse_and_its_gradients() {
        let a = parameter(&[2, 3, 3], 1);
        assert_close(&mm(&a, &inv(&a)), &identity(3, a.dtype()).expand(&[2, -1, -1]), 1e-12);
        check_gradients(|v| inv(&v[0]), &[a]);
        assert_eq!(inv(&parameter(&[0, 0], 1)).shape(), [0, 0]);
    }

    #[test]
    #[should_panic(expected = "linalg.inv: A must be batches of square matrices, but they are 2 by 3")]
    fn a_wide_matrix() {
        inv(&parameter(&[2, 3], 1));
    }
}
