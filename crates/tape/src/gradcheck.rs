//! Gradients checked against finite differences.

use crate::backward::{GradOptions, grad_with};
use crate::dtype::DType;
use crate::grad_mode::no_grad;
use crate::tensor::Tensor;
use crate::var::Var;
use std::fmt;

/// How [`gradcheck`] compares.
#[derive(Clone, Copy, Debug)]
pub struct GradCheck {
    /// The step of the central difference.
    pub eps: f64,
    /// Absolute tolerance.
    pub atol: f64,
    /// Tolerance relative to the numerical gradient.
    pub rtol: f64,
}

impl GradCheck {
    crate::setters! { eps: f64, atol: f64, rtol: f64 }
}

impl Default for GradCheck {
    /// PyTorch's: step 1e-6, tolerances 1e-5 and 1e-3.
    fn default() -> GradCheck {
        GradCheck { eps: 1e-6, atol: 1e-5, rtol: 1e-3 }
    }
}

/// The element whose gradient is farthest from the finite difference.
#[derive(Clone, Debug, PartialEq)]
pub struct GradCheckError {
    /// The index of the input.
    pub input: usize,
    /// The index of the element in it, in row-major order.
    pub element: usize,
    /// The index of the output, and of the element in it.
    pub output: (usize, usize),
    /// The gradient by the tape.
    pub analytical: f64,
    /// The gradient by finite differences.
    pub numerical: f64,
    /// The number of elements out of tolerance, and of all elements.
    pub wrong: (usize, usize),
}

impl fmt::Display for GradCheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "gradcheck: d output {}[{}] / d input {}[{}] is {} by the tape but {} by finite differences (the worst of {} wrong out of {})",
            self.output.0,
            self.output.1,
            self.input,
            self.element,
            self.analytical,
            self.numerical,
            self.wrong.0,
            self.wrong.1
        )
    }
}

impl std::error::Error for GradCheckError {}

/// What a function under [`gradcheck`] may return: one variable or several.
pub trait Outputs {
    /// All of them in order.
    fn into_outputs(self) -> Vec<Var>;
}

impl Outputs for Var {
    fn into_outputs(self) -> Vec<Var> {
        vec![self]
    }
}

impl Outputs for Vec<Var> {
    fn into_outputs(self) -> Vec<Var> {
        self
    }
}

impl<const N: usize> Outputs for [Var; N] {
    fn into_outputs(self) -> Vec<Var> {
        self.into()
    }
}

/// Compares every element of the Jacobian with a central difference (`torch.autograd.gradcheck`).
///
/// The function is called with the inputs, F64 parameters, changed one element at a time.
///
/// # Errors
/// The worst element, if one is out of tolerance.
///
/// # Panics
/// If an input is not an F64 parameter.
///
/// ```
/// use tapegrad_tape::{GradCheck, Tensor, Var, gradcheck, gradcheck_with};
/// let x = Var::parameter(Tensor::from_vec(vec![0.3, -0.7], &[2]));
/// gradcheck(|x| &x[0] * &x[0], &[x]).unwrap();
/// ```
#[track_caller]
pub fn gradcheck<O: Outputs>(f: impl Fn(&[Var]) -> O, inputs: &[Var]) -> Result<(), GradCheckError> {
    gradcheck_with(f, inputs, GradCheck::default())
}

/// [`gradcheck`] with another step and other tolerances.
///
/// # Errors
/// Same as [`gradcheck`].
///
/// # Panics
/// Same as [`gradcheck`].
#[track_caller]
pub fn gradcheck_with<O: Outputs>(
    f: impl Fn(&[Var]) -> O,
    inputs: &[Var],
    options: GradCheck,
) -> Result<(), GradCheckError> {
    for (i, x) in inputs.iter().enumerate() {
        let fits = x.dtype() == DType::F64 && x.requires_grad() && x.is_leaf();
        assert!(
            fits,
            "gradcheck: input {i} has to be a float64 parameter; finite differences need the precision"
        );
    }
    let outputs: Vec<Var> = f(inputs).into_outputs().into_iter().filter(|y| y.dtype().is_float()).collect();
    let numerical: Vec<Vec<Vec<f64>>> =
        inputs.iter().map(|x| differences(&f, inputs, x, options.eps)).collect();
    let handles: Vec<&Var> = inputs.iter().collect();
    let mut worst: Option<(f64, GradCheckError)> = None;
    let (mut wrong, mut total) = (0, 0);
    for (o, y) in outputs.iter().enumerate() {
        let y64 = y.cast(DType::F64);
        for k in 0..y.numel() {
            let gradients = if y64.requires_grad() {
                let mut seed = Tensor::zeros_with(y.shape(), DType::F64);
                seed.make_mut::<f64>()[k] = 1.0;
                let options = GradOptions::new().grad_outputs(vec![seed.into()]).retain_graph(true);
                grad_with(&[&y64], &handles, options)
            } else {
                vec![None; inputs.len()]
            };
            for (i, g) in gradients.into_iter().enumerate() {
                let n = inputs[i].numel();
                let analytical = g.map_or_else(|| vec![0.0; n], |g| g.to_vec::<f64>());
                for (e, &a) in analytical.iter().enumerate() {
                    let b = numerical[i][e][outputs[..o].iter().map(Var::numel).sum::<usize>() + k];
                    total += 1;
                    let excess = (a - b).abs() - (options.atol + options.rtol * b.abs());
                    if excess > 0.0 || excess.is_nan() {
                        wrong += 1;
                        if worst.as_ref().is_none_or(|(w, _)| excess > *w || excess.is_nan()) {
                            let error = GradCheckError {
                                input: i,
                                element: e,
                                output: (o, k),
                                analytical: a,
                                numerical: b,
                                wrong: (0, 0),
                            };
                            worst = Some((excess, error));
                        }
                    }
                }
            }
        }
    }
    match worst {
        Some((_, error)) => Err(GradCheckError { wrong: (wrong, total), ..error }),
        None => Ok(()),
    }
}

/// For each element of `x`, the central differences of all output elements.
fn differences<O: Outputs>(f: &impl Fn(&[Var]) -> O, inputs: &[Var], x: &Var, eps: f64) -> Vec<Vec<f64>> {
    let original = x.tensor();
    let eval = |e: usize, step: f64| -> Vec<f64> {
        let mut moved = original.contiguous();
        moved.make_mut::<f64>()[e] += step;
        // The same strides as before, so that the operation is checked on the layout it was called with.
        x.set_value(restride(&moved, &original));
        let outputs = no_grad(|| f(inputs)).into_outputs();
        outputs.iter().filter(|y| y.dtype().is_float()).flat_map(|y| y.to_vec::<f64>()).collect()
    };
    let result = (0..original.numel())
        .map(|e| {
            let (up, down) = (eval(e, eps), eval(e, -eps));
            up.iter().zip(&down).map(|(u, d)| (u - d) / (2.0 * eps)).collect()
        })
        .collect();
    x.set_value(original);
    result
}

/// The values of `t` in memory laid out like `like`, where that gives each element its own address.
fn restride(t: &Tensor, like: &Tensor) -> Tensor {
    let size = like.offset()
        + like.shape().iter().zip(like.strides()).map(|(n, s)| n.saturating_sub(1) * s).sum::<usize>()
        + 1;
    let overlaps = like.shape().iter().zip(like.strides()).any(|(&n, &s)| n > 1 && s == 0);
    if like.is_contiguous() || overlaps {
        return t.clone();
    }
    let mut data = vec![0f64; size];
    let values = t.to_vec::<f64>();
    let mut index = vec![0; like.ndim()];
    for v in values {
        let at: usize = index.iter().zip(like.strides()).map(|(i, s)| i * s).sum();
        data[like.offset() + at] = v;
        for d in (0..index.len()).rev() {
            index[d] += 1;
            if index[d] < like.shape()[d] {
                break;
            }
            index[d] = 0;
        }
    }
    Tensor::from_strided(&data, like.shape(), like.strides(), like.offset())
}

/// Compares second derivatives with finite differences of first ones (`torch.autograd.gradgradcheck`), with fixed
/// pseudorandom gradients of the outputs, which are inputs of the check, too.
///
/// # Errors
/// The worst element, if one is out of tolerance; the inputs are followed by the outputs' gradients.
///
/// # Panics
/// Same as [`gradcheck`].
#[track_caller]
pub fn gradgradcheck<O: Outputs>(f: impl Fn(&[Var]) -> O, inputs: &[Var]) -> Result<(), GradCheckError> {
    gradgradcheck_with(f, inputs, GradCheck::default())
}

/// [`gradgradcheck`] with another step and other tolerances.
///
/// # Errors
/// Same as [`gradgradcheck`].
///
/// # Panics
/// Same as [`gradgradcheck`].
#[track_caller]
pub fn gradgradcheck_with<O: Outputs>(
    f: impl Fn(&[Var]) -> O,
    inputs: &[Var],
    options: GradCheck,
) -> Result<(), GradCheckError> {
    let outputs = f(inputs).into_outputs();
    let differentiable: Vec<usize> = (0..outputs.len()).filter(|&i| outputs[i].requires_grad()).collect();
    let mut all = inputs.to_vec();
    for (n, &i) in differentiable.iter().enumerate() {
        let y = &outputs[i];
        let seed = (0..y.numel()).map(|k| pseudo_random(k, n)).collect();
        all.push(Var::parameter(Tensor::from_vec::<f64>(seed, y.shape())));
    }
    let first = |all: &[Var]| -> Vec<Var> {
        let (xs, seeds) = all.split_at(inputs.len());
        // Finite differences call this without recording, but first derivatives need a graph.
        let recording = crate::is_grad_enabled();
        crate::enable_grad(|| {
            let outputs = f(xs).into_outputs();
            let ys: Vec<Var> = differentiable.iter().map(|&i| outputs[i].cast(DType::F64)).collect();
            if ys.is_empty() {
                return Vec::new();
            }
            let options = GradOptions::new().grad_outputs(seeds.to_vec()).create_graph(recording);
            let gradients =
                grad_with(&ys.iter().collect::<Vec<_>>(), &xs.iter().collect::<Vec<_>>(), options);
            gradients
                .into_iter()
                .zip(xs)
                .map(|(g, x)| g.unwrap_or_else(|| Tensor::zeros_with(x.shape(), DType::F64).into()))
                .collect()
        })
    };
    gradcheck_with(first, &all, options)
}

/// A number in `[-1, 1]` that depends on its position alone.
fn pseudo_random(k: usize, salt: usize) -> f64 {
    let mut u = (k as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(salt as u64 * 0x632B_E59B + 1);
    u ^= u >> 29;
    u = u.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    u ^= u >> 32;
    u as f64 / u64::MAX as f64 * 2.0 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record;

    fn wrong_square(x: &Var) -> Var {
        let saved = x.saved();
        record("wrong_square", [x], no_grad(|| x * x).tensor(), move |c| [Some(c.grad() * &(3.0 * &saved))])
    }

    #[test]
    fn a_wrong_rule_is_found() {
        let x = Var::parameter(Tensor::from_vec(vec![0.1, 2.0], &[2]));
        let error = gradcheck(|x| wrong_square(&x[0]), std::slice::from_ref(&x)).unwrap_err();
        assert_eq!((error.input, error.element, error.output, error.wrong), (0, 1, (0, 1), (2, 4)));
        assert!((error.analytical - 6.0).abs() < 1e-9 && (error.numerical - 4.0).abs() < 1e-6, "{error}");
        assert_eq!(x.to_vec::<f64>(), [0.1, 2.0]);
    }

    #[test]
    fn second_derivatives() {
        let x = Var::parameter(Tensor::from_strided(&[0.5, 0.0, 1.5, 0.0, -0.7, 0.0], &[3], &[2], 0));
        let y = Var::parameter(Tensor::from_vec(vec![1.5], ()));
        let f = |v: &[Var]| &v[0].exp() * &v[1] + &v[0] / &v[1];
        gradcheck(f, &[x.clone(), y.clone()]).unwrap();
        gradgradcheck(f, &[x, y]).unwrap();
    }
}
