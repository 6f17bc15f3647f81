//! Automatic mixed precision: in which type operations compute.

use crate::dtype::DType;
use std::cell::Cell;

thread_local! {
    static LOWER: Cell<Option<DType>> = const { Cell::new(None) };
}

/// Restores the previous type when dropped.
pub(crate) struct Mode(Option<DType>);

impl Mode {
    pub(crate) fn enter(dtype: Option<DType>) -> Mode {
        Mode(LOWER.replace(dtype))
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        LOWER.set(self.0);
    }
}

/// Runs a function in which matrix products, convolutions and attention compute in BF16 (or F16), whatever floating-point type of
/// at most 32 bits their operands have, and losses in F32 (`torch.autocast("cpu", dtype)`). All other operations compute in the
/// types of their operands. Which operation is of which kind follows PyTorch.
///
/// Parameters stay F32, and so do their gradients: casting is recorded. Each use of a parameter casts it; PyTorch casts it
/// once. The backward pass, inside or outside of the function, computes in the types of the forward pass. On this thread only.
///
/// ```
/// use tapegrad_tape::{DType, autocast, autocast_dtype};
/// autocast(DType::BF16, || assert_eq!(autocast_dtype(), Some(DType::BF16)));
/// assert_eq!(autocast_dtype(), None);
/// ```
///
/// # Panics
/// If the type is neither BF16 nor F16.
#[track_caller]
pub fn autocast<R>(dtype: DType, f: impl FnOnce() -> R) -> R {
    assert!(matches!(dtype, DType::BF16 | DType::F16), "autocast: expected bfloat16 or float16, got {dtype}");
    let _mode = Mode::enter(Some(dtype));
    f()
}

/// Runs a function without [`autocast`], also inside of one (`torch.autocast(enabled=False)`).
pub fn without_autocast<R>(f: impl FnOnce() -> R) -> R {
    let _mode = Mode::enter(None);
    f()
}

/// The type of the [`autocast`] that this thread is in.
pub fn autocast_dtype() -> Option<DType> {
    LOWER.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tensor, Var, checkpoint};

    #[test]
    fn the_mode_ends_with_the_function_and_not_before() {
        let dtype = || autocast_dtype();
        autocast(DType::BF16, || {
            assert_eq!(without_autocast(dtype), None);
            assert_eq!(autocast(DType::F16, dtype), Some(DType::F16));
            let panics = || autocast(DType::F16, || panic!("other"));
            assert!(std::panic::catch_unwind(panics).is_err());
            assert_eq!(dtype(), Some(DType::BF16));
        });
    }

    #[test]
    fn a_backward_pass_is_not_in_it_but_a_recomputation_is() {
        use std::sync::{Arc, Mutex};
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (inside, rule) = (seen.clone(), seen.clone());
        let x = Var::parameter(Tensor::scalar(2.0));
        autocast(DType::BF16, || {
            let f = move |x: &[Var]| {
                inside.lock().unwrap().push(autocast_dtype());
                &x[0] * 3.0
            };
            let y = checkpoint(f, &[&x]);
            let value = y.tensor();
            crate::record("seen", [&y], value, move |c| {
                rule.lock().unwrap().push(autocast_dtype());
                [Some(c.into_grad())]
            })
            .backward();
        });
        assert_eq!(*seen.lock().unwrap(), [Some(DType::BF16), None, Some(DType::BF16)]);
    }

    #[test]
    #[should_panic(expected = "autocast: expected bfloat16 or float16, got float32")]
    fn another_type() {
        autocast(DType::F32, || ());
    }
}
