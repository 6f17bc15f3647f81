//! `linalg.qr`.

use super::solve_triangular::solve_left;
use super::{each_matrix, matrix_size, mm, mmt, split_rows, t, tmm};
use crate::kernels::linalg;
use tapegrad_tape::{Tensor, Var, cat, is_grad_enabled, record};

/// The reduced QR decomposition `A = Q R` of matrices `[..., m, n]`: `Q` `[..., m, k]` with orthonormal columns, `R`
/// `[..., k, n]` an upper triangle, where `k` is the smaller of `m` and `n` (`torch.linalg.qr`).
///
/// The diagonal of `R` is not negative, which makes the decomposition of a matrix of full rank unique. PyTorch's signs
/// follow from its algorithm and differ. The derivative is that of Walter and Lehmann 2010 ("Algorithmic differentiation
/// of linear algebra functions"); it exists if the first `k` columns are independent.
///
/// # Panics
/// If `a` is not a matrix or a batch of matrices of float32 or float64.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![3f64, 0.0, 4.0, 5.0], &[2, 2]);
/// let (q, r) = tapegrad_ops::linalg::qr(&a);
/// assert!((r.to_vec::<f64>()[0] - 5.0).abs() < 1e-12);
/// assert_eq!(q.shape(), [2, 2]);
/// ```
#[track_caller]
pub fn qr(a: &Var) -> (Var, Var) {
    let op = "linalg.qr";
    let [m, n] = matrix_size(op, a);
    if n > m {
        // The columns after the first m decide nothing.
        let (q, r) = qr(&a.narrow(-1, 0isize, m));
        let rest = tmm(&q, &a.narrow(-1, m, n - m));
        return (q, cat(&[r, rest], -1));
    }
    let found = each_matrix(op, &a.tensor(), m * n + n * n, |a, out| {
        let (q, r) = out.split_at_mut(m * n);
        linalg::qr(a, [m, n], q, r);
        true
    });
    let [q, r] = split_rows(a, &found.expect("never fails"), [&[m, n], &[n, n]]);
    let kept = Kept { a: a.saved(), q, r };
    let other = kept.clone();
    let first = record(op, [a], kept.q.clone(), {
        let kept = kept.clone();
        move |c| {
            let (q, r) = kept.factors();
            let core = -tmm(&q, c.grad());
            [Some(gradient(&q, &r, Some(c.grad()), &core))]
        }
    });
    let second = record(op, [a], kept.r.clone(), move |c| {
        let (q, r) = other.factors();
        let core = mmt(c.grad(), &r);
        [Some(gradient(&q, &r, None, &core))]
    });
    (first, second)
}

/// Which factors [`qr_with`] gives, for matrices `[..., m, n]` and `k` the smaller of `m` and `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QrMode {
    /// `Q` `[..., m, k]` and `R` `[..., k, n]`, the default: those of [`qr`].
    #[default]
    Reduced,
    /// A square `Q` `[..., m, m]`, and `R` `[..., m, n]` with rows of zeros below.
    Complete,
    /// No `Q` (an empty tensor), and `R` `[..., k, n]`.
    R,
}

/// [`qr`] in another mode (`torch.linalg.qr` with `mode`).
///
/// With more rows than columns, the square `Q` has no derivative, as in PyTorch: asking for it panics.
///
/// # Panics
/// Same as [`qr`].
///
/// ```
/// use tapegrad_ops::linalg::{QrMode, qr_with};
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![3f64, 4.0], &[2, 1]);
/// let (q, r) = qr_with(&a, QrMode::Complete);
/// assert_eq!((q.shape(), r.shape()), (&[2, 2][..], &[2, 1][..]));
/// ```
#[track_caller]
pub fn qr_with(a: &Var, mode: QrMode) -> (Var, Var) {
    let op = "linalg.qr";
    let [m, n] = matrix_size(op, a);
    let (q, r) = qr(a);
    match mode {
        QrMode::R => (Tensor::zeros_with(0, a.dtype()).into(), r),
        QrMode::Complete if m > n => {
            let full = record(
                op,
                [a],
                complete_basis(op, &a.tensor().into(), [m, n]),
                move |_| -> [Option<Var>; 1] {
                    panic!(
                        "{op}: Q is not differentiable with mode Complete and more rows than columns, as in PyTorch"
                    )
                },
            );
            let zeros = Tensor::zeros_with(&super::with_batch(a, &[m - n, n]), a.dtype());
            (full, cat(&[r, zeros.into()], -2))
        }
        _ => (q, r),
    }
}

/// Orthonormal vectors `[..., m, m]`, the first `n` of which span the columns of matrices `[..., m, n]`, of at most `m`
/// columns.
#[track_caller]
pub(super) fn complete_basis(op: &str, a: &Var, [m, n]: [usize; 2]) -> Tensor {
    let found = each_matrix(op, &a.tensor(), 2 * m * m, |a, out| {
        // Columns of zeros are factorized last and leave the first ones as they are.
        let mut square = vec![0.0; m * m];
        for (to, from) in square.chunks_exact_mut(m.max(1)).zip(a.chunks(n.max(1))) {
            to[..n].copy_from_slice(&from[..n]);
        }
        let (q, r) = out.split_at_mut(m * m);
        linalg::qr(&square, [m, m], q, r);
        true
    });
    let [q, _] = split_rows(a, &found.expect("never fails"), [&[m, m], &[m, m]]);
    q
}

#[derive(Clone)]
struct Kept {
    a: Var,
    q: Tensor,
    r: Tensor,
}

impl Kept {
    fn factors(&self) -> (Var, Var) {
        if is_grad_enabled() && self.a.requires_grad() {
            qr(&self.a)
        } else {
            ((&self.q).into(), (&self.r).into())
        }
    }
}

/// `(gQ + Q M) R^-T`, where `M` is symmetric and has the upper triangle of `core`.
fn gradient(q: &Var, r: &Var, gq: Option<&Var>, core: &Var) -> Var {
    let m = core.triu() + t(&core.triu_with(1));
    let inner = mm(q, &m);
    let inner = gq.map_or_else(|| inner.clone(), |g| g + &inner);
    t(&solve_left("linalg.solve_triangular", r, &t(&inner), true, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};

    #[test]
    fn decompositions_and_gradients() {
        for shape in [&[2, 3, 3][..], &[4, 2], &[2, 4], &[3, 0], &[0, 3]] {
            let a = parameter(shape, 7);
            let (q, r) = qr(&a);
            assert_close(&mm(&q, &r), &a, 1e-12);
            assert_close(&r.triu(), &r, 0.0);
            assert!(r.diagonal_with(0, -2, -1).to_vec::<f64>().iter().all(|&d| d >= 0.0));
            check_gradients(|v| qr(&v[0]).0, std::slice::from_ref(&a));
            check_gradients(|v| qr(&v[0]).1, &[a]);
        }
    }

    #[test]
    fn modes() {
        for shape in [&[2, 3, 3][..], &[4, 2], &[2, 5, 1], &[2, 4], &[3, 0], &[0, 3]] {
            let a = parameter(shape, 7);
            let (m, k) = (a.size(-2), a.size(-2).min(a.size(-1)));
            let (q, r) = qr_with(&a, QrMode::Complete);
            assert_eq!((q.size(-2), q.size(-1), r.size(-2)), (m, m, m));
            assert_close(&mm(&q, &r), &a, 1e-12);
            let ones = crate::linalg::identity(m, a.dtype()).expand_to(q.shape());
            assert_close(&tmm(&q, &q), &ones, 1e-12);
            let (thin, thin_r) = qr(&a);
            assert_close(&q.narrow(-1, 0isize, k), &thin, 1e-12);
            let (none, only) = qr_with(&a, QrMode::R);
            assert_eq!(none.shape(), [0]);
            assert_close(&only, &thin_r, 0.0);
            check_gradients(|v| qr_with(&v[0], QrMode::Complete).1, std::slice::from_ref(&a));
        }
        check_gradients(|v| qr_with(&v[0], QrMode::Complete).0, &[parameter(&[2, 4], 7)]);
    }

    #[test]
    #[should_panic(
        expected = "linalg.qr: Q is not differentiable with mode Complete and more rows than columns"
    )]
    fn a_square_basis_has_no_derivative() {
        qr_with(&parameter(&[3, 2], 1), QrMode::Complete).0.sum_all().backward();
    }
}
