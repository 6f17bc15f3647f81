//! `scaled_dot_product_attention`.

mod composed;
mod fused;

use crate::autocast::{lowered, through_f32};
use crate::options::setters;
use crate::product::check_types;
use composed::Composed;
use tapegrad_tape::{DType, Var, with_default_generator};

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

const OP: &str = "scaled_dot_product_attention";

/// `softmax(query key^T scale + mask) value` (`torch.nn.functional.scaled_dot_product_attention`).
///
/// `query` is `[..., L, E]`, `key` `[..., S, E]`, `value` `[..., S, V]`; the dimensions before are broadcast and the
/// result is `[..., L, V]`. A query that may attend to no key gets zeros.
///
/// In F32 the scores are never held in memory, forward or backward: it is linear in `L` and `S`. (A mask that requires a
/// gradient, and derivatives of higher order, take the scores' memory.)
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
    scaled_dot_product_attention_with(query, key, value, AttentionOptions::default())
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
    lowered([query, key, value], |[query, key, value]| {
        let form = check(query, key, value, &options);
        through_f32([query, key, value], |[query, key, value]| attention(query, key, value, form))
    })
}

#[track_caller]
fn attention(query: &Var, key: &Var, value: &Var, form: Composed) -> Var {
    if fused::applies(query, key, value, &form) {
        return fused::attention(query, key, value, form);
    }
    form.attend(query, key, value).0
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
/// let (_, weights) = scaled_dot_product_attention_with_weights(&q, &q, &q, AttentionOptions::default());
/// assert_eq!(weights.shape(), [3, 3]);
/// ```
#[track_caller]
pub fn scaled_dot_product_attention_with_weights(
    query: &Var,
    key: &Var,
    value: &Var,
    options: AttentionOptions,
) -> (Var, Var) {
    check(query, key, value, &options).attend(query, key, value)
}

/// Checks the arguments, and draws the key of dropout.
#[track_caller]
fn check(query: &Var, key: &Var, value: &Var, options: &AttentionOptions) -> Composed {
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
    if let Some(mask) = options.attn_mask {
        assert!(
            [DType::Bool, DType::F32, query.dtype()].contains(&mask.dtype()),
            "{OP}: expected attn_mask to be bool or of the query's type {}, got {}",
            query.dtype(),
            mask.dtype()
        );
    }
    let p = options.dropout_p;
    assert!((0.0..=1.0).contains(&p), "{OP}: the probability of dropout has to be in [0, 1], got {p}");
    let grouped = options.enable_gqa && query.ndim() >= 3 && key.ndim() >= 3 && value.ndim() >= 3;
    if grouped {
        for own in [key, value] {
            let (heads, shared) = (query.size(-3), own.size(-3));
            assert!(
                shared > 0 && heads.is_multiple_of(shared),
                "{OP}: {heads} heads of the query cannot be shared out among {shared} (shape {:?})",
                own.shape()
            );
        }
    }
    Composed {
        scale: options.scale.unwrap_or_else(|| 1.0 / (query.size(-1) as f64).sqrt()),
        causal: options.is_causal,
        mask: options.attn_mask.map(Var::saved),
        dropout: (p > 0.0).then(|| (p, with_default_generator(|g| g.next_u64()))),
        grouped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};
    use proptest::prelude::*;

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
                    0 => AttentionOptions::default(),
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

    /// One case of [`fused_is_composed`].
    #[derive(Clone, Debug)]
    struct Case {
        l: usize,
        s: usize,
        e: usize,
        v: usize,
        /// 0: none; 1: causal; 2: booleans for keys; 3: numbers for queries and keys.
        mask: usize,
        dropout_p: f64,
        /// 0: a batch; 1: grouped heads; 2: a key without a batch; 3: heads beside one another in memory.
        layout: usize,
    }

    fn single(shape: &[usize], seed: u64) -> Var {
        Var::parameter(parameter(shape, seed).tensor().cast(DType::F32))
    }

    fn compare(case: &Case) {
        let &Case { l, s, e, v, layout, .. } = case;
        let (q, kv): (&[usize], &[usize]) = match layout {
            0 => (&[2, 3], &[2, 3]),
            1 => (&[2, 4], &[2, 2]),
            2 => (&[2, 3], &[]),
            _ => (&[2], &[2]),
        };
        let shape = |lead: &[usize], rows, width| -> Vec<usize> {
            match layout {
                3 => [lead, &[rows, 3, width]].concat(),
                _ => [lead, &[rows, width]].concat(),
            }
        };
        let inputs = [single(&shape(q, l, e), 1), single(&shape(kv, s, e), 2), single(&shape(kv, s, v), 3)];
        let see = |x: &Var| if layout == 3 { x.transpose(1, 2) } else { x.clone() };
        // The first query sees nothing in the second form.
        let booleans =
            Var::from_vec((0..2 * s).map(|i| i % 3 != 1 && i >= s).collect::<Vec<bool>>(), &[2, 1, 1, s]);
        let values = Var::from(parameter(&[l, s], 4).tensor().cast(DType::F32));
        let heads = if layout == 1 { 4 } else { 3 };
        let booleans = if layout == 2 { booleans.expand(&[2, heads, 1, s as isize]) } else { booleans };
        let options = AttentionOptions {
            attn_mask: match case.mask {
                2 => Some(&booleans),
                3 => Some(&values),
                _ => None,
            },
            is_causal: case.mask == 1,
            dropout_p: case.dropout_p,
            enable_gqa: layout == 1,
            scale: None,
        };
        let run = |composed: bool| {
            tapegrad_tape::manual_seed(7);
            let [q, k, v] = inputs.each_ref().map(see);
            let y = match composed {
                true => scaled_dot_product_attention_with_weights(&q, &k, &v, options).0,
                false => scaled_dot_product_attention_with(&q, &k, &v, options),
            };
            let weights = Var::from(parameter(y.shape(), 5).tensor().cast(DType::F32));
            let gradient = |create_graph| {
                inputs.iter().for_each(|x| x.zero_grad());
                let options = tapegrad_tape::BackwardOptions { create_graph, retain_graph: true };
                (&y * &weights).sum_all().backward_with(None, options);
                inputs.each_ref().map(|x| x.grad().unwrap().detach())
            };
            (y.detach(), gradient(false), gradient(true))
        };
        let ((y, a, b), (want, c, _)) = (run(false), run(true));
        assert_close(&y, &want, 2e-6);
        for i in 0..3 {
            assert_close(&a[i], &c[i], 2e-5);
            assert_close(&b[i], &c[i], 2e-5);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn fused_is_composed(
            l in 1usize..230, s in 1usize..420, e in 1usize..70, v in 1usize..70,
            mask in 0usize..4, drops: bool, layout in 0usize..4,
        ) {
            compare(&Case { l, s, e, v, mask, dropout_p: if drops { 0.3 } else { 0.0 }, layout });
        }
    }

    #[test]
    fn whole_blocks_and_their_neighbors() {
        for l in [95, 96, 97, 192, 193] {
            for mask in [0, 1, 3] {
                compare(&Case { l, s: l, e: 64, v: 64, mask, dropout_p: 0.0, layout: 3 });
            }
        }
    }

    /// Few matrices are cut into ranges of queries, whose gradients for keys are added.
    #[test]
    fn the_number_of_threads_does_not_matter() {
        let inputs = [1, 2, 3].map(|seed| single(&[400, 8], seed));
        let run = |threads| {
            tapegrad_tape::set_num_threads(threads);
            inputs.iter().for_each(|x| x.zero_grad());
            let options = AttentionOptions::new().is_causal(true);
            let y = scaled_dot_product_attention_with(&inputs[0], &inputs[1], &inputs[2], options);
            y.square().sum_all().backward();
            inputs.each_ref().map(|x| x.grad().unwrap().to_vec::<f32>())
        };
        assert_eq!(run(1), run(2));
    }

    #[test]
    #[should_panic(expected = "query and key need the same last size")]
    fn sizes_that_do_not_fit() {
        let [q, _, v] = inputs();
        scaled_dot_product_attention(&q, &v, &v);
    }
}
