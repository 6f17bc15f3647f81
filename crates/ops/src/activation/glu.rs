//! The gated linear unit.

use tapegrad_tape::{Int, Var, shape};

/// The first half along a dimension times the sigmoid of the second (`torch.nn.functional.glu`), the last one.
///
/// # Panics
/// If the dimension is out of range or of odd size, or the input has none.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![4f32, 0.0], &[2]);
/// assert_eq!(tapegrad_ops::glu(&x).to_vec::<f32>(), [2.0]);
/// ```
#[track_caller]
pub fn glu(x: &Var) -> Var {
    glu_with(x, -1)
}

/// [`glu`] with another dimension.
///
/// # Panics
/// Same as [`glu`].
#[track_caller]
pub fn glu_with(x: &Var, dim: impl Int) -> Var {
    let dim = dim.to_isize();
    assert!(x.ndim() > 0, "glu: the input has no dimension to be cut in halves");
    let d = shape::dim("glu", dim, x.ndim());
    let n = x.shape()[d];
    assert!(
        n.is_multiple_of(2),
        "glu: dimension {dim} of the input {:?} is odd and has no halves",
        x.shape()
    );
    x.narrow(dim, 0, n / 2) * x.narrow(dim, n / 2, n / 2).sigmoid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn derivatives() {
        check_gradients(|v| glu_with(&v[0], 1), &[parameter(&[2, 4, 3], 1)]);
    }

    #[test]
    #[should_panic(expected = "glu: dimension -1 of the input [2, 3] is odd")]
    fn an_odd_size() {
        glu(&parameter(&[2, 3], 1));
    }
}
