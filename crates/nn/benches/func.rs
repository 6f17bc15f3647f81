//! Times derivatives of functions beside the loops and double passes that they replace: `cargo bench -p tapegrad-nn --bench
//! func`.
//!
//! The two forms run in turns, and each figure is the median of its runs.

use std::hint::black_box;
use std::time::Instant;
use tapegrad_nn::Forward;
use tapegrad_nn::models::{LeNet5, mlp};
use tapegrad_ops::{CrossEntropyOptions, Reduction, cross_entropy_with, linear};
use tapegrad_tape::{
    DType, Generator, GradOptions, Tensor, Var, grad_with, hessian, hvp, jacfwd, jacrev, jvp, manual_seed,
    per_sample_grads, stack, value_and_grad,
};

fn main() {
    manual_seed(1);
    println!("{:40} {:>10} {:>10} {:>6}", "", "before ms", "now ms", "ratio");
    per_sample("per-sample gradients, MLP 784-256-128-10", &mlp(&[784, 256, 128, 10]), &[64, 784]);
    per_sample("per-sample gradients, LeNet-5", &LeNet5::new(10), &[64, 1, 28, 28]);
    products();
    jacobians();
    equations();
}

fn normal(shape: &[usize], seed: u64) -> Var {
    Generator::manual_seed(seed).normal(shape, 0.0, 0.1).into()
}

/// The medians of runs in turns.
fn compare(name: &str, mut before: impl FnMut() -> Vec<Var>, mut now: impl FnMut() -> Vec<Var>) {
    for (a, b) in before().iter().zip(now()) {
        let difference = (a.cast(DType::F64) - b.cast(DType::F64)).abs().amax(()).item();
        let size = b.cast(DType::F64).abs().amax(()).item();
        assert!(difference <= 1e-3 * size, "{name}: the two forms differ by {difference} of {size}");
    }
    let mut times = [Vec::new(), Vec::new()];
    let (start, mut runs) = (Instant::now(), 0);
    while runs < 5 || (start.elapsed().as_secs_f64() < 3.0 && runs < 200) {
        let clock = Instant::now();
        black_box(before());
        times[0].push(clock.elapsed().as_secs_f64() * 1e3);
        let clock = Instant::now();
        black_box(now());
        times[1].push(clock.elapsed().as_secs_f64() * 1e3);
        runs += 1;
    }
    let [a, b] = times.map(|mut list| {
        list.sort_by(f64::total_cmp);
        list[list.len() / 2]
    });
    println!("{name:40} {a:10.3} {b:10.3} {:6.2}", a / b);
}

fn per_sample(name: &str, net: &dyn Forward, shape: &[usize]) {
    let (x, n) = (normal(shape, 1), shape[0]);
    let y = Var::from_vec((0..n as i64).map(|i| i % 10).collect(), &[n]);
    let parameters = net.parameters();
    let list: Vec<&Var> = parameters.iter().collect();
    let losses = |x: &Var, y: &Var| {
        cross_entropy_with(&net.forward(x), y, CrossEntropyOptions::new().reduction(Reduction::None))
    };
    let one = |i: usize| {
        let i = i as isize;
        grad_with(&[&losses(&x.narrow(0, i, 1), &y.narrow(0, i, 1))], &list, GradOptions::new())
    };
    let looped = || {
        let all: Vec<Vec<Option<Var>>> = (0..n).map(one).collect();
        (0..list.len())
            .map(|k| stack(&all.iter().map(|g| g[k].clone().unwrap()).collect::<Vec<_>>(), 0))
            .collect()
    };
    compare(name, looped, || per_sample_grads(&losses(&x, &y), &list));
}

/// A network of two hidden layers as a function of its input, with weights that need no gradient.
fn network(sizes: [usize; 4], dtype: DType) -> impl Fn(&Var) -> Var {
    let weights: Vec<Var> = sizes
        .windows(2)
        .enumerate()
        .map(|(i, s)| (normal(&[s[1], s[0]], i as u64) * (10.0 / (s[0] as f64).sqrt())).cast(dtype))
        .collect();
    move |x| {
        linear(&linear(&linear(x, &weights[0], None).tanh(), &weights[1], None).tanh(), &weights[2], None)
    }
}

/// `J v` by two backward passes.
fn by_two_passes(f: impl Fn(&Var) -> Var, x: &Var, v: &Var) -> Var {
    let x = Var::parameter(x.tensor());
    let y = f(&x);
    let u = Var::parameter(Tensor::zeros_with(y.shape(), y.dtype()));
    let options = GradOptions::new().grad_outputs(vec![u.clone()]).create_graph(true);
    let row = grad_with(&[&y], &[&x], options).remove(0).unwrap();
    grad_with(&[&row], &[&u], GradOptions::new().grad_outputs(vec![v.clone()])).remove(0).unwrap()
}

/// The gradient of a function of one value, recorded.
fn recorded_gradient(f: impl Fn(&Var) -> Var, x: &Var) -> Var {
    grad_with(&[&f(x)], &[x], GradOptions::new().create_graph(true)).remove(0).unwrap()
}

fn products() {
    let (x, v) = (normal(&[64, 256], 1), normal(&[64, 256], 2));
    let f = network([256, 256, 256, 256], DType::F32);
    compare(
        "J v of a network, batch 64",
        || vec![by_two_passes(&f, &x, &v)],
        || vec![jvp(|x| f(&x[0]), std::slice::from_ref(&x), std::slice::from_ref(&v)).1],
    );
    let loss = |x: &Var| f(x).square().sum_all();
    let twice = || {
        let x = Var::parameter(x.tensor());
        let g = recorded_gradient(loss, &x);
        vec![grad_with(&[&g], &[&x], GradOptions::new().grad_outputs(vec![v.clone()])).remove(0).unwrap()]
    };
    compare("Hessian times a vector, batch 64", twice, || vec![hvp(loss, &x, &v).1]);
    let x = normal(&[1, 64], 3);
    let f = network([64, 128, 128, 1], DType::F32);
    let loss = |x: &Var| f(x).sum_all();
    let rows = || {
        let x = Var::parameter(x.tensor());
        let g = recorded_gradient(loss, &x);
        let one = |k: usize| {
            let seed = Var::from_vec((0..64).map(|i| f32::from(i == k)).collect(), &[1, 64]);
            grad_with(&[&g], &[&x], GradOptions::new().grad_outputs(vec![seed]).retain_graph(true))
                .remove(0)
                .unwrap()
        };
        vec![stack(&(0..64).map(one).collect::<Vec<_>>(), 0).reshape(&[1, 64, 1, 64])]
    };
    compare("Hessian of 64 inputs", rows, || vec![hessian(loss, &x)]);
}

fn jacobians() {
    let (f, x) = (network([64, 128, 128, 1024], DType::F32), normal(&[64], 1));
    compare("Jacobian 64 -> 1024, forward", || vec![jacrev(&f, &x)], || vec![jacfwd(&f, &x)]);
    let (f, x) = (network([1024, 128, 128, 64], DType::F32), normal(&[1024], 1));
    compare("Jacobian 1024 -> 64, backward", || vec![jacfwd(&f, &x)], || vec![jacrev(&f, &x)]);
}

/// The second derivative of a network for its one input, at many points, and the gradient of a loss of it for the weights.
fn equations() {
    let sizes = [1usize, 64, 64, 1];
    let weights: Vec<Var> = sizes
        .windows(2)
        .enumerate()
        .map(|(i, s)| {
            let w = normal(&[s[1], s[0]], i as u64) * (10.0 / (s[0] as f64).sqrt());
            Var::parameter(w.cast(DType::F64).tensor())
        })
        .collect();
    let list: Vec<&Var> = weights.iter().collect();
    let f = |x: &Var| linear(&linear(&linear(x, list[0], None).tanh(), list[1], None).tanh(), list[2], None);
    let x = normal(&[256, 1], 5).cast(DType::F64);
    let ones = x.ones_like().detach();
    let along = |f: &dyn Fn(&Var) -> Var, x: &Var| {
        jvp(|x| f(&x[0]), std::slice::from_ref(x), std::slice::from_ref(&ones)).1
    };
    let forward = |x: &Var| along(&|x| along(&f, x), x);
    let twice = |x: &Var| {
        let x = Var::parameter(x.tensor());
        let first = recorded_gradient(|x| f(x).sum_all(), &x);
        recorded_gradient(|_| first.sum_all(), &x)
    };
    compare(
        "second derivative, 256 points, F64",
        || vec![twice(&x).detach()],
        || vec![tapegrad_tape::no_grad(|| forward(&x))],
    );
    let mixed =
        |x: &Var| along(&|x| value_and_grad(|x| f(&x[0]).sum_all(), std::slice::from_ref(x)).1.remove(0), x);
    let train = |u: &dyn Fn(&Var) -> Var| {
        let loss = (u(&x) + x.sin()).square().mean(());
        grad_with(&[&loss], &list, GradOptions::new()).into_iter().map(Option::unwrap).collect::<Vec<_>>()
    };
    compare("its loss and gradient, forward twice", || train(&twice), || train(&forward));
    compare("its loss and gradient, forward over back", || train(&twice), || train(&mixed));
}
