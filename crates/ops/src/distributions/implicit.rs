//! Samples of the gamma and the Dirichlet distribution as differentiable functions of their parameters, by implicit
//! reparameterization (Figurnov, Mohamed and Mnih 2018, "Implicit reparameterization gradients"): the derivative of the
//! sample is that of the distribution function by the parameter, divided by the density, with the opposite sign.

use crate::kernels::implicit;
use tapegrad_tape::{DType, Generator, Tensor, Var, record};

/// A function of corresponding elements.
fn zip(a: &Tensor, b: &Tensor, f: impl Fn(f64, f64) -> f64) -> Var {
    let values = a.to_vec::<f64>().iter().zip(b.to_vec::<f64>()).map(|(&a, b)| f(a, b)).collect();
    Tensor::from_vec::<f64>(values, a.shape()).cast(a.dtype()).into()
}

/// A gradient without a derivative of its own.
fn once(op: &'static str, inputs: [&Var; 2], gradient: Var) -> Var {
    record(op, inputs, gradient.detach().into_tensor(), move |_| -> [Option<Var>; 2] {
        panic!(
            "{op}: samples and distribution functions by a concentration have no second derivative, as in PyTorch"
        )
    })
}

/// The smallest normal number.
fn tiny(dtype: DType) -> f64 {
    if dtype == DType::F64 { f64::MIN_POSITIVE } else { f64::from(f32::MIN_POSITIVE) }
}

/// A gamma-distributed number of rate 1 for each concentration.
pub(super) fn standard_gamma(concentration: &Var, generator: &mut Generator) -> Var {
    let (dtype, mut values) = (concentration.dtype(), concentration.to_vec::<f64>());
    values.iter_mut().for_each(|a| *a = generator.next_gamma(*a).max(tiny(dtype)));
    at(concentration, Tensor::from_vec(values, concentration.shape()).cast(dtype))
}

/// Gamma-distributed numbers, recorded.
fn at(concentration: &Var, value: Tensor) -> Var {
    let (a, x) = (concentration.saved(), value.clone());
    record("standard_gamma", [concentration], value, move |c| {
        let slope = zip(&a.tensor(), &x, implicit::gamma_derivative);
        [Some(once("standard_gamma_backward", [&a, c.grad()], c.grad() * slope))]
    })
}

/// A point of the Dirichlet distribution for each vector of concentrations.
pub(super) fn standard_dirichlet(concentration: &Var, generator: &mut Generator) -> Var {
    let (dtype, n, a) = (concentration.dtype(), concentration.size(-1), concentration.to_vec::<f64>());
    let mut values = vec![0.0; a.len()];
    if n > 0 {
        let rows = a.chunks_exact(n).zip(values.chunks_exact_mut(n));
        rows.for_each(|(a, out)| {
            generator.next_dirichlet(a, out);
            out.iter_mut().for_each(|v| *v = v.max(tiny(dtype)));
        });
    }
    dirichlet_at(concentration, Tensor::from_vec(values, concentration.shape()).cast(dtype))
}

/// Points of Dirichlet distributions, recorded.
fn dirichlet_at(concentration: &Var, value: Tensor) -> Var {
    let (a, x) = (concentration.saved(), value.clone());
    record("standard_dirichlet", [concentration], value, move |c| {
        let slope = dirichlet_slope(&a.tensor(), &x);
        let x = Var::from(&x);
        // Each element moves by itself, and the others in proportion, so that the sum stays.
        let along = c.grad() - (&x * c.grad()).sum_keepdim(-1);
        [Some(once("standard_dirichlet_backward", [&a, c.grad()], slope * along))]
    })
}

/// The derivative of each element by its concentration, as that of a Beta-distributed number, divided by `1 - x`.
fn dirichlet_slope(concentration: &Tensor, x: &Tensor) -> Var {
    let (n, a) = (x.shape()[x.ndim() - 1], concentration.to_vec::<f64>());
    let mut x = x.to_vec::<f64>();
    for (a, x) in a.chunks_exact(n.max(1)).zip(x.chunks_exact_mut(n.max(1))) {
        let (total, sum) = (a.iter().sum::<f64>(), x.iter().sum::<f64>());
        let slopes: Vec<f64> = (0..n)
            .map(|i| {
                let rest = if x[i] < 0.5 { 1.0 - x[i] } else { sum - x[i] };
                // A single element is always 1.
                let b = total - a[i];
                if n == 1 { 0.0 } else { implicit::beta_derivative(a[i], b, x[i], rest.max(0.0)) }
            })
            .collect();
        x.copy_from_slice(&slopes);
    }
    Tensor::from_vec(x, concentration.shape()).cast(concentration.dtype()).into()
}

/// The distribution function of the gamma distribution of rate 1.
pub(super) fn gamma_cdf(concentration: &Var, x: &Var) -> Var {
    let shape = tapegrad_tape::shape::broadcast_for("Gamma.cdf", concentration.shape(), x.shape());
    let (a, x) = (concentration.expand_to(&shape), x.expand_to(&shape).cast(concentration.dtype()));
    let value = zip(&a.tensor(), &x.tensor(), implicit::gamma_cdf).into_tensor();
    let (saved, point) = (a.saved(), x.saved());
    record("gamma_cdf", [&a, &x], value, move |c| {
        let by_value = c.wants(1).then(|| {
            let density = tapegrad_tape::xlogy(&saved - 1.0, &point) - &point - saved.lgamma();
            c.grad() * density.exp()
        });
        let by_concentration = c.wants(0).then(|| {
            let slope = zip(&saved.tensor(), &point.tensor(), |a, x| {
                if x > 0.0 { -implicit::gamma_derivative(a, x) * implicit::gamma_density(a, x) } else { 0.0 }
            });
            once("gamma_cdf_backward", [&saved, c.grad()], c.grad() * slope)
        });
        [by_concentration, by_value]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::parameter;
    use tapegrad_tape::gradcheck;

    /// Against PyTorch's `_standard_gamma_grad` and `_dirichlet_grad`, which are approximations.
    #[test]
    fn gradients_of_samples_are_pytorchs() {
        let (mut gammas, mut dirichlets) = (0, 0);
        for line in include_str!("../../tests/distributions.txt").lines() {
            let (name, rest) = line.split_once(" | ").unwrap();
            let lists: Vec<Vec<f64>> =
                rest.split(" | ").map(|p| p.split(' ').filter_map(|v| v.parse().ok()).collect()).collect();
            let found = match name {
                "standard_gamma_grad" => {
                    gammas += 1;
                    let a = Tensor::from_vec(lists[0].clone(), lists[0].len());
                    zip(&a, &Tensor::from_vec(lists[1].clone(), lists[1].len()), implicit::gamma_derivative)
                }
                "dirichlet_grad" => {
                    dirichlets += 1;
                    let a = Tensor::from_vec(lists[0].clone(), lists[0].len());
                    dirichlet_slope(&a, &Tensor::from_vec(lists[1].clone(), lists[1].len()))
                }
                _ => continue,
            };
            for ((found, expected), a) in found.to_vec::<f64>().iter().zip(&lists[2]).zip(&lists[0]) {
                assert!(
                    (found - expected).abs() <= 5e-3 * expected.abs(),
                    "{name}({a}): {found} and {expected}"
                );
            }
        }
        assert!(gammas > 3 && dirichlets > 3);
    }

    #[test]
    fn one_draw_moves_as_its_distribution_function_says() {
        let a = Var::parameter(Tensor::from_vec(vec![0.3, 1.0, 2.5, 40.0], 4));
        let x = standard_gamma(&a, &mut Generator::manual_seed(3));
        // Where the parameter moves and the sample with it, the probability stays.
        let g = tapegrad_tape::grad(&x.sum_all(), &a);
        let (a_, x_, g_) = (a.to_vec::<f64>(), x.to_vec::<f64>(), g.to_vec::<f64>());
        for i in 0..4 {
            let h = 1e-5;
            let p = |s: f64| implicit::gamma_cdf(a_[i] + s * h, x_[i] + s * h * g_[i]);
            assert!((p(1.0) - p(-1.0)).abs() < 1e-9, "{} {}", a_[i], x_[i]);
        }
    }

    #[test]
    fn the_gradient_of_a_mean_is_that_of_the_samples() {
        // E[x_0] = a_0 / (a_0 + a_1 + a_2) for the Dirichlet distribution.
        let a = Var::parameter(Tensor::from_vec(vec![0.7, 1.5, 3.0], 3));
        let n = 20_000;
        let x = standard_dirichlet(&a.expand((n, -1)), &mut Generator::manual_seed(4));
        let g = tapegrad_tape::grad(&x.select(1, 0isize).mean_all(), &a).to_vec::<f64>();
        let total = 5.2;
        let expected = [(total - 0.7) / (total * total), -0.7 / (total * total), -0.7 / (total * total)];
        g.iter().zip(expected).for_each(|(g, e)| assert!((g - e).abs() < 4e-3, "{g} {e}"));
    }

    #[test]
    fn the_distribution_function_by_both_arguments() {
        let a = Var::parameter(Tensor::from_vec(vec![0.4, 1.3, 6.0, 2.0], 4));
        let x = Var::parameter(Tensor::from_vec(vec![0.2, 2.9, 4.0, 9.0], 4));
        gradcheck(|v| gamma_cdf(&v[0], &v[1]), &[a, x.clone()]).unwrap();
        let fixed = Var::from_vec(vec![0.4, 1.3, 6.0, 2.0], 4);
        crate::testing::check_gradients(|v| gamma_cdf(&fixed, &v[0]), &[x]);
        assert_eq!(gamma_cdf(&fixed, &Var::zeros(4).cast(DType::F64)).to_vec::<f64>(), [0.0; 4]);
    }

    #[test]
    #[should_panic(
        expected = "standard_gamma_backward: samples and distribution functions by a concentration have no second derivative"
    )]
    fn no_second_derivative() {
        let a = parameter(&[2], 1).square() + 0.5;
        let x = standard_gamma(&a, &mut Generator::manual_seed(1));
        let options = tapegrad_tape::GradOptions::new().create_graph(true);
        let g = tapegrad_tape::grad_with(&[&x.sum_all()], &[&a], options);
        g[0].as_ref().unwrap().sum_all().backward();
    }
}
