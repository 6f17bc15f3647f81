//! `linalg.solve`.

use super::{batch, element, mmt, square_size, t};
use crate::kernels::linalg::Factors;
use crate::product::check_types;
use std::sync::Arc;
use tapegrad_tape::kernels::list::list_for;
use tapegrad_tape::kernels::parallel::parallel_chunks;
use tapegrad_tape::shape::{broadcast_for, numel_for};
use tapegrad_tape::{DType, Tensor, Var, record_with_output};

/// The LU factors of a batch of matrices.
pub(super) struct Factored {
    pub(super) matrices: Vec<Factors>,
    batch: Vec<usize>,
}

impl Factored {
    #[track_caller]
    pub(super) fn new(op: &str, a: &Var) -> Factored {
        let n = square_size(op, a);
        let shape = batch(a.shape()).to_vec();
        let count: usize = shape.iter().product();
        let a = a.tensor().cast(DType::F64).contiguous();
        let data = a.as_slice::<f64>().expect("contiguous");
        let mut matrices: Vec<Option<Factors>> = list_for(op, count, |_| None);
        parallel_chunks(&mut matrices, 1, |i, out| {
            out[0] = Some(Factors::new(&data[i * n * n..][..n * n], n))
        });
        Factored { matrices: matrices.into_iter().map(|f| f.expect("factorized")).collect(), batch: shape }
    }

    /// Refuses matrices without an inverse.
    #[track_caller]
    pub(super) fn check(&self, op: &str, a: &Var) {
        let singular = self.matrices.iter().position(|f| f.diagonal().any(|d| d == 0.0));
        if let Some(i) = singular {
            let at = self.matrices[i].diagonal().position(|d| d == 0.0).expect("found") + 1;
            panic!(
                "{op}: the diagonal element {at} is zero, since the input matrix is singular{}",
                element(a, i)
            );
        }
    }
}

/// `A^-1 B`, or `A^-T B`, by factors of `A`; both derivatives use them again.
#[track_caller]
pub(super) fn solve_by(op: &'static str, factors: &Arc<Factored>, a: &Var, b: &Var, transposed: bool) -> Var {
    let (n, k) = (b.size(-2), b.size(-1));
    let all = broadcast_for(op, &factors.batch, batch(b.shape()));
    let wide = b.tensor().cast(DType::F64).expand(&[&all[..], &[n, k]].concat()).contiguous();
    let right = wide.as_slice::<f64>().expect("contiguous");
    // Which matrix of `a` belongs to each right side.
    let numbers = Tensor::arange(0, factors.matrices.len() as i64).reshape(&factors.batch).expand(&all);
    let numbers = numbers.to_vec::<i64>();
    let mut out = list_for(op, numel_for(op, wide.shape()), |_| 0.0);
    parallel_chunks(&mut out, n * k, |i, x| {
        factors.matrices[numbers[i] as usize].solve(&right[i * n * k..][..n * k], k, transposed, x);
    });
    let value = Tensor::from_vec(out, wide.shape()).cast(b.dtype());
    let (factors, saved) = (factors.clone(), a.saved());
    record_with_output(op, [a, b], value, move |c| {
        let g = solve_by(op, &factors, &saved, c.grad(), !transposed);
        let x = c.output();
        let ga = c.wants(0).then(|| if transposed { -mmt(&x, &g) } else { -mmt(&g, &x) });
        [ga, Some(g)]
    })
}

/// The solution of `A X = B` for square matrices (`torch.linalg.solve`).
///
/// `a` is `[..., n, n]`, `b` `[..., n, k]`, whose batches broadcast; or `b` is one vector for each matrix: `[n]`, or
/// the shape of `a` without its last dimension.
///
/// # Panics
/// If the matrices are not square or singular, or the shapes do not fit.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![2f64, 0.0, 0.0, 4.0], &[2, 2]);
/// let x = tapegrad_ops::linalg::solve(&a, &Var::from_vec(vec![2f64, 2.0], &[2]));
/// assert_eq!(x.to_vec::<f64>(), [1.0, 0.5]);
/// ```
#[track_caller]
pub fn solve(a: &Var, b: &Var) -> Var {
    let op = "linalg.solve";
    let n = square_size(op, a);
    check_types(op, a.dtype(), b.dtype());
    let vectors = b.ndim() == 1 || (b.ndim() + 1 == a.ndim() && b.shape() == &a.shape()[..a.ndim() - 1]);
    let fits = if vectors { b.size(-1) == n } else { b.ndim() >= 2 && b.size(-2) == n };
    assert!(
        fits,
        "{op}: incompatible shapes of A and B for the equation AX = B: {:?} and {:?}",
        a.shape(),
        b.shape()
    );
    let columns = if vectors { b.unsqueeze(-1) } else { b.clone() };
    broadcast_for(op, batch(a.shape()), batch(columns.shape()));
    let factors = Arc::new(Factored::new(op, a));
    factors.check(op, a);
    let x = solve_by(op, &factors, a, &columns, false);
    if vectors { x.squeeze(-1) } else { x }
}

/// [`solve`], or with `left` false the solution of `X A = B` (`torch.linalg.solve` with `left`), where `b` is `[..., k, n]`.
///
/// # Panics
/// Same as [`solve`], or for vectors where `left` is false.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![2f64, 0.0, 1.0, 4.0], &[2, 2]);
/// let x = tapegrad_ops::linalg::solve_with(&a, &Var::from_vec(vec![3f64, 4.0], &[1, 2]), false);
/// assert_eq!(x.to_vec::<f64>(), [1.0, 1.0]);
/// ```
#[track_caller]
pub fn solve_with(a: &Var, b: &Var, left: bool) -> Var {
    if left {
        return solve(a, b);
    }
    let op = "linalg.solve";
    let n = square_size(op, a);
    assert!(
        b.ndim() >= 2
            && !(b.ndim() + 1 == a.ndim() && b.shape() == &a.shape()[..a.ndim() - 1])
            && b.size(-1) == n,
        "{op}: incompatible shapes of A and B for the equation XA = B: {:?} and {:?}; B has to be [..., k, {n}]",
        a.shape(),
        b.shape()
    );
    t(&solve(&t(a), &t(b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};

    #[test]
    fn gradients_with_every_broadcast() {
        for (a, b) in [
            (&[3, 3][..], &[3][..]),
            (&[3, 3], &[3, 2]),
            (&[2, 3, 3], &[2, 3]),
            (&[2, 1, 3, 3], &[2, 3, 1]),
            (&[3, 3], &[2, 3, 2]),
        ] {
            check_gradients(|v| solve(&v[0], &v[1]), &[parameter(a, 1), parameter(b, 2)]);
        }
        let (a, b) = (parameter(&[2, 1, 3, 3], 1), parameter(&[2, 3, 2], 2));
        assert_close(&crate::matmul(&a, &solve(&a, &b)), &b.expand(&[2, -1, -1, -1]), 1e-12);
    }

    #[test]
    fn from_the_right() {
        for (a, b) in [(&[3, 3][..], &[2, 3][..]), (&[2, 3, 3], &[4, 3]), (&[2, 1, 3, 3], &[3, 2, 3])] {
            let inputs = [parameter(a, 1), parameter(b, 2)];
            let x = solve_with(&inputs[0], &inputs[1], false);
            assert_close(&crate::matmul(&x, &inputs[0]), &inputs[1].expand_to(x.shape()), 1e-12);
            check_gradients(|v| solve_with(&v[0], &v[1], false), &inputs);
        }
    }

    #[test]
    #[should_panic(
        expected = "linalg.solve: incompatible shapes of A and B for the equation XA = B: [3, 3] and [3]"
    )]
    fn a_vector_from_the_right() {
        solve_with(&parameter(&[3, 3], 1), &parameter(&[3], 1), false);
    }

    #[test]
    fn nothing_to_solve() {
        assert_eq!(solve(&parameter(&[0, 0], 1), &parameter(&[0, 3], 1)).shape(), [0, 3]);
        assert_eq!(solve(&parameter(&[0, 2, 2], 1), &parameter(&[0, 2, 3], 1)).shape(), [0, 2, 3]);
        assert_eq!(solve(&parameter(&[2, 2, 2], 1), &parameter(&[2, 2, 0], 1)).shape(), [2, 2, 0]);
    }

    #[test]
    #[should_panic(
        expected = "linalg.solve: the diagonal element 2 is zero, since the input matrix is singular (batch element 0)"
    )]
    fn a_matrix_without_inverse() {
        let a = Var::from_vec(vec![1f64, 2.0, 2.0, 4.0], &[1, 2, 2]);
        solve(&a, &parameter(&[1, 2], 1));
    }

    #[test]
    #[should_panic(expected = "linalg.solve: incompatible shapes of A and B")]
    fn a_right_side_of_another_size() {
        solve(&parameter(&[3, 3], 1), &parameter(&[2, 3], 1));
    }
}
