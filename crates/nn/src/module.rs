//! What a module is: named fields, and a `forward`.

use crate::fields::{Item, Module};
use crate::summary::{Modes, Summary};
use std::any::TypeId;
use std::sync::Arc;
use tapegrad_tape::Var;

/// A module with one input and one output: what a [`Sequential`](crate::Sequential) can contain.
///
/// A new model needs its fields and its `forward`:
///
/// ```
/// use tapegrad_nn::{Module, Linear, Forward, module};
/// use tapegrad_tape::{Tensor, DType, Var};
///
/// module! {
///     /// Two layers.
///     pub struct Net {
///         fc1: Linear,
///         fc2: Linear,
///     }
/// }
///
/// impl Forward for Net {
///     fn forward(&self, x: &Var) -> Var {
///         self.fc2.forward(&tapegrad_ops::relu(&self.fc1.forward(x)))
///     }
/// }
///
/// let net = Net { fc1: Linear::new(784, 256), fc2: Linear::new(256, 10) };
/// let names: Vec<String> = net.named_parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]);
/// let y = net.forward(&Var::from(Tensor::zeros_with(&[2, 784], DType::F32)));
/// assert_eq!(y.shape(), [2, 10]);
/// ```
pub trait Forward: Module {
    /// The output for an input.
    fn forward(&self, x: &Var) -> Var;

    /// The output for an input that is no longer needed: some modules reuse its memory.
    fn forward_owned(&self, x: Var) -> Var {
        self.forward(&x)
    }

    /// The output with negative elements set to zero: what [`Sequential`](crate::Sequential) calls where a
    /// [`ReLU`](crate::ReLU) follows. Some modules do both in one pass over memory.
    fn forward_relu(&self, x: &Var) -> Var {
        tapegrad_ops::relu_(self.forward(x))
    }

    /// A table of the layers with output shapes and parameter counts, for an input of this shape (with its
    /// batch dimension). Runs `forward` once on zeros, in evaluation mode and without recording.
    fn summary(&self, input_shape: &[usize]) -> Summary {
        let forward = |x: &Var| {
            // Each module returns to its own mode, rather than all of them to the same one.
            let modes = Modes::of(self);
            self.eval();
            let y = self.forward(x);
            modes.restore(self);
            y
        };
        Summary::new(self.class(), self.parameters(), self.named_modules(), input_shape, &forward)
    }
}

macro_rules! delegate {
    ($($pointer:ident)*) => {$(
        impl<M: Module + ?Sized> Module for $pointer<M> {
            fn visit_fields<'a>(&'a self, f: &mut dyn FnMut(&str, Item<'a>)) {
                (**self).visit_fields(f);
            }
            fn class(&self) -> &'static str {
                (**self).class()
            }
            fn address(&self) -> *const () {
                (**self).address()
            }
            fn type_of(&self) -> TypeId {
                (**self).type_of()
            }
        }
        impl<M: Forward + ?Sized> Forward for $pointer<M> {
            fn forward(&self, x: &Var) -> Var {
                (**self).forward(x)
            }
            fn forward_owned(&self, x: Var) -> Var {
                (**self).forward_owned(x)
            }
            fn forward_relu(&self, x: &Var) -> Var {
                (**self).forward_relu(x)
            }
        }
    )*};
}
delegate!(Box Arc);

/// Defines the struct of a module and implements the visit of its fields: `module! { pub struct Net { fc: Linear, ...
/// } }`.
///
/// Module can be modules, `Var` (parameters), [`Buffer`](crate::Buffer), [`Training`](crate::Training), options, lists and maps of them, and
/// plain values. With an `impl Forward for Net` for its `forward`, the model is complete; see [`Forward`]. `Debug` prints it as
/// PyTorch does.
///
/// The struct may have type parameters, with bounds that are names:
///
/// ```
/// use tapegrad_nn::{Module, Linear, Forward, ReLU, module};
/// use std::collections::BTreeMap;
/// use tapegrad_tape::Var;
///
/// module! {
///     /// A module beside its input, and heads by name.
///     pub(crate) struct Residual<M: Forward> {
///         inner: M,
///         heads: BTreeMap<String, Linear>,
///     }
/// }
///
/// impl<M: Forward> Forward for Residual<M> {
///     fn forward(&self, x: &Var) -> Var {
///         self.heads["a"].forward(&(x + self.inner.forward(x)))
///     }
/// }
///
/// let heads = BTreeMap::from(["a", "b"].map(|name| (name.to_string(), Linear::new(2, 1))));
/// let net = Residual { inner: Linear::new(2, 2), heads };
/// assert_eq!(net.named_parameters()[2].0, "heads.a.weight");
/// assert_eq!(
///     format!("{net:?}"),
///     "Residual(\n  (inner): Linear(weight=[2, 2], bias=[2])\n  (heads.a): Linear(weight=[1, 2], bias=[1])\n  \
///      (heads.b): Linear(weight=[1, 2], bias=[1])\n)"
/// );
/// ```
#[macro_export]
macro_rules! module {
    ($(#[$meta:meta])* $vis:vis struct $name:ident
        $(< $($generic:ident $(: $bound:ident $(+ $more:ident)*)?),+ $(,)? >)?
    {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident : $ty:ty),* $(,)?
    }) => {
        $(#[$meta])*
        $vis struct $name $(<$($generic $(: $bound $(+ $more)*)?),+>)? {
            $($(#[$field_meta])* $field_vis $field: $ty),*
        }

        impl $(<$($generic: $crate::Field + Send + Sync + 'static $(+ $bound $(+ $more)*)?),+>)? $crate::Module
            for $name $(<$($generic),+>)?
        {
            #[allow(unused_variables)]
            fn visit_fields<'a>(&'a self, f: &mut dyn FnMut(&str, $crate::Item<'a>)) {
                $($crate::Field::visit(&self.$field, stringify!($field), f);)*
            }
            fn class(&self) -> &'static str {
                stringify!($name)
            }
        }

        impl $(<$($generic: $crate::Field + Send + Sync + 'static $(+ $bound $(+ $more)*)?),+>)? std::fmt::Debug
            for $name $(<$($generic),+>)?
        {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::print_module(self, f)
            }
        }
    };
}

impl std::fmt::Debug for dyn Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        crate::print_module(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buffer, Training};
    use tapegrad_tape::{DType, Tensor, Var};

    module! {
        struct Leaf {
            weight: Var,
            count: usize,
            mean: Buffer,
            bias: Option<Var>,
            training: Training,
        }
    }

    module! {
        struct Tree {
            list: Vec<Leaf>,
            scale: Var,
            boxed: Box<Leaf>,
        }
    }

    module! {
        /// Two parameters of types, lists in lists, and a tuple.
        pub(crate) struct Generic<A: Forward, B> {
            /// A module.
            pub(crate) first: A,
            nested: Vec<Vec<Leaf>>,
            three: (B, Leaf, Option<Leaf>),
        }
    }

    #[test]
    fn generic_modules_and_nested_fields() {
        let boxed: Box<dyn Forward> =
            Box::new(crate::sequential![crate::Linear::new(2, 3), crate::ReLU::new()]);
        let net = Generic {
            first: boxed,
            nested: vec![vec![leaf(false)], vec![leaf(false), leaf(false)]],
            three: (crate::Linear::new(1, 1).bias(false), leaf(true), None),
        };
        let names: Vec<String> = net.named_parameters().into_iter().map(|(name, _)| name).collect();
        let expected = [
            "first.0.weight",
            "first.0.bias",
            "nested.0.0.weight",
            "nested.1.0.weight",
            "nested.1.1.weight",
            "three.0.weight",
            "three.1.weight",
            "three.1.bias",
        ];
        assert_eq!(names, expected);
        net.first.parameters()[1].set_requires_grad(false);
        let text = format!("{:?}", &net as &dyn Module);
        let head = "Generic(\n  (first): Sequential(\n    (0): Linear(weight=[3, 2], bias=[3] frozen)\n    (1): ReLU()\n  )\n";
        assert!(text.starts_with(head), "{text}");
        assert!(text.ends_with("  (three.1): Leaf(weight=[2], bias=[2])\n)"), "{text}");
        assert!(format!("{:?}", net.first).starts_with("Sequential("), "a box of a module prints it");
    }

    fn leaf(bias: bool) -> Leaf {
        let p = || Var::parameter(Tensor::zeros_with(&[2], DType::F32));
        Leaf {
            weight: p(),
            count: 3,
            mean: Buffer::new(Tensor::ones_with(&[1], DType::F32)),
            bias: bias.then(p),
            training: Training::default(),
        }
    }

    fn tree() -> Tree {
        let scale = Var::parameter(Tensor::zeros_with((), DType::F32));
        Tree { list: vec![leaf(true), leaf(false)], scale, boxed: Box::new(leaf(true)) }
    }

    #[test]
    fn names_are_pytorchs() {
        let t = tree();
        let keys: Vec<String> = t.state_dict().keys().map(String::from).collect();
        let expected = [
            "scale",
            "list.0.weight",
            "list.0.mean",
            "list.0.bias",
            "list.1.weight",
            "list.1.mean",
            "boxed.weight",
            "boxed.mean",
            "boxed.bias",
        ];
        assert_eq!(keys, expected);
        assert_eq!(t.named_buffers().len(), 3);
        assert_eq!(t.num_parameters(), 11);
        assert_eq!(t.list[0].count, 3);
        let modules: Vec<String> = t.named_modules().into_iter().map(|(n, _)| n).collect();
        assert_eq!(modules, ["list.0", "list.1", "boxed"]);
    }

    #[test]
    fn modes_and_types_reach_everything() {
        let t = tree();
        assert!(t.is_training());
        t.eval();
        assert!(!t.is_training() && !t.boxed.training.get());
        t.to_dtype(DType::F64);
        assert!(t.state_dict().iter().all(|(_, v)| v.dtype() == DType::F64));
        assert_eq!(t.list[1].mean.item(), 1.0);
    }

    #[test]
    fn a_shared_parameter_counts_once() {
        let mut t = tree();
        t.list[1].weight = t.list[0].weight.clone();
        assert_eq!(t.parameters().len(), 5);
        assert_eq!(t.state_dict().len(), 9);
    }

    #[test]
    fn loading_is_all_or_nothing() {
        let (a, b) = (tree(), tree());
        let mut state = a.state_dict();
        state.insert("scale", Tensor::scalar(5.0f32));
        state.insert("boxed.bias", Tensor::zeros_with(&[3], DType::F32));
        state.remove("list.1.mean");
        state.insert("other", Tensor::scalar(1.0));
        let error = b.load_state_dict(&state).unwrap_err();
        assert_eq!(error.missing, ["list.1.mean"]);
        assert_eq!(error.unexpected, ["other"]);
        assert_eq!(error.mismatched[0].key, "boxed.bias");
        assert_eq!(b.scale.item(), 0.0);
        state.insert("boxed.bias", Tensor::ones_with(&[2], DType::F64));
        let keys = b.load_state_dict_with(&state, false).unwrap();
        assert_eq!((keys.missing.len(), keys.unexpected.len()), (1, 1));
        assert_eq!(b.scale.item(), 5.0);
        assert_eq!(b.boxed.bias.as_ref().unwrap().dtype(), DType::F32);
    }
}
