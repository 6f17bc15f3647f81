//! `MultiheadAttention`.

mod run;

use crate::KeyValues;
use crate::fields::Training;
use crate::init::{Draws, xavier_normal_, xavier_uniform_, zeros_};
use crate::key_values::{Past, causal_mask};
use crate::linear::Linear;
use crate::module::Forward;
use crate::summary::observe_output;
use tapegrad_tape::{DType, Tensor, Var};

fn parameter(shape: &[usize]) -> Var {
    Var::parameter(Tensor::zeros_with(shape, DType::F32))
}

crate::module! {
    /// Multi-head attention (`torch.nn.MultiheadAttention`).
    ///
    /// ```
    /// use tapegrad_nn::{MultiheadAttention, Forward};
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let attention = MultiheadAttention::new(8, 2).batch_first(true);
    /// let x = Var::from(Tensor::ones_with(&[3, 5, 8], DType::F32));
    /// let (y, weights) = attention.attend(&x, &x, &x);
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
            xavier_uniform_(&p);
            p
        };
        let out_proj = Linear::new(e, e).bias(bias);
        if let Some(bias) = &out_proj.bias {
            zeros_(bias);
        }
        let one = kdim == e && vdim == e;
        let extra = || {
            let p = parameter(&[1, 1, e]);
            xavier_normal_(&p);
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
    pub(crate) fn redrawn_here(mut self, bias: bool) -> MultiheadAttention {
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
    pub fn attend(&self, query: &Var, key: &Var, value: &Var) -> (Var, Var) {
        self.attend_with(query, key, value, None, None)
    }

    /// [`MultiheadAttention::attend`] with masks.
    ///
    /// # Panics
    /// Same as [`MultiheadAttention::attend`].
    #[track_caller]
    pub fn attend_with<'a>(
        &self,
        query: &Var,
        key: &Var,
        value: &Var,
        key_padding_mask: impl Into<Option<&'a Var>>,
        attn_mask: impl Into<Option<&'a Var>>,
    ) -> (Var, Var) {
        let (y, weights) = self.attend_heads(query, key, value, key_padding_mask, attn_mask);
        let dim = weights.ndim() as isize - 3;
        (y, weights.mean(dim))
    }

    /// As [`MultiheadAttention::attend`], with the weights of every head: `[N, heads, L, S]`
    /// (`average_attn_weights=False`).
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn attend_heads<'a>(
        &self,
        query: &Var,
        key: &Var,
        value: &Var,
        key_padding_mask: impl Into<Option<&'a Var>>,
        attn_mask: impl Into<Option<&'a Var>>,
    ) -> (Var, Var) {
        let masks = [key_padding_mask.into(), attn_mask.into()];
        let (y, weights) = self.run([query, key, value], masks, true, Past::None);
        // Outside of the closure, so that a panic names the caller.
        (observe_output(self, query, y), weights.expect("asked for"))
    }

    /// As [`MultiheadAttention::attend`], without the weights (`need_weights=False`): in F32 the memory is linear in the
    /// lengths, and there is less to compute.
    ///
    /// # Panics
    /// If the shapes do not fit.
    ///
    /// ```
    /// use tapegrad_nn::MultiheadAttention;
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let attention = MultiheadAttention::new(8, 2).batch_first(true);
    /// let x = Var::from(Tensor::ones_with(&[3, 5, 8], DType::F32));
    /// assert_eq!(attention.attend_without_weights(&x, &x, &x, None, None).shape(), [3, 5, 8]);
    /// ```
    #[track_caller]
    pub fn attend_without_weights<'a>(
        &self,
        query: &Var,
        key: &Var,
        value: &Var,
        key_padding_mask: impl Into<Option<&'a Var>>,
        attn_mask: impl Into<Option<&'a Var>>,
    ) -> Var {
        let y =
            self.run([query, key, value], [key_padding_mask.into(), attn_mask.into()], false, Past::None).0;
        observe_output(self, query, y)
    }

    /// Self-attention for `x` that follows what was passed with the same `past` before: each element attends to itself and
    /// to all before it, as with a causal mask over the whole. `key_padding_mask` is that of the whole so far.
    ///
    /// # Panics
    /// If the shapes do not fit, or keys and values differ in size from queries.
    ///
    /// ```
    /// use tapegrad_nn::{KeyValues, MultiheadAttention};
    /// use tapegrad_tape::Var;
    /// let attention = MultiheadAttention::new(8, 2);
    /// let mut past = KeyValues::default();
    /// assert_eq!(attention.attend_next(&Var::ones((4, 3, 8)), &mut past, None).shape(), [4, 3, 8]);
    /// assert_eq!(attention.attend_next(&Var::ones((1, 3, 8)), &mut past, None).shape(), [1, 3, 8]);
    /// ```
    #[track_caller]
    pub fn attend_next(&self, x: &Var, past: &mut KeyValues, key_padding_mask: Option<&Var>) -> Var {
        let t = x.shape()[if x.ndim() == 3 && self.batch_first { 1 } else { 0 }];
        let mask = causal_mask(t, past.len(), x.dtype());
        let y = self.run([x; 3], [key_padding_mask, mask.as_ref()], false, Past::Grows(past)).0;
        observe_output(self, x, y)
    }

    /// As [`attend_without_weights`](Self::attend_without_weights), with the memory as key and value, whose projections are
    /// computed in the first call and kept.
    ///
    /// # Panics
    /// If the shapes do not fit.
    ///
    /// ```
    /// use tapegrad_nn::{KeyValues, MultiheadAttention};
    /// use tapegrad_tape::Var;
    /// let (attention, memory) = (MultiheadAttention::new(8, 2), Var::ones((5, 3, 8)));
    /// let mut kept = KeyValues::default();
    /// assert_eq!(attention.attend_kept(&Var::ones((1, 3, 8)), &memory, &mut kept, None, None).shape(), [1, 3, 8]);
    /// assert_eq!(kept.len(), 5);
    /// ```
    #[track_caller]
    pub fn attend_kept(
        &self,
        query: &Var,
        memory: &Var,
        kept: &mut KeyValues,
        key_padding_mask: Option<&Var>,
        attn_mask: Option<&Var>,
    ) -> Var {
        let masks = [key_padding_mask, attn_mask];
        let y = self.run([query, memory, memory], masks, false, Past::Fixed(kept)).0;
        observe_output(self, query, y)
    }
}

impl Forward for MultiheadAttention {
    /// Self-attention.
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        self.attend_without_weights(x, x, x, None, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Module;
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
                let (y, weights) = attention.attend_with(&x, &x, &x, &padding, &hidden);
                assert!(y.to_vec::<f32>().iter().chain(&weights.to_vec::<f32>()).all(|v| v.is_finite()));
                let weights = weights.to_vec::<f32>();
                assert!(weights[..3].iter().chain(&weights[9..]).all(|&w| w == 0.0), "{weights:?}");
                let alone = attention.attend_without_weights(&x, &x, &x, &padding, &hidden);
                for (a, b) in y.to_vec::<f32>().iter().zip(alone.to_vec::<f32>()) {
                    assert!((a - b).abs() < 1e-6, "{a} and {b}");
                }
                let y = if create_graph { y } else { alone };
                let loss = y.get(0).narrow(0, 1, 2).square().sum_all();
                x.zero_grad();
                loss.backward_with(None, BackwardOptions::new().create_graph(create_graph));
                for p in attention.parameters().iter().chain([&x]) {
                    let g = p.grad().expect("it takes part").to_vec::<f32>();
                    assert!(g.iter().all(|g| g.is_finite()), "{g:?}");
                }
            }
        }
    }
}
