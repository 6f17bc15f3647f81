//! `linalg.svd`, `linalg.svdvals`.

use super::qr::complete_basis;
use super::{each_matrix, element, identity, matrix_size, mm, split_rows, t, tmm};
use crate::kernels::linalg;
use tapegrad_tape::{Tensor, Var, cat, is_grad_enabled, record};

/// The reduced singular value decomposition `A = U diag(S) V^T` of matrices `[..., m, n]`: `U` `[..., m, k]`, `S`
/// `[..., k]`, the largest first, and `V^T` `[..., k, n]`, where `k` is the smaller of `m` and `n` (`torch.linalg.svd`
/// with `full_matrices=False`).
///
/// The signs of corresponding columns of `U` and `V` are arbitrary, and so are the vectors of equal values: functions
/// that depend on either have no derivative.
///
/// # Panics
/// If the matrices have elements that are not finite.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![0f64, 2.0, 3.0, 0.0], &[2, 2]);
/// let (u, s, vh) = tapegrad_ops::linalg::svd(&a);
/// assert_eq!(s.to_vec::<f64>(), [3.0, 2.0]);
/// assert_eq!((u.shape(), vh.shape()), (&[2, 2][..], &[2, 2][..]));
/// ```
#[track_caller]
pub fn svd(a: &Var) -> (Var, Var, Var) {
    let op = "linalg.svd";
    let factors = Factors::new(op, a);
    let s = factors.record_values(op);
    let (f, g) = (factors.clone(), factors.clone());
    let u = record(op, [a], factors.u.clone(), move |c| [Some(left_gradient(f.kept(), c.grad()))]);
    // The same for the transposed matrix, whose left vectors are these.
    let vh = record(op, [a], factors.vh.clone(), move |c| {
        let (u, s, vh) = g.kept();
        [Some(t(&left_gradient((t(&vh), s, t(&u)), &t(c.grad()))))]
    });
    (u, s, vh)
}

/// [`svd`] with square `U` `[..., m, m]` and `V^T` `[..., n, n]` if `full_matrices` is true (`torch.linalg.svd`, whose default
/// that is).
///
/// The vectors that [`svd`] does not have are an arbitrary basis of the rest of the space; gradients for them are ignored,
/// as in PyTorch.
///
/// # Panics
/// Same as [`svd`].
///
/// ```
/// use tapegrad_tape::Var;
/// let (u, s, vh) = tapegrad_ops::linalg::svd_with(&Var::from_vec(vec![3f64, 4.0], &[2, 1]), true);
/// assert_eq!((u.shape(), s.shape(), vh.shape()), (&[2, 2][..], &[1][..], &[1, 1][..]));
/// ```
#[track_caller]
pub fn svd_with(a: &Var, full_matrices: bool) -> (Var, Var, Var) {
    let (u, s, vh) = svd(a);
    if !full_matrices {
        return (u, s, vh);
    }
    (completed(&u), s, t(&completed(&t(&vh))))
}

/// Orthonormal columns, and more of them until the matrix is square.
#[track_caller]
fn completed(u: &Var) -> Var {
    let (m, k) = (u.size(-2), u.size(-1));
    if k == m {
        return u.clone();
    }
    let all = Var::from(complete_basis("linalg.svd", u, [m, k]));
    cat(&[u.clone(), all.narrow(-1, k, m - k)], -1)
}

/// The singular values `[..., k]` of matrices `[..., m, n]`, the largest first (`torch.linalg.svdvals`). Other than
/// those of [`svd`]'s vectors, their gradient exists for equal values as well.
///
/// # Panics
/// Same as [`svd`].
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![0f64, 2.0, 3.0, 0.0], &[2, 2]);
/// assert_eq!(tapegrad_ops::linalg::svdvals(&a).to_vec::<f64>(), [3.0, 2.0]);
/// ```
#[track_caller]
pub fn svdvals(a: &Var) -> Var {
    svdvals_named("linalg.svdvals", a)
}

#[track_caller]
pub(super) fn svdvals_named(op: &'static str, a: &Var) -> Var {
    if is_grad_enabled() && a.requires_grad() {
        return Factors::new(op, a).record_values(op);
    }
    let [m, n] = matrix_size(op, a);
    let found = each_matrix(op, &a.tensor(), m.min(n), |a, s| linalg::svd(a, [m, n], &mut [], s, &mut []));
    let [s] = split_rows(a, &found.unwrap_or_else(|i| failed(op, a, i)), [&[m.min(n)]]);
    Var::from(s)
}

/// A decomposition as it was computed, and the matrices.
#[derive(Clone)]
struct Factors {
    a: Var,
    u: Tensor,
    s: Tensor,
    vh: Tensor,
}

impl Factors {
    #[track_caller]
    fn new(op: &str, a: &Var) -> Factors {
        let [m, n] = matrix_size(op, a);
        let k = m.min(n);
        let found = each_matrix(op, &a.tensor(), m * k + k + k * n, |a, out| {
            let (u, rest) = out.split_at_mut(m * k);
            let (s, vh) = rest.split_at_mut(k);
            linalg::svd(a, [m, n], u, s, vh)
        });
        let found = found.unwrap_or_else(|i| failed(op, a, i));
        let [u, s, vh] = split_rows(a, &found, [&[m, k], &[k], &[k, n]]);
        Factors { a: a.saved(), u, s, vh }
    }

    /// The factors, or differentiable functions of the matrices where a rule is itself recorded.
    fn kept(&self) -> (Var, Var, Var) {
        if is_grad_enabled() && self.a.requires_grad() {
            svd(&self.a)
        } else {
            ((&self.u).into(), (&self.s).into(), (&self.vh).into())
        }
    }

    #[track_caller]
    fn record_values(&self, op: &'static str) -> Var {
        let f = self.clone();
        record(op, [&self.a], self.s.clone(), move |c| {
            let (u, _, vh) = f.kept();
            [Some(mm(&u.mul(c.grad().unsqueeze(-2)), &vh))]
        })
    }
}

/// The gradient from that of `U` (Townsend 2016, "Differentiating the singular value decomposition").
fn left_gradient((u, s, vh): (Var, Var, Var), g: &Var) -> Var {
    let k = s.size(-1);
    let square = s.square();
    // Differences of squares; 1 where there is none.
    let gaps = square.unsqueeze(-2) - square.unsqueeze(-1) + identity(k, s.dtype());
    let inner = tmm(&u, g);
    let core = ((&inner - t(&inner)) / gaps).mul(s.unsqueeze(-2));
    let core = mm(&u, &core);
    let core = if u.size(-2) > k {
        let scaled = g / s.unsqueeze(-2);
        let along = mm(&u, &tmm(&u, &scaled));
        core + scaled - along
    } else {
        core
    };
    mm(&core, &vh)
}

#[cold]
#[track_caller]
fn failed(op: &str, a: &Var, i: usize) -> ! {
    panic!(
        "{op}: the algorithm failed to converge, or the input has elements that are not finite{}",
        element(a, i)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::{diagonal, mmt};
    use crate::testing::{assert_close, check_gradients, parameter};

    #[test]
    fn decompositions_and_gradients() {
        for shape in [&[2, 3, 3][..], &[4, 2], &[2, 4]] {
            let a = parameter(shape, 7);
            let (u, s, vh) = svd(&a);
            assert_close(&mm(&u.mul(s.unsqueeze(-2)), &vh), &a, 1e-12);
            assert_close(&mmt(&vh, &vh), &mm(&diagonal(&s.ones_like()), &tmm(&u, &u)), 1e-12);
            check_gradients(|v| svdvals(&v[0]), std::slice::from_ref(&a));
            // Functions that do not depend on the signs.
            check_gradients(|v| svd(&v[0]).0.square(), std::slice::from_ref(&a));
            check_gradients(|v| svd(&v[0]).2.square(), &[a]);
        }
        assert_eq!(svdvals(&parameter(&[2, 0, 3], 1)).shape(), [2, 0]);
    }

    #[test]
    fn square_factors() {
        for shape in [&[2, 3, 3][..], &[4, 2], &[2, 1, 4], &[3, 0]] {
            let a = parameter(shape, 7);
            let (m, n) = (a.size(-2), a.size(-1));
            let (u, s, vh) = svd_with(&a, true);
            for (basis, size) in [(&u, m), (&t(&vh), n)] {
                assert_eq!((basis.size(-2), basis.size(-1)), (size, size));
                let ones = crate::linalg::identity(size, a.dtype()).expand_to(basis.shape());
                assert_close(&tmm(basis, basis), &ones, 1e-12);
            }
            let k = m.min(n);
            let product = mm(&u.narrow(-1, 0isize, k).mul(s.unsqueeze(-2)), &vh.narrow(-2, 0isize, k));
            assert_close(&product, &a, 1e-12);
            check_gradients(|v| svd_with(&v[0], true).0.narrow(-1, 0isize, k).square(), &[a]);
        }
    }

    #[test]
    #[should_panic(expected = "linalg.svdvals: the algorithm failed to converge")]
    fn an_infinity() {
        svdvals(&Var::from_vec(vec![f64::INFINITY], &[1, 1]));
    }
}
