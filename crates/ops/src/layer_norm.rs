//! `layer_norm` and `rms_norm`: each row by its own statistics.

use crate::batch_norm::convert;
use crate::kernels::layer_norm::{RowNorm, backward, forward};
use crate::normalization::{check_affine, check_float, gradients, is_half, record_by_sample, record_empty};
use tapegrad_tape::{DType, Float, IntList, Tensor, Var, is_grad_enabled};

/// Normalizes over the last dimensions, whose sizes are `shape` (`torch.nn.functional.layer_norm`).
///
/// Each slice over these dimensions is normalized to mean 0 and variance 1, then the weight and the bias are applied,
/// both of shape `shape`.
///
/// # Panics
/// If `shape` is empty or not the end of the input's shape, or weight or bias do not fit.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f64, 3.0, 10.0, 30.0], &[2, 2]);
/// let y = tapegrad_ops::layer_norm_with(&x, &[2], None, None, 0.0);
/// assert_eq!(y.to_vec::<f64>(), [-1.0, 1.0, -1.0, 1.0]);
/// ```
#[track_caller]
pub fn layer_norm<'a>(
    x: &Var,
    shape: impl IntList,
    weight: impl Into<Option<&'a Var>>,
    bias: impl Into<Option<&'a Var>>,
) -> Var {
    layer_norm_with(x, shape, weight, bias, 1e-5)
}

/// [`layer_norm`] with another `eps`.
///
/// # Panics
/// Same as [`layer_norm`].
#[track_caller]
pub fn layer_norm_with<'a>(
    x: &Var,
    shape: impl IntList,
    weight: impl Into<Option<&'a Var>>,
    bias: impl Into<Option<&'a Var>>,
    eps: f64,
) -> Var {
    let shape = &shape.to_sizes("layer_norm");
    let weight = weight.into();
    let bias = bias.into();
    normalize("layer_norm", x, shape, weight, bias, eps, true)
}

/// Divides by the root of the mean square over the last dimensions, whose sizes are `shape`
/// (`torch.nn.functional.rms_norm`). Without `eps`, the machine epsilon of the element type is added.
///
/// # Panics
/// If `shape` is empty or not the end of the input's shape, or the weight does not fit.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f64, 7.0], &[1, 2]);
/// let y = tapegrad_ops::rms_norm_with(&x, &[2], None, Some(0.0)).to_vec::<f64>();
/// assert!((y[0] - 0.2).abs() < 1e-12 && (y[1] - 1.4).abs() < 1e-12);
/// ```
#[track_caller]
pub fn rms_norm<'a>(x: &Var, shape: impl IntList, weight: impl Into<Option<&'a Var>>) -> Var {
    rms_norm_with(x, shape, weight, None)
}

/// [`rms_norm`] with an `eps`.
///
/// # Panics
/// Same as [`rms_norm`].
#[track_caller]
pub fn rms_norm_with<'a>(
    x: &Var,
    shape: impl IntList,
    weight: impl Into<Option<&'a Var>>,
    eps: impl Into<Option<f64>>,
) -> Var {
    let eps = eps.into();
    let shape = &shape.to_sizes("rms_norm");
    let weight = weight.into();
    let eps = eps.unwrap_or(match x.dtype() {
        DType::F64 => f64::EPSILON,
        // Half precision is computed in F32.
        _ => f64::from(f32::EPSILON),
    });
    normalize("rms_norm", x, shape, weight, None, eps, false)
}

#[track_caller]
fn normalize(
    op: &'static str,
    x: &Var,
    shape: &[usize],
    weight: Option<&Var>,
    bias: Option<&Var>,
    eps: f64,
    centered: bool,
) -> Var {
    check_float(op, x);
    assert!(
        !shape.is_empty(),
        "{op}: expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element, but \
         got normalized_shape = []"
    );
    assert!(
        x.shape().ends_with(shape),
        "{op}: given normalized_shape={shape:?}, expected an input whose shape ends with it, but got {:?}",
        x.shape()
    );
    check_affine(op, x, weight, bias, shape);
    if is_half(x.dtype()) {
        let wide = |v: &Var| v.cast(DType::F32);
        let (w, b) = (weight.map(wide), bias.map(wide));
        return normalize(op, &wide(x), shape, w.as_ref(), b.as_ref(), eps, centered).cast(x.dtype());
    }
    if x.numel() == 0 {
        return record_empty(op, x, weight, bias);
    }
    tapegrad_tape::dispatch!(float: x.dtype(), op, T => rows::<T>(op, x, shape, weight, bias, eps, centered))
}

/// The elements of a weight, or ones; of a bias, or zeros.
fn elements<T: Float>(v: Option<&Var>, width: usize, default: f64) -> Vec<T> {
    v.map_or_else(|| vec![T::from_f64(default); width], |v| v.to_vec::<T>())
}

#[track_caller]
fn rows<T: Float>(
    op: &'static str,
    x: &Var,
    shape: &[usize],
    weight: Option<&Var>,
    bias: Option<&Var>,
    eps: f64,
    centered: bool,
) -> Var {
    let width: usize = shape.iter().product();
    let input = x.tensor().contiguous();
    let data = input.as_slice::<T>().expect("contiguous");
    let factor = elements::<T>(weight, width, 1.0);
    let mut out = Tensor::uninit(x.shape(), T::DTYPE);
    let norm = RowNorm { width, weight: &factor, eps, centered };
    let statistics = forward(out.data_mut::<T>(), data, norm, &elements::<T>(bias, width, 0.0));
    drop(input);
    let (saved, saved_weight) = (x.saved(), weight.map(Var::saved));
    let shape = shape.to_vec();
    record_by_sample(op, x, weight, bias, out, move |g, wants, by_sample| {
        let weight = saved_weight.as_ref();
        if is_grad_enabled() || by_sample {
            let lead = saved.ndim() - shape.len();
            let dims: Vec<isize> = (lead..saved.ndim()).map(|d| d as isize).collect();
            // The backward pass sums the gradients of weight and bias to their shape.
            let (dx, dw) = gradients(&saved, g, weight, &dims, eps, centered);
            return [Some(dx), Some(dw), Some(g.clone())];
        }
        let (x, g) = (saved.tensor().contiguous(), g.tensor().cast(T::DTYPE).contiguous());
        let slices = (x.as_slice::<T>().expect("contiguous"), g.as_slice::<T>().expect("contiguous"));
        let factor = elements::<T>(weight, width, 1.0);
        let mut dx = Tensor::uninit(x.shape(), T::DTYPE);
        let norm = RowNorm { width, weight: &factor, eps, centered };
        let (dw, db) = backward(dx.data_mut::<T>(), slices.0, slices.1, norm, &statistics);
        let parameter = |v: Vec<f64>| Var::from(Tensor::from_vec(convert::<T>(v), &shape));
        [Some(dx.into()), wants[1].then(|| parameter(dw)), wants[2].then(|| parameter(db))]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};
    use proptest::prelude::*;
    use tapegrad_tape::BackwardOptions;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn gradients_of_both(
            lead in proptest::collection::vec(1usize..4, 0..3), last in proptest::collection::vec(1usize..5, 1..3),
            rms: bool, affine: bool, seed: u64,
        ) {
            let shape: Vec<usize> = lead.iter().chain(&last).copied().collect();
            let x = parameter(&shape, seed);
            let mut inputs = vec![x];
            if affine {
                inputs.push(parameter(&last, seed ^ 1));
                if !rms {
                    inputs.push(parameter(&last, seed ^ 2));
                }
            }
            let f = |v: &[Var]| match rms {
                true => rms_norm_with(&v[0], &last, v.get(1), Some(1e-2)),
                false => layer_norm_with(&v[0], &last, v.get(1), v.get(2), 1e-2),
            };
            check_gradients(f, &inputs);
            let seed = parameter(&shape, seed ^ 3).detach();
            let gradients = |create_graph| -> Vec<Var> {
                inputs.iter().for_each(Var::zero_grad);
                f(&inputs).backward_with(&seed, BackwardOptions::new().create_graph(create_graph));
                inputs.iter().map(|v| v.grad().unwrap().detach()).collect()
            };
            for (fused, composed) in gradients(false).iter().zip(&gradients(true)) {
                assert_close(fused, composed, 1e-10);
            }
        }
    }

    #[test]
    fn long_rows_and_many_of_them() {
        for shape in [[3, 5000], [700, 40]] {
            let x = parameter(&shape, 1);
            let w = parameter(&shape[1..], 2);
            let single = |v: &Var| Var::parameter(v.tensor().cast(DType::F32));
            let results = [[x.clone(), w.clone()], [single(&x), single(&w)]].map(|[x, w]| {
                let y = layer_norm(&x, &shape[1..], Some(&w), None);
                y.backward_with(&y.detach(), BackwardOptions::new());
                [y.detach(), x.grad().unwrap(), w.grad().unwrap()]
            });
            for (a, b) in results[0].iter().zip(&results[1]) {
                assert_close(b, a, 2e-5);
            }
        }
    }

    #[test]
    #[should_panic(
        expected = "layer_norm: given normalized_shape=[2, 2], expected an input whose shape ends with it"
    )]
    fn a_shape_that_does_not_fit() {
        layer_norm(&parameter(&[2, 2, 3], 1), &[2, 2], None, None);
    }
}
