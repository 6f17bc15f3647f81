//! Pruning (`torch.nn.utils.prune`): elements or channels of a parameter are zero from then on.
//!
//! The model is in a [`Parametrized`], whose forward pass multiplies a pruned parameter by its mask. As in PyTorch, the state
//! dict has `weight_orig` and `weight_mask` in place of `weight`; what is trained is `weight_orig`, the model's own parameter,
//! whose gradient is zero where the mask is. Pruning again chooses among what is left.
//!
//! ```
//! use tapegrad_nn::{Linear, Module, models::LeNet5, utils::{parametrize::Parametrized, prune}};
//! let mut model = Parametrized::new(LeNet5::new(10));
//! let weights: Vec<String> =
//!     model.named_parameters().into_iter().map(|(name, _)| name).filter(|n| n.ends_with("weight")).collect();
//! prune::global_unstructured(&mut model, &weights, prune::Method::L1, 0.5);
//! // ... train, then write the zeros into the weights:
//! let total: usize = weights.iter().map(|name| model.tensor(name).numel()).sum();
//! let zeros = |w: Vec<f32>| w.into_iter().filter(|x| *x == 0.0).count();
//! let model = model.into_inner();
//! let parameters = model.named_parameters();
//! let pruned: usize =
//!     parameters.iter().filter(|(n, _)| weights.contains(n)).map(|(_, p)| zeros(p.to_vec())).sum();
//! assert_eq!(pruned, total / 2);
//! ```

use super::level::{Place, Source};
use super::parametrize::Parametrized;
use crate::fields::{Buffer, Module};
use tapegrad_tape::{Int, Tensor, Var, with_default_generator};

/// How much is pruned of what is not pruned yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// A number of elements, or of channels.
    Count(usize),
    /// A share, in `[0, 1]`.
    Share(f64),
}

impl From<usize> for Amount {
    fn from(count: usize) -> Amount {
        Amount::Count(count)
    }
}

impl From<i32> for Amount {
    /// # Panics
    /// If it is negative.
    #[track_caller]
    fn from(count: i32) -> Amount {
        Amount::Count(
            usize::try_from(count).unwrap_or_else(|_| panic!("prune: the amount {count} is negative")),
        )
    }
}

impl From<f64> for Amount {
    /// # Panics
    /// If it is not in `[0, 1]`.
    #[track_caller]
    fn from(share: f64) -> Amount {
        assert!((0.0..=1.0).contains(&share), "prune: a share must be in [0, 1], got {share}");
        Amount::Share(share)
    }
}

impl Amount {
    #[track_caller]
    fn of(self, size: usize, op: &str) -> usize {
        match self {
            Amount::Share(share) => (share * size as f64).round_ties_even() as usize,
            Amount::Count(count) => {
                assert!(count <= size, "{op}: cannot prune {count}, only {size} are left");
                count
            }
        }
    }
}

/// What [`global_unstructured`] prunes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The elements closest to zero.
    L1,
    /// Random elements.
    Random,
}

/// The mask of a pruned parameter.
pub(super) struct Pruned {
    pub(super) mask: Buffer,
}

impl Pruned {
    pub(super) fn value(&self, original: &Var) -> Var {
        original * self.mask.detach()
    }
}

/// A parameter that is to be pruned: its current value, and its mask.
struct Target {
    place: Place,
    value: Tensor,
    mask: Vec<f64>,
}

impl Target {
    #[track_caller]
    fn new<M: Module>(model: &mut Parametrized<M>, op: &str, name: &str) -> Target {
        let place = model.place(op, name);
        let value = place.leaf.tensor();
        match model.entry_mut(&place) {
            None => Target { mask: vec![1.0; value.numel()], value, place },
            Some(entry) => {
                let Source::Pruned(pruned) = &entry.source else {
                    panic!("{op}: {name} is parametrized: remove that first")
                };
                let mask = pruned.mask.to_vec::<f64>();
                Target { value: tapegrad_tape::no_grad(|| entry.value()).tensor(), mask, place }
            }
        }
    }

    /// The elements that are not pruned, with what the method ranks them by.
    #[track_caller]
    fn candidates(&self, op: &str, method: Method, scores: Option<&Tensor>) -> Vec<(usize, f64)> {
        let scores = scores.unwrap_or(&self.value);
        assert_eq!(
            scores.shape(),
            self.value.shape(),
            "{op}: importance_scores of shape {:?}, for a parameter of shape {:?}",
            scores.shape(),
            self.value.shape()
        );
        let scores = match method {
            Method::L1 => scores.to_vec::<f64>().into_iter().map(f64::abs).collect(),
            Method::Random => random(self.mask.len()),
        };
        let left = self.mask.iter().zip(scores).enumerate().filter(|(_, (mask, _))| **mask != 0.0);
        left.map(|(i, (_, score))| (i, score)).collect()
    }

    /// The parameter with this mask.
    fn finish<M: Module>(self, model: &mut Parametrized<M>) {
        let mask = Tensor::from_vec(self.mask, self.value.shape()).cast(self.value.dtype());
        match model.entry_mut(&self.place).map(|entry| &entry.source) {
            Some(Source::Pruned(pruned)) => pruned.mask.set_value(mask),
            _ => model.insert(self.place, Source::Pruned(Pruned { mask: Buffer::new(mask) })),
        }
    }
}

fn random(n: usize) -> Vec<f64> {
    with_default_generator(|g| g.uniform(&[n], 0.0, 1.0)).to_vec()
}

/// The numbers of the smallest ones. Of equal ones the first are taken; NaN counts as largest.
fn smallest(mut scored: Vec<(usize, f64)>, count: usize) -> Vec<usize> {
    if count > 0 && count < scored.len() {
        scored.select_nth_unstable_by(count - 1, |a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    }
    scored.truncate(count);
    scored.into_iter().map(|(i, _)| i).collect()
}

#[track_caller]
fn unstructured<M: Module>(
    model: &mut Parametrized<M>,
    (op, method): (&str, Method),
    name: &str,
    amount: Amount,
    scores: Option<&Tensor>,
) {
    let mut target = Target::new(model, op, name);
    let candidates = target.candidates(op, method, scores);
    let count = amount.of(candidates.len(), op);
    smallest(candidates, count).into_iter().for_each(|i| target.mask[i] = 0.0);
    target.finish(model);
}

/// Prunes the elements closest to zero: a number of them, or a share (`torch.nn.utils.prune.l1_unstructured`).
///
/// ```
/// use tapegrad_nn::{Linear, Module, utils::{parametrize::Parametrized, prune}};
/// use tapegrad_tape::Tensor;
/// let layer = Linear::new(2, 2).bias(false);
/// layer.weight.set_value(Tensor::from_vec(vec![0.5f32, -3.0, 2.0, -0.1], &[2, 2]));
/// let mut layer = Parametrized::new(layer);
/// prune::l1_unstructured(&mut layer, "weight", 0.5);
/// assert_eq!(layer.tensor("weight").to_vec::<f32>(), [0.0, -3.0, 2.0, 0.0]);
/// assert_eq!(layer.state_dict().keys().collect::<Vec<_>>(), ["weight_orig", "weight_mask"]);
/// ```
///
/// # Panics
/// If there is no such parameter, it belongs to several modules or is parametrized, or fewer elements are left.
#[track_caller]
pub fn l1_unstructured<M: Module>(model: &mut Parametrized<M>, name: &str, amount: impl Into<Amount>) {
    unstructured(model, ("l1_unstructured", Method::L1), name, amount.into(), None);
}

/// [`l1_unstructured`] by the size of other numbers than the parameter's elements (`importance_scores`).
///
/// # Panics
/// As [`l1_unstructured`], or if they have another shape.
#[track_caller]
pub fn l1_unstructured_with<M: Module>(
    model: &mut Parametrized<M>,
    name: &str,
    amount: impl Into<Amount>,
    importance_scores: &Tensor,
) {
    unstructured(model, ("l1_unstructured", Method::L1), name, amount.into(), Some(importance_scores));
}

/// Prunes random elements (`torch.nn.utils.prune.random_unstructured`).
///
/// # Panics
/// As [`l1_unstructured`].
#[track_caller]
pub fn random_unstructured<M: Module>(model: &mut Parametrized<M>, name: &str, amount: impl Into<Amount>) {
    unstructured(model, ("random_unstructured", Method::Random), name, amount.into(), None);
}

/// Prunes whole channels: the candidates are those with elements left, ranked by `score`.
#[track_caller]
fn structured<M: Module>(
    model: &mut Parametrized<M>,
    op: &str,
    name: &str,
    amount: Amount,
    dim: isize,
    score: impl FnOnce(&Tensor, usize) -> Vec<f64>,
) {
    let mut target = Target::new(model, op, name);
    let shape = target.value.shape().to_vec();
    assert!(
        shape.len() > 1,
        "{op}: channels are pruned of tensors of several dimensions, not of shape {shape:?}"
    );
    let dim = tapegrad_tape::shape::dim(op, dim, shape.len());
    let inner: usize = shape[dim + 1..].iter().product();
    let channel = |i: usize| i / inner % shape[dim];
    let mut left = vec![false; shape[dim]];
    target
        .mask
        .iter()
        .enumerate()
        .filter(|(_, mask)| **mask != 0.0)
        .for_each(|(i, _)| left[channel(i)] = true);
    let scored =
        score(&target.value, dim).into_iter().enumerate().filter(|(c, _)| left[*c]).collect::<Vec<_>>();
    let count = amount.of(scored.len(), op);
    let mut pruned = vec![false; shape[dim]];
    smallest(scored, count).into_iter().for_each(|c| pruned[c] = true);
    target.mask.iter_mut().enumerate().filter(|(i, _)| pruned[channel(*i)]).for_each(|(_, mask)| *mask = 0.0);
    target.finish(model);
}

/// Prunes the channels along a dimension whose `n`-norm is smallest (`torch.nn.utils.prune.ln_structured`).
///
/// ```
/// use tapegrad_nn::{Conv2d, utils::{parametrize::Parametrized, prune}};
/// let mut layer = Parametrized::new(Conv2d::new(3, 8, 3));
/// prune::ln_structured(&mut layer, "weight", 0.25, 2.0, 0);
/// let sums = layer.tensor("weight").abs().sum((1, 2, 3)).to_vec::<f32>();
/// assert_eq!(sums.iter().filter(|s| **s == 0.0).count(), 2);
/// ```
///
/// # Panics
/// As [`l1_unstructured`], or if there is no such dimension or only one.
#[track_caller]
pub fn ln_structured<M: Module>(
    model: &mut Parametrized<M>,
    name: &str,
    amount: impl Into<Amount>,
    n: f64,
    dim: impl Int,
) {
    structured(model, "ln_structured", name, amount.into(), dim.to_isize(), |value, dim| {
        let others: Vec<usize> = (0..value.ndim()).filter(|d| *d != dim).collect();
        Var::from(value).vector_norm_with(n, others, false).to_vec()
    });
}

/// Prunes random channels along a dimension (`torch.nn.utils.prune.random_structured`).
///
/// # Panics
/// As [`ln_structured`].
#[track_caller]
pub fn random_structured<M: Module>(
    model: &mut Parametrized<M>,
    name: &str,
    amount: impl Into<Amount>,
    dim: impl Int,
) {
    structured(model, "random_structured", name, amount.into(), dim.to_isize(), |value, dim| {
        random(value.shape()[dim])
    });
}

/// Prunes elements of several parameters, chosen among all of them (`torch.nn.utils.prune.global_unstructured`).
///
/// # Panics
/// As [`l1_unstructured`], for any of the parameters; or if one is named twice.
#[track_caller]
pub fn global_unstructured<M: Module, S: AsRef<str>>(
    model: &mut Parametrized<M>,
    names: &[S],
    method: Method,
    amount: impl Into<Amount>,
) {
    let op = "global_unstructured";
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let mut targets = Vec::new();
    for (i, name) in names.iter().enumerate() {
        assert!(!names[..i].contains(name), "{op}: {name} is named twice");
        targets.push(Target::new(model, op, name));
    }
    // Numbered through all parameters.
    let (mut all, mut owners) = (Vec::new(), Vec::new());
    for (t, target) in targets.iter().enumerate() {
        for (i, score) in target.candidates(op, method, None) {
            all.push((owners.len(), score));
            owners.push((t, i));
        }
    }
    let count = amount.into().of(all.len(), op);
    for chosen in smallest(all, count) {
        let (t, i) = owners[chosen];
        targets[t].mask[i] = 0.0;
    }
    targets.into_iter().for_each(|target| target.finish(model));
}

/// Prunes the elements where a mask is zero or false, besides those that are pruned already
/// (`torch.nn.utils.prune.custom_from_mask`).
///
/// # Panics
/// As [`l1_unstructured`], or if the mask has another shape.
#[track_caller]
pub fn custom_from_mask<M: Module>(model: &mut Parametrized<M>, name: &str, mask: &Tensor) {
    let op = "custom_from_mask";
    let mut target = Target::new(model, op, name);
    assert_eq!(
        mask.shape(),
        target.value.shape(),
        "{op}: a mask of shape {:?}, for a parameter of shape {:?}",
        mask.shape(),
        target.value.shape()
    );
    target.mask.iter_mut().zip(mask.to_vec::<f64>()).for_each(|(a, b)| *a *= b);
    target.finish(model);
}

/// Gives a parameter a mask of ones, so that the model has the keys of a pruned one
/// (`torch.nn.utils.prune.identity`): a state dict of one can be loaded then.
///
/// # Panics
/// As [`l1_unstructured`].
#[track_caller]
pub fn identity<M: Module>(model: &mut Parametrized<M>, name: &str) {
    Target::new(model, "identity", name).finish(model);
}

/// Writes the zeros into the parameter itself, which is not masked any longer (`torch.nn.utils.prune.remove`).
/// [`Parametrized::into_inner`] does it for all.
///
/// # Panics
/// If there is no such parameter, or it is not pruned.
#[track_caller]
pub fn remove<M: Module>(model: &mut Parametrized<M>, name: &str) {
    let place = model.place("remove", name);
    let pruned = model.entry_mut(&place).is_some_and(|e| matches!(e.source, Source::Pruned(_)));
    assert!(pruned, "remove: the parameter {name:?} is not pruned");
    model.end(&place);
}

/// True if a parameter is pruned, by one of the functions of this module.
pub fn is_pruned<M: Module>(model: &Parametrized<M>) -> bool {
    model.has_masks()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::{Adam, Optimizer};
    use crate::{Forward, Linear, ReLU, sequential};
    use tapegrad_tape::DType;

    fn zeros(v: &Var) -> usize {
        v.to_vec::<f64>().iter().filter(|x| **x == 0.0).count()
    }

    #[test]
    fn pruning_again_chooses_among_what_is_left_and_training_keeps_the_zeros() {
        tapegrad_tape::manual_seed(1);
        let model = sequential![Linear::new(6, 5), ReLU::new(), Linear::new(5, 2)];
        // An optimizer that was made before goes on.
        let mut adam = Adam::new(model.parameters(), 0.1);
        let mut model = Parametrized::new(model);
        assert!(!is_pruned(&model));
        random_unstructured(&mut model, "0.weight", 10);
        assert_eq!(zeros(&model.tensor("0.weight")), 10);
        random_unstructured(&mut model, "0.weight", 0.5);
        assert_eq!(zeros(&model.tensor("0.weight")), 20);
        random_structured(&mut model, "2.weight", 2, 1);
        assert_eq!(zeros(&model.tensor("2.weight")), 4);
        global_unstructured(&mut model, &["0.weight", "2.weight"], Method::Random, 4);
        assert_eq!(zeros(&model.tensor("0.weight")) + zeros(&model.tensor("2.weight")), 28);
        let masks: Vec<String> = model.named_buffers().into_iter().map(|(name, _)| name).collect();
        assert_eq!(masks, ["0.weight_mask", "2.weight_mask"]);
        let before = model.tensor("0.weight").to_vec::<f64>();
        for _ in 0..3 {
            adam.zero_grad();
            (model.forward(&Var::ones((4, 6))) - 1.0).square().sum_all().backward();
            let grad = model.inner().iter().next().unwrap().parameters()[0].grad().unwrap();
            let pruned = grad.to_vec::<f64>().into_iter().zip(&before).filter(|(_, w)| **w == 0.0);
            assert!(pruned.map(|(g, _)| g).all(|g| g == 0.0));
            adam.step();
        }
        let after = model.tensor("0.weight").to_vec::<f64>();
        assert_ne!(before, after);
        assert!(before.iter().zip(&after).all(|(b, a)| *b != 0.0 || *a == 0.0));
        remove(&mut model, "0.weight");
        assert!(is_pruned(&model));
        assert_eq!(model.tensor("0.weight").to_vec::<f64>(), after);
        let names: Vec<String> = model.into_inner().named_parameters().into_iter().map(|(n, _)| n).collect();
        assert_eq!(names, ["0.weight", "0.bias", "2.weight", "2.bias"]);
    }

    #[test]
    fn a_pruned_state_is_loaded() {
        let mut a = Parametrized::new(Linear::new(3, 2));
        let mut b = Parametrized::new(Linear::new(3, 2));
        l1_unstructured(&mut a, "weight", 3);
        identity(&mut b, "weight");
        b.load_state_dict(&a.state_dict()).unwrap();
        assert_eq!(a.tensor("weight").to_vec::<f32>(), b.tensor("weight").to_vec::<f32>());
        b.to_dtype(DType::F64);
        assert_eq!(b.forward(&Var::from(Tensor::ones_with(&[1, 3], DType::F64))).dtype(), DType::F64);
    }

    #[test]
    fn wrong_calls_say_what_fits() {
        let refused = |f: &dyn Fn(&mut Parametrized<Linear>), message: &str| {
            let mut layer = Parametrized::new(Linear::new(3, 2));
            let call = std::panic::AssertUnwindSafe(|| f(&mut layer));
            let error = std::panic::catch_unwind(call).unwrap_err();
            let text = error.downcast::<String>().unwrap();
            assert!(text.contains(message), "{text}");
        };
        refused(&|l| l1_unstructured(l, "weight", 7), "l1_unstructured: cannot prune 7, only 6 are left");
        refused(&|l| l1_unstructured(l, "weight", -1), "prune: the amount -1 is negative");
        refused(&|l| l1_unstructured(l, "weight", 1.5), "prune: a share must be in [0, 1], got 1.5");
        refused(&|l| ln_structured(l, "bias", 1, 2.0, 0), "ln_structured: channels are pruned of tensors");
        refused(&|l| remove(l, "weight"), "remove: the parameter \"weight\" is not pruned");
        refused(
            &|l| custom_from_mask(l, "weight", &Tensor::ones(3)),
            "custom_from_mask: a mask of shape [3]",
        );
        refused(
            &|l| {
                crate::utils::parametrizations::weight_norm(l, "weight");
                identity(l, "weight");
            },
            "identity: weight is parametrized",
        );
    }
}
