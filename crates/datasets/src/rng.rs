//! Random numbers that depend on what they are for and on nothing else.
//!
//! Each use takes its own ChaCha stream whose key spells out the seed, the purpose and two counters (such as epoch and
//! index). So a sample is the same whichever thread draws it, in whatever order.

use rand::rngs::ChaCha8Rng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// The random numbers that a transform draws for one sample.
#[derive(Debug)]
pub struct SampleRng(ChaCha8Rng);

impl SampleRng {
    /// The stream of `seed` for `purpose` (at most eight characters are told apart) and two counters.
    ///
    /// ```
    /// use datasets::SampleRng;
    /// let mut a = SampleRng::new(0, "crop", 3, 14);
    /// let mut b = SampleRng::new(0, "crop", 3, 14);
    /// assert_eq!(a.uniform(0.0, 1.0), b.uniform(0.0, 1.0));
    /// ```
    pub fn new(seed: u64, purpose: &str, a: u64, b: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let name = &purpose.as_bytes()[..purpose.len().min(8)];
        key[8..8 + name.len()].copy_from_slice(name);
        key[16..24].copy_from_slice(&a.to_le_bytes());
        key[24..].copy_from_slice(&b.to_le_bytes());
        SampleRng(ChaCha8Rng::from_seed(key))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 32 random bits.
    pub fn bits32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A number from `low` (included) to `high` (excluded).
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.0.random::<f32>()
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.0.random::<f32>() < p
    }

    /// A whole number below `n`, each equally likely.
    ///
    /// # Panics
    /// If `n` is zero.
    #[track_caller]
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "below: there is no number below 0");
        // 64 bits times n: the bias is under n / 2^64.
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// A whole number from `low` to `high`, both included.
    pub fn between(&mut self, low: isize, high: isize) -> isize {
        low + self.below((high - low + 1) as usize) as isize
    }

    /// A normal number of mean 0 and variance 1.
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.0.random::<f64>()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.0.random::<f64>()).cos()) as f32
    }

    /// A gamma-distributed number of shape `a` and scale 1 (the method of Marsaglia and Tsang).
    fn gamma(&mut self, a: f64) -> f64 {
        if a < 1.0 {
            let u: f64 = 1.0 - self.0.random::<f64>();
            return self.gamma(a + 1.0) * u.powf(1.0 / a);
        }
        let d = a - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = f64::from(self.normal());
            let v = (1.0 + c * x).powi(3);
            let u: f64 = 1.0 - self.0.random::<f64>();
            if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// A number from the Beta(a, b) distribution, between 0 and 1.
    ///
    /// # Panics
    /// If `a` or `b` is not positive.
    #[track_caller]
    pub fn beta(&mut self, a: f64, b: f64) -> f64 {
        assert!(a > 0.0 && b > 0.0, "beta: parameters {a} and {b} must be positive");
        let (x, y) = (self.gamma(a), self.gamma(b));
        // Both can underflow to zero for tiny parameters.
        if x + y > 0.0 { x / (x + y) } else { f64::from(u8::from(self.0.random::<bool>())) }
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i + 1);
            items.swap(i, j);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(n: usize, mut draw: impl FnMut() -> f64) -> (f64, f64) {
        let values: Vec<f64> = (0..n).map(|_| draw()).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64)
    }

    #[test]
    fn streams_differ_by_every_part_of_the_key() {
        let first = |seed, purpose, a, b| SampleRng::new(seed, purpose, a, b).bits();
        let all = [
            first(0, "x", 0, 0),
            first(1, "x", 0, 0),
            first(0, "y", 0, 0),
            first(0, "x", 1, 0),
            first(0, "x", 0, 1),
        ];
        for i in 0..all.len() {
            assert!(!all[..i].contains(&all[i]));
        }
    }

    #[test]
    fn moments() {
        let mut rng = SampleRng::new(0, "moments", 0, 0);
        // Five standard errors each.
        let (m, v) = mean(20000, || rng.normal().into());
        assert!(m.abs() < 0.036 && (v - 1.0).abs() < 0.05, "{m} {v}");
        for (a, b) in [(0.2, 0.2), (1.0, 1.0), (2.0, 5.0)] {
            let (m, v) = mean(20000, || rng.beta(a, b));
            let sum = a + b;
            let variance = a * b / (sum * sum * (sum + 1.0));
            assert!((m - a / sum).abs() < 5.0 * (variance / 20000.0).sqrt(), "{a} {b}: {m}");
            assert!((v - variance).abs() < 0.05 * variance, "{a} {b}: {v}");
        }
    }

    #[test]
    fn shuffle_keeps_every_item() {
        let mut items: Vec<usize> = (0..100).collect();
        SampleRng::new(7, "shuffle", 0, 0).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
