//! GPT: a decoder-only transformer.

use crate::init::{normal_, zeros_};
use crate::key_values::causal_mask;
use crate::{Embedding, Forward, KeyValues, LayerNorm, Linear, Module, observe};
use tapegrad_ops::{Approximate, AttentionOptions, gelu_with, scaled_dot_product_attention_with};
use tapegrad_tape::{Tensor, Var};

/// The sizes of a [`Gpt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GptConfig {
    /// The number of different tokens.
    pub vocab: usize,
    /// The longest sequence.
    pub block: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Attention heads of each block.
    pub heads: usize,
    /// The width of the residual stream, a multiple of the heads.
    pub embd: usize,
}

impl GptConfig {
    /// 4 layers, 4 heads, 128 wide, 64 tokens.
    pub fn tiny(vocab: usize) -> GptConfig {
        GptConfig { vocab, block: 64, layers: 4, heads: 4, embd: 128 }
    }

    /// 6 layers, 6 heads, 384 wide, 256 tokens.
    pub fn small(vocab: usize) -> GptConfig {
        GptConfig { vocab, block: 256, layers: 6, heads: 6, embd: 384 }
    }

    /// The smallest GPT-2: 12 layers, 12 heads, 768 wide, 1,024 tokens.
    pub fn gpt2(vocab: usize) -> GptConfig {
        GptConfig { vocab, block: 1024, layers: 12, heads: 12, embd: 768 }
    }
}

crate::module! {
    /// A transformer block of a [`Gpt`]: attention and two linear layers, each behind a normalization and beside a
    /// residual.
    pub struct GptBlock {
        ln_1: LayerNorm,
        c_attn: Linear,
        c_proj: Linear,
        ln_2: LayerNorm,
        c_fc: Linear,
        c_out: Linear,
        heads: usize,
    }
}

impl GptBlock {
    /// A block of this width with this many heads.
    ///
    /// # Panics
    /// If the width cannot be divided by the heads.
    #[track_caller]
    pub fn new(embd: usize, heads: usize) -> GptBlock {
        assert!(
            heads > 0 && embd > 0 && embd.is_multiple_of(heads),
            "GptBlock: the width {embd} must be above zero, and divisible by the number of heads {heads}"
        );
        GptBlock {
            ln_1: LayerNorm::new(&[embd]),
            c_attn: Linear::new(embd, 3 * embd),
            c_proj: Linear::new(embd, embd),
            ln_2: LayerNorm::new(&[embd]),
            c_fc: Linear::new(embd, 4 * embd),
            c_out: Linear::new(4 * embd, embd),
            heads,
        }
    }

    /// The output for `[B, T, embd]`. With keys and values of earlier tokens, `x` are the tokens after those.
    fn run(&self, x: &Var, past: Option<&mut KeyValues>) -> Var {
        let [b, t, embd] = *x.shape() else {
            panic!("GptBlock: expects an input of shape [B, T, embd], got {:?}", x.shape())
        };
        let [b, t, size] = [b, t, embd / self.heads].map(|n| n as isize);
        let qkv = self.c_attn.forward(&self.ln_1.forward(x)).reshape(&[b, t, 3, self.heads as isize, size]);
        let [q, mut k, mut v] = <[Var; 3]>::try_from(qkv.unbind(2)).expect("three parts");
        let before = past.as_ref().map_or(0, |past| past.len());
        let mask = if before > 0 { causal_mask(t as usize, before, x.dtype()) } else { None };
        if let Some(past) = past {
            [k, v] = past.extend(&k, &v);
        }
        let [q, k, v] = [q, k, v].map(|x| x.transpose(1, 2));
        let options =
            AttentionOptions { attn_mask: mask.as_ref(), is_causal: before == 0, ..Default::default() };
        let y = scaled_dot_product_attention_with(&q, &k, &v, options).transpose(1, 2);
        let x = x + self.c_proj.forward(&y.reshape(&[b, t, embd as isize]));
        let inner = gelu_with(&self.c_fc.forward(&self.ln_2.forward(&x)), Approximate::Tanh);
        &x + self.c_out.forward(&inner)
    }
}

impl Forward for GptBlock {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| self.run(x, None))
    }
}

crate::module! {
    /// A language model: token and position embeddings, transformer blocks, a normalization and a linear head (Radford
    /// et al. 2019, "Language models are unsupervised multitask learners").
    ///
    /// ```
    /// use tapegrad_nn::models::{Gpt, GptConfig};
    /// use tapegrad_nn::{Module, Forward};
    /// use tapegrad_tape::Var;
    /// let model = Gpt::new(GptConfig { vocab: 10, block: 8, layers: 2, heads: 2, embd: 12 });
    /// let tokens = Var::from_vec(vec![1i64, 2, 3, 4, 5, 6], &[2, 3]);
    /// assert_eq!(model.forward(&tokens).shape(), [2, 3, 10]);
    /// ```
    pub struct Gpt {
        pub(super) wte: Embedding,
        wpe: Embedding,
        h: Vec<GptBlock>,
        ln_f: LayerNorm,
        pub(super) lm_head: Linear,
    }
}

impl Gpt {
    /// A model with GPT-2's initial values: normal with a standard deviation of 0.02, less for what is added to the
    /// residual stream.
    ///
    /// # Panics
    /// If the width cannot be divided by the heads.
    #[track_caller]
    pub fn new(config: GptConfig) -> Gpt {
        let GptConfig { vocab, block, layers, heads, embd } = config;
        let model = Gpt {
            wte: Embedding::new(vocab, embd),
            wpe: Embedding::new(block, embd),
            h: (0..layers).map(|_| GptBlock::new(embd, heads)).collect(),
            ln_f: LayerNorm::new(&[embd]),
            lm_head: Linear::new(embd, vocab).bias(false),
        };
        for (name, p) in model.named_parameters() {
            let into_residual = name.ends_with("c_proj.weight") || name.ends_with("c_out.weight");
            match p.ndim() {
                2 if into_residual => normal_(&p, 0.0, 0.02 / (2.0 * layers as f64).sqrt()),
                2 => normal_(&p, 0.0, 0.02),
                _ if name.ends_with("bias") => zeros_(&p),
                _ => {}
            }
        }
        model
    }

    /// The longest sequence.
    pub fn block(&self) -> usize {
        self.wpe.weight.shape()[0]
    }

    /// The weight of the linear head, `[vocab, embd]`: for `linear_cross_entropy`.
    pub fn head(&self) -> &Var {
        &self.lm_head.weight
    }

    /// What the head is applied to, `[B, T, embd]`, for tokens `[B, T]`.
    ///
    /// # Panics
    /// If the tokens are not integers of two dimensions, or too many.
    #[track_caller]
    pub fn hidden(&self, tokens: &Var) -> Var {
        self.run(tokens, None)
    }

    /// The logits `[B, T, vocab]` of tokens `[B, T]` that follow those that were passed with the same `past` before, an empty
    /// list at first.
    ///
    /// # Panics
    /// If the tokens do not fit, or are too many with those before.
    #[track_caller]
    pub fn next(&self, tokens: &Var, past: &mut Vec<KeyValues>) -> Var {
        past.resize_with(self.h.len(), KeyValues::default);
        self.lm_head.forward(&self.run(tokens, Some(past)))
    }

    #[track_caller]
    fn run(&self, tokens: &Var, past: Option<&mut Vec<KeyValues>>) -> Var {
        let start = past.as_ref().and_then(|past| past.first()).map_or(0, KeyValues::len);
        let t = tokens.shape().last().copied().unwrap_or(0);
        assert!(
            tokens.ndim() == 2 && start + t <= self.block(),
            "Gpt: expects tokens [B, T] with T of at most {}, got {:?} after {start}",
            self.block(),
            tokens.shape()
        );
        let places = Var::from(Tensor::arange(start as i64, (start + t) as i64));
        let mut x = self.wte.forward(tokens) + self.wpe.forward(&places);
        match past {
            None => self.h.iter().for_each(|block| x = block.forward(&x)),
            Some(past) => self.h.iter().zip(past).for_each(|(block, past)| x = block.run(&x, Some(past))),
        }
        self.ln_f.forward(&x)
    }
}

impl Forward for Gpt {
    #[track_caller]
    fn forward(&self, tokens: &Var) -> Var {
        observe(self, tokens, |tokens| self.lm_head.forward(&self.hidden(tokens)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapegrad_tape::{manual_seed, no_grad};

    #[test]
    fn one_token_at_a_time_is_all_at_once() {
        manual_seed(3);
        let model = Gpt::new(GptConfig { vocab: 7, block: 6, layers: 2, heads: 2, embd: 8 });
        let tokens: Vec<i64> = vec![3, 1, 6, 0, 2, 5];
        no_grad(|| {
            let whole = model.forward(&Var::from_vec(tokens.clone(), &[1, 6])).to_vec::<f32>();
            let mut past = Vec::new();
            let mut parts =
                model.next(&Var::from_vec(tokens[..3].to_vec(), &[1, 3]), &mut past).to_vec::<f32>();
            for &token in &tokens[3..] {
                parts.extend(model.next(&Var::from_vec(vec![token], &[1, 1]), &mut past).to_vec::<f32>());
            }
            let mut past = Vec::new();
            for part in tokens.chunks(2) {
                let logits = model.next(&Var::from_vec(part.to_vec(), &[1, part.len()]), &mut past);
                parts.extend(logits.to_vec::<f32>());
            }
            let whole = [&whole[..], &whole[..]].concat();
            assert_eq!(whole.len(), parts.len());
            assert!(whole.iter().zip(&parts).all(|(a, b)| (a - b).abs() < 1e-5), "{whole:?} {parts:?}");
        });
    }

    #[test]
    #[should_panic(expected = "Gpt: expects tokens [B, T] with T of at most 2, got [1, 3] after 0")]
    fn a_sequence_that_is_too_long() {
        let model = Gpt::new(GptConfig { vocab: 7, block: 2, layers: 1, heads: 1, embd: 4 });
        model.forward(&Var::from_vec(vec![0i64, 1, 2], &[1, 3]));
    }
}
