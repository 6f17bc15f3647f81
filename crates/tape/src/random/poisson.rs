//! `poisson`.

use super::bernoulli::each;
use super::{Generator, with_default_generator};
use crate::var::Var;

impl Var {
    /// Counts of the Poisson distribution whose rates are the elements, in the same shape and type (`torch.poisson`), from
    /// this thread's default generator. The gradient is zero, as in PyTorch.
    ///
    /// # Panics
    /// If the elements are not floating point, or one is negative, infinite or NaN.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let counts = Var::from_vec(vec![0f32, 3.0], 2).poisson().to_vec::<f32>();
    /// assert!(counts[0] == 0.0 && counts[1].fract() == 0.0);
    /// ```
    #[track_caller]
    pub fn poisson(&self) -> Var {
        with_default_generator(|g| self.poisson_with(g))
    }

    /// [`Var::poisson`] from a generator.
    ///
    /// # Panics
    /// Same as [`Var::poisson`].
    #[track_caller]
    pub fn poisson_with(&self, generator: &mut Generator) -> Var {
        let fits = |rate: f64| rate >= 0.0 && rate.is_finite();
        each("poisson", self, "a finite rate that is not negative", fits, |rate| generator.next_poisson(rate))
    }
}

#[cfg(test)]
mod unit {
    use crate::{Tensor, Var};

    #[test]
    fn the_gradient_is_zero_and_large_rates_are_drawn() {
        let rate = Var::parameter(Tensor::from_vec(vec![0.0, 1e15], 2));
        let counts = rate.poisson();
        counts.sum_all().backward();
        assert_eq!(rate.grad().unwrap().to_vec::<f64>(), [0.0, 0.0]);
        let large = counts.to_vec::<f64>()[1];
        assert!((large - 1e15).abs() < 6.0 * 1e15f64.sqrt(), "{large}");
    }

    #[test]
    #[should_panic(expected = "poisson: expected a finite rate that is not negative, but element 0 is -1")]
    fn a_negative_rate() {
        Var::from(-1.0).poisson();
    }
}
