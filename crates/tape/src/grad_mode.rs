//! Switches for the recording of operations, kept by each thread.

use std::cell::Cell;

thread_local! {
    static ENABLED: Cell<bool> = const { Cell::new(true) };
    static ANOMALY: Cell<bool> = const { Cell::new(false) };
}

/// True if operations are recorded on this thread (`torch.is_grad_enabled`).
pub fn is_grad_enabled() -> bool {
    ENABLED.get()
}

/// Puts the switch back when dropped.
#[must_use = "the mode lasts as long as the guard"]
pub struct GradModeGuard {
    before: bool,
    // Not Send: the mode belongs to one thread.
    thread: std::marker::PhantomData<*const ()>,
}

impl Drop for GradModeGuard {
    fn drop(&mut self) {
        ENABLED.set(self.before);
    }
}

/// Turns recording on or off until the guard is dropped (`torch.set_grad_enabled`).
pub fn set_grad_enabled(enabled: bool) -> GradModeGuard {
    GradModeGuard { before: ENABLED.replace(enabled), thread: std::marker::PhantomData }
}

/// Runs a function without recording (`torch.no_grad`).
///
/// ```
/// use tape::{Tensor, Var, no_grad};
/// let x = Var::parameter(Tensor::scalar(3.0));
/// let y = no_grad(|| &x * &x);
/// assert!(!y.requires_grad());
/// ```
pub fn no_grad<R>(f: impl FnOnce() -> R) -> R {
    let _guard = set_grad_enabled(false);
    f()
}

/// Runs a function with recording, also inside [`no_grad`] (`torch.enable_grad`).
pub fn enable_grad<R>(f: impl FnOnce() -> R) -> R {
    let _guard = set_grad_enabled(true);
    f()
}

/// True inside [`detect_anomaly`].
pub(crate) fn is_anomaly_detected() -> bool {
    ANOMALY.get()
}

/// Runs a function in which the first operation that makes a NaN, forward or backward, panics with its
/// name and the line that called it (`torch.autograd.detect_anomaly`). Slow: every result is read.
///
/// # Panics
/// At the first NaN that an operation makes from inputs without one.
pub fn detect_anomaly<R>(f: impl FnOnce() -> R) -> R {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            ANOMALY.set(self.0);
        }
    }
    let _reset = Reset(ANOMALY.replace(true));
    f()
}
