//! `TransformerDecoderLayer`, `TransformerDecoder`.

use super::FeedForwardActivation;
use crate::dropout::Dropout;
use crate::linear::Linear;
use crate::module::Forward;
use crate::norm::LayerNorm;
use crate::{KeyValues, MultiheadAttention};
use tapegrad_tape::Var;

/// The masks of a decoder; none by default. They are as of [`MultiheadAttention::attend`].
#[derive(Clone, Copy, Debug, Default)]
pub struct DecoderMasks<'a> {
    /// Which targets a target may attend to.
    pub tgt_mask: Option<&'a Var>,
    /// Which elements of the memory a target may attend to.
    pub memory_mask: Option<&'a Var>,
    /// Which targets are padding.
    pub tgt_key_padding_mask: Option<&'a Var>,
    /// Which elements of the memory are padding.
    pub memory_key_padding_mask: Option<&'a Var>,
}

impl<'a> DecoderMasks<'a> {
    tapegrad_tape::setters! { ; tgt_mask: &'a Var, memory_mask: &'a Var, tgt_key_padding_mask: &'a Var, memory_key_padding_mask: &'a Var }
}

/// What a layer of a decoder keeps of earlier targets, and of the memory. Empty at first: `Default::default()`.
#[derive(Clone, Debug, Default)]
pub struct DecoderPast {
    /// The keys and values of the targets so far.
    pub targets: KeyValues,
    /// Those of the memory.
    pub memory: KeyValues,
}

crate::module! {
    /// Self-attention, attention to the memory that an encoder returns, and two linear layers, each with a residual and a
    /// normalization (`torch.nn.TransformerDecoderLayer`).
    ///
    /// ```
    /// use tapegrad_nn::TransformerDecoderLayer;
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let layer = TransformerDecoderLayer::new(8, 2).batch_first(true);
    /// let (target, memory) = (Tensor::ones_with(&[3, 5, 8], DType::F32), Tensor::ones_with(&[3, 7, 8], DType::F32));
    /// assert_eq!(layer.forward(&target.into(), &memory.into()).shape(), [3, 5, 8]);
    /// ```
    pub struct TransformerDecoderLayer {
        self_attn: MultiheadAttention,
        multihead_attn: MultiheadAttention,
        linear1: Linear,
        dropout: Dropout,
        linear2: Linear,
        norm1: LayerNorm,
        norm2: LayerNorm,
        norm3: LayerNorm,
        dropout1: Dropout,
        dropout2: Dropout,
        dropout3: Dropout,
        d_model: usize,
        activation: FeedForwardActivation,
        norm_first: bool,
    }
}

impl TransformerDecoderLayer {
    /// A layer for vectors of this size with this many heads, and PyTorch's defaults for the rest: 2048 units,
    /// dropout of 0.1.
    ///
    /// # Panics
    /// If the size cannot be divided by the heads.
    #[track_caller]
    pub fn new(d_model: usize, nhead: usize) -> TransformerDecoderLayer {
        TransformerDecoderLayer {
            self_attn: MultiheadAttention::new(d_model, nhead).dropout(0.1),
            multihead_attn: MultiheadAttention::new(d_model, nhead).dropout(0.1),
            linear1: Linear::new(d_model, 2048),
            dropout: Dropout::new(0.1),
            linear2: Linear::new(2048, d_model),
            norm1: LayerNorm::new(&[d_model]),
            norm2: LayerNorm::new(&[d_model]),
            norm3: LayerNorm::new(&[d_model]),
            dropout1: Dropout::new(0.1),
            dropout2: Dropout::new(0.1),
            dropout3: Dropout::new(0.1),
            d_model,
            activation: FeedForwardActivation::ReLU,
            norm_first: false,
        }
    }

    /// This layer with this many units between its linear layers, which are reinitialized.
    pub fn dim_feedforward(mut self, units: usize) -> TransformerDecoderLayer {
        let bias = self.linear1.bias.is_some();
        self.linear1 = Linear::new(self.d_model, units).bias(bias);
        self.linear2 = Linear::new(units, self.d_model).bias(bias);
        self
    }

    /// This layer with another dropout probability.
    ///
    /// # Panics
    /// If it is not in `[0, 1]`.
    #[track_caller]
    pub fn dropout(mut self, p: f64) -> TransformerDecoderLayer {
        self.self_attn = self.self_attn.dropout(p);
        self.multihead_attn = self.multihead_attn.dropout(p);
        (self.dropout, self.dropout1) = (Dropout::new(p), Dropout::new(p));
        (self.dropout2, self.dropout3) = (Dropout::new(p), Dropout::new(p));
        self
    }

    /// This layer with another function between its linear layers.
    pub fn activation(mut self, activation: FeedForwardActivation) -> TransformerDecoderLayer {
        self.activation = activation;
        self
    }

    /// This layer with another value added to the variances for numerical stability.
    pub fn layer_norm_eps(mut self, eps: f64) -> TransformerDecoderLayer {
        (self.norm1, self.norm2) = (self.norm1.eps(eps), self.norm2.eps(eps));
        self.norm3 = self.norm3.eps(eps);
        self
    }

    /// This layer for inputs `[N, L, E]` instead of `[L, N, E]`.
    pub fn batch_first(mut self, batch_first: bool) -> TransformerDecoderLayer {
        self.self_attn = self.self_attn.batch_first(batch_first);
        self.multihead_attn = self.multihead_attn.batch_first(batch_first);
        self
    }

    /// This layer with its normalizations before attention and linear layers instead of after.
    pub fn norm_first(mut self, norm_first: bool) -> TransformerDecoderLayer {
        self.norm_first = norm_first;
        self
    }

    /// This layer with or without biases.
    pub fn bias(mut self, bias: bool) -> TransformerDecoderLayer {
        self.self_attn = self.self_attn.bias(bias);
        self.multihead_attn = self.multihead_attn.bias(bias);
        (self.linear1, self.linear2) = (self.linear1.bias(bias), self.linear2.bias(bias));
        (self.norm1, self.norm2) = (self.norm1.bias(bias), self.norm2.bias(bias));
        self.norm3 = self.norm3.bias(bias);
        self
    }

    /// The output for `[T, N, E]` and a memory `[S, N, E]`, or as set.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn forward(&self, tgt: &Var, memory: &Var) -> Var {
        self.forward_with(tgt, memory, DecoderMasks::new())
    }

    /// [`TransformerDecoderLayer::forward`] with masks.
    ///
    /// # Panics
    /// Same as [`TransformerDecoderLayer::forward`].
    #[track_caller]
    pub fn forward_with(&self, tgt: &Var, memory: &Var, masks: DecoderMasks) -> Var {
        let attend = |x: &Var| {
            let (padding, mask) = (masks.tgt_key_padding_mask, masks.tgt_mask);
            self.self_attn.attend_without_weights(x, x, x, padding, mask)
        };
        let look = |x: &Var| {
            let (padding, mask) = (masks.memory_key_padding_mask, masks.memory_mask);
            self.multihead_attn.attend_without_weights(x, memory, memory, padding, mask)
        };
        self.run(tgt, attend, look)
    }

    /// The output for targets that follow those passed with the same `past` before: each attends to itself, to all targets
    /// before it, and to the memory, of which keys and values are computed in the first call. A mask of padding among the
    /// targets is that of all targets so far.
    ///
    /// # Panics
    /// If the shapes do not fit, or there is a `tgt_mask`.
    #[track_caller]
    pub fn next(&self, tgt: &Var, memory: &Var, past: &mut DecoderPast, masks: DecoderMasks) -> Var {
        assert!(
            masks.tgt_mask.is_none(),
            "TransformerDecoderLayer: next has a causal mask of its own; tgt_mask must be None"
        );
        let DecoderPast { targets, memory: kept } = past;
        let attend = |x: &Var| self.self_attn.attend_next(x, targets, masks.tgt_key_padding_mask);
        let look = |x: &Var| {
            let (padding, mask) = (masks.memory_key_padding_mask, masks.memory_mask);
            self.multihead_attn.attend_kept(x, memory, kept, padding, mask)
        };
        self.run(tgt, attend, look)
    }

    fn run(&self, tgt: &Var, attend: impl FnOnce(&Var) -> Var, look: impl FnOnce(&Var) -> Var) -> Var {
        let attend = |x: &Var| self.dropout1.forward(&attend(x));
        let look = |x: &Var| self.dropout2.forward(&look(x));
        let feed = |x: &Var| {
            let inner = self.activation.apply(&self.linear1.forward(x));
            self.dropout3.forward(&self.linear2.forward(&self.dropout.forward(&inner)))
        };
        if self.norm_first {
            let x = tgt + attend(&self.norm1.forward(tgt));
            let x = &x + look(&self.norm2.forward(&x));
            &x + feed(&self.norm3.forward(&x))
        } else {
            let x = self.norm1.forward(&(tgt + attend(tgt)));
            let x = self.norm2.forward(&(&x + look(&x)));
            self.norm3.forward(&(&x + feed(&x)))
        }
    }
}

crate::module! {
    /// Decoder layers one after the other (`torch.nn.TransformerDecoder`).
    pub struct TransformerDecoder {
        layers: Vec<TransformerDecoderLayer>,
        norm: Option<LayerNorm>,
    }
}

impl TransformerDecoder {
    /// This many layers, each made by `layer`. (PyTorch copies one, so that all begin with the same values.)
    pub fn new(num_layers: usize, layer: impl Fn() -> TransformerDecoderLayer) -> TransformerDecoder {
        TransformerDecoder { layers: (0..num_layers).map(|_| layer()).collect(), norm: None }
    }

    /// This decoder with a normalization after the last layer.
    pub fn norm(mut self, norm: LayerNorm) -> TransformerDecoder {
        self.norm = Some(norm);
        self
    }

    /// The output for `[T, N, E]` and a memory `[S, N, E]`, or as its layers are set.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn forward(&self, tgt: &Var, memory: &Var) -> Var {
        self.forward_with(tgt, memory, DecoderMasks::new())
    }

    /// [`TransformerDecoder::forward`] with masks.
    ///
    /// # Panics
    /// Same as [`TransformerDecoder::forward`].
    #[track_caller]
    pub fn forward_with(&self, tgt: &Var, memory: &Var, masks: DecoderMasks) -> Var {
        let mut y = tgt.clone();
        for layer in &self.layers {
            y = layer.forward_with(&y, memory, masks);
        }
        self.norm.as_ref().map_or_else(|| y.clone(), |norm| norm.forward(&y))
    }
    /// The output for targets that follow those passed with the same `past` before, an empty list at first: one after the
    /// other, or several at once. As of [`TransformerDecoderLayer::next`].
    ///
    /// # Panics
    /// If the shapes do not fit, or there is a `tgt_mask`.
    ///
    /// ```
    /// use tapegrad_nn::{TransformerDecoder, TransformerDecoderLayer};
    /// use tapegrad_tape::Var;
    /// let decoder = TransformerDecoder::new(2, || TransformerDecoderLayer::new(8, 2));
    /// let (memory, mut past) = (Var::ones((7, 3, 8)), Vec::new());
    /// for _ in 0..3 {
    ///     assert_eq!(decoder.next(&Var::ones((1, 3, 8)), &memory, &mut past, Default::default()).shape(), [1, 3, 8]);
    /// }
    /// assert_eq!(past[0].targets.len(), 3);
    /// ```
    #[track_caller]
    pub fn next(&self, tgt: &Var, memory: &Var, past: &mut Vec<DecoderPast>, masks: DecoderMasks) -> Var {
        past.resize_with(self.layers.len(), DecoderPast::default);
        let mut y = tgt.clone();
        for (layer, past) in self.layers.iter().zip(past) {
            y = layer.next(&y, memory, past, masks);
        }
        self.norm.as_ref().map_or_else(|| y.clone(), |norm| norm.forward(&y))
    }
}
