//! `LBFGS`.

use super::Optimizer;
use super::core::{OptimizerStateError, check_option, check_params, step_type};
use super::line_search::{self, dot, largest};
use crate::StateDict;
use std::collections::VecDeque;
use tapegrad_tape::{Tensor, Var};

/// How [`LBFGS`] finds the step length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineSearch {
    /// None: the learning rate is the step length.
    None,
    /// A step length that fulfills the strong Wolfe conditions.
    StrongWolfe,
}

/// The options of [`LBFGS`].
#[derive(Clone, Debug)]
pub struct LBFGSOptions {
    /// The learning rate.
    pub lr: f64,
    /// The maximum number of iterations per step.
    pub max_iter: usize,
    /// The maximum number of closure evaluations per step; `None` for 1.25 times the iterations.
    pub max_eval: Option<usize>,
    /// The step ends when the largest gradient component is below this.
    pub tolerance_grad: f64,
    /// The step ends when a change is below this.
    pub tolerance_change: f64,
    /// The history size.
    pub history_size: usize,
    /// The line search.
    pub line_search: LineSearch,
    /// Maximize instead of minimize.
    pub maximize: bool,
}

impl Default for LBFGSOptions {
    fn default() -> Self {
        LBFGSOptions {
            lr: 1.0,
            max_iter: 20,
            max_eval: None,
            tolerance_grad: 1e-7,
            tolerance_change: 1e-9,
            history_size: 100,
            line_search: LineSearch::None,
            maximize: false,
        }
    }
}

/// The limited-memory quasi-Newton method (`torch.optim.LBFGS`), for full-batch training with few parameters.
///
/// A step calls a closure many times: see [`Optimizer::step_with`].
///
/// ```
/// use tapegrad_nn::optim::{LBFGS, LineSearch, Optimizer};
/// use tapegrad_tape::{Tensor, Var};
/// let w = Var::parameter(Tensor::from_vec(vec![3.0, -1.0], &[2]));
/// let mut lbfgs = LBFGS::new([w.clone()], 1.0).line_search(LineSearch::StrongWolfe);
/// lbfgs.step_with(&mut || {
///     w.zero_grad();
///     let loss = (&w * &w).sum_all();
///     loss.backward();
///     loss
/// });
/// assert!(w.to_vec::<f64>().iter().all(|x| x.abs() < 1e-4));
/// ```
pub struct LBFGS {
    params: Vec<Var>,
    options: LBFGSOptions,
    state: Memory,
}

/// The state between steps.
#[derive(Clone, Default)]
struct Memory {
    evaluations: usize,
    iterations: usize,
    length: f64,
    scale: f64,
    direction: Vec<f64>,
    last_grad: Vec<f64>,
    last_loss: f64,
    /// Changes of the gradient and of the parameters, the oldest first.
    history: VecDeque<(Vec<f64>, Vec<f64>)>,
}

fn add_scaled(a: &mut [f64], scale: f64, b: &[f64]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += scale * b);
}

impl LBFGS {
    /// An optimizer for these parameters with defaults for the other options.
    ///
    /// # Panics
    /// If the list is empty, or contains anything but F32 and F64 parameters.
    #[track_caller]
    pub fn new(params: impl IntoIterator<Item = Var>, lr: f64) -> LBFGS {
        LBFGS::with_options(params, LBFGSOptions { lr, ..Default::default() })
    }

    /// An optimizer for these parameters with all options given.
    ///
    /// # Panics
    /// If the list is empty, or contains anything but F32 and F64 parameters.
    #[track_caller]
    pub fn with_options(params: impl IntoIterator<Item = Var>, options: LBFGSOptions) -> LBFGS {
        let params: Vec<Var> = params.into_iter().collect();
        check_params("LBFGS", &params);
        for (i, p) in params.iter().enumerate() {
            assert!(
                step_type(p.dtype()) == p.dtype(),
                "LBFGS: parameter {i} of shape {:?} is {}; LBFGS steps float32 and float64",
                p.shape(),
                p.dtype()
            );
        }
        if let Err(e) = check_option("LBFGS", "lr", &[options.lr]) {
            panic!("{e}");
        }
        LBFGS { params, options, state: Memory::default() }
    }

    /// This optimizer with another line search.
    pub fn line_search(mut self, line_search: LineSearch) -> LBFGS {
        self.options.line_search = line_search;
        self
    }

    /// This optimizer with another maximum number of iterations per step.
    pub fn max_iter(mut self, max_iter: usize) -> LBFGS {
        self.options.max_iter = max_iter;
        self
    }

    /// This optimizer with another history size.
    pub fn history_size(mut self, history_size: usize) -> LBFGS {
        self.options.history_size = history_size;
        self
    }

    /// The options, mutable.
    pub fn options_mut(&mut self) -> &mut LBFGSOptions {
        &mut self.options
    }

    fn values(&self) -> Vec<f64> {
        self.params.iter().flat_map(|p| p.to_vec::<f64>()).collect()
    }

    fn set_values(&self, values: &[f64]) {
        let mut rest = values;
        for p in &self.params {
            let (own, after) = rest.split_at(p.numel());
            p.set_value(Tensor::from_slice(own, p.shape()).cast(p.dtype()));
            rest = after;
        }
    }

    fn grads(&self) -> Vec<f64> {
        let sign = if self.options.maximize { -1.0 } else { 1.0 };
        let of = |p: &Var| p.grad().map_or_else(|| vec![0.0; p.numel()], |g| g.to_vec::<f64>());
        self.params.iter().flat_map(of).map(|g| sign * g).collect()
    }

    /// The loss and the gradient at the current parameters.
    fn evaluate(&self, closure: &mut dyn FnMut() -> Var) -> (f64, Vec<f64>) {
        let loss = tapegrad_tape::enable_grad(closure).item();
        (if self.options.maximize { -loss } else { loss }, self.grads())
    }

    /// The quasi-Newton direction from the gradient and the history.
    fn direct(&mut self, grad: &[f64]) {
        let s = &mut self.state;
        if s.iterations == 1 {
            s.direction = grad.iter().map(|g| -g).collect();
            s.history.clear();
            s.scale = 1.0;
            return;
        }
        let y: Vec<f64> = grad.iter().zip(&s.last_grad).map(|(a, b)| a - b).collect();
        let step: Vec<f64> = s.direction.iter().map(|d| d * s.length).collect();
        let ys = dot(&y, &step);
        if ys > 1e-10 {
            if s.history.len() == self.options.history_size {
                s.history.pop_front();
            }
            s.scale = ys / dot(&y, &y);
            s.history.push_back((y, step));
        }
        let mut q: Vec<f64> = grad.iter().map(|g| -g).collect();
        let mut weights = Vec::with_capacity(s.history.len());
        for (y, step) in s.history.iter().rev() {
            let weight = dot(step, &q) * (1.0 / dot(y, step));
            add_scaled(&mut q, -weight, y);
            weights.push(weight);
        }
        q.iter_mut().for_each(|q| *q *= s.scale);
        for ((y, step), weight) in s.history.iter().zip(weights.into_iter().rev()) {
            let other = dot(y, &q) * (1.0 / dot(y, step));
            add_scaled(&mut q, weight - other, step);
        }
        s.direction = q;
    }
}

impl Optimizer for LBFGS {
    fn step(&mut self) {
        panic!("LBFGS: a step evaluates the loss several times; use step_with and pass a closure");
    }

    fn step_with(&mut self, closure: &mut dyn FnMut() -> Var) -> f64 {
        let options = self.options.clone();
        let max_eval = options.max_eval.unwrap_or(options.max_iter * 5 / 4);
        let (first, mut grad) = self.evaluate(closure);
        let mut loss = first;
        let reported = if options.maximize { -first } else { first };
        let mut evaluations = 1;
        self.state.evaluations += 1;
        if largest(grad.iter().copied()) <= options.tolerance_grad {
            return reported;
        }
        for iteration in 1..=options.max_iter {
            self.state.iterations += 1;
            self.direct(&grad);
            self.state.last_grad.clone_from(&grad);
            self.state.last_loss = loss;
            let first_length = 1f64.min(1.0 / grad.iter().map(|g| g.abs()).sum::<f64>());
            let mut length = if self.state.iterations == 1 { first_length } else { 1.0 } * options.lr;
            self.state.length = length;
            let direction = self.state.direction.clone();
            let slope = dot(&grad, &direction);
            if slope > -options.tolerance_change {
                break;
            }
            let start = self.values();
            let go = |this: &LBFGS, length: f64| {
                let mut x = start.clone();
                add_scaled(&mut x, length, &direction);
                this.set_values(&x);
            };
            let mut calls = 0;
            if options.line_search == LineSearch::StrongWolfe {
                let this = &*self;
                let found = line_search::strong_wolfe(
                    &mut |t| {
                        go(this, t);
                        this.evaluate(closure)
                    },
                    &direction,
                    line_search::Point { t: length, loss, grad: grad.clone(), slope },
                    options.tolerance_change,
                    max_eval.saturating_sub(evaluations),
                );
                (length, loss, grad, calls) = (found.t, found.loss, found.grad, found.evaluations);
                go(self, length);
                self.state.length = length;
            } else {
                go(self, length);
                // After the last iteration computing the loss would be wasted.
                if iteration != options.max_iter {
                    (loss, grad) = self.evaluate(closure);
                    calls = 1;
                }
            }
            evaluations += calls;
            self.state.evaluations += calls;
            let done = largest(grad.iter().copied()) <= options.tolerance_grad
                || evaluations >= max_eval
                || largest(direction.iter().map(|d| d * length)) <= options.tolerance_change
                || (loss - self.state.last_loss).abs() < options.tolerance_change;
            if done {
                break;
            }
        }
        reported
    }

    fn parameters(&self) -> Vec<Var> {
        self.params.clone()
    }

    fn num_groups(&self) -> usize {
        1
    }

    fn lr(&self, group: usize) -> f64 {
        assert_eq!(group, 0, "LBFGS has one group of parameters");
        self.options.lr
    }

    fn set_lr(&mut self, group: usize, lr: f64) {
        assert_eq!(group, 0, "LBFGS has one group of parameters");
        self.options.lr = lr;
    }

    fn momentum(&self, _: usize) -> Option<f64> {
        None
    }

    fn set_momentum(&mut self, _: usize, _: f64) {}

    fn state_dict(&self) -> StateDict {
        let mut out = StateDict::new();
        let s = &self.state;
        let numbers = |v: &[f64]| Tensor::from_slice(v, &[v.len()]);
        let o = &self.options;
        let counts = [s.evaluations, s.iterations, s.history.len()].map(|n| n as f64);
        out.insert("options", numbers(&[o.lr, o.max_iter as f64, o.tolerance_grad, o.tolerance_change]));
        out.insert("max_eval", numbers(o.max_eval.map(|n| n as f64).as_slice()));
        let search = f64::from(u8::from(o.line_search == LineSearch::StrongWolfe));
        out.insert("modes", numbers(&[o.history_size as f64, search, f64::from(u8::from(o.maximize))]));
        out.insert("counts", numbers(&counts));
        out.insert("numbers", numbers(&[s.length, s.scale, s.last_loss]));
        out.insert("direction", numbers(&s.direction));
        out.insert("last_grad", numbers(&s.last_grad));
        for (i, (y, step)) in s.history.iter().enumerate() {
            out.insert(format!("history.{i}.grad"), numbers(y));
            out.insert(format!("history.{i}.step"), numbers(step));
        }
        out
    }

    fn load_state_dict(&mut self, saved: &StateDict) -> Result<(), OptimizerStateError> {
        let total: usize = self.params.iter().map(Var::numel).sum();
        let read = |key: &str, lengths: &[usize]| -> Result<Vec<f64>, OptimizerStateError> {
            let fail = |reason: String| OptimizerStateError { optimizer: "LBFGS", key: key.into(), reason };
            let t = saved.get(key).ok_or_else(|| fail("is missing".into()))?;
            if !lengths.contains(&t.numel()) {
                return Err(fail(format!("has {} values, expected {lengths:?}", t.numel())));
            }
            Ok(t.to_vec::<f64>())
        };
        let (options, modes) = (read("options", &[4])?, read("modes", &[3])?);
        let counts = read("counts", &[3])?;
        let numbers = read("numbers", &[3])?;
        let mut history = VecDeque::new();
        for i in 0..counts[2] as usize {
            let pair = (
                read(&format!("history.{i}.grad"), &[total])?,
                read(&format!("history.{i}.step"), &[total])?,
            );
            history.push_back(pair);
        }
        let state = Memory {
            evaluations: counts[0] as usize,
            iterations: counts[1] as usize,
            length: numbers[0],
            scale: numbers[1],
            last_loss: numbers[2],
            direction: read("direction", &[0, total])?,
            last_grad: read("last_grad", &[0, total])?,
            history,
        };
        self.options = LBFGSOptions {
            lr: options[0],
            max_iter: options[1] as usize,
            max_eval: read("max_eval", &[0, 1])?.first().map(|n| *n as usize),
            tolerance_grad: options[2],
            tolerance_change: options[3],
            history_size: modes[0] as usize,
            line_search: if modes[1] != 0.0 { LineSearch::StrongWolfe } else { LineSearch::None },
            maximize: modes[2] != 0.0,
        };
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rosenbrock(w: &Var) -> Var {
        w.zero_grad();
        let (x, y) = (w.detach().to_vec::<f64>()[0], w.detach().to_vec::<f64>()[1]);
        let loss = (1.0 - x).powi(2) + 100.0 * (y - x * x).powi(2);
        let grad = vec![-2.0 * (1.0 - x) - 400.0 * x * (y - x * x), 200.0 * (y - x * x)];
        w.set_grad(Some(Var::from_vec(grad, &[2])));
        // In F64: the line search compares losses that differ little.
        Var::from_vec(vec![loss], 1).sum_all()
    }

    #[test]
    fn finds_the_bottom_of_rosenbrocks_valley() {
        let w = Var::parameter(Tensor::from_vec(vec![-1.5, 2.0], &[2]));
        let mut lbfgs = LBFGS::new([w.clone()], 1.0).line_search(LineSearch::StrongWolfe);
        for _ in 0..10 {
            lbfgs.step_with(&mut || rosenbrock(&w));
        }
        assert!(w.to_vec::<f64>().iter().all(|x| (x - 1.0).abs() < 1e-4), "{:?}", w.to_vec::<f64>());
    }

    /// The values are PyTorch's.
    #[test]
    fn the_line_search_ends_with_the_evaluations() {
        let w = Var::parameter(Tensor::from_vec(vec![-1.5, 2.0], &[2]));
        let options = LBFGSOptions {
            lr: 0.01,
            max_eval: Some(5),
            line_search: LineSearch::StrongWolfe,
            ..Default::default()
        };
        let mut lbfgs = LBFGS::with_options([w.clone()], options);
        let mut evaluations = 0;
        for expected in [5, 11] {
            lbfgs.step_with(&mut || {
                evaluations += 1;
                rosenbrock(&w)
            });
            assert_eq!(evaluations, expected);
        }
        for (ours, theirs) in w.to_vec::<f64>().iter().zip([-1.4206546378428284, 2.02501734023116]) {
            assert!((ours - theirs).abs() < 1e-12, "{ours} {theirs}");
        }
    }

    #[test]
    fn a_loaded_state_goes_on() {
        let start = || Var::parameter(Tensor::from_vec(vec![-1.5, 2.0], &[2]));
        let (a, b) = (start(), start());
        let mut first = LBFGS::new([a.clone()], 0.01).max_iter(4);
        first.step_with(&mut || rosenbrock(&a));
        b.set_value(a.tensor());
        let mut second = LBFGS::new([b.clone()], 1.0);
        second.load_state_dict(&first.state_dict()).unwrap();
        first.step_with(&mut || rosenbrock(&a));
        second.step_with(&mut || rosenbrock(&b));
        assert_eq!(a.to_vec::<f64>(), b.to_vec::<f64>());
        assert!(second.load_state_dict(&StateDict::new()).is_err());
    }
}
