//! Learning rates and momenta over 70 steps.

use crate::{close, get, samples};
use tapegrad_nn::lr_scheduler::*;
use tapegrad_nn::optim::{AdamW, AdamWOptions, Optimizer, SGD, SGDOptions};
use tapegrad_tape::{Tensor, Var};

const STEPS: usize = 70;

fn sgd() -> SGD {
    SGD::new([Var::parameter(Tensor::scalar(0.0))], 0.05).momentum(0.9)
}

fn run(name: &str, make: impl Fn() -> Box<dyn Schedule>) {
    let samples = samples("schedule");
    let mut optimizer = sgd();
    let mut scheduler = make().attach(&mut optimizer);
    let (mut lrs, mut momenta) = (Vec::new(), Vec::new());
    for step in 0..STEPS {
        lrs.push(optimizer.lr(0));
        momenta.push(Optimizer::momentum(&optimizer, 0).unwrap());
        // In the middle, another optimizer goes on with the saved states.
        if step == 25 {
            let (optimizer_state, state) = (optimizer.state_dict(), scheduler.state_dict());
            optimizer = sgd();
            scheduler = make().attach(&mut optimizer);
            optimizer.load_state_dict(&optimizer_state).unwrap();
            scheduler.load_state_dict(&state).unwrap();
        }
        scheduler.step(&mut optimizer);
    }
    let list = |values: Vec<f64>| Tensor::from_vec(values, &[STEPS]);
    close(&list(lrs), get(&samples, &format!("{name}.lr")), name);
    match samples.get(&format!("{name}.momentum")) {
        Some(want) => close(&list(momenta), want, name),
        None => assert!(momenta.iter().all(|m| *m == 0.9)),
    }
}

#[test]
fn cyclic() {
    let new = || CyclicLR::new(0.01, 0.1);
    run("cyclic", || Box::new(new().step_size_up(7)));
    run("cyclic_uneven", || Box::new(new().step_size_up(5).step_size_down(8).mode(CyclicMode::Triangular2)));
    run("cyclic_exp", || {
        let exp = new().step_size_up(6).mode(CyclicMode::ExpRange).gamma(0.97);
        Box::new(exp.base_momentum(0.7).max_momentum(0.95))
    });
    run("cyclic_scaled", || Box::new(new().step_size_up(4).scale_fn(|cycle| 1.0 / (1.0 + cycle).sqrt())));
    run("cyclic_steps", || {
        let scaled = new().step_size_up(4).scale_fn(|step| 0.5f64.powf(step / 9.0));
        Box::new(scaled.scale_mode(ScaleMode::Iterations).cycle_momentum(false))
    });
}

#[test]
fn multiplicative_and_chained() {
    run("multiplicative", || Box::new(MultiplicativeLR::new(|step| 1.0 - 0.02 * (step % 7) as f64)));
    run("chained", || {
        let warmup = LinearLR::new().start_factor(0.25).total_iters(6);
        let steps = MultiStepLR::new(vec![15, 40]).gamma(0.5);
        Box::new(ChainedScheduler::new().add(warmup).add(ExponentialLR::new(0.97)).add(steps))
    });
    run("chained_cosine", || {
        let chain = ChainedScheduler::new().add(ConstantLR::new().factor(0.1).total_iters(20));
        Box::new(chain.add(StepLR::new(9).gamma(0.8)).add(CosineAnnealingLR::new(90)))
    });
}

#[test]
fn swa() {
    run("swa_cos", || Box::new(SWALR::new(0.2)));
    run("swa_linear", || Box::new(SWALR::new(0.01).anneal_epochs(33).anneal_strategy(Anneal::Linear)));
    run("swa_at_once", || Box::new(SWALR::new(0.01).anneal_epochs(0)));
}

#[test]
fn swa_begins_where_another_schedule_ends() {
    let mut optimizer = sgd();
    let mut decay = ExponentialLR::new(0.9).attach(&mut optimizer);
    let mut swa = SWALR::new(0.2).attach(&mut optimizer);
    let mut lrs = Vec::new();
    for step in 0..STEPS {
        lrs.push(optimizer.lr(0));
        if step < 20 { decay.step(&mut optimizer) } else { swa.step(&mut optimizer) }
    }
    close(
        &Tensor::from_vec(lrs, &[STEPS]),
        get(&samples("schedule"), "swa_after_decay.lr"),
        "swa_after_decay",
    );
}

/// Compares the learning rates and momenta of three groups of parameters over 300 steps.
fn of_groups(name: &str, schedule: impl Schedule + 'static, optimizer: &mut dyn Optimizer) {
    const STEPS: usize = 300;
    let mut scheduler = schedule.attach(optimizer);
    let (mut lrs, mut momenta) = (Vec::new(), Vec::new());
    for _ in 0..STEPS {
        for group in 0..3 {
            lrs.push(optimizer.lr(group));
            momenta.push(optimizer.momentum(group).unwrap());
        }
        scheduler.step(optimizer);
    }
    let samples = samples("groups");
    let list = |values: Vec<f64>| Tensor::from_vec(values, &[STEPS, 3]);
    close(&list(lrs), get(&samples, &format!("{name}.lr")), name);
    close(&list(momenta), get(&samples, &format!("{name}.momentum")), name);
}

#[test]
fn groups_over_many_steps() {
    const RATES: [f64; 3] = [0.05, 0.2, 0.001];
    let weight = || [Var::parameter(Tensor::scalar(0.0))];
    let sgd = || {
        let [a, b, c] = RATES.map(|lr| SGDOptions { lr, momentum: 0.9, ..SGDOptions::default() });
        SGD::with_options(weight(), a).group(weight(), b).group(weight(), c)
    };
    let adam = || {
        let [a, b, c] = RATES.map(|lr| AdamWOptions { lr, ..AdamWOptions::default() });
        AdamW::with_options(weight(), a).group(weight(), b).group(weight(), c)
    };
    let cyclic = || CyclicLR::new(0.01, 0.1).step_size_up(11).step_size_down(17);
    of_groups("cyclic", cyclic(), &mut sgd());
    let exp = cyclic().mode(CyclicMode::ExpRange).gamma(0.99).base_momentum(0.7);
    of_groups("cyclic_adam", exp, &mut adam());
    let chain = ChainedScheduler::new()
        .add(LinearLR::new().start_factor(0.25).total_iters(20))
        .add(PolynomialLR::new().total_iters(250).power(2.0))
        .add(ExponentialLR::new(0.99))
        .add(CosineAnnealingLR::new(400));
    of_groups("chained", chain, &mut sgd());
    of_groups("swa", SWALR::new(0.02).anneal_epochs(200), &mut sgd());
    let linear = SWALR::new(0.02).anneal_epochs(250).anneal_strategy(Anneal::Linear);
    of_groups("swa_linear", linear, &mut sgd());
}
