//! The random numbers of layers that are built step by step.

use crate::fields::Field;
use tapegrad_tape::{
    GeneratorState, Var, default_generator_state, set_default_generator_state, with_default_generator,
};

/// Where in this thread's random numbers a layer drew its values. A builder method that changes what is drawn goes back to
/// that place: the values of a layer, and of the layers after it, do not depend on the way in which it was built.
#[derive(Clone, Debug)]
pub(crate) struct Draws {
    start: GeneratorState,
    /// Where the bias begins.
    bias: GeneratorState,
    end: GeneratorState,
}

impl Field for Draws {}

impl Draws {
    /// Nothing is drawn yet.
    pub(crate) fn here() -> Draws {
        let now = default_generator_state();
        Draws { start: now, bias: now, end: now }
    }

    /// Draws a weight of this shape and perhaps a bias of this length, in the place of what was drawn before.
    pub(crate) fn layer(&mut self, weight: &[usize], bias: Option<usize>, bound: f64) -> (Var, Option<Var>) {
        let weight = self.again(|| uniform_parameter(weight, bound));
        self.bias = self.end;
        (weight, self.bias(bias, bound))
    }

    /// Draws a bias of this length, or none, in the place of the bias that was drawn before.
    pub(crate) fn bias(&mut self, bias: Option<usize>, bound: f64) -> Option<Var> {
        self.again_from(self.bias, || bias.map(|n| uniform_parameter(&[n], bound)))
    }

    /// Draws in the place of all that was drawn before.
    pub(crate) fn again<R>(&mut self, draw: impl FnOnce() -> R) -> R {
        self.again_from(self.start, draw)
    }

    /// If nothing else was drawn since, the generator continues after what is drawn now; otherwise where it was.
    fn again_from<R>(&mut self, start: GeneratorState, draw: impl FnOnce() -> R) -> R {
        /// Also if a size is refused.
        struct Continue(GeneratorState);
        impl Drop for Continue {
            fn drop(&mut self) {
                set_default_generator_state(self.0);
            }
        }
        let mut next = Continue(default_generator_state());
        set_default_generator_state(start);
        let result = draw();
        let end = default_generator_state();
        if next.0 == self.end {
            next.0 = end;
        }
        self.end = end;
        result
    }
}

/// A new parameter, uniform between `-bound` and `bound`.
pub(crate) fn uniform_parameter(shape: &[usize], bound: f64) -> Var {
    Var::parameter(with_default_generator(|g| g.uniform(shape, -bound, bound)))
}

/// PyTorch's default for weights and biases: uniform within `1 / sqrt(fan_in)`.
pub(crate) fn default_bound(fan_in: usize) -> f64 {
    if fan_in == 0 { 0.0 } else { 1.0 / (fan_in as f64).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Bilinear, Conv2d, GRUCell, LSTM, Linear, Module, MultiheadAttention, TransformerEncoderLayer,
    };

    crate::module! {
        struct Weight {
            weight: Var,
        }
    }

    fn drawn<M: Module>(make: impl FnOnce() -> M) -> (Vec<f32>, u64) {
        tapegrad_tape::manual_seed(5);
        let values = make().parameters().iter().flat_map(|p| p.to_vec::<f32>()).collect();
        (values, with_default_generator(|g| g.next_u64()))
    }

    #[test]
    fn two_spellings_of_a_layer_are_the_same_layer() {
        let plain = |bias| drawn(move || Linear::new(3, 2).bias(bias));
        assert_eq!(plain(false), drawn(|| Linear::new(3, 2).bias(false).bias(true).bias(false)));
        assert_eq!(plain(true), drawn(|| Linear::new(3, 2).bias(false).bias(true)));
        let without = drawn(|| Weight { weight: Draws::here().layer(&[2, 3], None, 1.0 / 3f64.sqrt()).0 });
        assert_eq!(plain(false), without, "a bias that is not there draws nothing");
        let conv = || Conv2d::new(4, 6, 3);
        let all = drawn(|| conv().groups(2).bias(false));
        assert_eq!(all, drawn(|| conv().bias(false).groups(2)));
        assert_eq!(all, drawn(|| conv().groups(1).bias(true).groups(2).stride(2).bias(false)));
        let lstm = || LSTM::new(3, 4);
        let all = drawn(|| lstm().num_layers(2).bidirectional(true).proj_size(2).bias(false));
        assert_eq!(all, drawn(|| lstm().bias(false).proj_size(2).bidirectional(true).num_layers(2)));
        assert_eq!(drawn(lstm), drawn(|| lstm().num_layers(3).num_layers(1)));
        assert_eq!(drawn(|| GRUCell::new(2, 3)), drawn(|| GRUCell::new(2, 3).bias(false).bias(true)));
        let attention = || MultiheadAttention::new(4, 2);
        let all = drawn(|| attention().dims(3, 5).bias(false).add_bias_kv(true));
        assert_eq!(all, drawn(|| attention().add_bias_kv(true).bias(false).dims(3, 5)));
        assert_eq!(
            drawn(attention),
            drawn(|| attention().dims(3, 3).add_bias_kv(true).dims(4, 4).add_bias_kv(false))
        );
        let layer = || TransformerEncoderLayer::new(4, 2).dropout(0.2);
        let all = drawn(|| layer().dim_feedforward(8).bias(false));
        assert_eq!(all, drawn(|| layer().bias(false).dim_feedforward(8)));
        assert_eq!(drawn(|| Bilinear::new(2, 2, 2).bias(false)).0.len(), 8);
    }

    #[test]
    fn what_was_drawn_in_between_is_not_drawn_again() {
        tapegrad_tape::manual_seed(5);
        let first = Linear::new(3, 2);
        let second = Linear::new(3, 2);
        let weight = first.weight.to_vec::<f32>();
        let first = first.bias(false).bias(true);
        let third = Linear::new(3, 2);
        assert_eq!(first.weight.to_vec::<f32>(), weight);
        assert_ne!(third.weight.to_vec::<f32>(), second.weight.to_vec::<f32>());
        tapegrad_tape::manual_seed(5);
        let plain = [0; 3].map(|_| Linear::new(3, 2).weight.to_vec::<f32>());
        assert_eq!([&first, &second, &third].map(|l| l.weight.to_vec::<f32>()), plain);
    }
}
