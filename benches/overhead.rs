//! Times what an operation costs besides its arithmetic: recording, memory, the backward walk. All tensors are tiny.
//!
//! ```text
//! cargo bench --bench overhead
//! # runs a case so many times and prints its least time, for a profiler or a count of instructions
//! perf stat -e instructions:u target/release/deps/overhead-... --calls 100000 add/4
//! ```

use criterion::Criterion;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tapegrad::nn::models::mlp;
use tapegrad::nn::optim::{Adam, Optimizer, SGD};
use tapegrad::nn::{Linear, ReLU, Sequential, Tanh, sequential};
use tapegrad::prelude::*;
use tapegrad::tape::{BackwardOptions, GradOptions};

/// Operations of a chain: long enough that the start of a backward pass does not count.
const CHAIN: u32 = 100;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, calls, name] = arguments.as_slice()
        && flag == "--calls"
    {
        return repeat(name, calls.parse().expect("a number of calls"));
    }
    let short = Duration::from_millis(300);
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(short)
        .measurement_time(2 * short)
        .configure_from_args();
    for (name, mut run) in cases() {
        criterion.bench_function(name, |b| b.iter_custom(|calls| (0..calls).map(|_| run()).sum()));
    }
    criterion.final_summary();
}

/// Calls one case, without statistics.
fn repeat(name: &str, calls: u64) {
    let (_, mut run) = cases().into_iter().find(|(n, _)| *n == name).expect("the name of a case");
    let least = (0..calls).map(|_| run()).min();
    println!("{name}: {least:?}");
}

/// A case: its name, and a function that returns the time of one call.
type Case = (&'static str, Box<dyn FnMut() -> Duration>);

/// Everything that is timed, by name.
fn cases() -> Vec<Case> {
    set_num_threads(1);
    manual_seed(0);
    let parameter = |shape: &[usize]| Var::parameter(Var::randn(shape).tensor());
    let mut all: Vec<Case> = Vec::new();
    let mut add = |name, run: Box<dyn FnMut() -> Duration>| all.push((name, run));

    let (a, b) = (parameter(&[4]), parameter(&[4]));
    add("add/4", timed(move || &a + &b));
    let (x, w, b) = (Var::randn((1, 4)), parameter(&[64, 4]), parameter(&[64]));
    add("linear/1x4-64", timed(move || ops::linear(&x, &w, &b)));
    let x = parameter(&[1, 64]);
    add("relu/1x64", timed(move || ops::relu(&x)));

    let b = parameter(&[4]);
    let x = parameter(&[1, 64]);
    let (w, bias) = (parameter(&[64, 64]), parameter(&[64]));
    let add_b = move |x: &Var| x + &b;
    let linear = move |x: &Var| ops::linear(x, &w, &bias);
    add("chain/add/forward", chain(parameter(&[4]), add_b.clone(), false));
    add("chain/add/backward", chain(parameter(&[4]), add_b, true));
    add("chain/relu/forward", chain(x.clone(), ops::relu, false));
    add("chain/relu/backward", chain(x.clone(), ops::relu, true));
    add("chain/linear64/forward", chain(x.clone(), linear.clone(), false));
    add("chain/linear64/backward", chain(x, linear, true));

    let (net, x) = (policy(), Var::randn((1, 4)));
    let same = (net.clone(), x.clone());
    add("policy/inference", timed(move || no_grad(|| same.0.forward(&same.1))));
    let same = (net.clone(), x.clone());
    add("policy/forward", timed(move || same.0.forward(&same.1)));
    let (mut adam, target) = (Adam::new(net.parameters(), 1e-3), Var::randn((1, 2)));
    add(
        "policy/step",
        timed(move || {
            adam.zero_grad();
            ops::mse_loss(&net.forward(&x), &target).backward();
            adam.step();
        }),
    );

    let net = mlp(&[784, 256, 128, 10]);
    let (mut sgd, x, target) =
        (SGD::new(net.parameters(), 0.01), Var::randn((1, 784)), Var::from_vec(vec![3i64], 1));
    add(
        "mlp/step",
        timed(move || {
            sgd.zero_grad();
            ops::cross_entropy(&net.forward(&x), &target).backward();
            sgd.step();
        }),
    );
    add("pinn/f32", pinn(DType::F32));
    add("pinn/f64", pinn(DType::F64));
    all
}

fn timed<R>(mut run: impl FnMut() -> R + 'static) -> Box<dyn FnMut() -> Duration> {
    Box::new(move || {
        let start = Instant::now();
        black_box(run());
        start.elapsed()
    })
}

/// The forward or the backward pass of a chain of operations, for one of them.
fn chain(x: Var, op: impl Fn(&Var) -> Var + 'static, backward: bool) -> Box<dyn FnMut() -> Duration> {
    let ones = Var::from(Tensor::ones_with(x.shape(), x.dtype()));
    Box::new(move || {
        let start = Instant::now();
        let y = (0..CHAIN).fold(op(&x), |y, _| op(&y));
        let forward = start.elapsed();
        if !backward {
            return forward / CHAIN;
        }
        let start = Instant::now();
        y.backward_with(&ones, BackwardOptions::new());
        drop(y);
        let time = start.elapsed() / CHAIN;
        x.zero_grad();
        time
    })
}

/// A network as in reinforcement learning: 4 numbers of state, 2 actions.
fn policy() -> Rc<Sequential> {
    Rc::new(sequential![
        Linear::new(4, 64),
        ReLU::new(),
        Linear::new(64, 64),
        ReLU::new(),
        Linear::new(64, 2)
    ])
}

/// A training step of a physics-informed network for the heat equation `u_t = 0.1 u_xx`, on 32 points.
fn pinn(dtype: DType) -> Box<dyn FnMut() -> Duration> {
    let net =
        sequential![Linear::new(2, 32), Tanh::new(), Linear::new(32, 32), Tanh::new(), Linear::new(32, 1)];
    net.to_dtype(dtype);
    let x = Var::parameter(Var::randn((32, 2)).tensor().cast(dtype));
    let mut adam = Adam::new(net.parameters(), 1e-3);
    let slope = |y: &Var, x: &Var| {
        let options = GradOptions::new().create_graph(true);
        grad_with(&[&y.sum_all()], &[x], options)[0].clone().expect("it depends on x")
    };
    timed(move || {
        adam.zero_grad();
        let first = slope(&net.forward(&x), &x);
        let second = slope(&first.select(1, 0), &x).select(1, 0);
        (first.select(1, 1) - second * 0.1).square().mean_all().backward();
        adam.step();
        x.zero_grad();
    })
}
