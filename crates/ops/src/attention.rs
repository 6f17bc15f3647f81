//! `scaled_dot_product_attention`.

use crate::kernels::softmax::Kind;
use crate::options::setters;
use crate::product::{check_types, product};
use crate::softmax::along;
use tapegrad_tape::{DType, Tensor, Var};

/// Masking, dropout and scaling of [`scaled_dot_product_attention`].
#[derive(Clone, Copy, Default)]
pub struct AttentionOptions<'a> {
    /// Broadcast to `[..., L, S]`: booleans say which keys take part, numbers are added to the scores.
    pub attn_mask: Option<&'a Var>,
    /// The share of weights that are dropped; zero outside training.
    pub dropout_p: f64,
    /// Query `i` attends to keys `0..=i` only.
    pub is_causal: bool,
    /// Factor of the scores; `1 / sqrt(E)` by default.
    pub scale: Option<f64>,
    /// Keys and values have fewer heads (third dimension from the back), each shared by several query heads.
    pub enable_gqa: bool,
}

impl<'a> AttentionOptions<'a> {
    setters! { dropout_p: f64, is_causal: bool, enable_gqa: bool; attn_mask: &'a Var, scale: f64 }
}

/// `softmax(query key^T scale + mask) value` (`torch.nn.functional.scaled_dot_product_attention`).
///
/// `query` is `[..., L, E]`, `key` `[..., S, E]`, `value` `[..., S, V]`; the dimensions before are broadcast and the
/// result is `[..., L, V]`. A query that may attend to no key gets zeros.
///
/// # Panics
/// If shapes or types do not fit, or a mask is given together with `is_causal`.
///
/// ```
/// use tapegrad_ops::{AttentionOptions, scaled_dot_product_attention, scaled_dot_product_attention_with};
/// use tapegrad_tape::{DType, Tensor, Var};
/// let q = Var::from(Tensor::ones_with(&[2, 3, 4], DType::F32));
/// let v = Var::from(Tensor::arange(0, 3).cast(DType::F32).reshape(&[3, 1]));
/// let options = AttentionOptions::new().is_causal(true);
/// let y = scaled_dot_product_attention_with(&q, &q, &v.expand(&[2, 3, 1]), options);
/// assert_eq!(y.to_vec::<f32>()[..3], [0.0, 0.5, 1.0]);
/// ```
#[track_caller]
pub fn scaled_dot_product_attention(query: &Var, key: &Var, value: &Var) -> Var {
    scaled_dot_product_attention_with(query, key, value, Default::default())
}

/// [`scaled_dot_product_attention`] with options.
///
/// # Panics
/// Same as [`scaled_dot_product_attention`].
#[track_caller]
pub fn scaled_dot_product_attention_with(
    query: &Var,
    key: &Var,
    value: &Var,
    options: AttentionOptions,
) -> Var {
    scaled_dot_product_attention_with_weights(query, key, value, options).0
}

/// Like [`scaled_dot_product_attention`], with the weights `[..., L, S]` that the values are summed by, after dropout.
/// Those of a query that may attend to no key are zero.
///
/// # Panics
/// Same as [`scaled_dot_product_attention`].
///
/// ```
/// use tapegrad_ops::{AttentionOptions, scaled_dot_product_attention_with_weights};
/// use tapegrad_tape::{DType, Tensor, Var};
/// let q = Var::from(Tensor::ones_with(&[3, 4], DType::F32));
/// let (_, weights) = scaled_dot_product_attention_with_weights(&q, &q, &q, AttentionOptions::new());
/// assert_eq!(weights.shape(), [3, 3]);
/// ```
#[track_caller]
pub fn scaled_dot_product_attention_with_weights(
    query: &Var,
    key: &Var,
    value: &Var,
    options: AttentionOptions,
) -> (Var, Var) {
    const OP: &str = "scaled_dot_product_attention";
    let shapes = || format!("query {:?}, key {:?}, value {:?}", query.shape(), key.shape(), value.shape());
    for v in [query, key, value] {
        assert!(v.ndim() >= 2, "{OP}: all need at least two dimensions, got {}", shapes());
        check_types(OP, query.dtype(), v.dtype());
    }
    assert!(
        query.dtype().is_float(),
        "{OP}: not defined for {}; it takes floating-point types",
        query.dtype()
    );
    assert!(
        query.size(-1) == key.size(-1) && key.size(-2) == value.size(-2),
        "{OP}: query and key need the same last size, key and value the same length, got {}",
        shapes()
    );
    assert!(
        !(options.is_causal && options.attn_mask.is_some()),
        "{OP}: explicit attn_mask should not be set when is_causal is true"
    );
    let (key, value) = match options.enable_gqa && query.ndim() >= 3 && key.ndim() >= 3 && value.ndim() >= 3 {
        true => (repeat_heads(key, query.size(-3)), repeat_heads(value, query.size(-3))),
        false => (key.clone(), value.clone()),
    };
    let scale = options.scale.unwrap_or_else(|| 1.0 / (query.size(-1) as f64).sqrt());
    let mut scores = product(OP, &(query * scale), false, &key, true);
    if options.is_causal {
        let (l, s) = (query.size(-2), key.size(-2));
        let hidden: Vec<bool> = (0..l * s).map(|i| i % s > i / s).collect();
        scores = scores.masked_fill(&Tensor::from_vec(hidden, &[l, s]).into(), f64::NEG_INFINITY);
    }
    if let Some(mask) = options.attn_mask {
        scores = match mask.dtype() {
            DType::Bool => scores.masked_fill(&mask.logical_not(), f64::NEG_INFINITY),
            dtype => {
                assert!(
                    dtype == query.dtype() || dtype == DType::F32,
                    "{OP}: expected attn_mask to be bool or of the query's type {}, got {dtype}",
                    query.dtype()
                );
                scores.add(mask.cast(query.dtype()))
            }
        };
    }
    // Only a mask can leave a row without keys.
    let kind = if options.attn_mask.is_some() { Kind::Safe } else { Kind::Plain };
    let weights = along("softmax", &scores, -1, kind);
    let weights = crate::dropout(&weights, options.dropout_p, true);
    (product(OP, &weights, false, &value, false), weights)
}

/// Repeats each head, up to `heads` in all.
#[track_caller]
fn repeat_heads(x: &Var, heads: usize) -> Var {
    let own = x.size(-3);
    assert!(
        own > 0 && heads.is_multiple_of(own),
        "scaled_dot_product_attention: {heads} heads of the query cannot be shared out among {own} (shape {:?})",
        x.shape()
    );
    if own == heads {
        return x.clone();
    }
    let d = x.ndim() - 3;
    let mut wide: Vec<isize> = x.shape().iter().map(|&n| n as isize).collect();
    wide.insert(d + 1, (heads / own) as isize);
    let mut shape = wide.clone();
    shape.remove(d + 1);
    shape[d] = heads as isize;
    x.unsqueeze(d as isize + 1).expand(&wide).reshape(&shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};

    fn inputs() -> [Var; 3] {
        [parameter(&[2, 3, 4], 1), parameter(&[2, 5, 4], 2), parameter(&[2, 5, 2], 3)]
    }

    #[test]
    fn gradients_with_masks() {
        let seen = Var::from_vec((0..15).map(|i| i % 4 != 1 && i >= 5).collect::<Vec<bool>>(), &[3, 5]);
        let added = parameter(&[3, 5], 4);
        for case in 0..4 {
            let f = |x: &[Var]| {
                let options = match case {
                    0 => AttentionOptions::new(),
                    1 => AttentionOptions::new().is_causal(true).scale(0.3),
                    2 => AttentionOptions::new().attn_mask(&seen),
                    _ => AttentionOptions::new().attn_mask(&x[3]),
                };
                scaled_dot_product_attention_with(&x[0], &x[1], &x[2], options)
            };
            let mut all = inputs().to_vec();
            all.push(added.clone());
            check_gradients(f, &all);
        }
    }

    #[test]
    fn a_query_without_keys_gets_zeros() {
        let [q, k, v] = inputs();
        let mask = Var::from_vec((0..15).map(|i| i >= 5).collect::<Vec<bool>>(), &[3, 5]);
        let options = AttentionOptions::new().attn_mask(&mask);
        let y = scaled_dot_product_attention_with(&q, &k, &v, options).to_vec::<f64>();
        assert!(y[..2] == [0.0; 2] && y[6..8] == [0.0; 2] && y.iter().all(|y| y.is_finite()));
    }

    #[test]
    fn heads_are_shared() {
        let (q, k) = (parameter(&[2, 4, 3, 4], 1), parameter(&[2, 2, 5, 4], 2));
        let options = AttentionOptions::new().enable_gqa(true);
        let twice = |x: &Var| tapegrad_tape::stack(&[x, x], 2).reshape(&[2, 4, 5, 4]);
        let want = scaled_dot_product_attention(&q, &twice(&k), &twice(&k));
        assert_close(&scaled_dot_product_attention_with(&q, &k, &k, options), &want, 1e-12);
    }

    #[test]
    #[should_panic(expected = "query and key need the same last size")]
    fn sizes_that_do_not_fit() {
        let [q, _, v] = inputs();
        scaled_dot_product_attention(&q, &v, &v);
    }
}
