//! Piecewise linear activations, and shrinkage.

use tapegrad_tape::{Var, where_};

tapegrad_tape::pointwise! {
    mod table: simd;

    // Both are clamps; unlike that of `clamp`, their gradient at a bound is zero.
    hidden hardtanh(x, low, high) = if x < low { low } else if x > high { high } else { x };
        output(y, g) fused if y <= low || y >= high { T::ZERO } else { g };
        rule where_(&y.le(low).logical_or(&y.ge(high)), 0.0, g); on -2.0, 2.0, -1.0, 1.5;

    /// `min(max(x, 0), 6)` (`torch.nn.functional.relu6`).
    ///
    /// ```
    /// assert_eq!(tapegrad_ops::relu6(&tapegrad_tape::Var::from(7.0)).item(), 6.0);
    /// ```
    function relu6(x) = if x < T::ZERO { T::ZERO } else if x > T::c(6.0) { T::c(6.0) } else { x };
        output(y, g) fused if y <= T::ZERO || y >= T::c(6.0) { T::ZERO } else { g };
        rule where_(&y.le(0.0).logical_or(&y.ge(6.0)), 0.0, g); on -2.0, 8.0;

    /// A piecewise linear sigmoid: `relu6(x + 3) / 6` (`torch.nn.functional.hardsigmoid`).
    ///
    /// ```
    /// assert_eq!(tapegrad_ops::hardsigmoid(&tapegrad_tape::Var::from(0.0)).item(), 0.5);
    /// ```
    function hardsigmoid(x) = {
            let z = x + T::c(3.0);
            (if z < T::ZERO { T::ZERO } else if z > T::c(6.0) { T::c(6.0) } else { z }) / T::c(6.0)
        };
        input(x, g) fused if x > T::c(-3.0) && x < T::c(3.0) { g / T::c(6.0) } else { T::ZERO };
        rule where_(&x.gt(-3.0).logical_and(&x.lt(3.0)), g / 6.0, 0.0); on -4.0, 4.0;

    /// `x * hardsigmoid(x)` (`torch.nn.functional.hardswish`).
    ///
    /// ```
    /// assert_eq!(tapegrad_ops::hardswish(&tapegrad_tape::Var::from(4.0)).item(), 4.0);
    /// ```
    function hardswish(x) = {
            let z = x + T::c(3.0);
            x * (if z < T::ZERO { T::ZERO } else if z > T::c(6.0) { T::c(6.0) } else { z }) / T::c(6.0)
        };
        input(x, g) fused if x <= T::c(-3.0) { T::ZERO } else if x < T::c(3.0) { g * (x / T::c(3.0) + T::c(0.5)) } else { g };
        rule where_(&x.le(-3.0), 0.0, where_(&x.lt(3.0), g * (x / 3.0 + 0.5), g)); on -4.0, 4.0;

    hidden hardshrink(x, lambd) = if x >= -lambd && x <= lambd { T::ZERO } else { x };
        input(x, g) fused if x >= -lambd && x <= lambd { T::ZERO } else { g };
        rule where_(&x.ge(-lambd).logical_and(&x.le(lambd)), 0.0, g); on -2.0, 2.0, 0.5;

    hidden softshrink(x, lambd) = if x > lambd { x - lambd } else if x < -lambd { x + lambd } else { x * T::ZERO };
        input(x, g) fused if x >= -lambd && x <= lambd { T::ZERO } else { g };
        rule where_(&x.ge(-lambd).logical_and(&x.le(lambd)), 0.0, g); on -2.0, 2.0, 0.5;

    /// `x - tanh(x)` (`torch.nn.functional.tanhshrink`).
    ///
    /// ```
    /// assert_eq!(tapegrad_ops::tanhshrink(&tapegrad_tape::Var::from(0.0)).item(), 0.0);
    /// ```
    function tanhshrink(x) = x - x.tanh();
        input(x, g) fused {
            let t = x.tanh();
            g * (t * t)
        };
        rule g * x.tanh().square(); on -2.0, 2.0;

    /// `x` where it is above a limit, else `value` (`torch.nn.functional.threshold`).
    ///
    /// ```
    /// assert_eq!(tapegrad_ops::threshold(&tapegrad_tape::Var::from(0.5), 1.0, 20.0).item(), 20.0);
    /// ```
    function threshold(x, limit, value) = if x <= limit { value } else { x };
        input(x, g) fused if x <= limit { T::ZERO } else { g };
        rule where_(&x.le(limit), 0.0, g); on -2.0, 2.0, 0.3, 5.0;
}

/// `x` between two bounds (`torch.nn.functional.hardtanh`), -1 and 1. Unlike that of
/// [`Var::clamp`], the gradient at a bound is zero.
///
/// # Panics
/// If the lower bound is above the upper one.
///
/// ```
/// assert_eq!(tapegrad_ops::hardtanh(&tapegrad_tape::Var::from(2.0)).item(), 1.0);
/// ```
#[track_caller]
pub fn hardtanh(x: &Var) -> Var {
    hardtanh_with(x, -1.0, 1.0)
}

/// [`hardtanh`] with other bounds.
///
/// # Panics
/// Same as [`hardtanh`].
#[track_caller]
pub fn hardtanh_with(x: &Var, min_val: f64, max_val: f64) -> Var {
    assert!(min_val <= max_val, "hardtanh: min_val = {min_val} cannot be greater than max_val = {max_val}");
    table::hardtanh.apply(x, [min_val, max_val, 0.0, 0.0])
}

/// Zero between `-lambd` and `lambd`, else `x` (`torch.nn.functional.hardshrink`); `lambd` is 0.5.
///
/// ```
/// assert_eq!(tapegrad_ops::hardshrink(&tapegrad_tape::Var::from(0.4)).item(), 0.0);
/// ```
#[track_caller]
pub fn hardshrink(x: &Var) -> Var {
    hardshrink_with(x, 0.5)
}

/// [`hardshrink`] with another `lambd`.
#[track_caller]
pub fn hardshrink_with(x: &Var, lambd: f64) -> Var {
    table::hardshrink.apply(x, [lambd, 0.0, 0.0, 0.0])
}

/// `x` moved toward zero by `lambd`, and zero where its magnitude is smaller (`torch.nn.functional.softshrink`);
/// `lambd` is 0.5.
///
/// # Panics
/// If `lambd` is negative.
///
/// ```
/// assert_eq!(tapegrad_ops::softshrink(&tapegrad_tape::Var::from(2.0)).item(), 1.5);
/// ```
#[track_caller]
pub fn softshrink(x: &Var) -> Var {
    softshrink_with(x, 0.5)
}

/// [`softshrink`] with another `lambd`.
///
/// # Panics
/// Same as [`softshrink`].
#[track_caller]
pub fn softshrink_with(x: &Var, lambd: f64) -> Var {
    assert!(lambd >= 0.0, "softshrink: lambd = {lambd} cannot be negative");
    table::softshrink.apply(x, [lambd, 0.0, 0.0, 0.0])
}
