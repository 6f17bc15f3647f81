//! `MultiheadAttention`.

use crate::KeyValues;
use crate::fields::Training;
use crate::init::{Draws, xavier_normal_, xavier_uniform_, zeros_};
use crate::key_values::{Past, causal_mask};
use crate::linear::Linear;
use crate::module::Forward;
use crate::summary::observe_output;
use tapegrad_ops::{
    AttentionOptions, scaled_dot_product_attention_with, scaled_dot_product_attention_with_weights,
};
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

    #[track_caller]
    fn run(
        &self,
        [query, key, value]: [&Var; 3],
        [key_padding_mask, attn_mask]: [Option<&Var>; 2],
        need_weights: bool,
        past: Past,
    ) -> (Var, Option<Var>) {
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
        let (steps, samples) = if batched && self.batch_first { (1, 0) } else { (0, 1) };
        let l = query.shape()[steps];
        let (n, s) = (if batched { query.shape()[samples] } else { 1 }, key.shape()[steps]);
        let lead = |v: &Var| v.shape()[..v.ndim() - 1].to_vec();
        assert!(
            (!batched || key.shape()[samples] == n) && lead(value) == lead(key),
            "MultiheadAttention: query {:?}, key {:?} and value {:?} differ in batch or length",
            query.shape(),
            key.shape(),
            value.shape()
        );
        let (heads, size) = (self.num_heads, self.embed_dim / self.num_heads);
        let before = past.before();
        let mut mask = self.mask(query.dtype(), [l, n, before + s], key_padding_mask, attn_mask);

        let (q, mut k, mut v) = self.projected([query, key, value], same, past, [n, s], steps_first);
        let grow = |mask: &mut Option<Var>| *mask = mask.take().map(|m| m.pad(&[0, 1]));
        if let (Some(bias_k), Some(bias_v)) = (&self.bias_k, &self.bias_v) {
            let row = |b: &Var| b.expand((1, n, -1));
            k = tapegrad_tape::cat(&[k, row(bias_k)], 0);
            v = tapegrad_tape::cat(&[v, row(bias_v)], 0);
            grow(&mut mask);
        }
        // [L, N, E] -> [N, heads, L, size]
        let split = |x: &Var| x.reshape((x.shape()[0], n, heads, size)).permute(&[1, 2, 0, 3]);
        let (q, mut k, mut v) = (split(&q), split(&k), split(&v));
        if self.add_zero_attn {
            k = k.pad(&[0, 0, 0, 1]);
            v = v.pad(&[0, 0, 0, 1]);
            grow(&mut mask);
        }
        let dropout_p = if self.training.get() { self.dropout } else { 0.0 };
        let options = AttentionOptions { attn_mask: mask.as_ref(), dropout_p, ..Default::default() };
        let (found, weights) = if need_weights {
            let (found, weights) = scaled_dot_product_attention_with_weights(&q, &k, &v, options);
            (found, Some(if batched { weights } else { weights.squeeze(0) }))
        } else {
            (scaled_dot_product_attention_with(&q, &k, &v, options), None)
        };
        // The heads of a query lie beside one another, as those of the projection do.
        let [l, n, e] = [l, n, self.embed_dim].map(|n| n as isize);
        let joined = match (batched, self.batch_first) {
            (false, _) => found.permute(&[2, 0, 1, 3]).reshape(&[l, e]),
            (true, true) => found.permute(&[0, 2, 1, 3]).reshape(&[n, l, e]),
            (true, false) => found.permute(&[2, 0, 1, 3]).reshape(&[l, n, e]),
        };
        (self.out_proj.forward(&joined), weights)
    }

    /// Queries, keys and values `[L, N, E]`, with those that are kept.
    #[track_caller]
    fn projected(
        &self,
        [query, key, value]: [&Var; 3],
        same: bool,
        past: Past,
        [n, s]: [usize; 2],
        steps_first: impl Fn(&Var) -> Var,
    ) -> (Var, Var, Var) {
        let part = |x: &Var, i: usize| steps_first(&self.project(x, i));
        // [L, N, E] -> [N, L, heads, size]
        let keep = |x: &Var| {
            let sizes = [n, s, self.num_heads, self.embed_dim / self.num_heads];
            x.transpose(0, 1).reshape(&sizes.map(|n| n as isize))
        };
        let whole = |x: Var| x.flatten((2, 3)).transpose(0, 1);
        match past {
            Past::Fixed(kept) => {
                assert!(
                    kept.is_empty() || kept.len() == s,
                    "MultiheadAttention: a memory of {s} elements, and {} are kept of the first one",
                    kept.len()
                );
                let [k, v] = kept.fixed(|| [keep(&part(key, 1)), keep(&part(value, 2))]);
                (part(query, 0), whole(k), whole(v))
            }
            Past::None | Past::Grows(_) => {
                let (q, k, v) = match &self.in_proj_weight {
                    Some(w) if same => {
                        let all = tapegrad_ops::linear(query, w, self.in_proj_bias.as_ref()).chunk(3, -1);
                        (steps_first(&all[0]), steps_first(&all[1]), steps_first(&all[2]))
                    }
                    _ => (part(query, 0), part(key, 1), part(value, 2)),
                };
                match past {
                    Past::Grows(past) => {
                        let [k, v] = past.extend(&keep(&k), &keep(&v));
                        (q, whole(k), whole(v))
                    }
                    _ => (q, k, v),
                }
            }
        }
    }

    /// The projection of queries (0), keys (1) or values (2).
    fn project(&self, x: &Var, i: usize) -> Var {
        let e = self.embed_dim;
        let bias = self.in_proj_bias.as_ref().map(|b| b.narrow(0, i * e, e));
        let apart = [&self.q_proj_weight, &self.k_proj_weight, &self.v_proj_weight];
        match &self.in_proj_weight {
            Some(w) => tapegrad_ops::linear(x, &w.narrow(0, i * e, e), bias.as_ref()),
            None => tapegrad_ops::linear(x, apart[i].as_ref().expect("one weight or three"), bias.as_ref()),
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
                Var::from(Tensor::zeros_with(m.shape(), dtype)).masked_fill(m, f64::NEG_INFINITY)
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
