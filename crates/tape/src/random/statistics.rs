//! The draws against their laws: moments and chi-square tests, with fixed seeds.

use super::Generator;
use crate::{Tensor, Var};

const N: usize = 100_000;

/// The statistic of Pearson's test for observed counts and the probabilities of the same bins.
#[track_caller]
fn check_counts(name: &str, counts: &[usize], probabilities: &[f64]) {
    let n = counts.iter().sum::<usize>() as f64;
    let (mut statistic, mut bins) = (0.0, 0);
    for (&count, p) in counts.iter().zip(probabilities) {
        let expected = n * p;
        if expected < 10.0 {
            assert!(
                (count as f64 - expected).abs() < 5.0 * expected.sqrt() + 6.0,
                "{name}: {count} for {expected}"
            );
            continue;
        }
        statistic += (count as f64 - expected).powi(2) / expected;
        bins += 1;
    }
    let freedom = f64::from(bins) - 1.0;
    // Four standard deviations of the chi-square distribution.
    assert!(
        statistic < freedom + 4.0 * (2.0 * freedom).sqrt() + 4.0,
        "{name}: {statistic} with {freedom} degrees"
    );
}

/// Twenty bins of equal probability by the distribution function.
#[track_caller]
fn check_continuous(name: &str, values: &[f64], cdf: impl Fn(f64) -> f64) {
    let mut counts = [0; 20];
    values.iter().for_each(|&v| counts[((cdf(v) * 20.0) as usize).min(19)] += 1);
    check_counts(name, &counts, &[0.05; 20]);
}

#[track_caller]
fn check_moments(name: &str, values: &[f64], mean: f64, variance: f64) {
    let n = values.len() as f64;
    let found = values.iter().sum::<f64>() / n;
    assert!((found - mean).abs() < 5.0 * (variance / n).sqrt(), "{name}: the mean is {found}, not {mean}");
    let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    assert!((squares / variance - 1.0).abs() < 0.06, "{name}: the variance is {squares}, not {variance}");
}

#[test]
fn continuous_laws() {
    let g = &mut Generator::manual_seed(11);
    let t = Tensor::exponential_with(N, 2.5, g).to_vec::<f64>();
    check_moments("exponential", &t, 0.4, 0.16);
    check_continuous("exponential", &t, |x| 1.0 - (-2.5 * x).exp());
    let t = Tensor::cauchy_with(N, 1.0, 3.0, g).to_vec::<f64>();
    check_continuous("cauchy", &t, |x| ((x - 1.0) / 3.0).atan() / std::f64::consts::PI + 0.5);
    let t = Tensor::log_normal_with(N, 0.5, 0.25, g).to_vec::<f64>();
    let ndtr = |z: f64| 0.5 * libm::erfc(-z / std::f64::consts::SQRT_2);
    check_continuous("log_normal", &t, |x| ndtr((x.ln() - 0.5) / 0.25));
    let (mean, square) = (0.53125f64.exp(), 0.0625f64.exp() - 1.0);
    check_moments("log_normal", &t, mean, square * mean * mean);
    for a in [0.3, 1.0, 4.5] {
        let t: Vec<f64> = (0..N).map(|_| g.next_gamma(a)).collect();
        check_moments("gamma", &t, a, a);
    }
    // The gamma distribution with shape 1/2 is that of half a squared normal number.
    let t: Vec<f64> = (0..N).map(|_| g.next_gamma(0.5)).collect();
    check_continuous("gamma", &t, |x| libm::erf(x.sqrt()));
}

#[test]
fn counts() {
    let g = &mut Generator::manual_seed(12);
    for p in [0.05, 0.3, 0.9] {
        let t = Tensor::geometric_with(N, p, g).to_vec::<f64>();
        check_moments("geometric", &t, 1.0 / p, (1.0 - p) / (p * p));
        let (mut seen, mut law) = (vec![0; 400], vec![0.0; 400]);
        t.iter().for_each(|&k| seen[(k as usize).min(399)] += 1);
        (1..400).for_each(|k| law[k] = p * (1.0 - p).powi(k as i32 - 1));
        check_counts("geometric", &seen, &law);
    }
    // Both algorithms, and either side of where they meet.
    for rate in [0.4, 9.9, 10.1, 60.0] {
        let t = Var::from(Tensor::full(N, rate)).poisson_with(g).to_vec::<f64>();
        check_moments("poisson", &t, rate, rate);
        let (mut seen, mut law) = (vec![0; 200], vec![0.0; 200]);
        t.iter().for_each(|&k| seen[k as usize] += 1);
        (0..200).for_each(|k| {
            let k_ = k as f64;
            law[k] = (k_ * rate.ln() - rate - libm::lgamma(k_ + 1.0)).exp();
        });
        check_counts(&format!("poisson({rate})"), &seen, &law);
    }
    let p = Var::from_vec(vec![0.2f32; N], N).bernoulli_with(g).to_vec::<f64>();
    check_moments("bernoulli", &p, 0.2, 0.16);
}

#[test]
fn multinomial_draws() {
    let g = &mut Generator::manual_seed(13);
    let weights = [1.0, 0.0, 3.0, 6.0, 10.0];
    let x = Var::from_vec(weights.to_vec(), 5);
    let mut counts = [0; 5];
    x.multinomial_with(N, true, g).to_vec::<i64>().iter().for_each(|&i| counts[i as usize] += 1);
    check_counts("multinomial", &counts, &weights.map(|w| w / 20.0));
    assert_eq!(counts[1], 0);

    // Ordered pairs without replacement: w_i / 20 * w_j / (20 - w_i).
    let rows = x.expand((N, -1)).multinomial_with(2, false, g).to_vec::<i64>();
    let (mut counts, mut law) = ([0; 25], [0.0; 25]);
    rows.chunks_exact(2).for_each(|pair| counts[(pair[0] * 5 + pair[1]) as usize] += 1);
    for (i, a) in weights.iter().enumerate() {
        for (j, b) in weights.iter().enumerate().filter(|&(j, _)| j != i) {
            law[i * 5 + j] = a / 20.0 * b / (20.0 - a);
        }
    }
    check_counts("multinomial without replacement", &counts, &law);
}

#[test]
fn dirichlet_points() {
    let g = &mut Generator::manual_seed(14);
    let (a, mut out) = ([0.5, 2.0, 1.5], [0.0; 3]);
    let mut parts = [(); 3].map(|()| Vec::with_capacity(N));
    for _ in 0..N {
        g.next_dirichlet(&a, &mut out);
        assert!((out.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        parts.iter_mut().zip(out).for_each(|(part, v)| part.push(v));
    }
    for (part, a) in parts.iter().zip(a) {
        check_moments("dirichlet", part, a / 4.0, a * (4.0 - a) / 80.0);
    }
    // Nearly all of it goes to one element.
    g.next_dirichlet(&[1e-4; 3], &mut out);
    assert!(out.iter().all(|v| v.is_finite()) && out.iter().any(|&v| v > 0.99), "{out:?}");
}

#[test]
fn seeds_repeat() {
    let draw = |seed| {
        crate::manual_seed(seed);
        let x = Var::from_vec(vec![0.25f64; 8], 8);
        [
            x.bernoulli().to_vec::<f64>(),
            (&x * 40.0).poisson().to_vec(),
            x.multinomial(5, false).to_vec(),
            Var::exponential(4, 1.0).to_vec(),
            Var::geometric(4, 0.1).to_vec(),
            Var::cauchy(4, 0.0, 1.0).to_vec(),
            Var::log_normal(4, 0.0, 1.0).to_vec(),
        ]
        .concat()
    };
    assert_eq!(draw(3), draw(3));
    assert_ne!(draw(3), draw(4));
}

#[test]
fn wrong_parameters() {
    let calls: [(fn() -> Tensor, &str); 5] = [
        (|| Tensor::exponential(3, 0.0), "exponential: expects lambda > 0, but found lambda = 0"),
        (|| Tensor::exponential(3, f64::NAN), "exponential: expects lambda > 0, but found lambda = NaN"),
        (|| Tensor::geometric(3, 1.0), "geometric: expects p to be in (0, 1), but got p = 1"),
        (|| Tensor::cauchy(3, 0.0, 0.0), "cauchy: expects sigma > 0, but found median = 0, sigma = 0"),
        (|| Tensor::log_normal(3, 1.0, -1.0), "log_normal: expects std > 0, but found mean = 1, std = -1"),
    ];
    for (call, expected) in calls {
        let panic = std::panic::catch_unwind(call).unwrap_err();
        assert_eq!(panic.downcast_ref::<String>().unwrap(), expected);
    }
}
