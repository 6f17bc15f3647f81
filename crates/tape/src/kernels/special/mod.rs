//! Special functions in double precision, accurate to a few units in the last place unless said otherwise.

mod series;
pub(crate) mod short;

use series::{BERNOULLI, DIGAMMA, ERFCX, I0_FAR, I0_NEAR, I1_FAR, I1_NEAR};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI, SQRT_2};

/// A Chebyshev series at `t` in [-1, 1], by Clenshaw's recurrence.
#[inline]
fn chebyshev(coefficients: &[f64], t: f64) -> f64 {
    let (mut a, mut b) = (0.0, 0.0);
    for &c in coefficients[1..].iter().rev() {
        (a, b) = (c + 2.0 * t * a - b, a);
    }
    coefficients[0] + t * a - b
}

/// `e^(x^2 / scale)`, where the square is not rounded before it is exponentiated.
fn exp_square(x: f64, scale: f64) -> f64 {
    // 27 bits, whose square is exact.
    let high = f64::from_bits(x.to_bits() & (!0 << 27));
    f64::exp(high * high / scale) * f64::exp((x - high) * (x + high) / scale)
}

/// `e^(x^2) erfc(x)`.
pub(crate) fn erfcx(x: f64) -> f64 {
    if x.is_nan() {
        x
    } else if x < -26.7 {
        f64::INFINITY
    } else if x < 0.0 {
        2.0 * exp_square(x, 1.0) - erfcx(-x)
    } else if x > 1e8 {
        FRAC_2_SQRT_PI / 2.0 / x
    } else {
        chebyshev(&ERFCX, (x - 4.0) / (x + 4.0)) / (1.0 + 2.0 * x)
    }
}

/// The standard normal distribution function.
pub(crate) fn ndtr(x: f64) -> f64 {
    if x < -1.0 {
        0.5 * erfcx(-x * FRAC_1_SQRT_2) * exp_square(x.max(-40.0), -2.0)
    } else {
        0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
    }
}

/// The logarithm of the standard normal distribution function.
pub(crate) fn log_ndtr(x: f64) -> f64 {
    if x < -1.0 { f64::ln(erfcx(-x * FRAC_1_SQRT_2) / 2.0) - x * x / 2.0 } else { f64::ln_1p(-ndtr(-x)) }
}

/// The inverse of the error function.
pub(crate) fn erfinv(y: f64) -> f64 {
    let size = y.abs();
    if size <= 0.5 {
        // The first terms of the Taylor series, then Halley's method.
        let z = PI * y * y;
        let mut x = y / FRAC_2_SQRT_PI * (1.0 + z * (1.0 / 12.0 + z * (7.0 / 480.0 + z * (127.0 / 40320.0))));
        for _ in 0..2 {
            let step = (libm::erf(x) - y) / (FRAC_2_SQRT_PI * f64::exp(-x * x));
            x -= step / (1.0 + x * step);
        }
        x
    } else if size < 1.0 {
        erfc_inverse(1.0 - size).copysign(y)
    } else if size == 1.0 {
        f64::INFINITY.copysign(y)
    } else {
        f64::NAN
    }
}

/// The inverse of the complementary error function on (0, 1/2].
fn erfc_inverse(q: f64) -> f64 {
    // Winitzki's approximation, within 0.2%; then Halley's method on the logarithm, which is nearly a parabola.
    let log = f64::ln(q);
    let both = log + f64::ln_1p(1.0 - q);
    let t = 2.0 / (PI * 0.147) + both / 2.0;
    let mut x = (((t * t - both / 0.147).sqrt()) - t).sqrt();
    for _ in 0..2 {
        let scaled = erfcx(x);
        let slope = -FRAC_2_SQRT_PI / scaled;
        let step = (f64::ln(scaled) - x * x - log) / slope;
        x -= step / (1.0 + step * (2.0 * x + slope) / 2.0);
    }
    x
}

/// The inverse of the standard normal distribution function.
pub(crate) fn ndtri(p: f64) -> f64 {
    let off = p - 0.5;
    if off.abs() <= 0.25 {
        SQRT_2 * erfinv(2.0 * off)
    } else if p > 0.0 && p < 1.0 {
        (SQRT_2 * erfc_inverse(2.0 * p.min(1.0 - p))).copysign(off)
    } else if p == 0.0 || p == 1.0 {
        f64::INFINITY.copysign(off)
    } else {
        f64::NAN
    }
}

/// `e^-|x| I0(x)`, the modified Bessel function of order zero, scaled.
pub(crate) fn i0e(x: f64) -> f64 {
    let a = x.abs();
    if a <= 8.0 { chebyshev(&I0_NEAR, a / 4.0 - 1.0) } else { chebyshev(&I0_FAR, 16.0 / a - 1.0) / a.sqrt() }
}

/// `e^-|x| I1(x)`, the modified Bessel function of order one, scaled.
pub(crate) fn i1e(x: f64) -> f64 {
    let a = x.abs();
    if a <= 8.0 {
        x * chebyshev(&I1_NEAR, a / 4.0 - 1.0)
    } else {
        (chebyshev(&I1_FAR, 16.0 / a - 1.0) / a.sqrt()).copysign(x)
    }
}

/// The modified Bessel function of order zero.
pub(crate) fn i0(x: f64) -> f64 {
    unscaled(i0e(x), x)
}

/// The modified Bessel function of order one.
pub(crate) fn i1(x: f64) -> f64 {
    unscaled(i1e(x), x)
}

/// `y e^|x|`, in two steps that overflow only if the result does.
fn unscaled(y: f64, x: f64) -> f64 {
    if x.is_infinite() {
        return f64::INFINITY.copysign(y);
    }
    let half = f64::exp(x.abs() / 2.0);
    y * half * half
}

/// `pi / tan(pi x)` for a number that is no integer.
fn pi_cotangent(x: f64) -> f64 {
    PI / f64::tan(PI * (x - x.round_ties_even()))
}

/// The root of digamma, in two parts.
const ROOT: [f64; 2] = [1.461_632_144_968_362_3, 9.549_995_429_965_697e-17];

/// The logarithm of the absolute value of the gamma function.
pub fn ln_gamma(x: f64) -> f64 {
    libm::lgamma(x)
}

/// The logarithmic derivative of the gamma function. Near its negative roots the error is absolute.
pub fn digamma(x: f64) -> f64 {
    if x == 0.0 {
        return f64::INFINITY.copysign(-x);
    }
    if x < 0.0 {
        let pole = x == x.trunc();
        return if pole { f64::NAN } else { digamma(1.0 - x) - pi_cotangent(x) };
    }
    if x < 1.0 {
        return digamma(x + 1.0) - 1.0 / x;
    }
    if x < 10.0 {
        let (mut z, mut sum) = (x, 0.0);
        while z > 2.0 {
            z -= 1.0;
            sum += 1.0 / z;
        }
        return sum + ((z - ROOT[0]) - ROOT[1]) * chebyshev(&DIGAMMA, 2.0 * z - 3.0);
    }
    // Stirling's series.
    const TERMS: [f64; 7] =
        [1.0 / 12.0, -1.0 / 120.0, 1.0 / 252.0, -1.0 / 240.0, 1.0 / 132.0, -691.0 / 32760.0, 1.0 / 12.0];
    let z = 1.0 / (x * x);
    let tail = TERMS.iter().rev().fold(0.0, |sum, c| sum * z + c) * z;
    f64::ln(x) - 0.5 / x - tail
}

/// The derivative of order `n` of digamma; of order zero, digamma itself. Near roots the error is absolute.
pub(crate) fn polygamma(n: u32, x: f64) -> f64 {
    if n == 0 {
        return digamma(x);
    }
    if n == 1 && x < 0.0 && x == x.floor() {
        // As in PyTorch, a pole is the square of the cosecant of a rounded multiple of pi.
        return (PI / f64::sin(PI * x)).powi(2);
    }
    let size = libm::tgamma(f64::from(n) + 1.0) * zeta(n + 1, x);
    if n.is_multiple_of(2) { -size } else { size }
}

/// The Hurwitz zeta function: the sum of `(q + k)^-s` for all `k` from zero on, `s` at least 2.
fn zeta(s: u32, q: f64) -> f64 {
    if q <= 0.0 {
        if q == q.floor() {
            return f64::INFINITY;
        }
        // The sum over all integers is periodic; what lies below `q` is another such sum.
        let part = q - q.floor();
        let other = zeta(s, 1.0 - part) - zeta(s, 1.0 - q);
        return if s.is_multiple_of(2) { zeta(s, part) + other } else { zeta(s, part) - other };
    }
    if q == f64::INFINITY {
        return 0.0;
    }
    // Some terms, and the rest by the formula of Euler and Maclaurin.
    let order = f64::from(s);
    let (mut a, mut head) = (q, 0.0);
    while a < 8.0 + order {
        head += inverse_power(a, s);
        a += 1.0;
    }
    let last = inverse_power(a, s);
    let square = 1.0 / (a * a);
    let mut term = order * last / a;
    let mut tail = 0.0;
    for (j, c) in (0..).zip(BERNOULLI) {
        tail += c * term;
        let k = f64::from(2 * j);
        term *= (order + k + 1.0) * (order + k + 2.0) * square;
    }
    head + (last * a / (order - 1.0) + 0.5 * last + tail)
}

/// `x^-n`
fn inverse_power(x: f64, n: u32) -> f64 {
    let inverse = 1.0 / x;
    (1..n).fold(inverse, |power, _| power * inverse)
}

/// `sin(pi x) / (pi x)`, 1 at zero.
pub(crate) fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { sin_pi(x) / (PI * x) }
}

/// The derivative of [`sinc`].
pub(crate) fn sinc_slope(x: f64) -> f64 {
    let z = PI * x;
    if z.abs() < 0.5 {
        // The difference of nearly equal numbers, as a series.
        let w = z * z;
        let mut sum = 0.0;
        for k in (1..9).rev() {
            let k = f64::from(k);
            sum = 1.0 - w / ((2.0 * k) * (2.0 * k + 3.0)) * sum;
        }
        return -PI * z / 3.0 * sum;
    }
    (cos_pi(x) - sin_pi(x) / z) / x
}

fn sin_pi(x: f64) -> f64 {
    let n = x.round_ties_even();
    let sine = f64::sin(PI * (x - n));
    if n % 2.0 == 0.0 { sine } else { -sine }
}

fn cos_pi(x: f64) -> f64 {
    let n = x.round_ties_even();
    let cosine = f64::cos(PI * (x - n));
    if n % 2.0 == 0.0 { cosine } else { -cosine }
}

#[cfg(test)]
mod tests;
