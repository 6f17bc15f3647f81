//! `KeyValues`: what attention keeps of earlier tokens.

use tapegrad_tape::{DType, Tensor, Var, cat};

/// The keys and values of an attention for the tokens so far, each `[N, T, heads, size]`, so that they are computed once for
/// each token. Empty at first: `Default::default()`.
///
/// ```
/// use tapegrad_nn::{KeyValues, MultiheadAttention};
/// use tapegrad_tape::Var;
/// let attention = MultiheadAttention::new(8, 2).batch_first(true);
/// let mut past = KeyValues::default();
/// for step in 1..4 {
///     assert_eq!(attention.attend_next(&Var::ones((3, 1, 8)), &mut past, None).shape(), [3, 1, 8]);
///     assert_eq!(past.len(), step);
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct KeyValues(Option<[Var; 2]>);

impl KeyValues {
    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |[k, _]| k.shape()[1])
    }

    /// True before the first token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends keys and values, and returns all.
    pub(crate) fn extend(&mut self, k: &Var, v: &Var) -> [Var; 2] {
        let all = match &self.0 {
            Some([old_k, old_v]) => [cat(&[old_k, k], 1), cat(&[old_v, v], 1)],
            None => [k.clone(), v.clone()],
        };
        self.0.insert(all).clone()
    }

    /// Those of the first call.
    pub(crate) fn fixed(&mut self, make: impl FnOnce() -> [Var; 2]) -> [Var; 2] {
        self.0.get_or_insert_with(make).clone()
    }
}

/// Keys and values from earlier calls.
pub(crate) enum Past<'a> {
    None,
    /// Those of this call are appended.
    Grows(&'a mut KeyValues),
    /// They are always the same.
    Fixed(&'a mut KeyValues),
}

impl Past<'_> {
    /// How many keys precede those of this call.
    pub(crate) fn before(&self) -> usize {
        match self {
            Past::Grows(past) => past.len(),
            Past::None | Past::Fixed(_) => 0,
        }
    }
}

/// The mask `[t, before + t]`, to be added to the scores, with which each of `t` tokens attends to itself and to all before
/// it: minus infinity for the later ones. A single token may see all.
pub(crate) fn causal_mask(t: usize, before: usize, dtype: DType) -> Option<Var> {
    let all = || Var::from(Tensor::full_with(&[t, before + t], f64::NEG_INFINITY, dtype));
    (t > 1).then(|| all().triu_with(before as isize + 1))
}
