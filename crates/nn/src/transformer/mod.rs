//! `Transformer` and its parts.

mod decoder;
mod encoder;

pub use decoder::{DecoderMasks, DecoderPast, TransformerDecoder, TransformerDecoderLayer};
pub use encoder::{FeedForwardActivation, TransformerEncoder, TransformerEncoderLayer};

use crate::Module;
use crate::init::xavier_uniform_;
use crate::norm::LayerNorm;
use tapegrad_tape::{DType, Tensor, Var};

/// The options of a [`Transformer`], with PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TransformerOptions {
    /// The size of the vectors.
    pub d_model: usize,
    /// The heads of each attention.
    pub nhead: usize,
    /// The layers of the encoder.
    pub num_encoder_layers: usize,
    /// The layers of the decoder.
    pub num_decoder_layers: usize,
    /// The units between the linear layers.
    pub dim_feedforward: usize,
    /// The probability of dropout.
    pub dropout: f64,
    /// The function between the linear layers.
    pub activation: FeedForwardActivation,
    /// What is added to variances for numerical stability.
    pub layer_norm_eps: f64,
    /// Inputs are `[N, L, E]` instead of `[L, N, E]`.
    pub batch_first: bool,
    /// Normalizations come before attention and linear layers instead of after.
    pub norm_first: bool,
    /// Linear layers, attention and normalizations have biases.
    pub bias: bool,
}

impl TransformerOptions {
    tapegrad_tape::setters! {
        d_model: usize, nhead: usize, num_encoder_layers: usize, num_decoder_layers: usize, dim_feedforward: usize,
        dropout: f64, activation: FeedForwardActivation, layer_norm_eps: f64, batch_first: bool, norm_first: bool,
        bias: bool,
    }
}

impl Default for TransformerOptions {
    fn default() -> TransformerOptions {
        TransformerOptions {
            d_model: 512,
            nhead: 8,
            num_encoder_layers: 6,
            num_decoder_layers: 6,
            dim_feedforward: 2048,
            dropout: 0.1,
            activation: FeedForwardActivation::ReLU,
            layer_norm_eps: 1e-5,
            batch_first: false,
            norm_first: false,
            bias: true,
        }
    }
}

/// The masks of a [`Transformer`]; none by default. They are as of [`MultiheadAttention::attend`](crate::MultiheadAttention::attend).
#[derive(Clone, Copy, Debug, Default)]
pub struct TransformerMasks<'a> {
    /// Which sources a source may attend to.
    pub src_mask: Option<&'a Var>,
    /// Which sources are padding, for the encoder.
    pub src_key_padding_mask: Option<&'a Var>,
    /// The masks of the decoder.
    pub decoder: DecoderMasks<'a>,
}

impl<'a> TransformerMasks<'a> {
    tapegrad_tape::setters! { decoder: DecoderMasks<'a>; src_mask: &'a Var, src_key_padding_mask: &'a Var }
}

crate::module! {
    /// An encoder and a decoder (`torch.nn.Transformer`; Vaswani et al. 2017, "Attention is all you need").
    ///
    /// ```
    /// use tapegrad_nn::{Transformer, TransformerOptions};
    /// use tapegrad_tape::Var;
    /// let model = Transformer::new(TransformerOptions::new().d_model(8).nhead(2).num_encoder_layers(1));
    /// let (source, target) = (Var::ones((7, 3, 8)), Var::ones((5, 3, 8)));
    /// assert_eq!(model.forward(&source, &target).shape(), [5, 3, 8]);
    /// ```
    pub struct Transformer {
        encoder: TransformerEncoder,
        decoder: TransformerDecoder,
        d_model: usize,
    }
}

impl Transformer {
    /// A model with these options. Matrices are drawn as by [`xavier_uniform_`].
    ///
    /// # Panics
    /// If the size cannot be divided by the heads.
    #[track_caller]
    pub fn new(o: TransformerOptions) -> Transformer {
        let norm = || LayerNorm::new(&[o.d_model]).eps(o.layer_norm_eps).bias(o.bias);
        // Both kinds of layers have the same setters.
        macro_rules! layer {
            ($kind:ident) => {
                || {
                    $kind::new(o.d_model, o.nhead)
                        .dim_feedforward(o.dim_feedforward)
                        .dropout(o.dropout)
                        .activation(o.activation)
                        .layer_norm_eps(o.layer_norm_eps)
                        .batch_first(o.batch_first)
                        .norm_first(o.norm_first)
                        .bias(o.bias)
                }
            };
        }
        let model = Transformer {
            encoder: TransformerEncoder::new(o.num_encoder_layers, layer!(TransformerEncoderLayer))
                .norm(norm()),
            decoder: TransformerDecoder::new(o.num_decoder_layers, layer!(TransformerDecoderLayer))
                .norm(norm()),
            d_model: o.d_model,
        };
        model.parameters().iter().filter(|p| p.ndim() > 1).for_each(|p| xavier_uniform_(p));
        model
    }

    /// The output `[T, N, E]` for a source `[S, N, E]` and a target `[T, N, E]`, or as set.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn forward(&self, src: &Var, tgt: &Var) -> Var {
        self.forward_with(src, tgt, TransformerMasks::new())
    }

    /// [`Transformer::forward`] with masks.
    ///
    /// # Panics
    /// Same as [`Transformer::forward`].
    #[track_caller]
    pub fn forward_with(&self, src: &Var, tgt: &Var, masks: TransformerMasks) -> Var {
        for (name, v) in [("src", src), ("tgt", tgt)] {
            assert!(
                (2..=3).contains(&v.ndim()) && v.size(-1) == self.d_model,
                "Transformer: {name} of shape {:?} should have {} features in its last dimension",
                v.shape(),
                self.d_model
            );
        }
        let memory = self.encoder.forward_with(src, masks.src_mask, masks.src_key_padding_mask);
        self.decoder.forward_with(tgt, &memory, masks.decoder)
    }

    /// The mask with which a target attends only to itself and to those before it: minus infinity above the diagonal
    /// (`torch.nn.Transformer.generate_square_subsequent_mask`).
    pub fn generate_square_subsequent_mask(size: usize) -> Var {
        Var::from(Tensor::full_with(&[size, size], f64::NEG_INFINITY, DType::F32)).triu_with(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapegrad_tape::with_default_generator;

    /// With the causal mask, a change of the last target changes no output before it.
    #[test]
    fn targets_do_not_see_later_ones() {
        let options =
            TransformerOptions::new().d_model(8).nhead(2).num_encoder_layers(1).num_decoder_layers(2);
        let options = options.dim_feedforward(16).dropout(0.0).batch_first(true);
        let model = Transformer::new(options);
        let random = |shape: &[usize]| Var::from(with_default_generator(|g| g.normal(shape, 0.0, 1.0)));
        let (src, tgt) = (random(&[2, 4, 8]), random(&[2, 3, 8]));
        let mask = Transformer::generate_square_subsequent_mask(3);
        let masks = TransformerMasks::new().decoder(DecoderMasks::new().tgt_mask(&mask));
        let other = tapegrad_tape::cat(&[tgt.narrow(1, 0, 2), random(&[2, 1, 8])], 1);
        let first = |t: &Var| model.forward_with(&src, t, masks).narrow(1, 0, 2).to_vec::<f32>();
        assert_eq!(first(&tgt), first(&other));
    }
    /// Any division of the targets into calls gives the outputs of a single call with a causal mask, with padding among
    /// sources and targets, for every kind of layer.
    #[test]
    fn steps_are_the_whole() {
        tapegrad_tape::manual_seed(4);
        let random = |shape: &[usize]| Var::from(with_default_generator(|g| g.normal(shape, 0.0, 1.0)));
        for (norm_first, batch_first) in [(false, true), (true, false)] {
            let layer = || {
                TransformerDecoderLayer::new(8, 2)
                    .dim_feedforward(16)
                    .norm_first(norm_first)
                    .batch_first(batch_first)
            };
            let decoder = TransformerDecoder::new(2, layer).norm(LayerNorm::new(&[8]));
            decoder.eval();
            let dim = if batch_first { 1 } else { 0 };
            let shape = |t: usize| if batch_first { [2, t, 8] } else { [t, 2, 8] };
            let (memory, tgt) = (random(&shape(4)), random(&shape(6)));
            let padding = Var::from_vec(vec![false, false, false, true, false, false, true, true], &[2, 4]);
            let left = Var::from_vec((0..12).map(|i| i == 6 || i == 7).collect(), &[2, 6]);
            let causal = Transformer::generate_square_subsequent_mask(6);
            let masks = DecoderMasks {
                memory_key_padding_mask: Some(&padding),
                tgt_key_padding_mask: Some(&left),
                ..Default::default()
            };
            let whole =
                decoder.forward_with(&tgt, &memory, DecoderMasks { tgt_mask: Some(&causal), ..masks });
            for lengths in [&[1usize; 6][..], &[3, 1, 2], &[2, 3, 1], &[6]] {
                let (mut past, mut start, mut parts) = (Vec::new(), 0, Vec::new());
                for &n in lengths {
                    let left = left.narrow(1, 0, start + n);
                    let masks = DecoderMasks { tgt_key_padding_mask: Some(&left), ..masks };
                    parts.push(decoder.next(&tgt.narrow(dim, start, n), &memory, &mut past, masks));
                    start += n;
                }
                let parts = tapegrad_tape::cat(&parts, dim);
                tapegrad_tape::assert_close_with(&parts, &whole, 1e-4, 1e-5, false);
            }
        }
    }

    /// Gradients flow through what was kept.
    #[test]
    fn steps_have_the_gradients_of_the_whole() {
        let attention = crate::MultiheadAttention::new(4, 2).batch_first(true);
        let x = Var::parameter(with_default_generator(|g| g.normal(&[1, 3, 4], 0.0, 1.0)));
        let gradient = |y: Var| {
            x.zero_grad();
            y.square().sum_all().backward();
            x.grad().expect("it takes part")
        };
        let causal = Transformer::generate_square_subsequent_mask(3);
        let whole = gradient(attention.attend_without_weights(&x, &x, &x, None, Some(&causal)));
        let mut past = crate::KeyValues::default();
        let parts: Vec<Var> =
            (0..3).map(|i| attention.attend_next(&x.narrow(1, i, 1), &mut past, None)).collect();
        tapegrad_tape::assert_close_with(&gradient(tapegrad_tape::cat(&parts, 1)), &whole, 1e-4, 1e-5, false);
    }

    #[test]
    #[should_panic(expected = "next has a causal mask of its own")]
    fn steps_with_a_mask() {
        let layer = TransformerDecoderLayer::new(4, 2);
        let (x, mask) = (Var::ones((1, 1, 4)), Var::ones((1, 1)));
        let masks = DecoderMasks { tgt_mask: Some(&mask), ..Default::default() };
        layer.next(&x, &x, &mut DecoderPast::default(), masks);
    }
}
