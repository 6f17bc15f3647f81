//! Full derivatives of functions (`torch.autograd.functional`).

use crate::backward::{GradOptions, grad_with};
use crate::dtype::DType;
use crate::grad_mode::enable_grad;
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;

/// A parameter with the value of `x`, without its graph.
fn leaf(x: &Var) -> Var {
    Var::parameter(x.tensor())
}

fn zeros_like(x: &Var) -> Var {
    Tensor::zeros_with(x.shape(), x.dtype()).into()
}

/// A function's value at `inputs`, and the product of `v` with its Jacobian: `v` has the shape of the value,
/// the products those of the inputs (`torch.autograd.functional.vjp`).
///
/// # Panics
/// If the shape of `v` is not that of the value, or an input is not floating point.
///
/// ```
/// use tapegrad_tape::{Var, vjp};
/// let x = Var::from_vec(vec![1f64, 2.0], &[2]);
/// let (y, g) = vjp(|x| &x[0] * &x[0], &[x], &Var::from_vec(vec![1f64, 10.0], &[2]));
/// assert_eq!((y.to_vec::<f64>(), g[0].to_vec::<f64>()), (vec![1.0, 4.0], vec![2.0, 40.0]));
/// ```
#[track_caller]
pub fn vjp(f: impl Fn(&[Var]) -> Var, inputs: &[Var], v: &Var) -> (Var, Vec<Var>) {
    let xs: Vec<Var> = inputs.iter().map(leaf).collect();
    let y = enable_grad(|| f(&xs));
    assert_eq!(y.shape(), v.shape(), "vjp: the vector has to have the shape of the function's value");
    if !y.requires_grad() {
        return (y.detach(), xs.iter().map(zeros_like).collect());
    }
    let options = GradOptions::new().grad_outputs(vec![v.clone()]);
    let gradients = grad_with(&[&y], &xs.iter().collect::<Vec<_>>(), options);
    (y.detach(), gradients.into_iter().zip(&xs).map(|(g, x)| g.unwrap_or_else(|| zeros_like(x))).collect())
}

/// A function's value at `inputs`, and the product of its Jacobian with the tangents `v`, which have the shapes of the
/// inputs (`torch.autograd.functional.jvp`). Computed by two backward passes.
///
/// # Panics
/// If a tangent has another shape than its input, or an input is not floating point.
///
/// ```
/// use tapegrad_tape::{Var, jvp};
/// let x = Var::from_vec(vec![1f64, 2.0], &[2]);
/// let (_, t) = jvp(|x| &x[0] * &x[0], &[x], &[Var::from_vec(vec![1f64, 10.0], &[2])]);
/// assert_eq!(t.to_vec::<f64>(), [2.0, 40.0]);
/// ```
#[track_caller]
pub fn jvp(f: impl Fn(&[Var]) -> Var, inputs: &[Var], v: &[Var]) -> (Var, Var) {
    let xs: Vec<Var> = inputs.iter().map(leaf).collect();
    for (i, (x, v)) in xs.iter().zip(v).enumerate() {
        assert_eq!(x.shape(), v.shape(), "jvp: tangent {i} has to have the shape of its input");
    }
    assert_eq!(xs.len(), v.len(), "jvp: {} inputs, but {} tangents", xs.len(), v.len());
    let y = enable_grad(|| f(&xs));
    let zero = zeros_like(&y);
    if !y.requires_grad() {
        return (y.detach(), zero);
    }
    // g(u) = u J is linear in u; the derivative of g . v for u is J v.
    let u = Var::parameter(zero.tensor());
    let options = GradOptions::new().grad_outputs(vec![u.clone()]).create_graph(true);
    let rows = grad_with(&[&y], &xs.iter().collect::<Vec<_>>(), options);
    let (outputs, tangents): (Vec<Var>, Vec<Var>) =
        rows.into_iter().zip(v).filter_map(|(g, v)| Some((g.filter(Var::requires_grad)?, v.clone()))).unzip();
    if outputs.is_empty() {
        return (y.detach(), zero);
    }
    let options = GradOptions::new().grad_outputs(tangents);
    let product = grad_with(&outputs.iter().collect::<Vec<_>>(), &[&u], options).remove(0);
    (y.detach(), product.unwrap_or(zero))
}

/// All first derivatives of a function: the shape is that of the value, then that of the input
/// (`torch.autograd.functional.jacobian`).
///
/// ```
/// use tapegrad_tape::{Var, jacobian};
/// let j = jacobian(|x| x * x, &Var::from_vec(vec![1f64, 2.0], &[2]));
/// assert_eq!((j.shape(), j.to_vec::<f64>()), (&[2, 2][..], vec![2.0, 0.0, 0.0, 4.0]));
/// ```
#[track_caller]
pub fn jacobian(f: impl Fn(&Var) -> Var, x: &Var) -> Var {
    let x = leaf(x);
    let y = enable_grad(|| f(&x));
    rows(&y, &x)
}

/// The gradients of each element of `y` with respect to `x`, concatenated.
#[track_caller]
fn rows(y: &Var, x: &Var) -> Var {
    let shape = [y.shape(), x.shape()].concat();
    shape::numel_for("jacobian", &shape);
    if !y.requires_grad() {
        return Tensor::zeros_with(&shape, x.dtype()).into();
    }
    let mut values = Tensor::zeros_with(&shape, DType::F64);
    for (k, row) in values.data_mut::<f64>().chunks_exact_mut(x.numel().max(1)).enumerate() {
        let mut seed = vec![0f64; y.numel()];
        seed[k] = 1.0;
        let seed = Tensor::from_vec(seed, y.shape()).cast(y.dtype());
        let options = GradOptions::new().grad_outputs(vec![seed.into()]).retain_graph(true);
        if let Some(g) = &grad_with(&[y], &[x], options)[0] {
            row.copy_from_slice(&g.to_vec::<f64>());
        }
    }
    values.cast(x.dtype()).into()
}

/// All second derivatives of a function with one value: the input's shape twice
/// (`torch.autograd.functional.hessian`).
///
/// # Panics
/// If the function's value has more than one element.
///
/// ```
/// use tapegrad_tape::{Var, hessian};
/// let h = hessian(|x| (x * x * x).sum_all(), &Var::from_vec(vec![1f64, 2.0], &[2]));
/// assert_eq!(h.to_vec::<f64>(), [6.0, 0.0, 0.0, 12.0]);
/// ```
#[track_caller]
pub fn hessian(f: impl Fn(&Var) -> Var, x: &Var) -> Var {
    let x = leaf(x);
    let y = enable_grad(|| f(&x));
    assert_eq!(y.numel(), 1, "hessian: the function's value has to be one number, got shape {:?}", y.shape());
    let first = if y.requires_grad() {
        grad_with(&[&y], &[&x], GradOptions::new().create_graph(true)).remove(0)
    } else {
        None
    };
    rows(&first.unwrap_or_else(|| zeros_like(&x)), &x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_products_come_from_the_jacobian() {
        let x = Var::from_vec(vec![0.5f64, -1.0, 2.0], &[3]);
        let f = |x: &Var| (x.exp() * x.sum_all()).reshape(&[3]);
        let j = jacobian(f, &x).to_vec::<f64>();
        let v = [1.0, -2.0, 0.5];
        let (_, forward) = jvp(|x| f(&x[0]), std::slice::from_ref(&x), &[Var::from_vec(v.to_vec(), &[3])]);
        let (_, backward) = vjp(|x| f(&x[0]), &[x], &Var::from_vec(v.to_vec(), &[3]));
        for i in 0..3 {
            let row: f64 = (0..3).map(|k| j[i * 3 + k] * v[k]).sum();
            let column: f64 = (0..3).map(|k| j[k * 3 + i] * v[k]).sum();
            assert!((forward.to_vec::<f64>()[i] - row).abs() < 1e-12);
            assert!((backward[0].to_vec::<f64>()[i] - column).abs() < 1e-12);
        }
    }

    #[test]
    fn functions_that_ignore_their_input() {
        let x = Var::from_vec(vec![1f64, 2.0], &[2]);
        assert_eq!(jacobian(|_| Var::from(3.0), &x).to_vec::<f64>(), [0.0, 0.0]);
        assert_eq!(hessian(|x| x.sum_all(), &x).to_vec::<f64>(), [0.0; 4]);
        assert_eq!(
            jvp(|x| x[0].detach(), std::slice::from_ref(&x), std::slice::from_ref(&x)).1.to_vec::<f64>(),
            [0.0, 0.0]
        );
    }
}
