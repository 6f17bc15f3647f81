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
        let rest = tmm(&q, &a.narrow(-1, m as isize, n - m));
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
}
