//! `cross`.

use tapegrad_tape::shape::{broadcast_for, dim as check_dim};
use tapegrad_tape::{Int, OptionalInt, Var};

/// The cross products of vectors of three elements along a dimension (`torch.cross`); without one, along the first
/// dimension of size 3. The shapes broadcast.
///
/// # Panics
/// If the tensors have different numbers of dimensions, the shapes do not broadcast, or the dimension is not of size 3.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f64, 0.0, 0.0], &[3]);
/// let y = Var::from_vec(vec![0f64, 1.0, 0.0], &[3]);
/// assert_eq!(tapegrad_ops::cross(&x, &y).to_vec::<f64>(), [0.0, 0.0, 1.0]);
/// ```
#[track_caller]
pub fn cross(a: &Var, b: &Var) -> Var {
    cross_with(a, b, None)
}

/// [`cross`] with a dimension.
///
/// # Panics
/// Same as [`cross`].
#[track_caller]
pub fn cross_with(a: &Var, b: &Var, dim: impl OptionalInt) -> Var {
    let dim = dim.to_option().unwrap_or_else(|| {
        let found = a.shape().iter().position(|&n| n == 3);
        found.unwrap_or_else(|| panic!("cross: no dimension of size 3 in input of shape {:?}", a.shape()))
            as isize
    });
    product("cross", a, b, dim)
}

/// The cross products of vectors of three elements along a dimension (`torch.linalg.cross`), the
/// last one. The shapes broadcast.
///
/// # Panics
/// Same as [`crate::cross()`].
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f64, 0.0, 0.0], &[3]);
/// let y = Var::from_vec(vec![0f64, 1.0, 0.0], &[3]);
/// assert_eq!(tapegrad_ops::linalg_cross(&x, &y).to_vec::<f64>(), [0.0, 0.0, 1.0]);
/// ```
#[track_caller]
pub fn linalg_cross(a: &Var, b: &Var) -> Var {
    linalg_cross_with(a, b, -1)
}

/// [`linalg_cross`] with another dimension.
///
/// # Panics
/// Same as [`linalg_cross`].
#[track_caller]
pub fn linalg_cross_with(a: &Var, b: &Var, dim: impl Int) -> Var {
    product("linalg.cross", a, b, dim.to_isize())
}

#[track_caller]
fn product(op: &str, a: &Var, b: &Var, dim: isize) -> Var {
    assert!(
        a.ndim() == b.ndim(),
        "{op}: inputs must have the same number of dimensions, but got shapes {:?} and {:?}",
        a.shape(),
        b.shape()
    );
    let d = check_dim(op, dim, a.ndim());
    let sizes = [a, b].map(|v| v.shape().get(d).copied().unwrap_or(1));
    assert!(
        sizes == [3, 3],
        "{op}: inputs dimension {dim} must have length 3, but got {} and {} (shapes {:?} and {:?})",
        sizes[0],
        sizes[1],
        a.shape(),
        b.shape()
    );
    broadcast_for(op, a.shape(), b.shape());
    let turned = |v: &Var, by: isize| v.roll(&[-by], &[d as isize]);
    turned(a, 1).mul(turned(b, 2)) - turned(a, 2).mul(turned(b, 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn gradients() {
        check_gradients(|v| linalg_cross(&v[0], &v[1]), &[parameter(&[2, 3], 1), parameter(&[1, 3], 2)]);
        check_gradients(|v| cross(&v[0], &v[1]), &[parameter(&[3, 2], 1), parameter(&[3, 2], 2)]);
    }

    #[test]
    #[should_panic(expected = "cross: inputs dimension 1 must have length 3, but got 2 and 2")]
    fn vectors_of_two() {
        cross_with(&parameter(&[3, 2], 1), &parameter(&[3, 2], 1), Some(1));
    }
}
