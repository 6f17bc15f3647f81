//! What is left of quotients of `f32`, exactly.

/// The elements that are computed at once; if the quotient of one of them is too large, each is computed by itself.
const BLOCK: usize = 128;

/// What is left of the quotient rounded toward zero of two `f32`, and whether that is exact: the quotient must be below
/// 2^29, since the product of an `f32` and a number of 29 bits is exact in `f64`, and so is the difference.
#[inline(always)]
pub(crate) fn near_rest(x: f64, y: f64) -> (f64, bool) {
    let quotient = (x / y).trunc();
    let off = x - quotient * y;
    // Rounding may have taken the quotient up to an integer.
    let off = if (off != 0.0) & ((off < 0.0) != (x < 0.0)) { off + y.abs().copysign(x) } else { off };
    (off.copysign(x), (quotient.abs() < (1 << 29) as f64) & (y.abs() <= f64::from(f32::MAX)))
}

/// The sign of the divisor, as Python's `%` has it.
#[inline(always)]
pub(crate) fn with_divisors_sign<T: crate::Float>(rest: T, divisor: T) -> T {
    // Without a branch: the signs may be random.
    if (rest != T::ZERO) & ((rest < T::ZERO) != (divisor < T::ZERO)) { rest + divisor } else { rest }
}

macro_rules! rows {
    ($($(#[$meta:meta])* $name:ident, $block:ident: |$rest:ident, $y:ident| $f:expr;)*) => {$(
        $(#[$meta])*
        pub(crate) fn $name(out: &mut [f32], a: &[f32], b: &[f32]) {
            let blocks = out.chunks_mut(BLOCK).zip(a.chunks(BLOCK)).zip(b.chunks(BLOCK));
            for ((out, a), b) in blocks {
                if !$block(out, a, b) {
                    for ((out, &a), &$y) in out.iter_mut().zip(a).zip(b) {
                        let $rest = a % $y;
                        *out = $f;
                    }
                }
            }
        }

        crate::multiversion! {
            fn $block(out: &mut [f32], a: &[f32], b: &[f32]) -> bool {
                let mut exact = true;
                for ((out, &a), &$y) in out.iter_mut().zip(a).zip(b) {
                    let (rest, near) = near_rest(a.into(), $y.into());
                    let $rest = rest as f32;
                    *out = $f;
                    exact &= near;
                }
                exact
            }
        }
    )*};
}

rows! {
    /// `torch.fmod`
    fmod, fmod_block: |rest, y| { let _ = y; rest };
    /// `torch.remainder`
    remainder, remainder_block: |rest, y| with_divisors_sign(rest, y);
}
