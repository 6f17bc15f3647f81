//! `linalg.norm`, `linalg.matrix_norm`.

use super::svd::svdvals_named;
use tapegrad_tape::{DType, IntList, Var, shape};

/// The order of a norm: a name or a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormOrd {
    /// The Frobenius norm: the root of the sum of squares.
    Fro,
    /// The nuclear norm: the sum of the singular values.
    Nuc,
    /// For vectors the `p`-norm. For matrices 1 and -1 are the largest and the smallest sum of magnitudes of a column,
    /// infinity and minus infinity those of a row, 2 and -2 the largest and the smallest singular value.
    P(f64),
}

impl From<f64> for NormOrd {
    fn from(p: f64) -> NormOrd {
        NormOrd::P(p)
    }
}

/// The norm of matrices in two dimensions of a tensor (`torch.linalg.matrix_norm`): the Frobenius
/// norm of the last two.
///
/// # Panics
/// If the tensor has fewer than two dimensions, the dimensions are the same, the order is not one of matrices, or the
/// largest or smallest of no elements is wanted.
///
/// ```
/// use tapegrad_ops::linalg::{NormOrd, matrix_norm, matrix_norm_with};
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![3f64, 0.0, 0.0, -4.0], &[2, 2]);
/// assert_eq!(matrix_norm(&a).item(), 5.0);
/// assert!((matrix_norm_with(&a, NormOrd::Nuc, [-2, -1], false).item() - 7.0).abs() < 1e-12);
/// ```
#[track_caller]
pub fn matrix_norm(a: &Var) -> Var {
    matrix_norm_with(a, NormOrd::Fro, [-2, -1], false)
}

/// [`matrix_norm`] with another norm or other dimensions.
///
/// # Panics
/// Same as [`matrix_norm`].
#[track_caller]
pub fn matrix_norm_with(a: &Var, ord: impl Into<NormOrd>, dims: impl IntList, keepdim: bool) -> Var {
    let (op, dims) = ("linalg.matrix_norm", dims.to_isizes());
    let [r, c] = dims[..] else { panic!("{op}: expected the two dimensions of matrices, but got {dims:?}") };
    matrix_norm_named(op, a, ord.into(), [r, c], keepdim)
}

#[track_caller]
fn matrix_norm_named(op: &'static str, a: &Var, ord: NormOrd, dims: [isize; 2], keepdim: bool) -> Var {
    assert!(
        a.ndim() >= 2,
        "{op}: the input tensor must have at least 2 dimensions, but got shape {:?}",
        a.shape()
    );
    assert!(
        matches!(a.dtype(), DType::F32 | DType::F64),
        "{op}: expected a tensor of float32 or float64, but got {}",
        a.dtype()
    );
    let [r, c] = dims.map(|d| shape::dim(op, d, a.ndim()));
    assert!(r != c, "{op}: dims must be different, got {dims:?}");
    let p = match ord {
        NormOrd::Fro => return a.norm_with(2.0, [r as isize, c as isize], keepdim),
        NormOrd::Nuc => f64::NAN,
        NormOrd::P(p) => p,
    };
    let [r, c] = [r as isize, c as isize];
    let known = [1.0, 2.0, f64::INFINITY].contains(&p.abs());
    assert!(ord == NormOrd::Nuc || known, "{op}: order {p} is not supported for matrices");
    let extreme = |v: &Var, d: isize| {
        assert!(
            v.size(d) > 0,
            "{op}: order {p} of a matrix without elements (shape {:?}): no largest or smallest exists",
            a.shape()
        );
        if p > 0.0 { v.amax_keepdim(d) } else { v.amin_keepdim(d) }
    };
    let kept = if ord == NormOrd::Nuc || p.abs() == 2.0 {
        let values = svdvals_named(op, &a.movedim(&[r, c], &[-2, -1]));
        let value = if ord == NormOrd::Nuc { values.sum_keepdim(-1) } else { extreme(&values, -1) };
        value.unsqueeze(-1).movedim(&[-2, -1], &[r, c])
    } else {
        let (sum, best) = if p.abs() == 1.0 { (r, c) } else { (c, r) };
        extreme(&a.norm_with(1.0, sum, true), best)
    };
    if keepdim { kept } else { kept.squeeze_dims(&[r, c]) }
}

/// The norm of vectors or matrices in a tensor (`torch.linalg.norm`).
///
/// Without an order it is the 2-norm of all elements, or of those in `dims` where dims are given. With an order one
/// dimension means vectors, two mean matrices; with no dims the tensor itself is one or the other.
///
/// # Panics
/// If an order is given and the tensor or the dims are of neither kind; and where
/// [`matrix_norm`] and [`Var::norm`] do.
///
/// ```
/// use tapegrad_ops::linalg::{NormOrd, norm, norm_with};
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![3f64, -4.0], &[2]);
/// assert_eq!(norm(&x).item(), 5.0);
/// assert_eq!(norm_with(&x, NormOrd::P(1.0), (), false).item(), 7.0);
/// ```
#[track_caller]
pub fn norm(x: &Var) -> Var {
    norm_with(x, None, (), false)
}

/// [`norm`] with another norm, along dimensions.
///
/// # Panics
/// Same as [`norm`].
#[track_caller]
pub fn norm_with(x: &Var, ord: impl Into<Option<NormOrd>>, dims: impl IntList, keepdim: bool) -> Var {
    let (ord, dims) = (ord.into(), &dims.to_isizes()[..]);
    let op = "linalg.norm";
    assert!(x.dtype().is_float(), "{op}: expected a floating point tensor, got {}", x.dtype());
    let Some(ord) = ord else {
        return x.norm_with(2.0, dims, keepdim);
    };
    let all: Vec<isize> = (0..x.ndim() as isize).collect();
    match (if dims.is_empty() { &all } else { dims }, ord) {
        (&[r, c], ord) => matrix_norm_named(op, x, ord, [r, c], keepdim),
        (&[d], NormOrd::P(p)) => x.norm_with(p, d, keepdim),
        (&[_], _) => panic!("{op}: order {ord:?} is not supported for vectors (shape {:?})", x.shape()),
        _ => panic!(
            "{op}: with an order, the tensor or the dims must be one or two, but got shape {:?} and dims {dims:?}",
            x.shape()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};

    #[test]
    fn gradients_of_every_order() {
        let a = parameter(&[2, 3, 2], 3);
        for p in [1.0, -1.0, 2.0, -2.0, f64::INFINITY, f64::NEG_INFINITY] {
            check_gradients(|v| matrix_norm_with(&v[0], p, [-1, 0], true), std::slice::from_ref(&a));
        }
        for ord in [NormOrd::Fro, NormOrd::Nuc] {
            check_gradients(|v| matrix_norm_with(&v[0], ord, [1, 2], false), std::slice::from_ref(&a));
        }
        assert_close(&norm_with(&a, Some(NormOrd::P(3.0)), &[1], true), &a.norm_with(3.0, 1, true), 0.0);
        assert_eq!(matrix_norm_with(&a, 2.0, [0, 1], true).shape(), [1, 1, 2]);
        assert_eq!(norm_with(&parameter(&[0, 5], 1), Some(NormOrd::Nuc), (), true).shape(), [1, 1]);
    }

    #[test]
    #[should_panic(expected = "linalg.matrix_norm: order 3 is not supported for matrices")]
    fn an_order_of_vectors() {
        matrix_norm_with(&parameter(&[2, 2], 1), 3.0, [0, 1], false);
    }

    #[test]
    #[should_panic(expected = "linalg.norm: order -1 of a matrix without elements")]
    fn the_smallest_of_nothing() {
        norm_with(&parameter(&[2, 0], 1), Some(NormOrd::P(-1.0)), (), false);
    }
}
