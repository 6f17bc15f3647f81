//! `MultiheadAttention` and `TransformerEncoderLayer`.

use crate::dropout::Dropout;
use crate::fields::Training;
use crate::init::{Draws, xavier_normal_, xavier_uniform_, zeros_};
use crate::linear::Linear;
use crate::module::Module;
use crate::norm::LayerNorm;
use crate::summary::observe;
use tapegrad_ops::{AttentionOptions, scaled_dot_product_attention_with_weights};
use tapegrad_tape::{DType, PadMode, Tensor, Var};

fn parameter(shape: &[usize]) -> Var {
    Var::parameter(Tensor::zeros(shape, DType::F32))
}

crate::module! {
    /// Multi-head attention (`torch.nn.MultiheadAttention`).
    ///
    /// ```
    /// use tapegrad_nn::{MultiheadAttention, Module};
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let attention = MultiheadAttention::new(8, 2).batch_first(true);
    /// let x = Var::from(Tensor::ones(&[3, 5, 8], DType::F32));
    /// let (y, weights) = attention.attend(&x, &x, &x, None, None);
    /// assert_eq!((y.shape(), weights.shape()), (&[3, 5, 8][..], &[3, 5, 5][..]));
    /// ```
    pub struct MultiheadAttention {
        in_proj_weight: Option<Var>,
        q_proj_weight: Option<Var>,
        k_proj_weight: Option<Var>,
        v_proj_weight: Option<Var>,
        in_proj_bias: Option<Var>,
        bias_k: Option<Var>,
        bias_v: Option<Var>,
        out_proj: Linear,
        embed_dim: usize,
        num_heads: usize,
        kdim: usize,
        vdim: usize,
        dropout: f64,
        add_zero_attn: bool,
        batch_first: bool,
        training: Training,
        drawn: Draws,
    }
}

impl MultiheadAttention {
    /// Attention over vectors of this size with this many heads.
    ///
    /// # Panics
    /// If the size cannot be divided by the heads.
    #[track_caller]
    pub fn new(embed_dim: usize, num_heads: usize) -> MultiheadAttention {
        assert!(
            num_heads > 0 && embed_dim > 0 && embed_dim.is_multiple_of(num_heads),
            "MultiheadAttention: embed_dim ({embed_dim}) must be above zero, and divisible by num_heads ({num_heads})"
        );
        let mut drawn = Draws::here();
        let projections = drawn.again(|| MultiheadAttention::projections([embed_dim; 3], true, false));
        MultiheadAttention { num_heads, drawn, ..projections }
    }

    /// A module with these sizes of queries, keys and values, one head, and defaults for the rest.
    fn projections([e, kdim, vdim]: [usize; 3], bias: bool, bias_kv: bool) -> MultiheadAttention {
        let drawn = |shape: &[usize]| {
            let p = parameter(shape);
            xavier_uniform_(&p, 1.0);
            p
        };
        let out_proj = Linear::new(e, e).bias(bias);
        if let Some(bias) = &out_proj.bias {
            zeros_(bias);
        }
        let one = kdim == e && vdim == e;
        let extra = || {
            let p = parameter(&[1, 1, e]);
            xavier_normal_(&p, 1.0);
            p
        };
        MultiheadAttention {
            in_proj_weight: one.then(|| drawn(&[3 * e, e])),
            q_proj_weight: (!one).then(|| drawn(&[e, e])),
            k_proj_weight: (!one).then(|| drawn(&[e, kdim])),
            v_proj_weight: (!one).then(|| drawn(&[e, vdim])),
            in_proj_bias: bias.then(|| parameter(&[3 * e])),
            bias_k: bias_kv.then(extra),
            bias_v: bias_kv.then(extra),
            out_proj,
            embed_dim: e,
            num_heads: 1,
            kdim,
            vdim,
            dropout: 0.0,
            add_zero_attn: false,
            batch_first: false,
            training: Training::default(),
            drawn: Draws::here(),
        }
    }

    /// This module with other projections, as if it had been made so.
    fn redrawn(mut self, sizes: [usize; 3], bias: bool, bias_kv: bool) -> MultiheadAttention {
        let projections = self.drawn.again(|| MultiheadAttention::projections(sizes, bias, bias_kv));
        MultiheadAttention {
            num_heads: self.num_heads,
            dropout: self.dropout,
            add_zero_attn: self.add_zero_attn,
            batch_first: self.batch_first,
            training: self.training,
            drawn: self.drawn,
            ..projections
        }
    }

    /// This module with projections that are drawn here.
    fn redrawn_here(mut self, bias: bool) -> MultiheadAttention {
        self.drawn = Draws::here();
        self.bias(bias)
    }

    /// This module with other key and value sizes; the projections are drawn again.
    pub fn dims(self, kdim: usize, vdim: usize) -> MultiheadAttention {
        let (e, bias, bias_kv) = (self.embed_dim, self.in_proj_bias.is_some(), self.bias_k.is_some());
        self.redrawn([e, kdim, vdim], bias, bias_kv)
    }

    /// This module with or without biases in its projections, which are drawn again.
    pub fn bias(self, bias: bool) -> MultiheadAttention {
        let (sizes, bias_kv) = ([self.embed_dim, self.kdim, self.vdim], self.bias_k.is_some());
        self.redrawn(sizes, bias, bias_kv)
    }

    /// This module with dropout on the attention weights.
    pub fn dropout(mut self, p: f64) -> MultiheadAttention {
        self.dropout = p;
        self
    }

    /// This module with one learned key and value appended; the projections are drawn again.
    pub fn add_bias_kv(self, add: bool) -> MultiheadAttention {
        let (sizes, bias) = ([self.embed_dim, self.kdim, self.vdim], self.in_proj_bias.is_some());
        self.redrawn(sizes, bias, add)
    }

    /// This module with one zero key and value appended.
    pub fn add_zero_attn(mut self, add: bool) -> MultiheadAttention {
        self.add_zero_attn = add;
        self
    }

    /// This module for inputs `[N, L, E]` instead of `[L, N, E]`.
    pub fn batch_first(mut self, batch_first: bool) -> MultiheadAttention {
        self.batch_first = batch_first;
        self
    }

    /// The attention output, and the attention weights `[N, L, S]`, averaged over the heads.
    ///
    /// `query` is `[L, N, E]`, `key` and `value` `[S, N, ...]` (batch first if so set), or all without `N`.
    /// `key_padding_mask` is `[N, S]`, `attn_mask` `[L, S]` or `[N * heads, L, S]`: where it is true,
    /// the key is ignored; a float mask is added to the scores. A query that may attend to nothing yields zeros.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn attend(
        &self,
        query: &Var,
        key: &Var,
        value: &Var,
        key_padding_mask: Option<&Var>,
        attn_mask: Option<&Var>,
    ) -> (Var, Var) {
        let (y, weights) = self.attend_heads(query, key, value, key_padding_mask, attn_mask);
        let dim = weights.ndim() as isize - 3;
        (y, weights.mean(&[dim], false))
    }

    /// As [`MultiheadAttention::attend`], with the weights of every head: `[N, heads, L, S]`
    /// (`average_attn_weights=False`).
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn attend_heads(
        &self,
        query: &Var,
        key: &Var,
        value: &Var,
        key_padding_mask: Option<&Var>,
        attn_mask: Option<&Var>,
    ) -> (Var, Var) {
        // Outside of the closure, so that a panic names the caller.
        let (y, weights) = self.attention(query, key, value, key_padding_mask, attn_mask);
        (observe(self, query, || y), weights)
    }

    #[track_caller]
    fn attention(
        &self,
        query: &Var,
        key: &Var,
        value: &Var,
        key_padding_mask: Option<&Var>,
        attn_mask: Option<&Var>,
    ) -> (Var, Var) {
        let batched = query.ndim() == 3;
        let sizes = [(query, "query", self.embed_dim), (key, "key", self.kdim), (value, "value", self.vdim)];
        for (v, name, size) in sizes {
            assert!(
                (2..=3).contains(&v.ndim()) && v.ndim() == query.ndim() && v.size(-1) == size,
                "MultiheadAttention: {name} of shape {:?} does not fit query of shape {:?} and a size of {size}",
                v.shape(),
                query.shape()
            );
        }
        let steps_first = |x: &Var| match (batched, self.batch_first) {
            (false, _) => x.unsqueeze(1),
            (true, true) => x.transpose(0, 1),
            (true, false) => x.clone(),
        };
        let same = std::ptr::eq(query, key) && std::ptr::eq(key, value);
        let (q, k, v) = (steps_first(query), steps_first(key), steps_first(value));
        let (l, n, s) = (q.shape()[0], q.shape()[1], k.shape()[0]);
        assert!(
            k.shape()[1] == n && v.shape()[..2] == k.shape()[..2],
            "MultiheadAttention: query {:?}, key {:?} and value {:?} differ in batch or length",
            query.shape(),
            key.shape(),
            value.shape()
        );
        let (heads, size) = (self.num_heads, self.embed_dim / self.num_heads);
        let mut mask = self.mask(q.dtype(), [l, n, s], key_padding_mask, attn_mask);

        let (q, mut k, mut v) = self.project(&q, &k, &v, same);
        let grow =
            |mask: &mut Option<Var>| *mask = mask.take().map(|m| m.pad(&[0, 1], PadMode::Constant(0.0)));
        if let (Some(bias_k), Some(bias_v)) = (&self.bias_k, &self.bias_v) {
            let row = |b: &Var| b.expand(&[1, n as isize, -1]);
            k = tapegrad_tape::cat(&[k, row(bias_k)], 0);
            v = tapegrad_tape::cat(&[v, row(bias_v)], 0);
            grow(&mut mask);
        }
        // [L, N, E] -> [N, heads, L, size]
        let split = |x: &Var| {
            x.reshape(&[x.shape()[0] as isize, n as isize, heads as isize, size as isize])
                .permute(&[1, 2, 0, 3])
        };
        let (q, mut k, mut v) = (split(&q), split(&k), split(&v));
        if self.add_zero_attn {
            k = k.pad(&[0, 0, 0, 1], PadMode::Constant(0.0));
            v = v.pad(&[0, 0, 0, 1], PadMode::Constant(0.0));
            grow(&mut mask);
        }
        let dropout_p = if self.training.get() { self.dropout } else { 0.0 };
        let options = AttentionOptions { attn_mask: mask.as_ref(), dropout_p, ..Default::default() };
        let (found, weights) = scaled_dot_product_attention_with_weights(&q, &k, &v, options);
        let found = found.permute(&[2, 0, 1, 3]);
        let y = self.out_proj.forward(&found.reshape(&[l as isize, n as isize, self.embed_dim as isize]));
        match (batched, self.batch_first) {
            (false, _) => (y.squeeze(1), weights.squeeze(0)),
            (true, true) => (y.transpose(0, 1), weights),
            (true, false) => (y, weights),
        }
    }

    fn project(&self, q: &Var, k: &Var, v: &Var, same: bool) -> (Var, Var, Var) {
        let e = self.embed_dim;
        let bias = |i: usize| self.in_proj_bias.as_ref().map(|b| b.narrow(0, i * e, e));
        match &self.in_proj_weight {
            Some(w) => {
                if same {
                    let all = tapegrad_ops::linear(q, w, self.in_proj_bias.as_ref()).chunk(3, -1);
                    return (all[0].clone(), all[1].clone(), all[2].clone());
                }
                let part =
                    |x: &Var, i: usize| tapegrad_ops::linear(x, &w.narrow(0, i * e, e), bias(i).as_ref());
                (part(q, 0), part(k, 1), part(v, 2))
            }
            None => {
                let part = |x: &Var, w: &Option<Var>, i: usize| {
                    tapegrad_ops::linear(x, w.as_ref().expect("one weight or three"), bias(i).as_ref())
                };
                (
                    part(q, &self.q_proj_weight, 0),
                    part(k, &self.k_proj_weight, 1),
                    part(v, &self.v_proj_weight, 2),
                )
            }
        }
    }

    /// Both masks as one float mask that is added to the scores `[N, heads, L, S]`.
    #[track_caller]
    fn mask(
        &self,
        dtype: DType,
        [l, n, s]: [usize; 3],
        key_padding_mask: Option<&Var>,
        attn_mask: Option<&Var>,
    ) -> Option<Var> {
        let numbers = |m: &Var| {
            if m.dtype() == DType::Bool {
                Var::from(Tensor::zeros(m.shape(), dtype)).masked_fill(m, f64::NEG_INFINITY)
            } else {
                m.cast(dtype)
            }
        };
        let (h, [li, ni, si]) = (self.num_heads, [l, n, s].map(|n| n as isize));
        let padding = key_padding_mask.map(|m| {
            let fits = m.shape() == [n, s] || (n == 1 && m.shape() == [s]);
            assert!(fits, "MultiheadAttention: key_padding_mask should be [{n}, {s}], got {:?}", m.shape());
            numbers(m).reshape(&[ni, 1, 1, si])
        });
        let attention = attn_mask.map(|m| {
            let fits = m.shape() == [l, s] || m.shape() == [n * h, l, s];
            assert!(
                fits,
                "MultiheadAttention: attn_mask should be [{l}, {s}] or [{}, {l}, {s}], got {:?}",
                n * h,
                m.shape()
            );
            let m = numbers(m);
            if m.ndim() == 2 { m } else { m.reshape(&[ni, h as isize, li, si]) }
        });
        match (padding, attention) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        }
    }
}

impl Module for MultiheadAttention {
    /// Self-attention.
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        self.attend(x, x, x, None, None).0
    }
}

/// The function between the two layers of a [`TransformerEncoderLayer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForwardActivation {
    /// The rectifier.
    ReLU,
    /// The Gaussian error linear unit.
    GELU,
}

impl crate::Field for FeedForwardActivation {}

crate::module! {
    /// Self-attention and two linear layers, each with a residual and a normalization
    /// (`torch.nn.TransformerEncoderLayer`).
    ///
    /// ```
    /// use tapegrad_nn::{Module, TransformerEncoderLayer};
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let layer = TransformerEncoderLayer::new(8, 2).batch_first(true);
    /// let x = Var::from(Tensor::ones(&[3, 5, 8], DType::F32));
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
    pub fn forward_with_masks(
        &self,
        x: &Var,
        src_mask: Option<&Var>,
        src_key_padding_mask: Option<&Var>,
    ) -> Var {
        let attend = |x: &Var| {
            self.dropout1.forward(&self.self_attn.attend(x, x, x, src_key_padding_mask, src_mask).0)
        };
        let feed = |x: &Var| {
            let inner = self.linear1.forward(x);
            let inner = match self.activation {
                FeedForwardActivation::ReLU => tapegrad_ops::relu(&inner),
                FeedForwardActivation::GELU => tapegrad_ops::gelu(&inner, tapegrad_ops::Approximate::None),
            };
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

impl Module for TransformerEncoderLayer {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, || self.forward_with_masks(x, None, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fields;
    use tapegrad_tape::{BackwardOptions, manual_seed, with_default_generator};

    /// The second sample has no valid key, and the first query of the first sample may attend to none.
    #[test]
    fn rows_that_see_nothing_stay_finite() {
        manual_seed(1);
        let x = Var::parameter(with_default_generator(|g| g.normal(&[2, 3, 4], 0.0, 1.0)));
        let padding = Var::from_vec(vec![false, false, true, true, true, true], &[2, 3]);
        let mut hidden = [false; 9];
        hidden[..3].fill(true);
        let hidden = Var::from_vec(hidden.to_vec(), &[3, 3]);
        for create_graph in [false, true] {
            for attention in
                [MultiheadAttention::new(4, 2), MultiheadAttention::new(4, 2).dims(4, 4).bias(false)]
            {
                let attention = attention.batch_first(true);
                let (y, weights) = attention.attend(&x, &x, &x, Some(&padding), Some(&hidden));
                assert!(y.to_vec::<f32>().iter().chain(&weights.to_vec::<f32>()).all(|v| v.is_finite()));
                let weights = weights.to_vec::<f32>();
                assert!(weights[..3].iter().chain(&weights[9..]).all(|&w| w == 0.0), "{weights:?}");
                let loss = y.get(0).narrow(0, 1, 2).square().sum_all();
                x.zero_grad();
                loss.backward_with(None, BackwardOptions { create_graph, ..Default::default() });
                for p in attention.parameters().iter().chain([&x]) {
                    let g = p.grad().expect("it takes part").to_vec::<f32>();
                    assert!(g.iter().all(|g| g.is_finite()), "{g:?}");
                }
            }
        }
    }
}
