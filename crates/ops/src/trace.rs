//! `trace`.

use tapegrad_tape::Var;

/// The sum of a matrix's diagonal (`torch.trace`).
///
/// # Panics
/// If `a` is not a matrix.
///
/// ```
/// use tapegrad_tape::Var;
/// assert_eq!(tapegrad_ops::trace(&Var::from_vec(vec![1i64, 2, 3, 4], &[2, 2])).item(), 5.0);
/// ```
#[track_caller]
pub fn trace(a: &Var) -> Var {
    assert!(a.ndim() == 2, "trace: expected a matrix, but got shape {:?}", a.shape());
    a.diagonal().sum(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn gradients() {
        check_gradients(|v| trace(&v[0]), &[parameter(&[2, 3], 1)]);
    }
}
