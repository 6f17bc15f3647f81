//! Thread-local switches for the recording of operations.

use crate::{Tensor, Var};
use std::cell::{Cell, RefCell};

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::On) };
    static ANOMALY: Cell<bool> = const { Cell::new(false) };
    static FOUND: RefCell<Option<Found>> = const { RefCell::new(None) };
}

/// What operations leave behind for derivatives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Off,
    /// Tangents, but no graph.
    Forward,
    /// Tangents and the graph.
    On,
}

pub(crate) fn mode() -> Mode {
    MODE.get()
}

/// What [`find_nonfinite`] has found.
#[derive(Default)]
struct Found {
    nan: Option<String>,
    infinity: Option<String>,
}

/// True if operations are recorded on this thread, or pass on tangents (`torch.is_grad_enabled`).
pub fn is_grad_enabled() -> bool {
    MODE.get() != Mode::Off
}

/// Restores the switch when dropped.
#[must_use = "the mode lasts as long as the guard"]
pub struct GradModeGuard {
    before: Mode,
    // Not Send: the mode belongs to one thread.
    thread: std::marker::PhantomData<*const ()>,
}

impl Drop for GradModeGuard {
    fn drop(&mut self) {
        MODE.set(self.before);
    }
}

/// Turns recording on or off until the guard is dropped (`torch.set_grad_enabled`).
pub fn set_grad_enabled(enabled: bool) -> GradModeGuard {
    set_mode(if enabled { Mode::On } else { Mode::Off })
}

pub(crate) fn set_mode(mode: Mode) -> GradModeGuard {
    GradModeGuard { before: MODE.replace(mode), thread: std::marker::PhantomData }
}

/// Runs a function without recording (`torch.no_grad`).
///
/// ```
/// use tapegrad_tape::{Tensor, Var, no_grad};
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

/// True inside [`detect_anomaly`] and [`find_nonfinite`].
pub(crate) fn is_anomaly_detected() -> bool {
    ANOMALY.get()
}

/// Runs a function in which the first operation that produces a NaN, forward or backward, panics with its name and the
/// line of the call (`torch.autograd.detect_anomaly`). Slow: every result is read.
///
/// # Panics
/// At the first NaN that an operation produces from inputs without one.
pub fn detect_anomaly<R>(f: impl FnOnce() -> R) -> R {
    let _mode = AnomalyMode::enter(None);
    f()
}

/// Runs a function and names the operation, forward or backward, that produced the first NaN in it, or the first
/// infinity where there was no NaN: [`detect_anomaly`] without the panic, to find out why a loss is not finite. Just as
/// slow.
///
/// ```
/// use tapegrad_tape::{Tensor, Var, find_nonfinite};
/// let x = Var::parameter(Tensor::scalar(-1.0));
/// let (loss, origin) = find_nonfinite(|| (x.log() * 2.0).sum_all());
/// assert!(loss.item().is_nan() && origin.unwrap().starts_with("log: made the first NaN"));
/// assert_eq!(find_nonfinite(|| x.exp()).1, None);
/// ```
pub fn find_nonfinite<R>(f: impl FnOnce() -> R) -> (R, Option<String>) {
    let mode = AnomalyMode::enter(Some(Found::default()));
    let result = f();
    let found = FOUND.take().unwrap_or_default();
    drop(mode);
    (result, found.nan.or(found.infinity))
}

/// Runs a derivative rule, whose own operations [`find_nonfinite`] does not name: the backward walk names the operation
/// that the rule belongs to.
pub(crate) fn pause_search<R>(rule: impl FnOnce() -> R) -> R {
    if !is_anomaly_detected() {
        return rule();
    }
    let _mode =
        FOUND.with_borrow(Option::is_some).then(|| AnomalyMode(ANOMALY.replace(false), FOUND.replace(None)));
    rule()
}

/// Restores the previous mode when dropped.
struct AnomalyMode(bool, Option<Found>);

impl AnomalyMode {
    fn enter(found: Option<Found>) -> AnomalyMode {
        AnomalyMode(ANOMALY.replace(true), FOUND.replace(found))
    }
}

impl Drop for AnomalyMode {
    fn drop(&mut self) {
        ANOMALY.set(self.0);
        FOUND.set(self.1.take());
    }
}

/// Records a NaN or an infinity that an operation has produced from inputs without one: a NaN panics in
/// [`detect_anomaly`], and an infinity, which may be intended, is ignored there.
#[track_caller]
pub(crate) fn report_nonfinite(values: &Tensor, inputs: &[&Var], what: impl Fn(&str) -> String) {
    let made = |has: fn(&Tensor) -> bool| has(values) && !inputs.iter().any(|v| has(&v.tensor()));
    report(made(Tensor::has_nan), || made(Tensor::has_infinity), false, what);
}

/// Like [`report_nonfinite`], for the gradients of a derivative rule, in which an infinity is as wrong as a NaN.
#[track_caller]
pub(crate) fn report_nonfinite_gradient(values: &Tensor, what: impl Fn(&str) -> String) {
    report(values.has_nan(), || values.has_infinity(), true, what);
}

#[track_caller]
fn report(nan: bool, infinity: impl FnOnce() -> bool, alike: bool, what: impl Fn(&str) -> String) {
    let searches = FOUND.with_borrow(Option::is_some);
    if !searches {
        assert!(!nan, "{}", what("NaN"));
        return;
    }
    let (nan, infinity) = (nan.then(|| what("NaN")), infinity().then(|| what("infinity")));
    FOUND.with_borrow_mut(|found| {
        if let Some(found) = found {
            let worst = if alike { nan.or_else(|| infinity.clone()) } else { nan };
            found.nan = found.nan.take().or(worst);
            found.infinity = found.infinity.take().or(infinity);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_nonfinite_is_found_forward_and_backward() {
        let x = Var::parameter(Tensor::from_vec(vec![0.0f64, 4.0], &[2]));
        // The gradient of the square root at zero is infinite, and times zero it is NaN.
        let ((), origin) = find_nonfinite(|| (x.sqrt() * 0.0).sum_all().backward());
        assert!(origin.unwrap().starts_with("backward: `sqrt`, recorded at "));
        // An infinity is reported only if no NaN follows.
        let (y, origin) = find_nonfinite(|| x.log());
        assert!(y.to_vec::<f64>()[0].is_infinite());
        assert!(origin.unwrap().starts_with("log: made the first infinity"));
        let (_, origin) = find_nonfinite(|| x.log() * &x);
        assert!(origin.unwrap().starts_with("mul: made the first NaN"));
        // The mode ends with the function, also if it panics.
        let panics = || find_nonfinite(|| panic!("other"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert!(!is_anomaly_detected());
        assert!(FOUND.with_borrow(Option::is_none));
    }
}
