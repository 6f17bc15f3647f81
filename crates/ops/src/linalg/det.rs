//! `linalg.det`, `linalg.slogdet`, `logdet`.

use super::solve::{Factored, solve_by};
use super::{batch, identity, mm, square_size, svd};
use std::sync::Arc;
use tapegrad_tape::{DType, Tensor, Var, record, record_with_output, where_};

/// A number for each matrix.
fn each(a: &Var, factors: &Factored, f: impl Fn(&crate::kernels::linalg::Factors) -> f64) -> Tensor {
    Tensor::from_vec(factors.matrices.iter().map(f).collect(), batch(a.shape())).cast(a.dtype())
}

/// The determinants of square matrices `[..., n, n]` (`torch.linalg.det`), and 1 for matrices without elements. The
/// gradient is the matrix of cofactors, for singular matrices as well: by the singular value decomposition (Higham 2020,
/// "What is the adjugate of a matrix?").
///
/// # Panics
/// If the matrices are not square.
///
/// ```
/// use tapegrad_tape::{Tensor, Var};
/// let a = Var::parameter(Tensor::from_vec(vec![1f64, 2.0, 2.0, 4.0], &[2, 2]));
/// let d = tapegrad_ops::linalg::det(&a);
/// assert_eq!(d.item(), 0.0);
/// d.backward();
/// assert!((a.grad().unwrap().to_vec::<f64>()[0] - 4.0).abs() < 1e-12);
/// ```
#[track_caller]
pub fn det(a: &Var) -> Var {
    let op = "linalg.det";
    square_size(op, a);
    let factors = Arc::new(Factored::new(op, a));
    let value = each(a, &factors, |f| f.diagonal().fold(f.sign, |d, x| d * x));
    let saved = a.saved();
    record_with_output(op, [a], value, move |c| {
        let (d, g) = (c.output(), c.grad());
        if saved.size(-1) == 1 {
            return [Some(g.unsqueeze(-1).unsqueeze(-1))];
        }
        let singular = d.detach().eq(0.0);
        if singular.count_nonzero(()).item() == 0.0 {
            return [Some(by_inverse(&factors, &saved, &g.mul(&d)))];
        }
        if saved.numel() == 0 {
            return [Some(saved.zeros_like())];
        }
        // Each kind of matrix by its own formula.
        let n = saved.size(-1) as isize;
        let (flat, d, g) = (saved.reshape(&[-1, n, n]), d.reshape(&[-1]), g.reshape(&[-1]));
        let mask = singular.reshape(&[-1]);
        let (zero, other) = (mask.nonzero().squeeze(1), mask.logical_not().nonzero().squeeze(1));
        let mut sum = Var::from(Tensor::zeros_with(flat.shape(), flat.dtype()));
        let part = flat.index_select(0, &zero);
        sum = sum.index_add(0, &zero, &cofactors(&part, &g.index_select(0, &zero)));
        if other.numel() > 0 {
            let part = flat.index_select(0, &other);
            let g = g.mul(&d).index_select(0, &other);
            let factors = Arc::new(Factored::new(op, &part));
            sum = sum.index_add(0, &other, &by_inverse(&factors, &part, &g));
        }
        let shape: Vec<isize> = saved.shape().iter().map(|&n| n as isize).collect();
        [Some(sum.reshape(&shape))]
    })
}

/// `g A^-T` for a number `g` for each matrix.
#[track_caller]
fn by_inverse(factors: &Arc<Factored>, a: &Var, g: &Var) -> Var {
    let scaled = g.unsqueeze(-1).unsqueeze(-1).mul(identity(a.size(-1), a.dtype()));
    solve_by("linalg.solve", factors, a, &scaled, true)
}

/// `g det(U) det(V) U C V^T`, where each element of the diagonal `C` is the product of the other singular values.
#[track_caller]
fn cofactors(a: &Var, g: &Var) -> Var {
    let (u, s, vh) = svd(a);
    let n = s.size(-1);
    // Ones in place of the diagonal: each row is left with the other values.
    let one = identity(n, DType::Bool);
    let others = where_(&one, 1.0, s.unsqueeze(-2)).prod(-1);
    let sign = (det(&u) * det(&vh)).detach();
    mm(&u.mul((others * (sign * g).unsqueeze(-1)).unsqueeze(-2)), &vh)
}

/// The sign of each determinant and the logarithm of its absolute value (`torch.linalg.slogdet`): where the determinant
/// itself would overflow or vanish. For singular matrices they are 0 and minus infinity. The gradient of the sign is zero.
///
/// # Panics
/// If the matrices are not square.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![-1f64, 0.0, 0.0, 1.0], &[2, 2]);
/// let (sign, log) = tapegrad_ops::linalg::slogdet(&a);
/// assert_eq!((sign.item(), log.item()), (-1.0, 0.0));
/// ```
#[track_caller]
pub fn slogdet(a: &Var) -> (Var, Var) {
    slogdet_named("linalg.slogdet", a)
}

#[track_caller]
fn slogdet_named(op: &'static str, a: &Var) -> (Var, Var) {
    square_size(op, a);
    let factors = Arc::new(Factored::new(op, a));
    let sign_of = |x: f64| if x == 0.0 || x.is_nan() { x } else { x.signum() };
    let sign = each(a, &factors, |f| f.diagonal().fold(f.sign, |s, x| s * sign_of(x)));
    let value = each(a, &factors, |f| f.diagonal().map(|x| x.abs().ln()).sum());
    let saved = a.saved();
    let log = record(op, [a], value, move |c| [Some(by_inverse(&factors, &saved, c.grad()))]);
    // Piecewise constant.
    let constant = a.detach();
    let sign = record(op, [a], sign, move |_| [Some(constant.zeros_like())]);
    (sign, log)
}

/// The logarithms of the determinants of square matrices (`torch.logdet`): NaN where they are negative.
///
/// # Panics
/// If the matrices are not square.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![2f64, 0.0, 0.0, 0.5], &[2, 2]);
/// assert_eq!(tapegrad_ops::logdet(&a).item(), 0.0);
/// ```
#[track_caller]
pub fn logdet(a: &Var) -> Var {
    let (sign, log) = slogdet_named("logdet", a);
    where_(&sign.eq(-1.0), f64::NAN, log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};

    #[test]
    fn derivatives() {
        for shape in [&[1, 1][..], &[3, 3], &[2, 4, 4]] {
            check_gradients(|v| det(&v[0]), &[parameter(shape, 5)]);
            check_gradients(|v| slogdet(&v[0]).1, &[parameter(shape, 5)]);
        }
        assert_eq!(det(&parameter(&[2, 0, 0], 1)).to_vec::<f64>(), [1.0, 1.0]);
    }

    #[test]
    fn singular_matrices_have_cofactors() {
        let mixed = vec![1f64, 2.0, 2.0, 4.0, 1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0];
        let a = Var::parameter(Tensor::from_vec(mixed, &[3, 2, 2]));
        det(&a).sum_all().backward();
        let want = [4.0, -2.0, -2.0, 1.0, 4.0, -3.0, -2.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        assert_close(&a.grad().unwrap(), &Var::from_vec(want.to_vec(), &[3, 2, 2]), 1e-12);
        let (sign, log) = slogdet(&a);
        assert_eq!((sign.to_vec::<f64>(), log.to_vec::<f64>()[0]), (vec![0.0, -1.0, 0.0], f64::NEG_INFINITY));
    }

    #[test]
    fn a_negative_determinant_has_no_logarithm() {
        assert!(logdet(&Var::from_vec(vec![-1f64], &[1, 1])).item().is_nan());
    }
}
