//! The update rule of an optimizer, and an optimizer by any rule.

use super::Optimizer;
use super::core::{Core, OptimizerStateError, ParamGroup};
use crate::StateDict;
use std::fmt::Debug;
use tapegrad_tape::{Float, Var};

/// The arithmetic of an optimizer: its options, the buffers that it keeps for each parameter, and what a step does to one
/// parameter. All optimizers of this module but [`LBFGS`](super::LBFGS) are rules; [`Custom`] makes an optimizer of yours,
/// with groups, saved state, and one pass over memory for each parameter, in vector lanes and on all threads.
///
/// ```
/// use tapegrad_nn::optim::{Custom, Optimizer, Rule, Step};
/// use tapegrad_tape::{Float, Tensor, Var, kernels::update::update1};
///
/// /// The sign of a mean of gradients.
/// #[derive(Clone, Debug)]
/// struct SignMomentum {
///     lr: f64,
///     momentum: f64,
///     weight_decay: f64,
/// }
///
/// impl Rule for SignMomentum {
///     const NAME: &'static str = "SignMomentum";
///     fn options(&mut self) -> Vec<(&'static str, &mut f64)> {
///         let SignMomentum { lr, momentum, weight_decay } = self;
///         vec![("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)]
///     }
///     fn buffers(&self) -> &'static [&'static str] {
///         &["exp_avg"]
///     }
///     fn update<T: Float>(&self, _: Step, _: &mut [f64], p: &mut [T], g: &[T], buffers: &mut [&mut [T]]) {
///         let (lr, mu, decay) = (T::c(self.lr), T::c(self.momentum), T::c(1.0 - self.lr * self.weight_decay));
///         let (join, later) = (T::ONE - mu, T::c(0.99));
///         update1(p, g, buffers[0], |p, g, m| {
///             let mean = mu * m + join * g;
///             let sign = if mean > T::ZERO { T::ONE } else { T::c(-1.0) };
///             (p * decay - lr * sign, later * m + (T::ONE - later) * g)
///         });
///     }
/// }
///
/// let (w, v) = (Var::parameter(Tensor::scalar(1.0)), Var::parameter(Tensor::scalar(-1.0)));
/// let rule = SignMomentum { lr: 0.1, momentum: 0.9, weight_decay: 0.0 };
/// let mut optimizer = Custom::new([w.clone()], rule.clone()).group([v.clone()], SignMomentum { lr: 0.2, ..rule });
/// (&w * &w + &v * &v).backward();
/// optimizer.step();
/// assert!((w.item() - 0.9).abs() < 1e-6 && (v.item() + 0.8).abs() < 1e-6);
/// optimizer.set_lr(0, 0.01);
/// assert!(optimizer.state_dict().get("state.0.0.exp_avg").is_some());
/// ```
pub trait Rule: Clone + Debug + Send + 'static {
    /// The optimizer's name, for messages.
    const NAME: &'static str;
    /// Names of the scalars kept for each parameter besides its step count.
    const SCALARS: &'static [&'static str] = &[];
    /// True for a rule that takes the parameter's shape into account: slices are in row-major order then.
    const ROW_MAJOR: bool = false;
    /// True for a rule that takes sparse gradients only.
    const NEEDS_ROWS: bool = false;
    /// True for a rule that has [`Rule::switch`].
    const SWITCHES: bool = false;
    /// True if [`Rule::update`] multiplies the gradient by [`Step::scale`] itself. Otherwise it is given the product, which takes
    /// a pass of its own where that is not 1.
    const SCALES_GRADIENT: bool = false;

    /// The numbers among the options, with their names: they are saved, and checked against the range that PyTorch's option
    /// of that name has. `lr` and `momentum` are those that schedules change.
    fn options(&mut self) -> Vec<(&'static str, &mut f64)> {
        Vec::new()
    }

    /// Names of the buffers that these options keep for each parameter.
    fn buffers(&self) -> &'static [&'static str];

    /// The shape of a buffer for a parameter of this shape, by default the same; `None` if there is no such buffer.
    fn buffer_shape(&self, name: &str, shape: &[usize]) -> Option<Vec<usize>> {
        let _ = name;
        Some(shape.to_vec())
    }

    /// The initial value of a buffer.
    fn buffer_start(&self, name: &str) -> f64 {
        let _ = name;
        0.0
    }

    /// The initial values of [`Rule::SCALARS`].
    fn scalars_start(&self) -> Vec<f64> {
        vec![0.0; Self::SCALARS.len()]
    }

    /// Checks the shape of a parameter, for optimizers that do not accept every shape.
    ///
    /// # Panics
    /// If the shape is not accepted.
    #[track_caller]
    fn check(&self, shape: &[usize]) {
        let _ = shape;
    }

    /// Why these options cannot be combined; checked before a step.
    fn conflict(&self) -> Option<&'static str> {
        None
    }

    /// True if these options leave rows alone whose gradient is zero. Then a step on a parameter with a sparse gradient
    /// ([`Var::grad_rows`]) updates its rows only.
    fn steps_rows(&self) -> bool {
        false
    }

    /// One step on a parameter `p` with the gradient `g`, as slices in one memory order, whichever that is. The functions of
    /// [`kernels::update`](tapegrad_tape::kernels::update) do it in one fused pass. `T` is `f32` or `f64`.
    fn update<T: Float>(&self, at: Step, scalars: &mut [f64], p: &mut [T], g: &[T], buffers: &mut [&mut [T]]);

    /// Changes a parameter that has been stepped between its values in training and those to evaluate, for a rule where they
    /// differ: what [`Optimizer::train`] and [`Optimizer::eval`] do, which may be called more than once in a row.
    fn switch<T: Float>(&self, training: bool, scalars: &mut [f64], p: &mut [T], buffers: &mut [&mut [T]]) {
        let _ = (training, scalars, p, buffers);
    }

    /// Every option with its name, as it is saved; an option may be several numbers.
    #[doc(hidden)]
    fn save(&self) -> Vec<(&'static str, Vec<f64>)> {
        self.clone().options().into_iter().map(|(name, x)| (name, vec![*x])).collect()
    }

    /// Sets an option from its numbers; false if they do not fit.
    #[doc(hidden)]
    fn restore(&mut self, name: &str, numbers: &[f64]) -> bool {
        match (self.options().into_iter().find(|(n, _)| *n == name), numbers) {
            (Some((_, option)), [x]) => {
                *option = *x;
                true
            }
            _ => false,
        }
    }
}

/// The progress of one parameter.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The number of this step, from 1.
    pub number: u64,
    /// True if the buffers have just been made.
    pub fresh: bool,
    /// The parameter's shape.
    pub shape: &'a [usize],
    /// What the gradient is to be multiplied by: 1 except in [`Optimizer::step_scaled`].
    pub scale: f64,
}

impl Step<'_> {
    /// What the gradient is multiplied by where the objective may be maximized.
    pub(crate) fn factor<T: Float>(&self, maximize: bool) -> T {
        T::c(if maximize { -self.scale } else { self.scale })
    }
}

/// An optimizer by a rule of your own; see [`Rule`].
pub struct Custom<R: Rule> {
    core: Core<R>,
}

impl<R: Rule> Custom<R> {
    /// An optimizer for these parameters, in one group.
    ///
    /// # Panics
    /// If the list is empty, or contains anything but floating-point parameters, or an option is outside its range.
    #[track_caller]
    pub fn new(params: impl IntoIterator<Item = Var>, rule: R) -> Custom<R> {
        Custom { core: Core::new(params.into_iter().collect(), rule) }
    }

    /// This optimizer with one more group of parameters, which has its own options.
    ///
    /// # Panics
    /// If the list is empty, or contains anything but floating-point parameters or one of another group, or an option is
    /// outside its range.
    #[track_caller]
    pub fn group(mut self, params: impl IntoIterator<Item = Var>, rule: R) -> Custom<R> {
        self.core.add_group(params.into_iter().collect(), rule);
        self
    }

    /// The groups of parameters.
    pub fn groups(&self) -> &[ParamGroup<R>] {
        &self.core.groups
    }

    /// The options of a group, mutable.
    ///
    /// # Panics
    /// If there is no such group.
    #[track_caller]
    pub fn options_mut(&mut self, group: usize) -> &mut R {
        &mut self.core.groups[group].options
    }

    fn option(&self, group: usize, name: &str) -> Option<f64> {
        let saved = self.core.groups[group].options.save();
        saved.into_iter().find(|(n, _)| *n == name)?.1.first().copied()
    }

    fn set_option(&mut self, group: usize, name: &str, value: f64) {
        self.core.groups[group].options.restore(name, &[value]);
    }
}

impl<R: Rule> Optimizer for Custom<R> {
    #[track_caller]
    fn step(&mut self) {
        self.core.step(1.0);
    }
    #[track_caller]
    fn step_scaled(&mut self, factor: f64) {
        self.core.step(factor);
    }
    fn parameters(&self) -> Vec<Var> {
        self.core.parameters()
    }
    fn num_groups(&self) -> usize {
        self.core.groups.len()
    }
    /// The option `lr`, or zero for a rule without.
    fn lr(&self, group: usize) -> f64 {
        self.option(group, "lr").unwrap_or(0.0)
    }
    fn set_lr(&mut self, group: usize, lr: f64) {
        self.set_option(group, "lr", lr);
    }
    fn momentum(&self, group: usize) -> Option<f64> {
        self.option(group, "momentum")
    }
    fn set_momentum(&mut self, group: usize, momentum: f64) {
        self.set_option(group, "momentum", momentum);
    }
    fn set_training(&mut self, training: bool) {
        self.core.set_training(training);
    }
    fn switches(&self) -> bool {
        self.core.switches()
    }
    fn state_dict(&self) -> StateDict {
        self.core.save()
    }
    fn load_state_dict(&mut self, state: &StateDict) -> Result<(), OptimizerStateError> {
        self.core.load(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lr_scheduler::{Schedule, StepLR};
    use crate::optim::{SGD, SGDOptions};
    use tapegrad_tape::kernels::update::{update0, update1};
    use tapegrad_tape::{DType, Tensor, manual_seed, with_default_generator};

    /// SGD, as a user would write it.
    #[derive(Clone, Debug)]
    struct Heavy {
        lr: f64,
        momentum: f64,
        /// Not a number: it is not saved.
        label: &'static str,
    }

    impl Rule for Heavy {
        const NAME: &'static str = "Heavy";
        const SCALARS: &'static [&'static str] = &["largest"];
        fn options(&mut self) -> Vec<(&'static str, &mut f64)> {
            vec![("lr", &mut self.lr), ("momentum", &mut self.momentum)]
        }
        fn buffers(&self) -> &'static [&'static str] {
            if self.momentum == 0.0 { &[] } else { &["velocity"] }
        }
        fn update<T: Float>(
            &self,
            at: Step,
            scalars: &mut [f64],
            p: &mut [T],
            g: &[T],
            buffers: &mut [&mut [T]],
        ) {
            assert_eq!(at.shape.iter().product::<usize>(), p.len(), "{}", self.label);
            scalars[0] = g.iter().fold(scalars[0], |a, g| a.max(g.to_f64()));
            let (lr, mu) = (T::c(self.lr), T::c(self.momentum));
            match buffers {
                [v] => update1(p, g, v, |p, g, v| {
                    let v = mu * v + g;
                    (p - lr * v, v)
                }),
                _ => update0(p, g, |p, g| (p - lr * g,)),
            }
        }
    }

    fn parameters() -> [Var; 2] {
        manual_seed(3);
        [[4, 3], [2, 5]].map(|s| Var::parameter(with_default_generator(|g| g.normal(&s, 0.0, 1.0))))
    }

    fn step(parameters: &[Var], optimizer: &mut dyn Optimizer) {
        parameters.iter().for_each(|p| p.set_grad(Some(p.detach() * 0.5)));
        optimizer.step();
    }

    #[test]
    fn a_rule_of_the_users_has_groups_schedules_and_a_saved_state() {
        let ([a, b], [c, d]) = (parameters(), parameters());
        let rule = Heavy { lr: 0.1, momentum: 0.9, label: "the parameter's shape" };
        let mut own =
            Custom::new([a.clone()], rule.clone()).group([b.clone()], Heavy { lr: 0.02, ..rule.clone() });
        let options = SGDOptions { lr: 0.02, momentum: 0.9, ..Default::default() };
        let mut sgd = SGD::new([c.clone()], 0.1).momentum(0.9).group([d.clone()], options);
        let (mut s, mut t) = (StepLR::new(2).attach(&mut own), StepLR::new(2).attach(&mut sgd));
        for _ in 0..5 {
            step(&[a.clone(), b.clone()], &mut own);
            step(&[c.clone(), d.clone()], &mut sgd);
            s.step(&mut own);
            t.step(&mut sgd);
        }
        assert_eq!([a.to_vec::<f32>(), b.to_vec()], [c.to_vec::<f32>(), d.to_vec()]);
        assert_eq!(own.lrs(), sgd.lrs());
        // Another one goes on from the saved state.
        let [x, y] = parameters();
        x.set_value(a.tensor());
        y.set_value(b.tensor());
        let mut other =
            Custom::new([x.clone()], rule.clone()).group([y.clone()], Heavy { momentum: 0.1, ..rule });
        other.load_state_dict(&own.state_dict()).unwrap();
        assert_eq!((other.momentum(1), other.lrs()), (Some(0.9), own.lrs()));
        step(&[a.clone(), b.clone()], &mut own);
        step(&[x.clone(), y.clone()], &mut other);
        assert_eq!([a.to_vec::<f32>(), b.to_vec()], [x.to_vec::<f32>(), y.to_vec()]);
        let scalar = own.state_dict().get("state.0.0.largest").unwrap().item::<f64>();
        assert!(scalar > 0.0);
    }

    #[test]
    fn a_rule_is_checked_like_ours() {
        let w = || [Var::parameter(Tensor::ones_with(&[2], DType::F32))];
        let refused = |rule: Heavy, message: &str| {
            let error = std::panic::catch_unwind(|| drop(Custom::new(w(), rule))).unwrap_err();
            let text = error.downcast_ref::<String>().unwrap();
            assert!(text.contains(message), "{text}");
        };
        let rule = Heavy { lr: -1.0, momentum: 0.0, label: "" };
        refused(rule.clone(), "Heavy: lr is -1, but must be finite and at least 0");
        let mut own = Custom::new(w(), Heavy { lr: 0.1, ..rule });
        let mut state = own.state_dict();
        state.insert("group.0.lr", Tensor::from_vec(vec![f64::NAN], &[1]));
        assert_eq!(own.load_state_dict(&state).unwrap_err().key, "group.0.lr");
        state.insert("group.0.lr", Tensor::from_vec(vec![0.1, 0.2], &[2]));
        assert_eq!(own.load_state_dict(&state).unwrap_err().key, "group.0.lr");
        assert_eq!(own.lr(0), 0.1);
    }
}
