//! The suite of modules: construction by PyTorch's arguments, state dicts, outputs, gradients of inputs and parameters,
//! and what a forward pass changes.
//!
//! Each file has one `build` that matches on the class and returns `None` for what it does not know.

mod activation;
mod layers;
mod loss;
mod pool;
mod recurrent;

use serde_json::Value as Json;
use tapegrad::nn::{Forward, Module, StateDict};
use tapegrad::tape::Var;

use super::attempt::attempt;
use super::call::Call;
use super::check::difference;
use super::data::{Store, dtype};
use super::ops::{
    compare_differentiability, compare_gradient, compare_outputs, differentiable, gradients, tolerances,
};
use super::outcome::Outcome;
use super::report::Verdict;

/// A module under test, and how the arguments of a call reach its `forward`.
pub trait Subject {
    /// The module's fields.
    fn fields(&self) -> &dyn Module;
    /// Calls the module.
    fn call(&self, call: &Call) -> Outcome;
}

/// A module, or nothing where Tapegrad has none of the class.
pub type Built = Option<Box<dyn Subject>>;

struct With<M, F>(M, F);

impl<M: Module, F: Fn(&M, &Call) -> Outcome> Subject for With<M, F> {
    fn fields(&self) -> &dyn Module {
        &self.0
    }
    fn call(&self, call: &Call) -> Outcome {
        self.1(&self.0, call)
    }
}

/// A module whose `forward` takes more than one argument.
pub fn with<M: Module>(module: M, f: impl Fn(&M, &Call) -> Outcome + 'static) -> Built {
    Some(Box::new(With(module, f)))
}

/// A module with one input and one output.
pub fn unary(module: impl Forward) -> Built {
    with(module, |m, call| m.forward(&call.var("input")).into())
}

/// Builds the module of a class from its constructor's arguments.
fn build(constructor: &Call) -> Built {
    let files: [fn(&Call) -> Built; 5] =
        [layers::build, activation::build, pool::build, loss::build, recurrent::build];
    files.iter().find_map(|build| build(constructor))
}

/// Runs a sample.
pub fn run(class: &str, sample: &Json, store: &Store) -> Result<Verdict, String> {
    let constructor = Call::of_method(class, &sample["constructor"], "constructor.", store)?;
    let subject = match attempt(|| build(&constructor)) {
        Err(caught) => return Ok(Verdict::Failed(format!("constructor: {}", caught.describe()))),
        Ok(None) => return Ok(Verdict::Missing),
        Ok(Some(subject)) => subject,
    };
    let unused = constructor.unused();
    if !unused.is_empty() {
        return Ok(Verdict::Failed(format!("constructor: argument {} not used", unused.join(", "))));
    }
    let training = sample["training"].as_bool().ok_or("no training")?;
    let dtype = dtype(sample["dtype"].as_str().ok_or("no dtype")?)?;
    let mut state = StateDict::new();
    for (name, entry) in sample["state_dict"].as_object().ok_or("no state_dict")? {
        state.insert(name.as_str(), store.tensor(entry["tensor"].as_str().ok_or("no tensor")?)?);
    }
    let call = Call::of_method(class, sample, "", store)?;
    let module = subject.fields();
    let outcome = attempt(|| {
        module.to_dtype(dtype);
        module.load_state_dict(&state).map_err(|e| e.to_string())?;
        module.set_training(training);
        Ok::<_, String>(subject.call(&call))
    });
    let outcome = match outcome {
        Err(caught) => return Ok(Verdict::Failed(caught.describe())),
        Ok(Err(e)) => return Ok(Verdict::Failed(e)),
        Ok(Ok(outcome)) => outcome,
    };
    let unused = call.unused();
    if !unused.is_empty() {
        return Ok(Verdict::Failed(format!("argument {} not used", unused.join(", "))));
    }
    let (tolerance, gradient_tolerance) = tolerances(sample)?;
    let mut faults = compare_outputs(sample, &outcome, store, tolerance)?;
    // Changed buffers; what is not listed must be as it was.
    let now = module.state_dict();
    for (name, before) in state.iter() {
        let want = match sample["state_dict_after"].get(name).and_then(Json::as_str) {
            Some(key) => store.tensor(key)?,
            None => before.clone(),
        };
        let got = now.get(name).ok_or("an entry of the state dict vanished")?;
        faults.extend(difference(&format!("{name} after the call"), got, &want, tolerance));
    }
    if !faults.is_empty() {
        return Ok(Verdict::of(faults));
    }
    faults.extend(compare_differentiability(sample, &outcome));
    if faults.is_empty() {
        faults.extend(compare_gradients(sample, module, &call, &outcome, store, gradient_tolerance)?);
    }
    Ok(Verdict::of(faults))
}

fn compare_gradients(
    sample: &Json,
    module: &dyn Module,
    call: &Call,
    outcome: &Outcome,
    store: &Store,
    tolerance: super::check::Tolerance,
) -> Result<Vec<String>, String> {
    let mut faults = Vec::new();
    let by_path = sample["grads"].as_object().ok_or("no grads")?;
    let by_name = sample["param_grads"].as_object().ok_or("no param_grads")?;
    if by_path.is_empty() && by_name.is_empty() {
        return Ok(faults);
    }
    let mut inputs: Vec<(String, Var, Option<&str>)> = Vec::new();
    for leaf in call.leaves.iter().filter(|l| l.requires_grad) {
        let key = by_path.get(&leaf.path).and_then(Json::as_str);
        inputs.push((format!("gradient of {}", leaf.path), leaf.var.clone(), key));
    }
    let parameters = module.named_parameters();
    for name in by_name.keys() {
        if !parameters.iter().any(|(n, _)| n == name) {
            faults.push(format!("no parameter {name}"));
        }
    }
    for (name, p) in parameters {
        match by_name.get(&name) {
            None => faults.push(format!("{name} is a parameter, in PyTorch it is none")),
            Some(key) => inputs.push((format!("gradient of parameter {name}"), p, key.as_str())),
        }
    }
    let pairs: Vec<(Var, Var)> =
        differentiable(sample, outcome, store)?.into_iter().map(|(v, t)| (v, Var::from(t))).collect();
    let variables: Vec<Var> = inputs.iter().map(|(_, v, _)| v.clone()).collect();
    match attempt(|| gradients(&pairs, &variables, false)) {
        Err(caught) => faults.push(format!("backward: {}", caught.describe())),
        Ok(got) => {
            for ((what, _, key), g) in inputs.iter().zip(&got) {
                faults.extend(compare_gradient(what, g.as_ref(), *key, store, tolerance)?);
            }
        }
    }
    Ok(faults)
}
