//! `bernoulli`.

use super::{Generator, with_default_generator};
use crate::node::record;
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// Ones with the probabilities that the elements are, zeros otherwise, in the same shape and type (`torch.bernoulli`),
    /// from this thread's default generator. The gradient is zero, as in PyTorch.
    ///
    /// For one probability and a shape there is [`Generator::bernoulli`].
    ///
    /// # Panics
    /// If the elements are not floating point, or one is not in `[0, 1]`.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from_vec(vec![0f32, 1.0], 2).bernoulli().to_vec::<f32>(), [0.0, 1.0]);
    /// ```
    #[track_caller]
    pub fn bernoulli(&self) -> Var {
        with_default_generator(|g| self.bernoulli_with(g))
    }

    /// [`Var::bernoulli`] from a generator.
    ///
    /// # Panics
    /// Same as [`Var::bernoulli`].
    #[track_caller]
    pub fn bernoulli_with(&self, generator: &mut Generator) -> Var {
        let fits = |p: f64| (0.0..=1.0).contains(&p);
        each("bernoulli", self, "a probability in [0, 1]", fits, |p| {
            f64::from(u8::from(generator.next_f64() < p))
        })
    }
}

/// A random number for each element, in the type of the elements. Its derivative is zero.
#[track_caller]
pub(super) fn each(
    op: &'static str,
    x: &Var,
    expected: &str,
    fits: impl Fn(f64) -> bool,
    mut draw: impl FnMut(f64) -> f64,
) -> Var {
    assert!(x.dtype().is_float(), "{op}: the elements have to be floating point, not {}", x.dtype());
    let mut values = x.to_vec::<f64>();
    if let Some(i) = values.iter().position(|&v| !fits(v)) {
        panic!("{op}: expected {expected}, but element {i} is {}", values[i]);
    }
    values.iter_mut().for_each(|v| *v = draw(*v));
    let value = Tensor::from_vec(values, x.shape()).cast(x.dtype());
    record(op, [x], value, |c| [Some(c.grad().zeros_like())])
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn the_gradient_is_zero() {
        let p = Var::parameter(Tensor::from_vec(vec![0.3, 0.9], 2));
        p.bernoulli().sum_all().backward();
        assert_eq!(p.grad().unwrap().to_vec::<f64>(), [0.0, 0.0]);
        assert_eq!(p.cast(DType::F16).bernoulli().dtype(), DType::F16);
    }

    #[test]
    #[should_panic(expected = "bernoulli: expected a probability in [0, 1], but element 1 is NaN")]
    fn not_a_probability() {
        Var::from_vec(vec![0.5, f64::NAN], 2).bernoulli();
    }

    #[test]
    #[should_panic(expected = "bernoulli: the elements have to be floating point, not int64")]
    fn integers() {
        Var::from_vec(vec![1i64], 1).bernoulli();
    }
}
