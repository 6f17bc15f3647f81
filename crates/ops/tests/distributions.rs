//! Distributions: values and gradients against PyTorch's, which `tools/distributions.py` prints into `distributions.txt`;
//! samples against their means and variances.

use tapegrad_ops::distributions::*;
use tapegrad_tape::{DType, Generator, Tensor, Var, grad_with};

/// The distribution of a name, with parameters in order.
fn make(name: &str, p: &[Var]) -> Box<dyn Distribution> {
    match name {
        "Normal" => Box::new(Normal::new(&p[0], &p[1])),
        "LogNormal" => Box::new(LogNormal::new(&p[0], &p[1])),
        "Laplace" => Box::new(Laplace::new(&p[0], &p[1])),
        "Uniform" => Box::new(Uniform::new(&p[0], &p[1])),
        "Exponential" => Box::new(Exponential::new(&p[0])),
        "Gamma" => Box::new(Gamma::new(&p[0], &p[1])),
        "Beta" => Box::new(Beta::new(&p[0], &p[1])),
        "Dirichlet" => Box::new(Dirichlet::new(&p[0])),
        "Bernoulli.probs" => Box::new(Bernoulli::from_probs(&p[0])),
        "Bernoulli.logits" => Box::new(Bernoulli::from_logits(&p[0])),
        "Categorical.probs" => Box::new(Categorical::from_probs(&p[0])),
        _ => Box::new(Categorical::from_logits(&p[0])),
    }
}

/// The parameters, the argument of densities and distribution functions, and those of the second of a pair.
fn inputs(name: &str) -> [Vec<Vec<f64>>; 3] {
    let (a, b) = (vec![0.3, 1.0, 2.5], vec![0.7, 2.0, 1.5]);
    let (c, d) = (vec![1.5, 0.5, 2.0], vec![0.5, 3.0, 1.0]);
    let loc = vec![-0.5, 1.0, 0.3];
    let rows = || vec![vec![0.5, 1.5, 3.0, 2.0, 0.25, 1.0]];
    let other_rows = || vec![vec![1.0, 0.5, 2.0, 0.3, 3.0, 1.0]];
    match name {
        "Normal" | "Laplace" => [vec![vec![0.5, -1.0, 2.0], b], vec![vec![0.1, 0.2, -3.0]], vec![loc, c]],
        "LogNormal" => [vec![vec![0.5, -1.0, 0.2], b], vec![vec![0.1, 1.2, 3.0]], vec![loc, c]],
        "Uniform" => [
            vec![vec![0.1, 0.25, 0.5], vec![0.6, 0.75, 0.9]],
            vec![vec![0.3, 0.25, 0.8]],
            vec![vec![-0.5, 0.0, 0.6], vec![1.5, 1.0, 2.0]],
        ],
        "Exponential" => [vec![b], vec![vec![0.1, 0.2, 3.0]], vec![c]],
        "Gamma" => [vec![a, b], vec![vec![0.1, 1.2, 3.0]], vec![c, d]],
        "Beta" => [vec![a, b], vec![vec![0.1, 0.2, 0.7]], vec![c, d]],
        "Dirichlet" => [rows(), vec![vec![0.2, 0.3, 0.5, 0.6, 0.3, 0.1]], other_rows()],
        "Bernoulli.probs" => {
            [vec![vec![0.2, 0.5, 0.9]], vec![vec![1.0, 0.0, 1.0]], vec![vec![0.4, 0.3, 0.1]]]
        }
        "Bernoulli.logits" => {
            [vec![vec![-1.0, 0.5, 3.0]], vec![vec![1.0, 0.0, 1.0]], vec![vec![0.4, 0.3, -0.1]]]
        }
        _ => [rows(), vec![vec![2.0, 0.0]], other_rows()],
    }
}

fn leaves(lists: &[Vec<f64>]) -> Vec<Var> {
    let shape = |n: usize| if n == 6 { vec![2, 3] } else { vec![n] };
    lists.iter().map(|v| Var::parameter(Tensor::from_vec(v.clone(), shape(v.len())))).collect()
}

/// Distributions that are made in another way.
fn special(name: &str, p: &[Var], q: &[Var]) -> Var {
    match name {
        "Bernoulli.probs" => kl_divergence(&Bernoulli::from_probs(&p[0]), &Bernoulli::from_probs(&q[0])),
        "Bernoulli.logits" => kl_divergence(&Bernoulli::from_logits(&p[0]), &Bernoulli::from_logits(&q[0])),
        "Categorical.probs" => {
            kl_divergence(&Categorical::from_probs(&p[0]), &Categorical::from_probs(&q[0]))
        }
        "Categorical.logits" => {
            kl_divergence(&Categorical::from_logits(&p[0]), &Categorical::from_logits(&q[0]))
        }
        "Independent" => {
            let of = |v: &[Var]| Independent::new(Normal::new(&v[0], &v[1]), 1);
            kl_divergence(&of(p), &of(q))
        }
        other => panic!("no divergence for {other}"),
    }
}

fn divergence(names: [&str; 2], p: &[Var], q: &[Var]) -> Var {
    macro_rules! between {
        ($($P:ident: $p:expr => $($Q:ident $q:expr),*;)*) => {
            match names { $($([stringify!($P), stringify!($Q)] => kl_divergence(&$p, &$q),)*)* _ => special(names[0], p, q) }
        };
    }
    let two = |v: &[Var]| (v[0].clone(), v[v.len() - 1].clone());
    let ((a, b), (c, d)) = (two(p), two(q));
    between! {
        Normal: Normal::new(&a, &b) => Normal Normal::new(&c, &d), Laplace Laplace::new(&c, &d), Uniform Uniform::new(&c, &d),
            Exponential Exponential::new(&c), Gamma Gamma::new(&c, &d), Beta Beta::new(&c, &d);
        LogNormal: LogNormal::new(&a, &b) => LogNormal LogNormal::new(&c, &d);
        Laplace: Laplace::new(&a, &b) => Normal Normal::new(&c, &d), Laplace Laplace::new(&c, &d), Uniform Uniform::new(&c, &d),
            Exponential Exponential::new(&c), Gamma Gamma::new(&c, &d), Beta Beta::new(&c, &d);
        Uniform: Uniform::new(&a, &b) => Normal Normal::new(&c, &d), Uniform Uniform::new(&c, &d),
            Exponential Exponential::new(&c), Gamma Gamma::new(&c, &d), Beta Beta::new(&c, &d);
        Exponential: Exponential::new(&a) => Normal Normal::new(&c, &d), Uniform Uniform::new(&c, &d),
            Exponential Exponential::new(&c), Gamma Gamma::new(&c, &d), Beta Beta::new(&c, &d);
        Gamma: Gamma::new(&a, &b) => Normal Normal::new(&c, &d), Uniform Uniform::new(&c, &d),
            Exponential Exponential::new(&c), Gamma Gamma::new(&c, &d), Beta Beta::new(&c, &d);
        Beta: Beta::new(&a, &b) => Normal Normal::new(&c, &d), Uniform Uniform::new(&c, &d),
            Exponential Exponential::new(&c), Gamma Gamma::new(&c, &d), Beta Beta::new(&c, &d);
        Dirichlet: Dirichlet::new(&a) => Dirichlet Dirichlet::new(&c);
    }
}

/// The values and inputs of a line's function.
fn call(function: &str) -> (Var, Vec<Var>) {
    if let Some(pair) = function.strip_prefix("kl_divergence ") {
        let (p, q) = pair.split_once(' ').unwrap();
        let of = |name| inputs(if name == "Independent" { "Normal" } else { name });
        let (a, b) = (leaves(&of(p)[0]), leaves(&of(q)[2]));
        return (divergence([p, q], &a, &b), [a, b].concat());
    }
    let (name, f) = function.rsplit_once('.').unwrap();
    let [parameters, mut values, _] = inputs(name);
    let mut all = leaves(&parameters);
    let d = make(name, &all);
    let y = match f {
        "mean" => d.mean(),
        "variance" => d.variance(),
        "stddev" => d.stddev(),
        "entropy" => d.entropy(),
        _ => {
            if f == "icdf" {
                values = vec![vec![0.1, 0.5, 0.8]];
            }
            all.extend(leaves(&values));
            let x = all.last().unwrap();
            match f {
                "log_prob" => d.log_prob(x),
                "cdf" => d.cdf(x),
                _ => d.icdf(x),
            }
        }
    };
    (y, all)
}

#[test]
fn values_and_gradients_are_pytorchs() {
    let mut lines = 0;
    let text = include_str!("distributions.txt");
    for line in text.lines().filter(|l| !l.contains("_grad |")) {
        let (function, rest) = line.split_once(" | ").unwrap();
        let expected: Vec<Vec<f64>> =
            rest.split(" | ").map(|list| list.split(' ').map(|v| v.parse().unwrap()).collect()).collect();
        let (y, inputs) = call(function);
        let gradients = match y.requires_grad() {
            true => grad_with(&[&y.sum_all()], &inputs.iter().collect::<Vec<_>>(), Default::default()),
            false => vec![None; inputs.len()],
        };
        let gradients = gradients.into_iter().zip(&inputs).map(|(g, x)| g.unwrap_or_else(|| x.zeros_like()));
        let found: Vec<Vec<f64>> = std::iter::once(y).chain(gradients).map(|v| v.to_vec()).collect();
        assert_eq!(found.len(), expected.len(), "{function}");
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.len(), expected.len(), "{function}");
            for (a, b) in found.iter().zip(expected) {
                // PyTorch has no derivative of this one.
                let unknown = function == "Gamma.cdf" && b.is_nan();
                let close = a == b || (a - b).abs() <= 1e-9 * (1.0 + b.abs()) || (a.is_nan() && b.is_nan());
                assert!(close || unknown, "{function}, list {i}: {found:?} and {expected:?}");
            }
        }
        lines += 1;
    }
    assert!(lines > 100);
}

#[test]
fn samples_have_the_mean_and_the_variance() {
    let n = 40_000;
    for name in [
        "Normal",
        "LogNormal",
        "Laplace",
        "Uniform",
        "Exponential",
        "Gamma",
        "Beta",
        "Dirichlet",
        "Bernoulli.probs",
    ] {
        let d = make(name, &leaves(&inputs(name)[0]));
        let x = tapegrad_tape::no_grad(|| d.draw(&[n], &mut Generator::manual_seed(5)));
        assert_eq!(x.shape(), [&[n], &d.batch_shape()[..], &d.event_shape()[..]].concat(), "{name}");
        let (mean, variance) = (d.mean().to_vec::<f64>(), d.variance().to_vec::<f64>());
        let (found, spread) = (x.mean(0).to_vec::<f64>(), x.var(0).to_vec::<f64>());
        for i in 0..mean.len() {
            // The log-normal distribution's variance is itself hard to estimate.
            let loose = if name == "LogNormal" { 0.7 } else { 0.08 };
            assert!(
                (found[i] - mean[i]).abs() < 5.0 * (variance[i] / n as f64).sqrt(),
                "{name}: {found:?} {mean:?}"
            );
            assert!((spread[i] / variance[i] - 1.0).abs() < loose, "{name}: {spread:?} {variance:?}");
        }
    }
    let d = Categorical::from_probs(&Var::from_vec(vec![1.0, 0.0, 3.0, 0.5, 0.5, 0.0], (2, 3)));
    let x = d.sample_with((n, 2), &mut Generator::manual_seed(6));
    assert_eq!((x.shape(), x.dtype()), (&[n, 2, 2][..], DType::I64));
    let share = |class: i64, row: isize| x.select(2, row).eq(class).cast(DType::F64).mean_all().item();
    assert!((share(0, 0) - 0.25).abs() < 0.01 && share(1, 0) == 0.0 && (share(1, 1) - 0.5).abs() < 0.01);
}

#[test]
fn samples_follow_their_parameters() {
    let loc = Var::parameter(Tensor::from_vec(vec![1.0, 2.0], 2));
    let scale = Var::parameter(Tensor::from_vec(vec![0.5, 0.1], 2));
    let x = Normal::new(&loc, &scale).rsample_with(3, &mut Generator::manual_seed(1));
    x.sum_all().backward();
    assert_eq!(loc.grad().unwrap().to_vec::<f64>(), [3.0, 3.0]);
    let z = ((&x - &loc) / &scale).sum(0).to_vec::<f64>();
    scale.grad().unwrap().to_vec::<f64>().iter().zip(z).for_each(|(g, z)| assert!((g - z).abs() < 1e-12));
    assert!(!Normal::new(&loc, &scale).sample(3).requires_grad());

    // The rate only scales.
    let rate = Var::parameter(Tensor::from_vec(vec![2.0], 1));
    let x = Gamma::new(&Var::from_vec(vec![3.0], 1), &rate).rsample(());
    x.sum_all().backward();
    assert!((rate.grad().unwrap().item() + x.item() / 2.0).abs() < 1e-12);

    // The mean of a Beta variable by its concentrations, from pathwise gradients.
    let (a, b) = (Var::parameter(Tensor::scalar(2.0)), Var::parameter(Tensor::scalar(3.0)));
    let n = 20_000;
    let x =
        Beta::new(&a.cast(DType::F64), &b.cast(DType::F64)).rsample_with(n, &mut Generator::manual_seed(2));
    x.mean_all().backward();
    let found = [a.grad().unwrap().item(), b.grad().unwrap().item()];
    assert!((found[0] - 3.0 / 25.0).abs() < 2e-3 && (found[1] + 2.0 / 25.0).abs() < 2e-3, "{found:?}");
}

#[test]
fn shapes_and_types() {
    let d = Independent::new(Normal::new(&Var::zeros((4, 2, 3)), 1.0), 2);
    assert_eq!((d.batch_shape().to_vec(), d.event_shape().to_vec()), (vec![4], vec![2, 3]));
    let x = d.sample((5, 6));
    assert_eq!(x.shape(), [5, 6, 4, 2, 3]);
    assert_eq!((d.log_prob(&x).shape(), d.entropy().shape()), (&[5, 6, 4][..], &[4][..]));
    let half = Gamma::new(&Var::ones(3).cast(DType::F16), 1.0);
    assert_eq!((half.sample(2).dtype(), half.sample(2).shape()), (DType::F16, &[2, 3][..]));
    assert_eq!(Normal::new(0.0, 1.0).sample(()).shape(), [0usize; 0]);
    let c = Categorical::from_logits(&Var::zeros((2, 3)));
    assert_eq!(c.log_prob(&Var::from_vec(vec![0i64, 2, 1, 1, 0, 0], (3, 2))).shape(), [3, 2]);
    assert_eq!(c.sample((0, 4)).shape(), [0, 4, 2]);
    let certain = Bernoulli::from_probs(&Var::from_vec(vec![0f32, 1.0], 2));
    assert_eq!(certain.sample(100).mean(0).to_vec::<f32>(), [0.0, 1.0]);
}

#[test]
fn wrong_calls() {
    let x = |v: f64| Var::from(v);
    let calls: Vec<(Box<dyn Fn() + std::panic::UnwindSafe>, &str)> = vec![
        (
            Box::new(|| drop(Normal::new(0.0, 0.0))),
            "Normal: expected parameter scale to be positive, but element 0 is 0",
        ),
        (
            Box::new(|| drop(Normal::new(f64::NAN, 1.0))),
            "Normal: expected parameter loc to be real, but element 0 is NaN",
        ),
        (
            Box::new(|| drop(Normal::new(&Var::zeros(2), &Var::ones(3)))),
            "Normal: the shapes of the parameters do not broadcast: [[2], [3]]",
        ),
        (
            Box::new(|| drop(Uniform::new(1.0, 1.0))),
            "Uniform: expected parameter low to be below high, but element 0 is 1",
        ),
        (
            Box::new(|| drop(Bernoulli::from_probs(1.5))),
            "Bernoulli: expected parameter probs to be in [0, 1], but element 0 is 1.5",
        ),
        (
            Box::new(|| drop(Dirichlet::new(&Var::zeros(2)))),
            "Dirichlet: expected parameter concentration to be positive, but element 0 is 0",
        ),
        (
            Box::new(|| drop(Categorical::from_probs(&Var::zeros(2)))),
            "Categorical: expected the sum of probs to be positive, but element 0 is 0",
        ),
        (
            Box::new(move || drop(Exponential::new(1.0).log_prob(&x(-1.0)))),
            "Exponential.log_prob: expected the value to be at least 0, but element 0 is -1",
        ),
        (
            Box::new(move || drop(Uniform::new(0.0, 1.0).log_prob(&x(2.0)))),
            "Uniform.log_prob: expected the value to be between low and high, but element 0 is 2",
        ),
        (
            Box::new(move || drop(Bernoulli::from_probs(0.5).log_prob(&x(0.5)))),
            "Bernoulli.log_prob: expected the value to be 0 or 1, but element 0 is 0.5",
        ),
        (
            Box::new(|| drop(Categorical::from_logits(&Var::zeros(3)).log_prob(&Var::from(3)))),
            "Categorical.log_prob: expected the value to be an integer below 3, but element 0 is 3",
        ),
        (
            Box::new(|| drop(Dirichlet::new(&Var::ones(2)).log_prob(&Var::ones(2)))),
            "Dirichlet.log_prob: expected the value to be a vector whose sum is 1, but element 0 is 2",
        ),
        (
            Box::new(|| drop(Dirichlet::new(&Var::ones(2)).log_prob(&Var::ones(3)))),
            "Dirichlet.log_prob: expected a value that broadcasts with [2], the batch and the event shape, but got shape [3]",
        ),
        (
            Box::new(|| drop(Bernoulli::from_probs(0.5).rsample(()))),
            "Bernoulli: samples have no gradient; use sample",
        ),
        (
            Box::new(move || drop(Beta::new(1.0, 1.0).cdf(&x(0.5)))),
            "Beta: cdf is not implemented, as in PyTorch",
        ),
        (
            Box::new(|| drop(Independent::new(Normal::new(0.0, 1.0), 1))),
            "Independent: expected reinterpreted_batch_ndims of at most 0, the dimensions of the batch, got 1",
        ),
    ];
    for (call, expected) in calls {
        let panic = std::panic::catch_unwind(call).unwrap_err();
        let message =
            panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        assert_eq!(message, Some(expected));
    }
}
