//! `TransformerEncoderLayer`, `TransformerEncoder`.

use crate::dropout::Dropout;
use crate::init::Draws;
use crate::linear::Linear;
use crate::module::Forward;
use crate::norm::LayerNorm;
use crate::summary::observe;
use crate::{KeyValues, MultiheadAttention};
use tapegrad_tape::Var;

/// The function between the two linear layers of a [`TransformerEncoderLayer`] or a
/// [`TransformerDecoderLayer`](super::TransformerDecoderLayer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForwardActivation {
    /// The rectifier.
    ReLU,
    /// The Gaussian error linear unit.
    GELU,
}

impl crate::Field for FeedForwardActivation {}

impl FeedForwardActivation {
    pub(super) fn apply(self, x: &Var) -> Var {
        match self {
            FeedForwardActivation::ReLU => tapegrad_ops::relu(x),
            FeedForwardActivation::GELU => tapegrad_ops::gelu(x),
        }
    }
}

crate::module! {
    /// Self-attention and two linear layers, each with a residual and a normalization
    /// (`torch.nn.TransformerEncoderLayer`).
    ///
    /// ```
    /// use tapegrad_nn::{Forward, TransformerEncoderLayer};
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let layer = TransformerEncoderLayer::new(8, 2).batch_first(true);
    /// let x = Var::from(Tensor::ones_with(&[3, 5, 8], DType::F32));
    /// assert_eq!(layer.forward(&x).shape(), [3, 5, 8]);
    /// ```
    pub struct TransformerEncoderLayer {
        self_attn: MultiheadAttention,
        linear1: Linear,
        dropout: Dropout,
        linear2: Linear,
        norm1: LayerNorm,
        norm2: LayerNorm,
        dropout1: Dropout,
        dropout2: Dropout,
        d_model: usize,
        activation: FeedForwardActivation,
        norm_first: bool,
        drawn: Draws,
    }
}

impl TransformerEncoderLayer {
    /// A layer for vectors of this size with this many heads, and PyTorch's defaults for the rest: 2048 units,
    /// dropout of 0.1.
    ///
    /// # Panics
    /// If the size cannot be divided by the heads.
    #[track_caller]
    pub fn new(d_model: usize, nhead: usize) -> TransformerEncoderLayer {
        let mut drawn = Draws::here();
        let (self_attn, linear1, linear2) = drawn.again(|| {
            let attention = MultiheadAttention::new(d_model, nhead).dropout(0.1);
            (attention, Linear::new(d_model, 2048), Linear::new(2048, d_model))
        });
        TransformerEncoderLayer {
            self_attn,
            linear1,
            dropout: Dropout::new(0.1),
            linear2,
            norm1: LayerNorm::new(&[d_model]),
            norm2: LayerNorm::new(&[d_model]),
            dropout1: Dropout::new(0.1),
            dropout2: Dropout::new(0.1),
            d_model,
            activation: FeedForwardActivation::ReLU,
            norm_first: false,
            drawn,
        }
    }

    /// This layer with other weights, as if it had been made so.
    fn redrawn(mut self, units: usize, bias: bool) -> TransformerEncoderLayer {
        let (d, attention) = (self.d_model, self.self_attn);
        (self.self_attn, self.linear1, self.linear2) = self.drawn.again(|| {
            let layer = |from, to| Linear::new(from, to).bias(bias);
            (attention.redrawn_here(bias), layer(d, units), layer(units, d))
        });
        self
    }

    /// This layer with this many units between its linear layers; all weights are drawn again.
    pub fn dim_feedforward(self, units: usize) -> TransformerEncoderLayer {
        let bias = self.linear1.bias.is_some();
        self.redrawn(units, bias)
    }

    /// This layer with another dropout probability.
    ///
    /// # Panics
    /// If it is not in `[0, 1]`.
    #[track_caller]
    pub fn dropout(mut self, p: f64) -> TransformerEncoderLayer {
        self.self_attn = self.self_attn.dropout(p);
        (self.dropout, self.dropout1, self.dropout2) = (Dropout::new(p), Dropout::new(p), Dropout::new(p));
        self
    }

    /// This layer with another function between its linear layers.
    pub fn activation(mut self, activation: FeedForwardActivation) -> TransformerEncoderLayer {
        self.activation = activation;
        self
    }

    /// This layer with another value added to the variances for numerical stability.
    pub fn layer_norm_eps(mut self, eps: f64) -> TransformerEncoderLayer {
        (self.norm1, self.norm2) = (self.norm1.eps(eps), self.norm2.eps(eps));
        self
    }

    /// This layer for inputs `[N, L, E]` instead of `[L, N, E]`.
    pub fn batch_first(mut self, batch_first: bool) -> TransformerEncoderLayer {
        self.self_attn = self.self_attn.batch_first(batch_first);
        self
    }

    /// This layer with its normalizations before attention and linear layers instead of after.
    pub fn norm_first(mut self, norm_first: bool) -> TransformerEncoderLayer {
        self.norm_first = norm_first;
        self
    }

    /// This layer with or without biases; all weights are drawn again.
    pub fn bias(mut self, bias: bool) -> TransformerEncoderLayer {
        (self.norm1, self.norm2) = (self.norm1.bias(bias), self.norm2.bias(bias));
        let units = self.linear1.weight.shape()[0];
        self.redrawn(units, bias)
    }

    /// The output for `[L, N, E]` (or as set) with masks as of [`MultiheadAttention::attend`].
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn forward_with<'a>(
        &self,
        x: &Var,
        src_mask: impl Into<Option<&'a Var>>,
        src_key_padding_mask: impl Into<Option<&'a Var>>,
    ) -> Var {
        let (src_mask, src_key_padding_mask) = (src_mask.into(), src_key_padding_mask.into());
        self.run(x, |x| self.self_attn.attend_without_weights(x, x, x, src_key_padding_mask, src_mask))
    }

    /// The output for `[L, N, E]` (or as set) that follows what was passed with the same `past` before: each element attends
    /// to itself and to all before it.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn next(&self, x: &Var, past: &mut KeyValues) -> Var {
        self.run(x, |x| self.self_attn.attend_next(x, past, None))
    }

    fn run(&self, x: &Var, attend: impl FnOnce(&Var) -> Var) -> Var {
        let attend = |x: &Var| self.dropout1.forward(&attend(x));
        let feed = |x: &Var| {
            let inner = self.activation.apply(&self.linear1.forward(x));
            self.dropout2.forward(&self.linear2.forward(&self.dropout.forward(&inner)))
        };
        if self.norm_first {
            let x = x + attend(&self.norm1.forward(x));
            &x + feed(&self.norm2.forward(&x))
        } else {
            let x = self.norm1.forward(&(x + attend(x)));
            self.norm2.forward(&(&x + feed(&x)))
        }
    }
}

impl Forward for TransformerEncoderLayer {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| self.forward_with(x, None, None))
    }
}

crate::module! {
    /// Encoder layers one after the other (`torch.nn.TransformerEncoder`).
    ///
    /// ```
    /// use tapegrad_nn::{Forward, TransformerEncoder, TransformerEncoderLayer};
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let encoder = TransformerEncoder::new(2, || TransformerEncoderLayer::new(8, 2));
    /// assert_eq!(encoder.forward(&Var::from(Tensor::ones_with(&[5, 3, 8], DType::F32))).shape(), [5, 3, 8]);
    /// ```
    pub struct TransformerEncoder {
        layers: Vec<TransformerEncoderLayer>,
        norm: Option<LayerNorm>,
    }
}

impl TransformerEncoder {
    /// This many layers, each made by `layer`. (PyTorch copies one, so that all begin with the same values.)
    pub fn new(num_layers: usize, layer: impl Fn() -> TransformerEncoderLayer) -> TransformerEncoder {
        TransformerEncoder { layers: (0..num_layers).map(|_| layer()).collect(), norm: None }
    }

    /// This encoder with a normalization after the last layer.
    pub fn norm(mut self, norm: LayerNorm) -> TransformerEncoder {
        self.norm = Some(norm);
        self
    }

    /// The output for `[L, N, E]` (or as its layers are set) that follows what was passed with the same `past` before, an empty
    /// list at first: each element attends to itself and to all before it. So a language model makes one token after the
    /// other, and computes each once.
    ///
    /// # Panics
    /// If the shapes do not fit.
    ///
    /// ```
    /// use tapegrad_nn::{Module, Transformer, TransformerEncoder, TransformerEncoderLayer};
    /// use tapegrad_tape::{Var, assert_close_with, cat};
    /// let model = TransformerEncoder::new(2, || TransformerEncoderLayer::new(8, 2));
    /// model.eval();
    /// let x = Var::from_vec((0..40).map(|i| (i as f32).sin()).collect(), (5, 1, 8));
    /// let mask = Transformer::generate_square_subsequent_mask(5);
    /// let mut past = Vec::new();
    /// let steps: Vec<Var> = (0..5).map(|i| model.next(&x.narrow(0, i, 1), &mut past)).collect();
    /// assert_close_with(&cat(&steps, 0), &model.forward_with(&x, &mask, None), 1e-4, 1e-5, false);
    /// ```
    #[track_caller]
    pub fn next(&self, x: &Var, past: &mut Vec<KeyValues>) -> Var {
        past.resize_with(self.layers.len(), KeyValues::default);
        let mut y = x.clone();
        for (layer, past) in self.layers.iter().zip(past) {
            y = layer.next(&y, past);
        }
        self.norm.as_ref().map_or_else(|| y.clone(), |norm| norm.forward(&y))
    }

    /// The output for `[L, N, E]` (or as its layers are set) with masks as of [`MultiheadAttention::attend`].
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn forward_with<'a>(
        &self,
        x: &Var,
        mask: impl Into<Option<&'a Var>>,
        src_key_padding_mask: impl Into<Option<&'a Var>>,
    ) -> Var {
        let (mask, src_key_padding_mask) = (mask.into(), src_key_padding_mask.into());
        let mut y = x.clone();
        for layer in &self.layers {
            y = layer.forward_with(&y, mask, src_key_padding_mask);
        }
        self.norm.as_ref().map_or_else(|| y.clone(), |norm| norm.forward(&y))
    }
}

impl Forward for TransformerEncoder {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| self.forward_with(x, None, None))
    }
}
