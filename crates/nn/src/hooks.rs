//! Hooks on the passes of single modules.

use crate::fields::Module;
use std::any::TypeId;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tapegrad_tape::{Var, is_grad_enabled, record};

type Before = dyn Fn(&dyn Module, &Var) -> Option<Var> + Send + Sync;
type After = dyn Fn(&dyn Module, &Var, &Var) -> Option<Var> + Send + Sync;
type Backward = dyn Fn(Option<&Var>, &Var) -> Option<Var> + Send + Sync;

#[derive(Clone)]
enum Hook {
    Before(Arc<Before>),
    After(Arc<After>),
    Backward(Arc<Backward>),
}

/// The identity of a module.
type Key = (usize, TypeId);

static COUNT: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicU64 = AtomicU64::new(0);
static HOOKS: Mutex<Vec<(u64, Key, Hook)>> = Mutex::new(Vec::new());

fn hooks() -> MutexGuard<'static, Vec<(u64, Key, Hook)>> {
    HOOKS.lock().unwrap_or_else(|e| e.into_inner())
}

fn key<M: Module + ?Sized>(module: &M) -> Key {
    (module.address() as usize, module.type_of())
}

/// True while a module has hooks.
pub(crate) fn are_registered() -> bool {
    COUNT.load(Ordering::Relaxed) > 0
}

/// Removes its hook when it is dropped. It borrows the module, which so stays where it is.
#[must_use = "the hook is removed when its handle is dropped"]
#[derive(Debug)]
pub struct ModuleHook<'a> {
    id: u64,
    module: PhantomData<&'a ()>,
}

impl ModuleHook<'_> {
    /// Removes the hook.
    pub fn remove(self) {}
}

impl Drop for ModuleHook<'_> {
    fn drop(&mut self) {
        let mut list = hooks();
        list.retain(|(id, ..)| *id != self.id);
        COUNT.store(list.len(), Ordering::Relaxed);
    }
}

fn register<'a, M: Module + ?Sized>(module: &'a M, hook: Hook) -> ModuleHook<'a> {
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut list = hooks();
    list.push((id, key(module), hook));
    COUNT.store(list.len(), Ordering::Relaxed);
    ModuleHook { id, module: PhantomData }
}

/// Hooks on a module's forward and backward passes, until their handles are dropped. They run on every thread, for each
/// module whose `forward` calls [`observe`](crate::observe): those of this crate, and your own that do.
///
/// While there are hooks, layers run one by one, as in [`with_forward_hook`](crate::with_forward_hook).
pub trait Hooks: Module {
    /// Calls `hook(module, input)` before each forward pass; the input is replaced by what it returns
    /// (`torch.nn.Module.register_forward_pre_hook`).
    fn register_forward_pre_hook(
        &self,
        hook: impl Fn(&dyn Module, &Var) -> Option<Var> + Send + Sync + 'static,
    ) -> ModuleHook<'_> {
        register(self, Hook::Before(Arc::new(hook)))
    }

    /// Calls `hook(module, input, output)` after each forward pass; the output is replaced by what it returns
    /// (`torch.nn.Module.register_forward_hook`). A module with several results shows, and replaces, the first.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use tapegrad_nn::{Forward, Hooks, Linear, ReLU, sequential};
    /// use tapegrad_tape::Var;
    /// let (net, features) = (sequential![Linear::new(4, 8), ReLU::new(), Linear::new(8, 2)], Arc::new(Mutex::new(None)));
    /// let (kept, modules) = (features.clone(), net.iter().collect::<Vec<_>>());
    /// let hook = modules[1].register_forward_hook(move |_, _, y| {
    ///     *kept.lock().unwrap() = Some(y.clone());
    ///     None
    /// });
    /// net.forward(&Var::ones((3, 4)));
    /// hook.remove();
    /// assert_eq!(features.lock().unwrap().as_ref().unwrap().shape(), [3, 8]);
    /// ```
    fn register_forward_hook(
        &self,
        hook: impl Fn(&dyn Module, &Var, &Var) -> Option<Var> + Send + Sync + 'static,
    ) -> ModuleHook<'_> {
        register(self, Hook::After(Arc::new(hook)))
    }

    /// Calls `hook(gradient of the input, gradient of the output)` in each backward pass; the gradient of the input is
    /// replaced by what it returns (`torch.nn.Module.register_full_backward_hook`). It is `None` for an input without
    /// gradient, and for modules of several inputs.
    fn register_full_backward_hook(
        &self,
        hook: impl Fn(Option<&Var>, &Var) -> Option<Var> + Send + Sync + 'static,
    ) -> ModuleHook<'_> {
        register(self, Hook::Backward(Arc::new(hook)))
    }
}

impl<M: Module + ?Sized> Hooks for M {}

/// The hooks of one module during one pass.
pub(crate) struct Pass<'m> {
    module: &'m dyn Module,
    hooks: Vec<Hook>,
    /// For each backward hook the gradient of the output, until that of the input is there.
    waiting: Arc<Mutex<Option<Var>>>,
    /// The input leads through the node that waits for its gradient.
    watched: bool,
}

impl<'m> Pass<'m> {
    /// The input as the hooks change it. Without `replace` it is only shown to them.
    pub(crate) fn begin(module: &'m dyn Module, input: &Var, replace: bool) -> (Pass<'m>, Var) {
        let own = key(module);
        let hooks: Vec<Hook> =
            hooks().iter().filter(|(_, k, _)| *k == own).map(|(.., h)| h.clone()).collect();
        let mut pass = Pass { module, hooks, waiting: Arc::default(), watched: false };
        let mut x = input.clone();
        for hook in &pass.hooks {
            if let Hook::Before(hook) = hook
                && let Some(changed) = hook(module, &x)
            {
                x = changed;
            }
        }
        let backward = pass.backward();
        pass.watched = replace && !backward.is_empty() && x.requires_grad() && is_grad_enabled();
        if pass.watched {
            let waiting = pass.waiting.clone();
            x = record("full_backward_hook", [&x], x.tensor(), move |c| {
                let output = waiting.lock().unwrap_or_else(|e| e.into_inner()).take();
                let mut g = c.into_grad();
                if let Some(output) = output {
                    for hook in &backward {
                        g = hook(Some(&g), &output).unwrap_or(g);
                    }
                }
                [Some(g)]
            });
        }
        (pass, x)
    }

    fn backward(&self) -> Vec<Arc<Backward>> {
        let backward = |h: &Hook| if let Hook::Backward(h) = h { Some(h.clone()) } else { None };
        self.hooks.iter().filter_map(backward).collect()
    }

    /// The output as the hooks change it.
    pub(crate) fn end(self, input: &Var, output: Var) -> Var {
        let mut y = output;
        for hook in &self.hooks {
            if let Hook::After(hook) = hook
                && let Some(changed) = hook(self.module, input, &y)
            {
                y = changed;
            }
        }
        let backward = self.backward();
        if backward.is_empty() || !y.requires_grad() || !is_grad_enabled() {
            return y;
        }
        let (waiting, watched) = (self.waiting, self.watched);
        record("full_backward_hook", [&y], y.tensor(), move |c| {
            let g = c.into_grad();
            if watched {
                *waiting.lock().unwrap_or_else(|e| e.into_inner()) = Some(g.clone());
            } else {
                backward.iter().for_each(|hook| drop(hook(None, &g)));
            }
            [Some(g)]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Forward, LSTM, Linear, ReLU, Sequential, sequential};
    use tapegrad_tape::Tensor;

    fn net() -> Sequential {
        let net =
            sequential![Linear::new(2, 2), ReLU::new(), Linear::new(2, 2), ReLU::new(), Linear::new(2, 1)];
        net.parameters().iter().for_each(|p| p.set_value(Tensor::ones(p.shape())));
        net
    }

    fn numbers(list: &Arc<Mutex<Vec<Vec<f32>>>>) -> impl Fn(&Var) + Send + Sync + 'static {
        let list = list.clone();
        move |v| list.lock().unwrap().push(v.to_vec())
    }

    #[test]
    fn one_module_is_hooked_and_its_passes_changed() {
        let (net, x) = (net(), Var::parameter(Tensor::from_vec(vec![1f32, -2.0], (1, 2))));
        let plain = net.forward(&x).item();
        let modules: Vec<&dyn Forward> = net.iter().collect();
        let (seen, other): (Arc<Mutex<Vec<Vec<f32>>>>, _) = Default::default();
        let (see, also) = (numbers(&seen), numbers(&other));
        // The second ReLU, not the first.
        let hook = modules[3].register_forward_hook(move |m, _, y| {
            assert!(m.is::<ReLU>());
            see(y);
            None
        });
        let before = modules[3].register_forward_pre_hook(move |_, x| {
            also(x);
            Some(x * 2.0)
        });
        let doubled = net.forward(&x).item();
        assert_eq!(*other.lock().unwrap(), [[1.0, 1.0]]);
        assert_eq!(*seen.lock().unwrap(), [[2.0, 2.0]]);
        assert_eq!((plain, doubled), (3.0, 5.0));
        before.remove();
        let last = modules[4].register_forward_hook(|_, _, y| Some(y * 10.0));
        assert_eq!(net.forward(&x).item(), 30.0);
        drop(last);
        drop(hook);
        assert_eq!(net.forward(&x).item(), plain);
        assert_eq!(seen.lock().unwrap().len(), 2);
    }

    /// The gradients are those of PyTorch's hooks.
    #[test]
    fn gradients_of_a_module_are_shown_and_replaced() {
        let (net, x) = (net(), Var::parameter(Tensor::from_vec(vec![1f32, 2.0], (1, 2))));
        let modules: Vec<&dyn Forward> = net.iter().collect();
        let (inputs, outputs): (Arc<Mutex<Vec<Vec<f32>>>>, Arc<Mutex<Vec<Vec<f32>>>>) = Default::default();
        let (see, also) = (numbers(&inputs), numbers(&outputs));
        let hook = modules[2].register_full_backward_hook(move |input, output| {
            see(input.unwrap());
            also(output);
            Some(input.unwrap() * 3.0)
        });
        for _ in 0..2 {
            net.forward(&x).backward();
        }
        assert_eq!(*outputs.lock().unwrap(), [[1.0, 1.0], [1.0, 1.0]]);
        assert_eq!(*inputs.lock().unwrap(), [[2.0, 2.0], [2.0, 2.0]]);
        assert_eq!(x.grad().unwrap().to_vec::<f32>(), [24.0, 24.0]);
        drop(hook);
        x.zero_grad();
        net.forward(&x).backward();
        assert_eq!(x.grad().unwrap().to_vec::<f32>(), [4.0, 4.0]);
        // An input without gradient.
        let first = modules[0].register_full_backward_hook(|input, output| {
            assert!(input.is_none() && output.to_vec::<f32>() == [2.0, 2.0]);
            None
        });
        net.forward(&x.detach()).backward();
        drop(first);
    }

    #[test]
    fn modules_of_other_signatures() {
        let lstm = LSTM::new(2, 3);
        let shapes: Arc<Mutex<Vec<Vec<usize>>>> = Arc::default();
        let seen = shapes.clone();
        let hook = lstm.register_forward_hook(move |_, x, y| {
            seen.lock().unwrap().extend([x.shape().to_vec(), y.shape().to_vec()]);
            Some(y * 0.0)
        });
        let (y, (h, _)) = lstm.forward_with_state(&Var::ones((4, 1, 2)), None);
        assert_eq!(*shapes.lock().unwrap(), [vec![4, 1, 2], vec![4, 1, 3]]);
        assert!(y.abs().sum_all().item() == 0.0 && h.abs().sum_all().item() > 0.0);
        drop(hook);
    }
}
