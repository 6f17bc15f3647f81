//! The Beta distribution.
//!
//! The one in `rand_distr` uses the platform's functions as soon as any crate of the program enables them in
//! `num-traits`, and these differ between machines in the last digit.

use rand::RngExt;
use tapegrad_tape::Generator;

/// A number from the Beta(a, b) distribution, between 0 and 1. The parameters are positive.
pub(super) fn beta(rng: &mut Generator, a: f64, b: f64) -> f64 {
    let (x, y) = (rng.next_gamma(a), rng.next_gamma(b));
    // Both can underflow to zero for tiny parameters.
    if x + y > 0.0 { x / (x + y) } else { f64::from(u8::from(rng.random::<bool>())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let mut rng = Generator::stream(0, "moments", [0, 0]);
        for (a, b) in [(0.2, 0.2), (1.0, 1.0), (2.0, 5.0)] {
            let values: Vec<f64> = (0..20000).map(|_| beta(&mut rng, a, b)).collect();
            let m = values.iter().sum::<f64>() / 20000.0;
            let v = values.iter().map(|v| (v - m).powi(2)).sum::<f64>() / 20000.0;
            let sum = a + b;
            let variance = a * b / (sum * sum * (sum + 1.0));
            // Five standard errors.
            assert!((m - a / sum).abs() < 5.0 * (variance / 20000.0).sqrt(), "{a} {b}: {m}");
            assert!((v - variance).abs() < 0.05 * variance, "{a} {b}: {v}");
        }
    }
}
