//! `linalg.eigh`, `linalg.eigvalsh`.

use super::{diagonal, each_matrix, element, identity, mm, mmt, split_rows, square_size, t, tmm};
use crate::kernels::linalg;
use tapegrad_tape::{Tensor, Var, is_grad_enabled, record};

/// Which triangle of a symmetric matrix is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Uplo {
    /// The lower one, the default.
    #[default]
    Lower,
    /// The upper one.
    Upper,
}

/// Eigenvalues `[..., n]`, the smallest first, and eigenvectors `[..., n, n]`, one a column, of symmetric matrices
/// (`torch.linalg.eigh`).
///
/// A vector's sign is arbitrary, and so are the vectors of equal eigenvalues: functions that depend on either have no
/// derivative.
///
/// # Panics
/// If the matrices are not square, or have elements that are not finite.
///
/// ```
/// use tapegrad_ops::linalg::{Uplo, eigh};
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![2f64, 1.0, 1.0, 2.0], &[2, 2]);
/// let (values, _) = eigh(&a);
/// assert!((values.to_vec::<f64>()[1] - 3.0).abs() < 1e-12);
/// ```
#[track_caller]
pub fn eigh(a: &Var) -> (Var, Var) {
    eigh_with(a, Uplo::Lower)
}

/// [`eigh`] with the other triangle.
///
/// # Panics
/// Same as [`eigh`].
#[track_caller]
pub fn eigh_with(a: &Var, uplo: Uplo) -> (Var, Var) {
    let (w, v) = factorize("linalg.eigh", a, uplo);
    let values = record_values("linalg.eigh", a, uplo, &w, &v);
    let saved = a.saved();
    let value = v.clone();
    let vectors = record("linalg.eigh", [a], value, move |c| {
        let (w, v) = kept(&saved, uplo, &w, &v);
        let n = w.size(-1);
        // Differences of eigenvalues; 1 where there is none.
        let gaps = w.unsqueeze(-2) - w.unsqueeze(-1) + identity(n, w.dtype());
        let inner = tmm(&v, c.grad());
        // What is antisymmetric: the rest would change the length of the vectors.
        let off = (&inner - t(&inner)) * 0.5 / gaps;
        [Some(mmt(&mm(&v, &off), &v))]
    });
    (values, vectors)
}

/// The eigenvalues `[..., n]` of symmetric matrices, the smallest first (`torch.linalg.eigvalsh`). Other than that of
/// [`eigh`], their gradient exists for equal eigenvalues as well.
///
/// # Panics
/// Same as [`eigh`].
///
/// ```
/// use tapegrad_ops::linalg::{Uplo, eigvalsh};
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![5f64, 0.0, 0.0, 2.0], &[2, 2]);
/// assert_eq!(eigvalsh(&a).to_vec::<f64>(), [2.0, 5.0]);
/// ```
#[track_caller]
pub fn eigvalsh(a: &Var) -> Var {
    eigvalsh_with(a, Uplo::Lower)
}

/// [`eigvalsh`] with the other triangle.
///
/// # Panics
/// Same as [`eigvalsh`].
#[track_caller]
pub fn eigvalsh_with(a: &Var, uplo: Uplo) -> Var {
    let (w, v) = factorize("linalg.eigvalsh", a, uplo);
    record_values("linalg.eigvalsh", a, uplo, &w, &v)
}

#[track_caller]
fn record_values(op: &'static str, a: &Var, uplo: Uplo, w: &Tensor, v: &Tensor) -> Var {
    let (saved, w, v) = (a.saved(), w.clone(), v.clone());
    record(op, [a], w.clone(), move |c| {
        let (_, v) = kept(&saved, uplo, &w, &v);
        [Some(mmt(&v.mul(c.grad().unsqueeze(-2)), &v))]
    })
}

/// The factors as they were computed, or as differentiable functions of the matrices where a rule is itself recorded.
#[track_caller]
fn kept(a: &Var, uplo: Uplo, w: &Tensor, v: &Tensor) -> (Var, Var) {
    if is_grad_enabled() && a.requires_grad() { eigh_with(a, uplo) } else { (w.into(), v.into()) }
}

#[track_caller]
fn factorize(op: &str, a: &Var, uplo: Uplo) -> (Tensor, Tensor) {
    let n = square_size(op, a);
    let a = a.detach();
    let half = if uplo == Uplo::Lower { a.tril_with(-1) } else { t(&a.triu_with(1)) };
    let whole = &half + t(&half) + diagonal(&a.diagonal_with(0, -2, -1));
    let found = each_matrix(op, &whole.tensor(), n + n * n, |a, out| {
        let (values, vectors) = out.split_at_mut(n);
        linalg::eigh(a, n, values, vectors)
    });
    let found = found.unwrap_or_else(|i| {
        panic!(
            "{op}: the algorithm failed to converge, or the input has elements that are not finite{}",
            element(&a, i)
        )
    });
    let [w, v] = split_rows(&a, &found, [&[n], &[n, n]]);
    (w, v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};
    use tapegrad_tape::DType;

    #[test]
    fn decompositions_and_gradients() {
        let a = parameter(&[2, 4, 4], 3);
        for uplo in [Uplo::Lower, Uplo::Upper] {
            let (w, v) = eigh_with(&a, uplo);
            let (tri, strict) =
                if uplo == Uplo::Lower { (a.tril(), a.tril_with(-1)) } else { (a.triu(), a.triu_with(1)) };
            assert_close(&mmt(&v.mul(w.unsqueeze(-2)), &v), &(tri + t(&strict)), 1e-12);
            let symmetric = |x: &Var| x + t(x);
            check_gradients(|v| eigvalsh_with(&symmetric(&v[0]), uplo), std::slice::from_ref(&a));
            // A function of the vectors that does not depend on their signs.
            check_gradients(|v| eigh_with(&symmetric(&v[0]), uplo).1.square(), &[parameter(&[3, 3], 4)]);
        }
        assert_eq!(eigvalsh(&parameter(&[2, 0, 0], 1)).shape(), [2, 0]);
    }

    #[test]
    fn equal_eigenvalues_have_a_gradient() {
        let a = Var::parameter(identity(3, DType::F64).tensor());
        eigvalsh(&a).sum_all().backward();
        assert_close(&a.grad().unwrap(), &identity(3, DType::F64), 1e-12);
    }

    #[test]
    #[should_panic(expected = "linalg.eigvalsh: the algorithm failed to converge")]
    fn a_nan() {
        eigvalsh(&Var::from_vec(vec![f64::NAN], &[1, 1]));
    }
}
