//! Sine, cosine and the angle of a point for rows of `f32`, in vector lanes. Accurate to two units in the last place.

use std::f32::consts::{FRAC_PI_2, PI};

/// Beyond this an angle is reduced by the standard library, which has as many digits of pi as it takes.
const FAR: f32 = 1e6;
/// Adding 1.5 * 2^52 rounds to an integer, which is then in the lowest bits.
const ROUND: f64 = 6_755_399_441_055_744.0;
/// pi / 2 in two parts; the high one has 33 bits, so that its product with a small integer is exact.
const HALF_PI_HIGH: f64 = 1.570_796_326_734_125_6;
const HALF_PI_LOW: f64 = 6.077_100_506_506_192e-11;
/// The elements that are computed at once; if one of them is far from zero, each is computed by itself.
const BLOCK: usize = 128;

/// The sine of `x` plus `quarters` right angles, for `x` up to [`FAR`].
#[inline(always)]
fn sine(x: f32, quarters: u32) -> f32 {
    let wide = f64::from(x);
    let shifted = wide * std::f64::consts::FRAC_2_PI + ROUND;
    let n = shifted - ROUND;
    let r = ((wide - n * HALF_PI_HIGH) - n * HALF_PI_LOW) as f32;
    let quadrant = (shifted.to_bits() as u32).wrapping_add(quarters);
    let z = r * r;
    // The polynomials with the least error for |r| <= pi / 4.
    let sine = r + r * z * (-0.166_666_55 + z * (0.008_332_176 - z * 0.000_195_169_76));
    let cosine = 1.0 - 0.5 * z + z * z * (0.041_666_646 + z * (-0.001_388_736_4 + z * 2.443_809e-5));
    let y = if quadrant & 1 == 0 { sine } else { cosine };
    f32::from_bits(y.to_bits() ^ ((quadrant & 2) << 30))
}

macro_rules! rows {
    ($($(#[$meta:meta])* $name:ident, $block:ident: $quarters:literal, $far:path;)*) => {$(
        $(#[$meta])*
        pub(crate) fn $name(out: &mut [f32], x: &[f32]) {
            for (out, x) in out.chunks_mut(BLOCK).zip(x.chunks(BLOCK)) {
                if !$block(out, x) {
                    out.iter_mut().zip(x).for_each(|(o, &x)| *o = $far(x));
                }
            }
        }

        crate::multiversion! {
            /// False if an element is too far from zero.
            fn $block(out: &mut [f32], x: &[f32]) -> bool {
                let x = &x[..out.len()];
                let mut near = true;
                for i in 0..x.len() {
                    let y = sine(x[i], $quarters);
                    // The sine of zero keeps its sign.
                    out[i] = if $quarters == 0 && x[i] == 0.0 { x[i] } else { y };
                    // (Infinities and NaN give NaN.)
                    near &= !((x[i].abs() > FAR) & (x[i].abs() < f32::INFINITY));
                }
                near
            }
        }
    )*};
}

rows! {
    /// `torch.sin`
    sin, sin_block: 0, f32::sin;
    /// `torch.cos`
    cos, cos_block: 1, f32::cos;
}

/// The angle of the point `(x, y)`.
#[inline(always)]
fn angle(y: f32, x: f32) -> f32 {
    let (a, b) = (y.abs(), x.abs());
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    let t = low / high;
    // Also of two infinities, or of two zeros.
    let t = if low == high { 1.0 } else { t };
    let t = if (low == 0.0) & (high == 0.0) { 0.0 } else { t };
    let u = t * t;
    // The polynomial with the least relative error for t in [0, 1].
    let p = 0.010_726_837 - u * 0.001_753_906_5;
    let p = 0.057_551_9 + u * (-0.030_804_398 + u * p);
    let p = 0.109_420_27 + u * (-0.083_773_04 + u * p);
    let p = 0.199_982_66 + u * (-0.142_619_33 + u * p);
    let r = t + t * u * (-0.333_332_84 + u * p);
    let r = if a > b { FRAC_PI_2 - r } else { r };
    let r = if x.is_sign_negative() { PI - r } else { r };
    r.copysign(y)
}

crate::multiversion! {
    /// `torch.atan2`
    pub(crate) fn atan2(out: &mut [f32], y: &[f32], x: &[f32]) {
        let (y, x) = (&y[..out.len()], &x[..out.len()]);
        for i in 0..out.len() {
            out[i] = angle(y[i], x[i]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error in units in the last place of the exact value.
    fn units(got: f32, want: f64) -> f64 {
        if got.is_nan() || want.is_nan() {
            return if got.is_nan() && want.is_nan() { 0.0 } else { f64::INFINITY };
        }
        let unit = f64::from((want as f32).abs().max(f32::MIN_POSITIVE)) * f64::from(f32::EPSILON);
        (f64::from(got) - want).abs() / unit
    }

    #[test]
    fn angles_near_and_far() {
        let spread = (0..400_000u32).map(|i| f32::from_bits(i.wrapping_mul(10_737)));
        let near = (0..200_000).map(|i| (i as f32 - 100_000.0) * 1.1e-3);
        let ends = [0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, FAR, -FAR, 1.000_1e6, f32::MAX];
        let multiples = (-2000..2000).map(|k| (f64::from(k) * std::f64::consts::FRAC_PI_2) as f32);
        for list in [spread.collect::<Vec<_>>(), near.collect(), ends.to_vec(), multiples.collect()] {
            let (mut s, mut c) = (vec![0.0; list.len()], vec![0.0; list.len()]);
            sin(&mut s, &list);
            cos(&mut c, &list);
            for ((&x, &s), &c) in list.iter().zip(&s).zip(&c) {
                let wide = f64::from(x);
                assert!(units(s, wide.sin()) <= 2.0, "sin({x:e}) = {s:e}, should be {:e}", wide.sin());
                assert!(units(c, wide.cos()) <= 2.0, "cos({x:e}) = {c:e}, should be {:e}", wide.cos());
            }
        }
        let mut zero = [1.0];
        sin(&mut zero, &[-0.0]);
        assert!(zero[0] == 0.0 && zero[0].is_sign_negative());
    }

    #[test]
    fn points_in_all_directions() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let mut list = vec![0.0, 1e-40, 1e-30, 0.1, 0.41, 0.42, 1.0, 3.0, 1e10, f32::MAX, inf, nan];
        list.extend((1..300).map(|i| i as f32 / 97.0));
        list.extend(list.clone().iter().map(|x| -x));
        for &y in &list {
            let mut out = vec![0.0; list.len()];
            atan2(&mut out, &vec![y; list.len()], &list);
            for (&x, &r) in list.iter().zip(&out) {
                let want = f64::from(y).atan2(f64::from(x));
                assert!(units(r, want) <= 3.0, "atan2({y:e}, {x:e}) = {r:e}, should be {want:e}");
                assert!(
                    want.is_nan() || r.is_sign_negative() == want.is_sign_negative(),
                    "atan2({y:e}, {x:e})"
                );
            }
        }
    }
}
