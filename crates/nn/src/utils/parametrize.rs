//! Tensors of a model that are computed from others (`torch.nn.utils.parametrize`).
//!
//! A [`Parametrized`] holds a model, any of whose parameters it can replace: before each forward pass it computes them, and
//! the model's layers use what it has computed. No layer knows of it, and no type in the model changes.
//!
//! ```
//! use tapegrad_nn::{Forward, Linear, Module, sequential, ReLU};
//! use tapegrad_nn::utils::{parametrizations, parametrize::Parametrized};
//! use tapegrad_tape::Var;
//! let mut model = Parametrized::new(sequential![Linear::new(4, 8), ReLU::new(), Linear::new(8, 2)]);
//! parametrizations::weight_norm(&mut model, "2.weight");
//! let names: Vec<String> = model.named_parameters().into_iter().map(|(name, _)| name).collect();
//! let parametrized = ["2.parametrizations.weight.original0", "2.parametrizations.weight.original1"];
//! assert_eq!(names[..3], ["0.weight", "0.bias", "2.bias"]);
//! assert_eq!(names[3..], parametrized);
//! model.forward(&Var::ones((3, 4))).sum_all().backward();
//! assert!(model.parameters().iter().all(|p| p.grad().is_some()));
//! let model = model.into_inner(); // with the weights as they are now
//! assert_eq!(model.named_parameters().len(), 4);
//! ```

use super::level::{Entry, Level, ParametrizationList, Place, Source, locate};
use crate::fields::{Item, Module, walk};
use crate::module::Forward;
use std::sync::Arc;
use tapegrad_tape::{Tensor, Var, substitute};

/// How a tensor is computed from those that are trained in its place: a [`Module`], whose own parameters and buffers belong
/// to the model.
///
/// ```
/// use tapegrad_nn::{Linear, module, utils::parametrize::{Parametrization, Parametrized}};
/// use tapegrad_tape::Var;
/// module! {
///     /// Symmetric matrices.
///     struct Symmetric {}
/// }
/// impl Parametrization for Symmetric {
///     fn compute(&self, originals: &[Var]) -> Var {
///         originals[0].triu() + originals[0].triu_with(1).transpose(0, 1)
///     }
/// }
/// let mut layer = Parametrized::new(Linear::new(3, 3));
/// layer.register_parametrization("weight", Symmetric {});
/// let weight = layer.tensor("weight");
/// assert_eq!(weight.to_vec::<f32>(), weight.transpose(0, 1).to_vec::<f32>());
/// ```
pub trait Parametrization: Module {
    /// The tensor that the model uses, from the trained ones (`forward`, in PyTorch).
    fn compute(&self, originals: &[Var]) -> Var;

    /// What to train so that the tensor has this value: itself, unless several tensors are trained or the value is
    /// brought closer to those that can be computed.
    fn right_inverse(&self, value: &Var) -> Vec<Var> {
        vec![value.clone()]
    }
}

/// A model with tensors that are computed before each forward pass; see the [module's description](self).
///
/// The forward pass of a model without [`Forward`] is `model.run(|m| m.forward(&x, &y))`.
pub struct Parametrized<M: Module> {
    root: Level<M>,
}

impl<M: Module> Parametrized<M> {
    /// A model without parametrizations yet.
    pub fn new(model: M) -> Parametrized<M> {
        Parametrized { root: Level::new(Arc::new(model), Vec::new()) }
    }

    /// The model. Parameters that are computed have other values in it than those that it uses in a forward pass, which
    /// [`Parametrized::tensor`] computes.
    pub fn inner(&self) -> &M {
        &self.root.model
    }

    /// The model, with the current values of all computed parameters as its own.
    pub fn into_inner(mut self) -> M {
        self.root.end_all();
        let Level { model, children, .. } = self.root;
        drop(children);
        Arc::into_inner(model).expect("all other references were those of the levels")
    }

    /// Computes a parameter by this parametrization, after those that it has already. What is trained then has PyTorch's
    /// names, `parametrizations.weight.original` and, for several tensors, `original0`, `original1`, ...; where it is a
    /// single tensor of the same shape, it is the model's own parameter, which optimizers may hold already.
    ///
    /// # Panics
    /// If there is no such parameter, it belongs to several modules, or is pruned.
    #[track_caller]
    pub fn register_parametrization(&mut self, name: &str, parametrization: impl Parametrization) {
        let place = self.place("register_parametrization", name);
        if let Some(entry) = self.entry_mut(&place) {
            match &mut entry.source {
                Source::Parametrizations(list) => list.parametrizations.push(Box::new(parametrization)),
                Source::Pruned(_) => panic!("register_parametrization: {name} is pruned: remove that first"),
            }
            return;
        }
        let leaf = place.leaf.clone();
        let originals = tapegrad_tape::no_grad(|| parametrization.right_inverse(&leaf.detach()));
        let originals = match &originals[..] {
            [one] if one.shape() == leaf.shape() => {
                leaf.set_value(one.tensor());
                vec![leaf.clone()]
            }
            several => {
                let requires_grad = leaf.requires_grad();
                let originals: Vec<Var> = several.iter().map(|v| Var::parameter(v.tensor())).collect();
                originals.iter().for_each(|p| p.set_requires_grad(requires_grad));
                // Never seen, and without memory of its own.
                let nothing = Tensor::full_with((), f64::NAN, leaf.dtype());
                leaf.set_value(Var::from(nothing).expand(leaf.shape()).tensor());
                originals
            }
        };
        let list = ParametrizationList { originals, parametrizations: vec![Box::new(parametrization)] };
        self.insert(place, Source::Parametrizations(list));
    }

    /// The value of a parameter in a forward pass, with its place in the graph.
    ///
    /// # Panics
    /// If there is no such parameter.
    #[track_caller]
    pub fn tensor(&self, name: &str) -> Var {
        let place = self.place("tensor", name);
        self.root.entry(&place.path, &place.name).map_or_else(|| place.leaf.clone(), Entry::value)
    }

    /// True if a parameter is computed by a parametrization.
    pub fn is_parametrized(&self, name: &str) -> bool {
        let entry = locate(self.inner(), name).and_then(|place| self.root.entry(&place.path, &place.name));
        entry.is_some_and(|e| matches!(e.source, Source::Parametrizations(_)))
    }

    /// Computes all parameters that are not the model's own and runs `body` on the model, whose layers use them.
    pub fn run<R>(&self, body: impl FnOnce(&M) -> R) -> R {
        let mut values = Vec::new();
        self.root.each_entry(&mut |entry| values.push((entry.leaf.clone(), entry.value())));
        let pairs: Vec<(&Var, &Var)> = values.iter().map(|(leaf, value)| (leaf, value)).collect();
        substitute(&pairs, || body(self.inner()))
    }

    /// True if a parameter has a mask.
    pub(super) fn has_masks(&self) -> bool {
        let mut found = false;
        self.root.each_entry(&mut |entry| found |= matches!(entry.source, Source::Pruned(_)));
        found
    }

    /// Where a parameter is.
    #[track_caller]
    pub(super) fn place(&self, op: &str, name: &str) -> Place {
        let model = self.inner();
        let Some(place) = locate(model, name) else {
            let mut names = Vec::new();
            walk(model, &mut |name, item| {
                if let Item::Parameter(_) = item {
                    names.push(name.to_string());
                }
            });
            panic!("{op}: the model {} has no parameter {name:?}; it has {}", model.class(), names.join(", "))
        };
        let mut owners = Vec::new();
        walk(model, &mut |name, item| match item {
            Item::Parameter(p) if p.id() == place.leaf.id() => owners.push(name.to_string()),
            _ => {}
        });
        assert!(owners.len() == 1, "{op}: the parameter is shared: {}", owners.join(", "));
        place
    }

    pub(super) fn entry_mut(&mut self, place: &Place) -> Option<&mut Entry> {
        self.root.below_mut(&place.path)?.entries.iter_mut().find(|e| e.name == place.name)
    }

    pub(super) fn insert(&mut self, place: Place, source: Source) {
        let mut level = &mut self.root;
        for (depth, name) in place.path.iter().enumerate() {
            let i = level.children.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
                let child = Level::new(level.model.clone(), place.path[..=depth].to_vec());
                level.children.push((name.clone(), child));
                level.children.len() - 1
            });
            level = &mut level.children[i].1;
        }
        level.entries.push(Entry { name: place.name, leaf: place.leaf, source });
    }

    /// Makes a parameter's current value its own; false if it was so before.
    pub(super) fn end(&mut self, place: &Place) -> bool {
        let Some(entry) = self.entry_mut(place) else { return false };
        entry.end();
        let level = self.root.below_mut(&place.path).expect("it has the entry");
        level.entries.retain(|e| e.name != place.name);
        true
    }
}

/// Makes the current value of a parameter its own again, without parametrizations
/// (`torch.nn.utils.parametrize.remove_parametrizations`). [`Parametrized::into_inner`] does it for all.
///
/// # Panics
/// If there is no such parameter, or it has no parametrization.
#[track_caller]
pub fn remove_parametrizations<M: Module>(model: &mut Parametrized<M>, name: &str) {
    let op = "remove_parametrizations";
    assert!(model.is_parametrized(name), "{op}: the parameter {name:?} is not parametrized");
    let place = model.place(op, name);
    model.end(&place);
}

impl<M: Module> Module for Parametrized<M> {
    fn visit_fields<'a>(&'a self, f: &mut dyn FnMut(&str, Item<'a>)) {
        self.root.visit_fields(f);
    }
    fn class(&self) -> &'static str {
        self.root.class()
    }
    fn address(&self) -> *const () {
        self.root.address()
    }
}

impl<M: Module> std::fmt::Debug for Parametrized<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        crate::print_module(self, f)
    }
}

impl<M: Forward> Forward for Parametrized<M> {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        self.run(|model| model.forward(x))
    }
    #[track_caller]
    fn forward_owned(&self, x: Var) -> Var {
        self.run(|model| model.forward_owned(x))
    }
    #[track_caller]
    fn forward_relu(&self, x: &Var) -> Var {
        self.run(|model| model.forward_relu(x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::LeNet5;
    use crate::utils::parametrizations::{spectral_norm, weight_norm};
    use crate::{BatchNorm1d, Bilinear, Linear, ReLU, module, sequential};
    use tapegrad_tape::DType;

    module! {
        /// Values above zero.
        struct Exp {}
    }

    impl Parametrization for Exp {
        fn compute(&self, originals: &[Var]) -> Var {
            originals[0].exp()
        }
        fn right_inverse(&self, value: &Var) -> Vec<Var> {
            vec![value.abs().log()]
        }
    }

    #[test]
    fn parametrizations_are_composed_and_removed() {
        let mut layer = Parametrized::new(Linear::new(3, 2));
        layer.to_dtype(DType::F64);
        let before = layer.inner().weight.tensor();
        layer.register_parametrization("weight", Exp {});
        layer.register_parametrization("weight", Exp {});
        let want = (Var::from(&before).abs()).exp();
        tapegrad_tape::assert_close(&layer.tensor("weight"), &want);
        let keys: Vec<String> = layer.state_dict().keys().map(String::from).collect();
        assert_eq!(keys, ["bias", "parametrizations.weight.original"]);
        let x = Var::from(Tensor::ones_with(&[1, 3], DType::F64));
        let y = layer.forward(&x);
        y.sum_all().backward();
        assert!(layer.inner().weight.grad().is_some(), "the original is the model's own parameter");
        assert!(layer.is_parametrized("weight") && !layer.is_parametrized("bias"));
        remove_parametrizations(&mut layer, "weight");
        tapegrad_tape::assert_close(&layer.forward(&x), &y.detach());
        assert_eq!(layer.into_inner().named_parameters()[0].0, "weight");
    }

    #[test]
    fn a_whole_model_keeps_its_structure() {
        let mut net = Parametrized::new(LeNet5::new(10));
        let plain: Vec<String> = net.named_modules().into_iter().map(|(name, _)| name).collect();
        let linears =
            |net: &Parametrized<LeNet5>| net.named_modules().iter().filter(|(_, m)| m.is::<Linear>()).count();
        let (count, rows) = (linears(&net), net.summary(&[1, 1, 28, 28]).rows);
        let name = net.named_parameters()[0].0.clone();
        weight_norm(&mut net, &name);
        assert_eq!(linears(&net), count);
        let later: Vec<String> = net.named_modules().into_iter().map(|(name, _)| name).collect();
        assert!(plain.iter().all(|name| later.contains(name)), "{later:?}");
        let again = net.summary(&[1, 1, 28, 28]).rows;
        let outputs = |rows: &[crate::SummaryRow], name: &str| {
            rows.iter().find(|r| r.name == name).unwrap().output.clone()
        };
        rows.iter().for_each(|r| assert_eq!(outputs(&again, &r.name), r.output, "{}", r.name));
        let x = Var::from(tapegrad_tape::Generator::manual_seed(1).normal(&[2, 1, 28, 28], 0.0, 1.0));
        let y = net.forward(&x).detach();
        let inner = net.into_inner();
        tapegrad_tape::assert_close(&inner.forward(&x), &y);
    }

    #[test]
    fn modes_reach_parametrizations_and_second_derivatives_exist() {
        let mut net = Parametrized::new(sequential![Linear::new(3, 4), BatchNorm1d::new(4), ReLU::new()]);
        spectral_norm(&mut net, "0.weight");
        let mut net = Parametrized::new(net);
        net.register_parametrization("0.bias", Exp {});
        net.to_dtype(DType::F64);
        net.eval();
        assert!(!net.is_training());
        let x = Var::parameter(Tensor::from_vec((0..6).map(|i| f64::from(i) * 0.3).collect(), &[2, 3]));
        let p = net.parameters();
        let with = |values: &[Var]| {
            // The parameters, as functions of the arguments.
            let pairs: Vec<_> = p.iter().zip(&values[1..]).collect();
            tapegrad_tape::substitute(&pairs, || net.forward(&values[0]).square())
        };
        let mut inputs = vec![x];
        inputs.extend(p.iter().map(|p| Var::parameter(p.tensor())));
        tapegrad_tape::gradcheck(with, &inputs).unwrap();
        tapegrad_tape::gradgradcheck(with, &inputs).unwrap();
    }

    #[test]
    fn models_without_forward_run_and_frozen_ones_stay_so() {
        let layer = Bilinear::new(2, 3, 4);
        layer.weight.set_requires_grad(false);
        let mut layer = Parametrized::new(layer);
        weight_norm(&mut layer, "weight");
        let (a, b) = (Var::ones((5, 2)), Var::ones((5, 3)));
        let y = layer.run(|m| m.forward(&a, &b));
        y.sum_all().backward();
        let frozen: Vec<bool> = layer.parameters().iter().map(|p| p.grad().is_none()).collect();
        assert_eq!(frozen, [false, true, true]);
        assert!(format!("{layer:?}").starts_with("Bilinear("), "{layer:?}");
        assert!(!layer.into_inner().weight.requires_grad());
    }

    #[test]
    #[should_panic(
        expected = "weight_norm: the model Linear has no parameter \"wieght\"; it has weight, bias"
    )]
    fn a_wrong_name_is_answered_with_those_there_are() {
        weight_norm(&mut Parametrized::new(Linear::new(1, 1)), "wieght");
    }

    #[test]
    #[should_panic(expected = "register_parametrization: the parameter is shared: 0.weight, 1.weight")]
    fn a_shared_parameter_is_refused() {
        let (a, mut b) = (Linear::new(2, 2), Linear::new(2, 2));
        b.weight = a.weight.clone();
        Parametrized::new(sequential![a, b]).register_parametrization("1.weight", Exp {});
    }
}
