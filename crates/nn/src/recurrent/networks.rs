//! Whole sequences through layers of cells.

use super::{Nonlinearity, Weights, plain};
use crate::fields::{Field, Item, Module, Training};
use crate::init::Draws;
use crate::module::Forward;
use crate::summary::observe_output;
use tapegrad_ops::RecurrentCell;
use tapegrad_tape::{Tensor, Var};

macro_rules! networks {
    ($($(#[$meta:meta])* $name:ident, $kind:expr;)*) => {$(
        $(#[$meta])*
        pub struct $name {
            /// By layer, then by direction.
            weights: Vec<Weights>,
            shape: Shape,
            training: Training,
            drawn: Draws,
        }

        impl $name {
            /// One layer with these input and hidden sizes, with biases.
            ///
            /// # Panics
            /// If one of the sizes is zero.
            #[track_caller]
            pub fn new(input_size: usize, hidden_size: usize) -> $name {
                assert!(
                    input_size > 0 && hidden_size > 0,
                    "{}: input_size and hidden_size must be greater than zero, got {input_size} and {hidden_size}",
                    stringify!($name)
                );
                let shape = Shape::new($kind, input_size, hidden_size);
                let mut drawn = Draws::here();
                $name { weights: drawn.again(|| shape.weights()), shape, training: Training::default(), drawn }
            }

            #[track_caller]
            fn run(&self, x: &Var, h: Option<&Var>, c: Option<&Var>) -> (Var, Var, Option<Var>) {
                let (y, h, c) =
                    self.shape.run(stringify!($name), &self.weights, x, h, c, self.training.get());
                (observe_output(self, x, y), h, c)
            }

            fn remade(mut self) -> $name {
                self.weights = self.drawn.again(|| self.shape.weights());
                self
            }

            /// This network with this many layers, each fed by the one before; all weights are drawn again.
            ///
            /// # Panics
            /// If there is none.
            #[track_caller]
            pub fn num_layers(mut self, num_layers: usize) -> $name {
                assert!(num_layers > 0, "{}: num_layers must be greater than zero", stringify!($name));
                self.shape.num_layers = num_layers;
                self.remade()
            }

            /// This network with or without biases; all weights are drawn again.
            pub fn bias(mut self, bias: bool) -> $name {
                self.shape.bias = bias;
                self.remade()
            }

            /// This network running in one or both directions; all weights are drawn again.
            pub fn bidirectional(mut self, bidirectional: bool) -> $name {
                self.shape.bidirectional = bidirectional;
                self.remade()
            }

            /// This network for inputs `[N, L, ...]` instead of `[L, N, ...]`.
            pub fn batch_first(mut self, batch_first: bool) -> $name {
                self.shape.batch_first = batch_first;
                self
            }

            /// This network with dropout between its layers.
            ///
            /// # Panics
            /// If the probability is not in `[0, 1]`.
            #[track_caller]
            pub fn dropout(mut self, p: f64) -> $name {
                assert!((0.0..=1.0).contains(&p), "{}: the probability must be in [0, 1], got {p}", stringify!($name));
                self.shape.dropout = p;
                self
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                crate::print_module(self, f)
            }
        }

        impl Module for $name {
            fn visit_fields<'a>(&'a self, f: &mut dyn FnMut(&str, Item<'a>)) {
                for (i, w) in self.weights.iter().enumerate() {
                    let suffix = self.shape.suffix(i);
                    w.ih.visit(&format!("weight_ih_{suffix}"), f);
                    w.hh.visit(&format!("weight_hh_{suffix}"), f);
                    if let Some((ih, hh)) = &w.bias {
                        ih.visit(&format!("bias_ih_{suffix}"), f);
                        hh.visit(&format!("bias_hh_{suffix}"), f);
                    }
                    w.hr.visit(&format!("weight_hr_{suffix}"), f);
                }
                self.training.visit("training", f);
            }
            fn class(&self) -> &'static str {
                stringify!($name)
            }
        }

        impl Forward for $name {
            /// The outputs of the last layer at all steps.
            #[track_caller]
            fn forward(&self, x: &Var) -> Var {
                self.run(x, None, None).0
            }
        }
    )*};
}

networks! {
    /// Layers of plain recurrent cells (`torch.nn.RNN`).
    ///
    /// ```
    /// use tapegrad_nn::RNN;
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros_with(&[7, 3, 10], DType::F32));
    /// let (y, h) = RNN::new(10, 20).num_layers(2).forward_with_state(&x, None);
    /// assert_eq!((y.shape(), h.shape()), (&[7, 3, 20][..], &[2, 3, 20][..]));
    /// ```
    RNN, RecurrentCell::RnnTanh;
    /// Layers of long short-term memory (`torch.nn.LSTM`).
    ///
    /// ```
    /// use tapegrad_nn::{LSTM, Forward};
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros_with(&[3, 7, 10], DType::F32));
    /// let lstm = LSTM::new(10, 20).bidirectional(true).batch_first(true);
    /// let (y, (h, c)) = lstm.forward_with_state(&x, None);
    /// assert_eq!((y.shape(), c.shape()), (&[3, 7, 40][..], &[2, 3, 20][..]));
    /// ```
    LSTM, RecurrentCell::Lstm;
    /// Layers of gated recurrent units (`torch.nn.GRU`).
    GRU, RecurrentCell::Gru;
}

impl RNN {
    /// This network with another function.
    pub fn nonlinearity(mut self, nonlinearity: Nonlinearity) -> RNN {
        self.shape.kind = plain(nonlinearity);
        self
    }

    /// The outputs of the last layer at all steps, and the last state of each layer and direction.
    ///
    /// The input is `[L, N, input_size]` (`[N, L, input_size]` with `batch_first`) or `[L, input_size]`; the state
    /// `[layers * directions, N, hidden_size]`, or without `N`; zeros where it is left out.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn forward_with_state<'a>(&self, x: &Var, h: impl Into<Option<&'a Var>>) -> (Var, Var) {
        let (y, h, _) = self.run(x, h.into(), None);
        (y, h)
    }
}

impl GRU {
    /// The outputs of the last layer at all steps, and the last state of each layer and direction; shapes as of
    /// [`RNN::forward_with_state`].
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn forward_with_state<'a>(&self, x: &Var, h: impl Into<Option<&'a Var>>) -> (Var, Var) {
        let (y, h, _) = self.run(x, h.into(), None);
        (y, h)
    }
}

impl LSTM {
    /// This network with its output projected to a smaller size; all weights are drawn again.
    ///
    /// # Panics
    /// If the size is not below that of the state.
    #[track_caller]
    pub fn proj_size(mut self, proj_size: usize) -> LSTM {
        assert!(
            proj_size < self.shape.hidden_size,
            "LSTM: proj_size ({proj_size}) must be smaller than hidden_size ({})",
            self.shape.hidden_size
        );
        self.shape.projection = (proj_size > 0).then_some(proj_size);
        self.remade()
    }

    /// The outputs of the last layer at all steps, and the last hidden and cell state of each layer and direction;
    /// shapes as of [`RNN::forward_with_state`], with `proj_size` in the place of `hidden_size` for the hidden state.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn forward_with_state<'a>(
        &self,
        x: &Var,
        state: impl Into<Option<(&'a Var, &'a Var)>>,
    ) -> (Var, (Var, Var)) {
        let state = state.into();
        let (h, c) = (state.map(|s| s.0), state.map(|s| s.1));
        let (y, h, c) = self.run(x, h, c);
        (y, (h, c.expect("an LSTM has a cell state")))
    }
}

/// The layers of a network, and the order in which they run.
struct Shape {
    kind: RecurrentCell,
    input_size: usize,
    hidden_size: usize,
    num_layers: usize,
    bias: bool,
    batch_first: bool,
    dropout: f64,
    bidirectional: bool,
    projection: Option<usize>,
}

impl Shape {
    fn new(kind: RecurrentCell, input_size: usize, hidden_size: usize) -> Shape {
        Shape {
            kind,
            input_size,
            hidden_size,
            num_layers: 1,
            bias: true,
            batch_first: false,
            dropout: 0.0,
            bidirectional: false,
            projection: None,
        }
    }

    fn directions(&self) -> usize {
        if self.bidirectional { 2 } else { 1 }
    }

    fn output_size(&self) -> usize {
        self.projection.unwrap_or(self.hidden_size)
    }

    fn weights(&self) -> Vec<Weights> {
        (0..self.num_layers * self.directions())
            .map(|i| {
                let first = i < self.directions();
                let input = if first { self.input_size } else { self.output_size() * self.directions() };
                Weights::new(self.kind, input, self.hidden_size, self.projection, self.bias)
            })
            .collect()
    }

    /// The suffix of a parameter's name.
    fn suffix(&self, cell: usize) -> String {
        let reverse = if cell % self.directions() == 1 { "_reverse" } else { "" };
        format!("l{}{reverse}", cell / self.directions())
    }

    #[track_caller]
    fn run(
        &self,
        name: &str,
        weights: &[Weights],
        x: &Var,
        h: Option<&Var>,
        c: Option<&Var>,
        training: bool,
    ) -> (Var, Var, Option<Var>) {
        assert!(
            (2..=3).contains(&x.ndim()) && x.size(-1) == self.input_size,
            "{name}: the input is [L, N, {0}] or [L, {0}] ([N, L, {0}] with batch_first), got shape {1:?}",
            self.input_size,
            x.shape()
        );
        let batched = x.ndim() == 3;
        let steps_first = if !batched {
            x.unsqueeze(1)
        } else if self.batch_first {
            x.transpose(0, 1)
        } else {
            x.clone()
        };
        assert!(steps_first.shape()[0] > 0, "{name}: expected sequence length to be larger than 0");
        let n = steps_first.shape()[1];
        let state = |s: Option<&Var>, size: usize| -> Vec<Var> {
            let cells = weights.len();
            let full = [cells, n, size];
            let s = match s {
                Some(s) => {
                    let expected = if batched { full.to_vec() } else { vec![cells, size] };
                    assert!(
                        s.shape() == expected,
                        "{name}: the state should have shape {expected:?}, got {:?}",
                        s.shape()
                    );
                    if batched { s.clone() } else { s.unsqueeze(1) }
                }
                None => Var::from(Tensor::zeros_with(&full, x.dtype())),
            };
            s.unbind(0)
        };
        let h = state(h, self.output_size());
        let c = (self.kind == RecurrentCell::Lstm).then(|| state(c, self.hidden_size));
        let (mut layer, mut last_h, mut last_c) = (steps_first, Vec::new(), Vec::new());
        for (number, cells) in weights.chunks(self.directions()).enumerate() {
            if number > 0 && training && self.dropout > 0.0 {
                layer = tapegrad_ops::dropout_with(&layer, self.dropout, true);
            }
            let mut outputs = Vec::new();
            for (direction, w) in cells.iter().enumerate() {
                let i = number * self.directions() + direction;
                let (y, h, c) = self.through(w, &layer, &h[i], c.as_ref().map(|c| &c[i]), direction == 1);
                outputs.push(y);
                last_h.push(h);
                last_c.extend(c);
            }
            layer = if outputs.len() == 1 { outputs.remove(0) } else { tapegrad_tape::cat(&outputs, -1) };
        }
        let finish = |s: Vec<Var>| {
            let s = tapegrad_tape::stack(&s, 0);
            if batched { s } else { s.squeeze(1) }
        };
        let y = if !batched {
            layer.squeeze(1)
        } else if self.batch_first {
            layer.transpose(0, 1)
        } else {
            layer
        };
        (y, finish(last_h), (!last_c.is_empty()).then(|| finish(last_c)))
    }

    /// One cell over all steps of `[L, N, in]`: the outputs, and the last states.
    fn through(
        &self,
        w: &Weights,
        x: &Var,
        h: &Var,
        c: Option<&Var>,
        reverse: bool,
    ) -> (Var, Var, Option<Var>) {
        if let Some(hr) = &w.hr {
            return self.projected(w, hr, x, h, c, reverse);
        }
        let (b_ih, b_hh) = w.biases();
        // Where both biases are only added, they are one.
        let (b_ih, b_hh) = match (b_ih, b_hh) {
            (Some(ih), Some(hh)) if self.kind != RecurrentCell::Gru => (Some(ih + hh), None),
            (ih, hh) => (ih.cloned(), hh),
        };
        // The inputs' contribution at all steps is one product.
        let inputs = tapegrad_ops::linear(x, &w.ih, b_ih.as_ref());
        let (y, c) = tapegrad_ops::recurrent(self.kind, &inputs, &w.hh, b_hh, h, c, reverse);
        let last = if reverse { 0 } else { y.shape()[0] as isize - 1 };
        let h = y.select(0, last);
        (y, h, c)
    }

    /// The same for an LSTM whose output is projected.
    fn projected(
        &self,
        w: &Weights,
        projection: &Var,
        x: &Var,
        h: &Var,
        c: Option<&Var>,
        reverse: bool,
    ) -> (Var, Var, Option<Var>) {
        let (b_ih, b_hh) = w.biases();
        let mut inputs = tapegrad_ops::linear(x, &w.ih, b_ih).unbind(0);
        if reverse {
            inputs.reverse();
        }
        let (mut h, mut c) = (h.clone(), c.cloned());
        let mut outputs = Vec::with_capacity(inputs.len());
        for input in &inputs {
            let state = tapegrad_ops::linear(&h, &w.hh, b_hh);
            let (output, new_c) = self.kind.step(input, &state, &h, c.as_ref());
            h = tapegrad_ops::linear(&output, projection, None);
            c = new_c;
            outputs.push(h.clone());
        }
        if reverse {
            outputs.reverse();
        }
        (tapegrad_tape::stack(&outputs, 0), h, c)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Bilinear, GRU, LSTM, MultiheadAttention, RNN};

    #[test]
    fn sizes_of_zero_are_refused_as_in_pytorch() {
        let refused = |make: fn(), message: &str| {
            let error = std::panic::catch_unwind(make).unwrap_err();
            let text = error
                .downcast::<String>()
                .map_or_else(|e| e.downcast_ref::<&str>().unwrap().to_string(), |s| *s);
            assert!(text.contains(message), "{text}");
        };
        refused(
            || drop(RNN::new(0, 3)),
            "RNN: input_size and hidden_size must be greater than zero, got 0 and 3",
        );
        refused(|| drop(LSTM::new(3, 0)), "LSTM: input_size and hidden_size must be greater than zero");
        refused(|| drop(GRU::new(0, 0)), "GRU: input_size and hidden_size");
        refused(
            || drop(MultiheadAttention::new(0, 2)),
            "MultiheadAttention: embed_dim (0) must be above zero",
        );
        refused(|| drop(Bilinear::new(0, 2, 2)), "Bilinear: in1_features must be greater than zero");
    }
}
