//! `linalg.pinv`.

use super::{eigh, matrix_size, mm, mmt, square_size, svd, t, tmm};
use tapegrad_tape::{DType, Operand, Var, no_grad, record_with_output, where_};

/// The options of [`pinv`] and [`matrix_rank`](super::matrix_rank()): singular values that are at most
/// `max(atol, rtol * the largest)` count as zero.
#[derive(Clone, Default)]
pub struct PinvOptions {
    /// The absolute tolerance, 0 by default; a number, or a tensor with one for each matrix.
    pub atol: Option<Operand>,
    /// The relative one: by default the larger size times the type's epsilon, or 0 where an absolute one is given.
    pub rtol: Option<Operand>,
    /// The matrices are symmetric, of which only the lower triangle is read: eigenvalues replace singular values.
    pub hermitian: bool,
}

impl PinvOptions {
    /// With a relative tolerance.
    pub fn rtol(rtol: impl Into<Operand>) -> PinvOptions {
        PinvOptions { rtol: Some(rtol.into()), ..PinvOptions::default() }
    }

    /// The values up to which singular values count as zero, `[..., 1]`.
    #[track_caller]
    pub(super) fn threshold(&self, [m, n]: [usize; 2], values: &Var) -> Var {
        let dtype = values.dtype();
        let number = |o: &Operand| match o {
            Operand::Var(v) => v.detach().cast(dtype).unsqueeze(-1),
            Operand::Scalar(s) => Var::from(s.to_f64()).cast(dtype),
        };
        let epsilon = if dtype == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
        let rtol = match (&self.rtol, &self.atol) {
            (Some(r), _) => number(r),
            (None, Some(a)) => where_(&number(a).gt(0.0), 0.0, m.max(n) as f64 * epsilon).cast(dtype),
            (None, None) => Var::from(m.max(n) as f64 * epsilon).cast(dtype),
        };
        let largest = if values.size(-1) == 0 { values.sum_keepdim(-1) } else { values.amax_keepdim(-1) };
        let relative = rtol.mul(largest);
        self.atol.as_ref().map_or_else(|| relative.clone(), |a| relative.maximum(&number(a)))
    }
}

/// The Moore-Penrose inverses `[..., n, m]` of matrices `[..., m, n]` (`torch.linalg.pinv`). The derivative is that of
/// Golub and Pereyra 1973 ("The differentiation of pseudo-inverses and nonlinear least squares problems whose variables
/// separate"), which holds where the rank does not change.
///
/// # Panics
/// If the matrices have elements that are not finite, or are not square where `hermitian` is set.
///
/// ```
/// use tapegrad_ops::linalg::{PinvOptions, pinv, pinv_with};
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![2f64, 0.0, 0.0, 0.0], &[2, 2]);
/// assert_eq!(pinv(&a).to_vec::<f64>(), [0.5, 0.0, 0.0, 0.0]);
/// ```
#[track_caller]
pub fn pinv(a: &Var) -> Var {
    pinv_with(a, PinvOptions::default())
}

/// [`pinv`] with tolerances, or of a symmetric matrix.
///
/// # Panics
/// Same as [`pinv`].
#[track_caller]
pub fn pinv_with(a: &Var, options: PinvOptions) -> Var {
    pinv_named("linalg.pinv", a, &options)
}

#[track_caller]
pub(super) fn pinv_named(op: &'static str, a: &Var, options: &PinvOptions) -> Var {
    let size = matrix_size(op, a);
    if options.hermitian {
        square_size(op, a);
        let (w, v) = no_grad(|| eigh(a));
        let small = w.abs().le(options.threshold(size, &w.abs()));
        let inverse = where_(&small, 0.0, where_(&small, 1.0, w).powf(-1.0));
        let value = mmt(&v.mul(inverse.unsqueeze(-2)), &v);
        return record_inverse(op, a, value);
    }
    let (u, s, vh) = no_grad(|| svd(a));
    let small = s.le(options.threshold(size, &s));
    let inverse = where_(&small, 0.0, where_(&small, 1.0, s).powf(-1.0));
    record_inverse(op, a, mmt(&t(&vh).mul(inverse.unsqueeze(-2)), &u))
}

#[track_caller]
fn record_inverse(op: &'static str, a: &Var, value: Var) -> Var {
    let saved = a.saved();
    record_with_output(op, [a], value.into_tensor(), move |c| [Some(gradient(&saved, &c.output(), c.grad()))])
}

/// The gradient for `A` from that of its inverse `P`, with the smaller matrices first.
pub(super) fn gradient(a: &Var, p: &Var, g: &Var) -> Var {
    let g = t(g);
    if a.size(-2) <= a.size(-1) {
        let k = mm(&g, p);
        let kp = mmt(&k, p);
        let rest = mm(&t(p), &mm(p, &(&g - mm(&k, a))));
        -t(&mm(p, &k)) + &kp - mm(a, &mm(p, &kp)) + rest
    } else {
        let k = mm(p, &g);
        let pk = tmm(p, &k);
        let rest = mmt(&mm(&(&g - mm(a, &k)), p), p);
        -t(&mm(&k, p)) + rest + &pk - mm(&mm(&pk, p), a)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};
    use tapegrad_tape::Tensor;

    #[test]
    fn inverses_and_gradients() {
        for shape in [&[2, 3, 3][..], &[4, 2], &[2, 4]] {
            let a = parameter(shape, 7);
            let p = pinv(&a);
            assert_close(&mm(&mm(&a, &p), &a), &a, 1e-12);
            check_gradients(|v| pinv(&v[0]), &[a]);
        }
        let x = parameter(&[3, 3], 2);
        let options = PinvOptions { hermitian: true, ..Default::default() };
        let symmetric = |x: &Var| x + t(x);
        assert_close(&pinv_with(&symmetric(&x), options.clone()), &pinv(&symmetric(&x)), 1e-12);
        check_gradients(|v| pinv_with(&symmetric(&v[0]), options.clone()), &[x]);
        assert_eq!(pinv(&parameter(&[2, 0, 3], 1)).shape(), [2, 3, 0]);
    }

    #[test]
    fn tolerances() {
        let a = Var::from(Tensor::from_vec(vec![4f64, 0.0, 0.0, 1.0], &[2, 2]));
        let kept = |o: PinvOptions| pinv_with(&a, o).to_vec::<f64>()[3];
        assert_eq!(kept(PinvOptions::rtol(0.3)), 0.0);
        assert_eq!(kept(PinvOptions::rtol(0.2)), 1.0);
        assert_eq!(kept(PinvOptions { atol: Some(1.5.into()), ..Default::default() }), 0.0);
        assert_eq!(kept(PinvOptions { atol: Some(Var::from(0.5f64).into()), ..Default::default() }), 1.0);
    }
}
