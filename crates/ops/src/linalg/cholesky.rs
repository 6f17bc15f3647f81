//! `linalg.cholesky`, `cholesky_solve`.

use super::solve_triangular::solve_left;
use super::{batch, each_matrix, element, mm, mmt, square_size, t, tmm, with_batch};
use crate::kernels::linalg;
use crate::product::check_types;
use tapegrad_tape::shape::broadcast_for;
use tapegrad_tape::{Tensor, Var, no_grad, record_with_output};

/// The lower triangles `L` with `L L^T = A` for symmetric positive definite matrices, or with `upper` the `U` with
/// `U^T U = A` (`torch.linalg.cholesky`). Only the triangle of `A` that has the result's shape is read; the gradient is
/// symmetric (Murray 2016, "Differentiation of the Cholesky decomposition").
///
/// # Panics
/// If the matrices are not square or not positive definite.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![4f64, 2.0, 2.0, 10.0], &[2, 2]);
/// assert_eq!(tapegrad_ops::linalg::cholesky(&a).to_vec::<f64>(), [2.0, 0.0, 1.0, 3.0]);
/// ```
#[track_caller]
pub fn cholesky(a: &Var) -> Var {
    cholesky_with(a, false)
}

/// [`cholesky`] with the choice of the upper factor.
///
/// # Panics
/// Same as [`cholesky`].
#[track_caller]
pub fn cholesky_with(a: &Var, upper: bool) -> Var {
    let op = "linalg.cholesky";
    square_size(op, a);
    if upper { t(&lower(op, &t(a))) } else { lower(op, a) }
}

#[track_caller]
fn lower(op: &'static str, a: &Var) -> Var {
    let n = a.size(-1);
    let found = each_matrix(op, &a.tensor(), n * n, |a, l| {
        l.copy_from_slice(a);
        linalg::cholesky(l, n)
    });
    let value = found.unwrap_or_else(|i| {
        panic!(
            "{op}: the factorization could not be completed because the input is not positive-definite{}",
            element(a, i)
        )
    });
    let value = Tensor::from_vec(value, &with_batch(a, &[n, n])).cast(a.dtype());
    record_with_output(op, [a], value, move |c| {
        let l = c.output();
        let phi = tmm(&l, c.grad());
        // Symmetric, of the lower triangle and half of the diagonal.
        let phi = (phi.tril() + t(&phi.tril_with(-1))) * 0.5;
        let inner = solve_left("linalg.solve_triangular", &t(&l), &phi, true, false);
        [Some(t(&solve_left("linalg.solve_triangular", &t(&l), &t(&inner), true, false)))]
    })
}

/// The solution of `A X = B` for `A = L L^T` by its factor `L`, or with `upper` for `A = U^T U` by `U`
/// (`torch.cholesky_solve`). The gradient of the factor is PyTorch's: that of the product, in both triangles.
///
/// # Panics
/// If the factors are not square, or the shapes do not fit.
///
/// ```
/// use tapegrad_tape::Var;
/// let l = Var::from_vec(vec![2f64, 0.0, 1.0, 3.0], &[2, 2]);
/// let x = tapegrad_ops::cholesky_solve(&Var::from_vec(vec![6f64, 12.0], &[2, 1]), &l);
/// assert_eq!(x.to_vec::<f64>(), [1.0, 1.0]);
/// ```
#[track_caller]
pub fn cholesky_solve(b: &Var, factor: &Var) -> Var {
    cholesky_solve_with(b, factor, false)
}

/// [`cholesky_solve`] with an upper factor.
///
/// # Panics
/// Same as [`cholesky_solve`].
#[track_caller]
pub fn cholesky_solve_with(b: &Var, factor: &Var, upper: bool) -> Var {
    let op = "cholesky_solve";
    let n = square_size(op, factor);
    check_types(op, b.dtype(), factor.dtype());
    assert!(
        b.ndim() >= 2 && b.size(-2) == n,
        "{op}: incompatible sizes of b and the factor: {:?} and {:?}",
        b.shape(),
        factor.shape()
    );
    broadcast_for(op, batch(b.shape()), batch(factor.shape()));
    let value = no_grad(|| {
        let (first, second) = if upper { (t(factor), factor.clone()) } else { (factor.clone(), t(factor)) };
        let y = solve_left(op, &first, b, false, false);
        solve_left(op, &second, &y, true, false)
    });
    let saved = factor.saved();
    record_with_output(op, [b, factor], value.tensor(), move |c| {
        let g = cholesky_solve_with(c.grad(), &saved, upper);
        let gf = c.wants(1).then(|| {
            let term = mmt(&g, &c.output());
            let both = &term + t(&term);
            if upper { -mm(&saved, &both) } else { -mm(&both, &saved) }
        });
        [Some(g), gf]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};
    use tapegrad_tape::DType;

    fn positive(x: &Var) -> Var {
        mmt(x, x) + super::super::identity(x.size(-1), DType::F64)
    }

    #[test]
    fn factors_and_their_gradients() {
        let x = parameter(&[2, 3, 3], 1);
        let a = positive(&x);
        let (l, u) = (cholesky(&a), cholesky_with(&a, true));
        assert_close(&mmt(&l, &l), &a, 1e-12);
        assert_close(&tmm(&u, &u), &a, 1e-12);
        for upper in [false, true] {
            check_gradients(|v| cholesky_with(&positive(&v[0]), upper), std::slice::from_ref(&x));
            let b = parameter(&[3, 2], 2);
            assert_close(
                &mm(&a, &cholesky_solve_with(&b, if upper { &u } else { &l }, upper)),
                &b.expand(&[2, -1, -1]),
                1e-12,
            );
            check_gradients(
                |v| cholesky_solve_with(&v[1], &cholesky_with(&positive(&v[0]), upper), upper),
                &[x.clone(), b],
            );
        }
    }

    #[test]
    #[should_panic(expected = "the input is not positive-definite (batch element 1)")]
    fn an_indefinite_matrix() {
        cholesky(&Var::from_vec(vec![1f64, -1.0], &[2, 1, 1]));
    }
}
