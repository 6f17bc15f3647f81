//! Single numbers of laws other than the uniform and the normal one. All functions are `libm`'s.

use super::Generator;

impl Generator {
    /// A number in `(0, 1)`, both ends excluded, with 52 random bits.
    fn next_inner(&mut self) -> f64 {
        ((self.next_u64() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }

    /// A positive number of the exponential distribution with rate 1.
    pub fn next_exponential(&mut self) -> f64 {
        -libm::log(self.next_inner())
    }

    /// A number of the standard Gumbel distribution: the largest of many exponential numbers, less the logarithm of how many.
    pub fn next_gumbel(&mut self) -> f64 {
        -libm::log(self.next_exponential())
    }

    /// The number of independent trials up to the first success, at least 1, where each succeeds with probability `p` in
    /// `(0, 1)`.
    pub(super) fn next_geometric(&mut self, p: f64) -> f64 {
        (libm::log(self.next_inner()) / libm::log1p(-p)).ceil().max(1.0)
    }

    /// A number of the standard Cauchy distribution.
    pub(super) fn next_cauchy(&mut self) -> f64 {
        libm::tan(std::f64::consts::PI * (self.next_inner() - 0.5))
    }

    /// The natural logarithm of a number of the gamma distribution with shape `a` and rate 1, which may be too small for
    /// the number itself (Marsaglia and Tsang 2000, "A simple method for generating gamma variables").
    fn next_log_gamma(&mut self, a: f64) -> f64 {
        if a < 1.0 {
            let log_u = libm::log(1.0 - self.next_f64());
            return self.next_log_gamma(a + 1.0) + log_u / a;
        }
        libm::log(self.next_gamma(a))
    }

    /// A number of the gamma distribution with shape `a` and rate 1 (Marsaglia and Tsang 2000, "A simple method for
    /// generating gamma variables"). For shapes near zero it can underflow to zero.
    ///
    /// # Panics
    /// If `a` is not positive.
    #[track_caller]
    pub fn next_gamma(&mut self, a: f64) -> f64 {
        assert!(a > 0.0, "next_gamma: the shape has to be positive, got {a}");
        if a < 1.0 {
            let u = 1.0 - self.next_f64();
            return self.next_gamma(a + 1.0) * libm::pow(u, 1.0 / a);
        }
        let d = a - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.next_normal();
            let v = 1.0 + c * x;
            let v = v * v * v;
            let u = 1.0 - self.next_f64();
            if v > 0.0 && libm::log(u) < 0.5 * x * x + d - d * v + d * libm::log(v) {
                return d * v;
            }
        }
    }

    /// A point of the Dirichlet distribution with these concentrations: positive shares whose sum is 1.
    ///
    /// # Panics
    /// If a concentration is not positive.
    #[track_caller]
    pub fn next_dirichlet(&mut self, concentration: &[f64], out: &mut [f64]) {
        if let Some(bad) = concentration.iter().find(|&&a| a.is_nan() || a <= 0.0) {
            panic!("next_dirichlet: the concentrations have to be positive, got {bad}");
        }
        // By logarithms: for small concentrations all gamma variables may be too small for an `f64`.
        let mut largest = f64::NEG_INFINITY;
        for (out, &a) in out.iter_mut().zip(concentration) {
            *out = self.next_log_gamma(a);
            largest = largest.max(*out);
        }
        out.iter_mut().for_each(|v| *v = libm::exp(*v - largest));
        let sum: f64 = out.iter().sum();
        out.iter_mut().for_each(|v| *v /= sum);
    }

    /// A count of the Poisson distribution: products of uniform numbers for small rates (Knuth), and transformed rejection
    /// for rates from 10 on (Hörmann 1993, "The transformed rejection method for generating Poisson random variables").
    pub(super) fn next_poisson(&mut self, rate: f64) -> f64 {
        if rate < 10.0 {
            let limit = libm::exp(-rate);
            let (mut count, mut product) = (0.0, self.next_inner());
            while product > limit {
                count += 1.0;
                product *= self.next_inner();
            }
            return count;
        }
        let log_rate = libm::log(rate);
        let b = 0.931 + 2.53 * rate.sqrt();
        let a = -0.059 + 0.02483 * b;
        let inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
        let v_r = 0.9277 - 3.6224 / (b - 2.0);
        loop {
            let u = self.next_inner() - 0.5;
            let v = self.next_inner();
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + rate + 0.43).floor();
            if us >= 0.07 && v <= v_r {
                return k;
            }
            if k < 0.0 || (us < 0.013 && v > us) {
                continue;
            }
            let density = k * log_rate - rate - libm::lgamma(k + 1.0);
            if libm::log(v * inverse_alpha / (a / (us * us) + b)) <= density {
                return k;
            }
        }
    }
}
