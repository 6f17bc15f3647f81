//! The suite of optimizers and learning-rate schedules.

use serde_json::Value as Json;
use tapegrad::nn::optim::*;
use tapegrad::tape::{Tensor, Var};

use super::attempt::attempt;
use super::call::Call;
use super::check::{Tolerance, difference};
use super::data::{Store, Value};
use super::report::Verdict;
use super::schedulers;

/// Options from the arguments of a call, by the names that both sides share; the others keep their defaults.
macro_rules! options {
    ($call:ident, $options:ident { $($field:ident: $kind:ident),* $(,)? }) => {{
        let default = $options::default();
        $options { $($field: options!(@$kind $call, stringify!($field), default.$field)),* }
    }};
    (@float $call:ident, $name:expr, $default:expr) => { $call.float_or($name, $default) };
    (@flag $call:ident, $name:expr, $default:expr) => { $call.bool_or($name, $default) };
    (@pair $call:ident, $name:expr, $default:expr) => { pair($call, $name).unwrap_or($default) };
}

fn pair(call: &Call, name: &str) -> Option<(f64, f64)> {
    let list = call.floats_opt(name)?;
    match list[..] {
        [a, b] => Some((a, b)),
        _ => call.unwritable(name, format!("{} numbers where two are expected", list.len())),
    }
}

/// The optimizer of a name with the arguments of a call, or `None` if there is no such optimizer.
pub fn optimizer(call: &Call, params: Vec<Var>) -> Option<Box<dyn Optimizer>> {
    Some(match call.op() {
        "SGD" => Box::new(SGD::with_options(
            params,
            options!(
                call,
                SGDOptions {
                    lr: float,
                    momentum: float,
                    dampening: float,
                    weight_decay: float,
                    nesterov: flag,
                    maximize: flag,
                }
            ),
        )),
        "RMSprop" => Box::new(RMSprop::with_options(
            params,
            options!(
                call,
                RMSpropOptions {
                    lr: float,
                    alpha: float,
                    eps: float,
                    weight_decay: float,
                    momentum: float,
                    centered: flag,
                    maximize: flag,
                }
            ),
        )),
        "Adagrad" => Box::new(Adagrad::with_options(
            params,
            options!(
                call,
                AdagradOptions {
                    lr: float,
                    lr_decay: float,
                    weight_decay: float,
                    initial_accumulator_value: float,
                    eps: float,
                    maximize: flag,
                }
            ),
        )),
        "Adadelta" => Box::new(Adadelta::with_options(
            params,
            options!(
                call,
                AdadeltaOptions { lr: float, rho: float, eps: float, weight_decay: float, maximize: flag }
            ),
        )),
        "Rprop" => Box::new(Rprop::with_options(
            params,
            options!(call, RpropOptions { lr: float, etas: pair, step_sizes: pair, maximize: flag }),
        )),
        "ASGD" => Box::new(ASGD::with_options(
            params,
            options!(
                call,
                ASGDOptions {
                    lr: float,
                    lambd: float,
                    alpha: float,
                    t0: float,
                    weight_decay: float,
                    maximize: flag,
                }
            ),
        )),
        "LBFGS" => lbfgs(call, params),
        _ => return adam_family(call, params),
    })
}

/// Adam and its variants.
fn adam_family(call: &Call, params: Vec<Var>) -> Option<Box<dyn Optimizer>> {
    Some(match call.op() {
        "Adam" => Box::new(Adam::with_options(
            params,
            options!(
                call,
                AdamOptions {
                    lr: float,
                    betas: pair,
                    eps: float,
                    weight_decay: float,
                    amsgrad: flag,
                    maximize: flag,
                    decoupled_weight_decay: flag,
                }
            ),
        )),
        "AdamW" => Box::new(AdamW::with_options(
            params,
            options!(
                call,
                AdamWOptions {
                    lr: float,
                    betas: pair,
                    eps: float,
                    weight_decay: float,
                    amsgrad: flag,
                    maximize: flag,
                    decoupled_weight_decay: flag,
                }
            ),
        )),
        "Adamax" => Box::new(Adamax::with_options(
            params,
            options!(
                call,
                AdamaxOptions { lr: float, betas: pair, eps: float, weight_decay: float, maximize: flag }
            ),
        )),
        "NAdam" => Box::new(NAdam::with_options(
            params,
            options!(
                call,
                NAdamOptions {
                    lr: float,
                    betas: pair,
                    eps: float,
                    weight_decay: float,
                    momentum_decay: float,
                    decoupled_weight_decay: flag,
                    maximize: flag,
                }
            ),
        )),
        "RAdam" => Box::new(RAdam::with_options(
            params,
            options!(
                call,
                RAdamOptions {
                    lr: float,
                    betas: pair,
                    eps: float,
                    weight_decay: float,
                    decoupled_weight_decay: flag,
                    maximize: flag,
                }
            ),
        )),
        _ => return None,
    })
}

fn lbfgs(call: &Call, params: Vec<Var>) -> Box<dyn Optimizer> {
    let default = LBFGSOptions::default();
    let options = LBFGSOptions {
        lr: call.float_or("lr", default.lr),
        max_iter: call.size_or("max_iter", default.max_iter),
        max_eval: call.size_opt("max_eval"),
        tolerance_grad: call.float_or("tolerance_grad", default.tolerance_grad),
        tolerance_change: call.float_or("tolerance_change", default.tolerance_change),
        history_size: call.size_or("history_size", default.history_size),
        line_search: match call.has("line_search_fn") && call.text_opt("line_search_fn").is_some() {
            true => call.choice("line_search_fn", "", &[("strong_wolfe", LineSearch::StrongWolfe)]),
            false => LineSearch::None,
        },
        maximize: call.bool_or("maximize", false),
    };
    Box::new(LBFGS::with_options(params, options))
}

/// Runs a sample.
pub fn run(class: &str, head: &Json, sample: &Json, store: &Store) -> Result<Verdict, String> {
    let number = |key: &str| sample.get(key).and_then(Json::as_f64).ok_or_else(|| format!("no {key}"));
    let tolerance = Tolerance { rtol: number("rtol")?, atol: number("atol")? };
    if sample.get("scheduler").is_some() {
        return schedulers::run(head, sample, store, tolerance);
    }
    let call = Call::of_method(class, sample, "", store)?;
    let mut leaves = Vec::new();
    let Value::List(params) = store.value(&sample["params"], "params", &mut leaves)? else {
        return Err("params is no list".into());
    };
    let params: Vec<Var> = params
        .into_iter()
        .map(|p| match p {
            Value::Tensor(v) => Ok(Var::parameter(v.tensor())),
            other => Err(format!("{} among the parameters", other.kind())),
        })
        .collect::<Result<_, _>>()?;
    let mut optimizer = match attempt(|| optimizer(&call, params.clone())) {
        Err(caught) => return Ok(Verdict::Failed(format!("constructor: {}", caught.describe()))),
        Ok(None) => return Ok(Verdict::Missing),
        Ok(Some(optimizer)) => optimizer,
    };
    // These options change how PyTorch computes a step, not its result.
    for name in ["foreach", "fused", "capturable", "differentiable"] {
        call.bool_opt(name);
    }
    let unused = call.unused();
    if !unused.is_empty() {
        return Ok(Verdict::Failed(format!("argument {} not used", unused.join(", "))));
    }
    let stored = sample["steps"].as_object().ok_or("no steps")?;
    let last = stored.keys().filter_map(|k| k.parse::<usize>().ok()).max().ok_or("no steps")?;
    let closure_data = match sample.get("loss") {
        None => None,
        Some(loss) => Some((tensors(&loss["a"], store)?, tensors(&loss["b"], store)?)),
    };
    let grads = match closure_data {
        None => tensors(&sample["grads"], store)?,
        Some(_) => Vec::new(),
    };
    let sign = if call.bool_or("maximize", false) { -1.0 } else { 1.0 };
    let mut faults = Vec::new();
    for step in 1..=last {
        let done = attempt(|| match &closure_data {
            None => {
                for (p, g) in params.iter().zip(&grads) {
                    p.set_grad(Some(Var::from(g.select(0, step as isize - 1))));
                }
                optimizer.step();
            }
            Some((a, b)) => {
                optimizer.step_with(&mut || {
                    params.iter().for_each(Var::zero_grad);
                    let loss = quartic(&params, a, b) * sign;
                    loss.backward();
                    loss
                });
            }
        });
        if let Err(caught) = done {
            return Ok(Verdict::Failed(format!("step {step}: {}", caught.describe())));
        }
        if let Some(keys) = stored.get(&step.to_string()).and_then(Json::as_array) {
            for (i, (p, key)) in params.iter().zip(keys).enumerate() {
                let want = store.tensor(key.as_str().ok_or("key is no string")?)?;
                faults.extend(difference(
                    &format!("parameter {i} after step {step}"),
                    &p.tensor(),
                    &want,
                    tolerance,
                ));
            }
        }
    }
    Ok(Verdict::of(faults))
}

fn tensors(keys: &Json, store: &Store) -> Result<Vec<Tensor>, String> {
    let keys = keys.as_array().ok_or("no list of tensors")?;
    keys.iter().map(|k| store.tensor(k.as_str().ok_or("key is no string")?)).collect()
}

/// The sum over the parameters of `sum(a (p - b)^2) / 2 + sum(p^4) / 4`.
fn quartic(params: &[Var], a: &[Tensor], b: &[Tensor]) -> Var {
    let terms = params.iter().zip(a).zip(b).map(|((p, a), b)| {
        let off = p - Var::from(b);
        let square = p * p;
        (Var::from(a) * &off * &off).sum_all() * 0.5 + (&square * &square).sum_all() * 0.25
    });
    terms.reduce(|a, b| a + b).expect("there are parameters")
}
