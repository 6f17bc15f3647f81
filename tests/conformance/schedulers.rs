//! Learning-rate schedules: the learning rate, and the momentum where it changes, at every step.

use serde_json::Value as Json;
use tapegrad::nn::lr_scheduler::*;
use tapegrad::nn::optim::{Optimizer, SGD};
use tapegrad::tape::{Tensor, Var};

use super::attempt::attempt;
use super::call::Call;
use super::check::Tolerance;
use super::data::{Store, float};
use super::report::Verdict;

/// A schedule attached to an optimizer, of either kind.
enum Running {
    Steps(Scheduler),
    Metrics(PlateauScheduler),
}

/// Sets the options that a call names, and leaves the others at their defaults.
macro_rules! set {
    ($call:ident, $schedule:ident, $($field:ident: $get:ident),*) => {
        $(if let Some(x) = $call.$get(stringify!($field)) {
            $schedule.$field = x;
        })*
    };
}

fn count(call: &Call, name: &str) -> u64 {
    call.size(name) as u64
}

fn counts(call: &Call, name: &str) -> Vec<u64> {
    call.sizes(name).into_iter().map(|n| n as u64).collect()
}

/// The schedule of a name with the arguments of a call, or `None` if there is no such schedule.
fn schedule(call: &Call) -> Option<Box<dyn Schedule>> {
    Some(match call.op() {
        "StepLR" => {
            let mut s = StepLR::new(count(call, "step_size"));
            set!(call, s, gamma: float_opt);
            Box::new(s)
        }
        "MultiStepLR" => {
            let mut s = MultiStepLR::new(counts(call, "milestones"));
            set!(call, s, gamma: float_opt);
            Box::new(s)
        }
        "ExponentialLR" => Box::new(ExponentialLR::new(call.float("gamma"))),
        "ConstantLR" => {
            let mut s = ConstantLR::new();
            set!(call, s, factor: float_opt, total_iters: count_opt);
            Box::new(s)
        }
        "LinearLR" => {
            let mut s = LinearLR::new();
            set!(call, s, start_factor: float_opt, end_factor: float_opt, total_iters: count_opt);
            Box::new(s)
        }
        "PolynomialLR" => {
            let mut s = PolynomialLR::new();
            set!(call, s, total_iters: count_opt, power: float_opt);
            Box::new(s)
        }
        "CosineAnnealingLR" => {
            let mut s = CosineAnnealingLR::new(count(call, "T_max"));
            set!(call, s, eta_min: float_opt);
            Box::new(s)
        }
        "CosineAnnealingWarmRestarts" => {
            let mut s = CosineAnnealingWarmRestarts::new(count(call, "T_0"));
            set!(call, s, eta_min: float_opt);
            if let Some(t_mult) = call.count_opt("T_mult") {
                s = s.t_mult(t_mult);
            }
            Box::new(s)
        }
        "OneCycleLR" => {
            let total = call.count_opt("total_steps");
            let epochs = (call.count_opt("epochs"), call.count_opt("steps_per_epoch"));
            let total = match (total, epochs) {
                (Some(total), _) => total,
                (None, (Some(epochs), Some(steps))) => epochs * steps,
                _ => call.unwritable("total_steps", "nothing where an int is required"),
            };
            let mut s = OneCycleLR::new(call.float("max_lr"), total);
            s.anneal_strategy =
                call.choice("anneal_strategy", "cos", &[("cos", Anneal::Cos), ("linear", Anneal::Linear)]);
            set!(
                call, s, pct_start: float_opt, cycle_momentum: bool_opt, base_momentum: float_opt,
                max_momentum: float_opt, div_factor: float_opt, final_div_factor: float_opt, three_phase: bool_opt
            );
            Box::new(s)
        }
        _ => return None,
    })
}

fn plateau(call: &Call) -> ReduceLROnPlateau {
    let mut s = ReduceLROnPlateau::new(call.choice("mode", "min", &[("min", Mode::Min), ("max", Mode::Max)]));
    s.threshold_mode =
        call.choice("threshold_mode", "rel", &[("rel", ThresholdMode::Rel), ("abs", ThresholdMode::Abs)]);
    set!(
        call, s, factor: float_opt, patience: count_opt, threshold: float_opt, cooldown: count_opt, min_lr: float_opt,
        eps: float_opt
    );
    s
}

/// Builds and attaches the schedule of a sample; `None` if there is no such schedule.
fn attach(
    sample: &Json,
    store: &Store,
    optimizer: &mut dyn Optimizer,
) -> Result<(Option<Running>, Vec<String>), String> {
    let name = sample["scheduler"].as_str().ok_or("no scheduler")?;
    let call = Call::of_method(name, sample, "", store)?;
    let running = match name {
        "ReduceLROnPlateau" => Some(Running::Metrics(plateau(&call).attach(optimizer))),
        "SequentialLR" => {
            let mut milestones = counts(&call, "milestones").into_iter();
            let mut sequence = SequentialLR::new();
            for (i, part) in sample["schedulers"].as_array().ok_or("no schedulers")?.iter().enumerate() {
                let name = part["scheduler"].as_str().ok_or("no scheduler")?;
                let inner = Call::of_method(name, part, "", store)?;
                let Some(schedule) = schedule(&inner) else { return Ok((None, Vec::new())) };
                if !inner.unused().is_empty() {
                    return Ok((None, inner.unused()));
                }
                sequence = match i {
                    0 => sequence.then(schedule),
                    _ => sequence.at(milestones.next().ok_or("too few milestones")?, schedule),
                };
            }
            Some(Running::Steps(sequence.attach(optimizer)))
        }
        _ => schedule(&call).map(|s| Running::Steps(s.attach(optimizer))),
    };
    Ok((running, call.unused()))
}

/// Runs a sample.
pub fn run(head: &Json, sample: &Json, store: &Store, tolerance: Tolerance) -> Result<Verdict, String> {
    let (lr, momentum) = (float(&sample["base_lr"]["float"])?, float(&head["momentum"]["float"])?);
    let mut sgd = SGD::new([Var::parameter(Tensor::scalar(0.0))], lr).momentum(momentum);
    let mut running = match attempt(|| attach(sample, store, &mut sgd)) {
        Err(caught) => return Ok(Verdict::Failed(caught.describe())),
        Ok(result) => match result? {
            (_, unused) if !unused.is_empty() => {
                return Ok(Verdict::Failed(format!("argument {} not used", unused.join(", "))));
            }
            (None, _) => return Ok(Verdict::Missing),
            (Some(running), _) => running,
        },
    };
    let numbers =
        |key: &str| -> Option<Vec<f64>> { sample.get(key)?.as_array()?.iter().map(Json::as_f64).collect() };
    let lrs = numbers("lrs").ok_or("no lrs")?;
    let (momentums, metrics) = (numbers("momentums"), numbers("metrics"));
    let mut faults = Vec::new();
    for (step, want) in lrs.iter().enumerate() {
        let mut compare = |what: &str, got: f64, want: f64| {
            let off = (got - want).abs();
            if off.is_nan() || off > tolerance.atol + tolerance.rtol * want.abs() {
                faults.push(format!("{what} at step {step}: {got:?}, should be {want:?} (off by {off:.2e})"));
            }
        };
        compare("learning rate", sgd.lr(0), *want);
        let want = momentums.as_ref().and_then(|m| m.get(step)).copied().unwrap_or(momentum);
        compare("momentum", Optimizer::momentum(&sgd, 0).unwrap_or(f64::NAN), want);
        if step + 1 == lrs.len() {
            break;
        }
        let gone_on = attempt(|| match &mut running {
            Running::Steps(s) => s.step(&mut sgd),
            Running::Metrics(s) => {
                s.step(metrics.as_ref().and_then(|m| m.get(step)).copied().unwrap_or(f64::NAN), &mut sgd)
            }
        });
        if let Err(caught) = gone_on {
            return Ok(Verdict::Failed(format!("step {step}: {}", caught.describe())));
        }
    }
    faults.truncate(3);
    Ok(Verdict::of(faults))
}
