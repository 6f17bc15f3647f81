//! The forward pass of `MultiheadAttention`.

use super::MultiheadAttention;
use crate::key_values::Past;
use crate::module::Forward;
use tapegrad_ops::{
    AttentionOptions, scaled_dot_product_attention_with, scaled_dot_product_attention_with_weights,
};
use tapegrad_tape::{DType, Tensor, Var};

impl MultiheadAttention {
    /// The output, and the weights if they are needed.
    #[track_caller]
    pub(super) fn run(
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
