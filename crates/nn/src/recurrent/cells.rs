//! Single steps.

use super::{Nonlinearity, Weights, plain};
use crate::fields::{Field, Item, Module};
use crate::init::Draws;
use tapegrad_ops::RecurrentCell;
use tapegrad_tape::{Tensor, Var};

macro_rules! cells {
    ($($(#[$meta:meta])* $name:ident, $kind:expr;)*) => {$(
        $(#[$meta])*
        pub struct $name {
            weights: Weights,
            kind: RecurrentCell,
            input_size: usize,
            hidden_size: usize,
            drawn: Draws,
        }

        impl $name {
            /// A cell with these input and hidden sizes, with biases.
            pub fn new(input_size: usize, hidden_size: usize) -> $name {
                let kind = $kind;
                let mut drawn = Draws::here();
                let weights = drawn.again(|| Weights::new(kind, input_size, hidden_size, None, true));
                $name { weights, kind, input_size, hidden_size, drawn }
            }

            /// This cell with or without biases; all weights are drawn again.
            pub fn bias(mut self, bias: bool) -> $name {
                let (kind, input, hidden) = (self.kind, self.input_size, self.hidden_size);
                self.weights = self.drawn.again(|| Weights::new(kind, input, hidden, None, bias));
                self
            }

            /// A step for `[N, input_size]` or `[input_size]`.
            #[track_caller]
            fn run(&self, x: &Var, h: Option<&Var>, c: Option<&Var>) -> (Var, Option<Var>) {
                let name = stringify!($name);
                assert!(
                    (1..=2).contains(&x.ndim()) && x.size(-1) == self.input_size,
                    "{name}: the input is [N, {0}] or [{0}], got shape {1:?}", self.input_size, x.shape()
                );
                let mut shape = x.shape().to_vec();
                *shape.last_mut().expect("one or two dimensions") = self.hidden_size;
                let zeros = Var::from(Tensor::zeros_with(&shape, x.dtype()));
                let state = |s: Option<&Var>| {
                    let s = s.unwrap_or(&zeros).clone();
                    assert!(s.shape() == shape, "{name}: the state should have shape {shape:?}, got {:?}", s.shape());
                    s
                };
                let h = state(h);
                let c = (self.kind == RecurrentCell::Lstm).then(|| state(c));
                let (b_ih, b_hh) = self.weights.biases();
                let input = tapegrad_ops::linear(x, &self.weights.ih, b_ih);
                self.kind.step(&input, &tapegrad_ops::linear(&h, &self.weights.hh, b_hh), &h, c.as_ref())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                crate::print_module(self, f)
            }
        }

        impl Module for $name {
            fn visit_fields<'a>(&'a self, f: &mut dyn FnMut(&str, Item<'a>)) {
                self.weights.ih.visit("weight_ih", f);
                self.weights.hh.visit("weight_hh", f);
                if let Some((ih, hh)) = &self.weights.bias {
                    ih.visit("bias_ih", f);
                    hh.visit("bias_hh", f);
                }
            }
            fn class(&self) -> &'static str {
                stringify!($name)
            }
        }
    )*};
}

cells! {
    /// One step of an [`RNN`](super::RNN) (`torch.nn.RNNCell`).
    ///
    /// ```
    /// use tapegrad_nn::RNNCell;
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros_with(&[3, 10], DType::F32));
    /// assert_eq!(RNNCell::new(10, 20).forward(&x, None).shape(), [3, 20]);
    /// ```
    RNNCell, RecurrentCell::RnnTanh;
    /// One step of an [`LSTM`](super::LSTM) (`torch.nn.LSTMCell`).
    LSTMCell, RecurrentCell::Lstm;
    /// One step of a [`GRU`](super::GRU) (`torch.nn.GRUCell`).
    GRUCell, RecurrentCell::Gru;
}

impl RNNCell {
    /// This cell with another function.
    pub fn nonlinearity(mut self, nonlinearity: Nonlinearity) -> RNNCell {
        self.kind = plain(nonlinearity);
        self
    }

    /// The new state from an input `[N, input_size]` and a state `[N, hidden_size]`, or both without `N`; zeros
    /// where there is no state.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn forward<'a>(&self, x: &Var, h: impl Into<Option<&'a Var>>) -> Var {
        self.run(x, h.into(), None).0
    }
}

impl GRUCell {
    /// The new state from an input `[N, input_size]` and a state `[N, hidden_size]`, or both without `N`; zeros
    /// where there is no state.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn forward<'a>(&self, x: &Var, h: impl Into<Option<&'a Var>>) -> Var {
        self.run(x, h.into(), None).0
    }
}

impl LSTMCell {
    /// The new hidden and cell states from an input `[N, input_size]` and both states `[N, hidden_size]`, or all
    /// without `N`; zeros where there are no states.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn forward<'a>(&self, x: &Var, state: impl Into<Option<(&'a Var, &'a Var)>>) -> (Var, Var) {
        let state = state.into();
        let (h, c) = self.run(x, state.map(|s| s.0), state.map(|s| s.1));
        (h, c.expect("an LSTM has a cell state"))
    }
}
