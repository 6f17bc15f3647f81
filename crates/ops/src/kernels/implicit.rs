//! How a random number moves with the parameter of its distribution where its probability stays: the derivative of the
//! distribution function by the parameter, divided by the density, with the opposite sign.

use tapegrad_tape::kernels::special::{digamma, ln_gamma};

/// A number and its derivative.
#[derive(Clone, Copy)]
struct Dual(f64, f64);

impl Dual {
    fn constant(v: f64) -> Dual {
        Dual(v, 0.0)
    }
    fn plus(self, v: f64) -> Dual {
        Dual(self.0 + v, self.1)
    }
    fn times(self, v: f64) -> Dual {
        Dual(self.0 * v, self.1 * v)
    }
    fn add(self, o: Dual) -> Dual {
        Dual(self.0 + o.0, self.1 + o.1)
    }
    fn mul(self, o: Dual) -> Dual {
        Dual(self.0 * o.0, self.0 * o.1 + self.1 * o.0)
    }
    fn div(self, o: Dual) -> Dual {
        let q = self.0 / o.0;
        Dual(q, (self.1 - q * o.1) / o.0)
    }
    /// Not zero, so that it can be divided by.
    fn nonzero(self) -> Dual {
        if self.0.abs() < 1e-300 { Dual(1e-300, self.1) } else { self }
    }
}

/// More steps than any parameters need for which the series are used.
const STEPS: u32 = 100_000;

/// A continued fraction `1 / (1 + ...)`-like product by Lentz's method; `next` gives the partial numerator and denominator
/// of each step.
fn lentz(first: Dual, mut next: impl FnMut(u32) -> (Dual, Dual)) -> Dual {
    let one = Dual::constant(1.0);
    let mut d = one.div(first.nonzero());
    let (mut c, mut h) = (Dual::constant(1e300), d);
    for i in 1..STEPS {
        let (numerator, denominator) = next(i);
        d = one.div(denominator.add(numerator.mul(d)).nonzero());
        c = denominator.add(numerator.div(c)).nonzero();
        let factor = c.mul(d);
        h = h.mul(factor);
        if (factor.0 - 1.0).abs() < 1e-16 && factor.1.abs() <= 1e-16 * (h.1 / h.0).abs() {
            break;
        }
    }
    h
}

/// `P(a, x) / (x^a e^-x / Gamma(a + 1))` and its derivative by `a`, for `x` up to about `a + 1`.
fn lower_series(a: f64, x: f64) -> Dual {
    let (mut term, mut harmonic) = (1.0, 0.0);
    let mut sum = Dual(1.0, 0.0);
    for n in 1..STEPS {
        let k = a + f64::from(n);
        term *= x / k;
        harmonic += 1.0 / k;
        sum = Dual(sum.0 + term, sum.1 - term * harmonic);
        if term * harmonic.max(1.0) < 1e-17 * sum.0.min(sum.1.abs()) {
            break;
        }
    }
    sum
}

/// `Q(a, x) / (x^a e^-x / Gamma(a))` and its derivative by `a`, for `x` from about `a + 1` on.
fn upper_fraction(a: f64, x: f64) -> Dual {
    let a = Dual(a, 1.0);
    let start = a.times(-1.0).plus(x + 1.0);
    lentz(start, |i| {
        let i = f64::from(i);
        (a.plus(-i).times(i), start.plus(2.0 * i))
    })
}

/// The derivative of a gamma-distributed number `x` of rate 1 by its shape `a`.
pub(crate) fn gamma_derivative(a: f64, x: f64) -> f64 {
    if x <= 0.0 || !x.is_finite() {
        return if x == 0.0 { 0.0 } else { f64::NAN };
    }
    if a > 1e5 {
        return large_gamma_derivative(a, x);
    }
    if x < a + 1.0 {
        let s = lower_series(a, x);
        -x / a * (s.0 * (x.ln() - digamma(a + 1.0)) + s.1)
    } else {
        let q = upper_fraction(a, x);
        x * (q.0 * (x.ln() - digamma(a)) + q.1)
    }
}

/// By the expansion of Cornish and Fisher of `x` in the normal number `z` of the same probability.
fn large_gamma_derivative(a: f64, x: f64) -> f64 {
    let root = a.sqrt();
    let mut z = (x - a) / root;
    for _ in 0..4 {
        let value = a + root * z + (z * z - 1.0) / 3.0 + (z * z - 7.0) * z / (36.0 * root);
        let slope = root + 2.0 * z / 3.0 + (3.0 * z * z - 7.0) / (36.0 * root);
        z -= (value - x) / slope;
    }
    1.0 + z / (2.0 * root) - (z * z - 7.0) * z / (72.0 * a * root)
}

/// The regularized lower incomplete gamma function.
pub(crate) fn gamma_cdf(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return if x.is_nan() { x } else { 0.0 };
    }
    if x == f64::INFINITY {
        return 1.0;
    }
    let log = a * x.ln() - x;
    if x < a + 1.0 {
        (log - ln_gamma(a + 1.0)).exp() * lower_series(a, x).0
    } else {
        1.0 - (log - ln_gamma(a)).exp() * upper_fraction(a, x).0
    }
}

/// The density of the gamma distribution of rate 1.
pub(crate) fn gamma_density(a: f64, x: f64) -> f64 {
    ((a - 1.0) * x.ln() - x - ln_gamma(a)).exp()
}

/// The continued fraction of the incomplete beta function.
fn beta_fraction(a: Dual, b: Dual, x: f64) -> Dual {
    // Even and odd partial numerators; all denominators are 1.
    let one = Dual::constant(1.0);
    let sum = a.add(b);
    lentz(one, |i| {
        let m = f64::from(i / 2);
        let numerator = if i % 2 == 0 {
            b.plus(-m).times(m * x).div(a.plus(2.0 * m - 1.0).mul(a.plus(2.0 * m)))
        } else {
            a.plus(m).mul(sum.plus(m)).times(-x).div(a.plus(2.0 * m).mul(a.plus(2.0 * m + 1.0)))
        };
        (numerator, one)
    })
}

/// The derivative of a number `x` of the Beta(`a`, `b`) distribution by `a`, divided by `1 - x`. `rest` is `1 - x`.
pub(crate) fn beta_derivative(a: f64, b: f64, x: f64, rest: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    let slope = x.ln() - digamma(a) + digamma(a + b);
    if x < (a + 1.0) / (a + b + 2.0) {
        let h = beta_fraction(Dual(a, 1.0), Dual::constant(b), x);
        -x / a * (h.0 * (slope - 1.0 / a) + h.1)
    } else {
        let h = beta_fraction(Dual::constant(b), Dual(a, 1.0), rest);
        x / b * (h.0 * slope + h.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `mpmath` with 40 digits: see `tools/distributions.py`.
    #[test]
    fn derivatives_with_many_digits() {
        for line in include_str!("../../tests/implicit.txt").lines() {
            let (law, numbers) = line.split_once(' ').unwrap();
            let n: Vec<f64> = numbers.split(' ').map(|v| v.parse().unwrap()).collect();
            let (found, expected) = match law {
                "gamma" => (gamma_derivative(n[0], n[1]), n[2]),
                "gamma_cdf" => (gamma_cdf(n[0], n[1]), n[2]),
                _ => (beta_derivative(n[0], n[1], n[2], 1.0 - n[2]), n[3] / (1.0 - n[2])),
            };
            assert!((found - expected).abs() <= 1e-9 * expected.abs() + 1e-300, "{line}: {found}");
        }
    }
}
