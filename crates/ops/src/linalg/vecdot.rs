//! `linalg.vecdot`.

use tapegrad_tape::shape::{broadcast_for, dim as check_dim};
use tapegrad_tape::{Int, Var};

/// The dot products of vectors along a dimension (`torch.linalg.vecdot`), the last one. The shapes
/// broadcast.
///
/// # Panics
/// If the shapes do not broadcast, or there is no such dimension.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0], &[2, 2]);
/// assert_eq!(tapegrad_ops::linalg::vecdot(&x, &x).to_vec::<f64>(), [5.0, 25.0]);
/// ```
#[track_caller]
pub fn vecdot(x: &Var, y: &Var) -> Var {
    vecdot_with(x, y, -1)
}

/// [`vecdot`] with another dimension.
///
/// # Panics
/// Same as [`vecdot`].
#[track_caller]
pub fn vecdot_with(x: &Var, y: &Var, dim: impl Int) -> Var {
    let shape = broadcast_for("linalg.vecdot", x.shape(), y.shape());
    check_dim("linalg.vecdot", dim, shape.len());
    x.mul(y).sum(dim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn gradients() {
        let both = [parameter(&[2, 3], 1), parameter(&[3], 2)];
        check_gradients(|v| vecdot(&v[0], &v[1]), &both);
        assert_eq!(vecdot_with(&both[0], &both[0], 0).shape(), [3]);
    }
}
