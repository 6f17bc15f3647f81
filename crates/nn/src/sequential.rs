//! `Sequential`: modules one after the other.

use crate::activation::ReLU;
use crate::fields::{Item, Module};
use crate::module::Forward;
use crate::summary::{is_observed, observe};
use std::any::TypeId;
use tapegrad_tape::Var;

/// Modules one after the other, named by their indices (`torch.nn.Sequential`).
///
/// ```
/// use tapegrad_nn::{Module, Linear, Forward, Sequential};
/// use tapegrad_tape::{DType, Tensor, Var};
/// let net = Sequential::new().add(Linear::new(4, 8)).add(Linear::new(8, 2));
/// assert_eq!(net.forward(&Var::from(Tensor::zeros_with(&[3, 4], DType::F32))).shape(), [3, 2]);
/// assert_eq!(net.named_parameters()[2].0, "1.weight");
/// ```
#[derive(Default)]
pub struct Sequential {
    modules: Vec<Box<dyn Forward>>,
}

impl Sequential {
    /// An empty one, which returns its input.
    pub fn new() -> Sequential {
        Sequential::default()
    }

    /// This sequence with a module appended.
    #[allow(clippy::should_implement_trait)]
    pub fn add(mut self, module: impl Forward) -> Sequential {
        self.push(module);
        self
    }

    /// Appends a module.
    pub fn push(&mut self, module: impl Forward) {
        self.modules.push(Box::new(module));
    }

    /// The number of modules.
    pub fn len(&self) -> usize {
        self.modules.len()
    }

    /// True if there are no modules.
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// The modules in order.
    pub fn iter(&self) -> impl Iterator<Item = &dyn Forward> {
        self.modules.iter().map(|m| &**m)
    }
}

impl Module for Sequential {
    fn visit_fields<'a>(&'a self, f: &mut dyn FnMut(&str, Item<'a>)) {
        for (i, module) in self.modules.iter().enumerate() {
            f(&i.to_string(), Item::Module(&**module));
        }
    }
    fn class(&self) -> &'static str {
        "Sequential"
    }
}

impl std::fmt::Debug for Sequential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        crate::print_module(self, f)
    }
}

impl Forward for Sequential {
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            let mut modules = self.modules.iter().peekable();
            let Some(first) = modules.next() else { return x.clone() };
            let fuses = |next: Option<&&Box<dyn Forward>>| {
                !is_observed() && next.is_some_and(|m| m.type_of() == TypeId::of::<ReLU>())
            };
            let mut y = if fuses(modules.peek()) {
                modules.next();
                first.forward_relu(x)
            } else {
                first.forward(x)
            };
            while let Some(module) = modules.next() {
                y = if fuses(modules.peek()) {
                    modules.next();
                    module.forward_relu(&y)
                } else {
                    module.forward_owned(y)
                };
            }
            y
        })
    }
}

/// A [`Sequential`] of the listed modules.
///
/// ```
/// use tapegrad_nn::{Linear, ReLU, sequential};
/// let net = sequential![Linear::new(784, 256), ReLU::new(), Linear::new(256, 10)];
/// assert_eq!(net.len(), 3);
/// ```
#[macro_export]
macro_rules! sequential {
    ($($module:expr),* $(,)?) => { $crate::Sequential::new()$(.add($module))* };
}

#[cfg(test)]
mod tests {
    use crate::{BatchNorm1d, Forward, Linear, ReLU, Sequential};
    use tapegrad_tape::Var;

    mod own {
        crate::module! {
            /// A module of the user's that shares its name with one of ours.
            #[derive(Default)]
            pub(super) struct ReLU {}
        }
        impl crate::Forward for ReLU {
            fn forward(&self, x: &tapegrad_tape::Var) -> tapegrad_tape::Var {
                x * 10.0
            }
        }
    }

    #[test]
    fn only_our_own_relu_is_fused() {
        let x = Var::from_vec(vec![-1f32, 2.0, 3.0, -5.0], &[2, 2]);
        let norm = || BatchNorm1d::new(2).affine(false);
        let plain = norm().forward(&x).to_vec::<f32>();
        let impostor = Sequential::new().add(norm()).add(own::ReLU::default()).forward(&x);
        assert_eq!(impostor.to_vec::<f32>(), plain.iter().map(|v| v * 10.0).collect::<Vec<_>>());
        let boxed: Box<dyn Forward> = Box::new(ReLU::new());
        for net in [Sequential::new().add(norm()).add(ReLU::new()), Sequential::new().add(norm()).add(boxed)]
        {
            let fused = net.forward(&x).to_vec::<f32>();
            assert_eq!(fused, plain.iter().map(|v| v.max(0.0)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_box_is_seen_through() {
        let boxed: Box<dyn Forward> = Box::new(Box::new(Linear::new(1, 1)));
        let net = Sequential::new().add(boxed).add(own::ReLU::default());
        let modules = crate::Module::children(&net);
        assert!(modules[0].1.is::<Linear>() && !modules[1].1.is::<ReLU>() && modules[1].1.is::<own::ReLU>());
    }
}
