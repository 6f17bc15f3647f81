//! Optimizers over twelve steps, and steps on rows.

use crate::{close, get, samples};
use tapegrad_nn::optim::*;
use tapegrad_nn::train::{Source, Trainer};
use tapegrad_nn::{Forward, Linear, Module, StateDict};
use tapegrad_ops::{EmbeddingOptions, embedding_with};
use tapegrad_tape::{Tensor, Var};

const SHAPES: [&str; 3] = ["matrix", "vector", "kernel"];

fn parameters(samples: &StateDict) -> Vec<Var> {
    SHAPES.map(|shape| Var::parameter(get(samples, &format!("start.{shape}")).clone())).to_vec()
}

/// Runs the steps; in the middle, another optimizer goes on with the saved state.
fn run<O: Optimizer>(name: &str, make: impl Fn(Vec<Var>) -> O) -> (Vec<Var>, O) {
    let samples = samples("optimizer");
    let params = parameters(&samples);
    let constant = |kind: &str, shape: &str| Var::from(get(&samples, &format!("{kind}.{shape}")));
    let mut optimizer = make(params.clone());
    for step in 1..=12i64 {
        for (p, shape) in params.iter().zip(SHAPES) {
            let value = p.detach();
            let quadratic = constant("a", shape) * (&value - constant("b", shape));
            p.set_grad(Some(quadratic + (value * step).cos() * step));
        }
        optimizer.step();
        for (p, shape) in params.iter().zip(SHAPES) {
            let want = get(&samples, &format!("{name}.{shape}")).select(0, step as isize - 1);
            close(&p.tensor(), &want, &format!("{name}: {shape} after step {step}"));
        }
        if step == 5 {
            let state = optimizer.state_dict();
            optimizer = make(params.clone());
            optimizer.load_state_dict(&state).unwrap();
        }
    }
    (params, optimizer)
}

#[test]
fn adafactor() {
    run("adafactor", |p| Adafactor::new(p, 0.05));
    run("adafactor_all", |p| {
        Adafactor::new(p, 0.5).beta2_decay(-0.6).eps((Some(1e-3), 1e-2)).d(1.5).weight_decay(0.1)
    });
    run("adafactor_max", |p| Adafactor::new(p, 0.05).maximize(true));
}

#[test]
fn lion() {
    run("lion", |p| Lion::new(p, 0.03));
    run("lion_decay", |p| Lion::new(p, 0.02).betas((0.8, 0.95)).weight_decay(0.2));
}

fn with_averages<O: Optimizer>(name: &str, make: impl Fn(Vec<Var>) -> O) {
    let samples = samples("optimizer");
    let (params, mut optimizer) = run(name, make);
    optimizer.eval();
    for (p, shape) in params.iter().zip(SHAPES) {
        let key = format!("{name}.averages.{shape}");
        close(&p.tensor(), get(&samples, &key), &key);
    }
    optimizer.train();
    for (p, shape) in params.iter().zip(SHAPES) {
        let key = format!("{name}.{shape}");
        close(&p.tensor(), &get(&samples, &key).select(0, 11), &key);
    }
}

#[test]
fn schedule_free() {
    with_averages("schedule_free_sgd", |p| ScheduleFreeSGD::new(p, 0.1));
    with_averages("schedule_free_sgd_all", |p| {
        ScheduleFreeSGD::new(p, 0.05).momentum(0.8).warmup_steps(5).weight_decay(0.1)
    });
    with_averages("schedule_free_adamw", |p| ScheduleFreeAdamW::new(p, 0.05));
    with_averages("schedule_free_adamw_all", |p| {
        let all = ScheduleFreeAdamW::new(p, 0.1).betas((0.95, 0.9)).eps(1e-6);
        all.warmup_steps(4).weight_decay(0.05)
    });
}

#[test]
fn a_trainer_validates_and_ends_with_the_averages() {
    let batch = || (Var::ones((4, 3)), Var::from(Tensor::full((4, 1), 2.0)));
    let source = || Source::new(move || [batch()].into_iter());
    let loss = |y: &Var, t: &Var| tapegrad_ops::mse_loss(y, t);
    let (model, other) = (Linear::new(3, 1), Linear::new(3, 1));
    other.load_state_dict(&model.state_dict()).unwrap();
    let make = |m: &Linear| ScheduleFreeSGD::new(m.parameters(), 0.05);
    let mut trainer = Trainer::new(&model, make(&model)).epochs(3).loss(loss);
    let history = trainer.fit(source(), Some(source())).unwrap();

    let mut optimizer = make(&other);
    let (x, t) = batch();
    for record in &history {
        optimizer.zero_grad();
        loss(&other.forward(&x), &t).backward();
        optimizer.step();
        optimizer.eval();
        let validated = record.validation.unwrap().loss();
        assert!((validated - loss(&other.forward(&x), &t).item()).abs() < 1e-6);
        optimizer.train();
    }
    optimizer.eval();
    tapegrad_tape::assert_close(&model.weight, &other.weight);
}

/// Two look-ups of one table in each of six steps, with padding.
fn rows<O: Optimizer>(name: &str, make: impl Fn(Var) -> O) {
    let samples = samples("sparse");
    let (indices, out) = (get(&samples, "indices"), get(&samples, "out"));
    let weight = Var::parameter(get(&samples, "start").clone());
    let mut optimizer = make(weight.clone());
    for step in 0..6 {
        optimizer.zero_grad();
        for part in 0..2 {
            let rows = Var::from(indices.select(0, step).select(0, part));
            let options = EmbeddingOptions::new().padding_idx(2).sparse(true);
            let y = embedding_with(&rows, &weight, options) * Var::from(out.select(0, step).select(0, part));
            y.sum_all().backward();
        }
        assert!(weight.grad_rows().is_some());
        optimizer.step();
        let want = get(&samples, name).select(0, step);
        close(&weight.tensor(), &want, &format!("{name} after step {}", step + 1));
        let state = optimizer.state_dict();
        optimizer = make(weight.clone());
        optimizer.load_state_dict(&state).unwrap();
    }
}

#[test]
fn sparse_gradients() {
    rows("sgd", |w| SGD::new([w], 0.1));
    rows("adagrad", |w| Adagrad::new([w], 0.1).lr_decay(0.05));
    rows("sparse_adam", |w| SparseAdam::new([w], 0.1).betas((0.8, 0.9)));
}

#[test]
fn a_sparse_step_touches_no_other_row() {
    // Rows of NaN would spread through any arithmetic.
    let weight = Var::parameter(Tensor::full((4, 2), f64::NAN));
    weight.update(|t| t.make_mut::<f32>()[2..4].fill(1.0));
    let y = embedding_with(&Var::from_vec(vec![1i64], 1), &weight, EmbeddingOptions::new().sparse(true));
    y.sum_all().backward();
    SGD::new([weight.clone()], 0.5).step();
    assert_eq!(weight.to_vec::<f32>()[2..4], [0.5, 0.5]);
    assert!(weight.to_vec::<f32>()[4..].iter().all(|x| x.is_nan()));
}
