//! `softmax`, `log_softmax`, `softmin`.

use crate::kernels::softmax::{Along, Kind, softmax as kernel, softmax_backward};
use tapegrad_tape::{DType, Float, Int, Tensor, Var, is_grad_enabled, record_with_output, shape};

/// The exponentials of the elements along a dimension, divided by their sum (`torch.softmax`).
///
/// For PyTorch's `dtype`, [cast](Var::cast) first, integers too.
///
/// # Panics
/// If the dimension is out of range, or the elements are not floating point.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![0f64, 0.0, 2f64.ln()], &[3]);
/// let y = tapegrad_ops::softmax(&x, -1).to_vec::<f64>();
/// assert!((y[0] - 0.25).abs() < 1e-12 && (y[2] - 0.5).abs() < 1e-12);
/// ```
#[track_caller]
pub fn softmax(x: &Var, dim: impl Int) -> Var {
    along("softmax", x, dim.to_isize(), Kind::Plain)
}

/// The logarithm of [`softmax`], computed directly, which is more accurate (`torch.log_softmax`).
///
/// # Panics
/// If the dimension is out of range, or the elements are not floating point.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1000f64, 0.0], &[2]);
/// assert_eq!(tapegrad_ops::log_softmax(&x, 0).to_vec::<f64>(), [0.0, -1000.0]);
/// ```
#[track_caller]
pub fn log_softmax(x: &Var, dim: impl Int) -> Var {
    along("log_softmax", x, dim.to_isize(), Kind::Log)
}

/// [`softmax`] of the negative elements (`torch.nn.functional.softmin`).
///
/// # Panics
/// If the dimension is out of range, or the elements are not floating point.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![0f64, 1000.0], &[2]);
/// assert_eq!(tapegrad_ops::softmin(&x, 0).to_vec::<f64>(), [1.0, 0.0]);
/// ```
#[track_caller]
pub fn softmin(x: &Var, dim: impl Int) -> Var {
    along("softmin", &x.neg(), dim.to_isize(), Kind::Plain)
}

/// A softmax of any kind along a dimension.
#[track_caller]
pub(crate) fn along(op: &'static str, x: &Var, dim: isize, kind: Kind) -> Var {
    let d = shape::dim(op, dim, x.ndim());
    let value = match x.dtype() {
        DType::F16 | DType::BF16 => forward::<f32>(&x.tensor().cast(DType::F32), d, kind).cast(x.dtype()),
        other => tapegrad_tape::dispatch!(float: other, op, T => forward::<T>(&x.tensor(), d, kind)),
    };
    let dim = d as isize;
    record_with_output(op, [x], value, move |c| {
        let (y, g) = (c.output(), c.grad());
        let dims = if y.ndim() == 0 { vec![] } else { vec![dim] };
        if is_grad_enabled() || !matches!(y.dtype(), DType::F32 | DType::F64) {
            return [Some(match kind {
                Kind::Log => g - &(y.exp() * g.sum_keepdim(&dims)),
                Kind::Plain | Kind::Safe => &y * &(g - &(g * &y).sum_keepdim(&dims)),
            })];
        }
        let (y, g) = (y.tensor(), g.tensor().cast(y.dtype()));
        let gradient = tapegrad_tape::dispatch!(float: y.dtype(), op, T => backward::<T>(&y, &g, d, kind));
        [Some(gradient.into())]
    })
}

/// A tensor with its dimensions in the order of memory, and the sizes around one of them.
fn in_memory_order(t: &Tensor, dim: usize) -> (Tensor, Vec<isize>, Along) {
    let mut order: Vec<usize> = (0..t.ndim()).collect();
    order.sort_by_key(|&d| std::cmp::Reverse(t.strides()[d]));
    let signed = |o: &[usize]| o.iter().map(|&d| d as isize).collect::<Vec<_>>();
    let mut moved = t.permute(&signed(&order));
    if !moved.is_contiguous() {
        order.sort_unstable();
        moved = t.contiguous();
    }
    let place = order.iter().position(|&d| d == dim);
    let s = moved.shape();
    let along = match place {
        Some(p) => Along { outer: s[..p].iter().product(), length: s[p], inner: s[p + 1..].iter().product() },
        None => Along { outer: 1, length: 1, inner: 1 },
    };
    (moved.clone(), signed(&order), along)
}

/// Back from memory order.
fn in_order(t: &Tensor, order: &[isize]) -> Tensor {
    let mut inverse = vec![0; order.len()];
    for (i, &d) in order.iter().enumerate() {
        inverse[d as usize] = i as isize;
    }
    t.permute(&inverse)
}

fn forward<T: Float>(x: &Tensor, dim: usize, kind: Kind) -> Tensor {
    let (x, order, along) = in_memory_order(x, dim);
    let mut out = Tensor::uninit(x.shape(), T::DTYPE);
    kernel(out.data_mut::<T>(), x.as_slice::<T>().expect("in memory order"), along, kind);
    in_order(&out, &order)
}

fn backward<T: Float>(y: &Tensor, g: &Tensor, dim: usize, kind: Kind) -> Tensor {
    let (y, order, along) = in_memory_order(y, dim);
    let g = g.permute(&order).contiguous();
    let mut out = Tensor::uninit(y.shape(), T::DTYPE);
    let slices = (y.as_slice::<T>().expect("in memory order"), g.as_slice::<T>().expect("contiguous"));
    softmax_backward(out.data_mut::<T>(), slices.0, slices.1, along, kind);
    in_order(&out, &order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};
    use proptest::prelude::*;
    use tapegrad_tape::{BackwardOptions, MemoryFormat};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn gradients_and_values(shape in proptest::collection::vec(1usize..5, 0..4), dim in 0usize..4, log: bool, seed: u64) {
            let dim = if shape.is_empty() { 0 } else { dim % shape.len() } as isize;
            let x = parameter(&shape, seed);
            let f = |x: &Var| if log { log_softmax(x, dim) } else { softmax(x, dim) };
            let e = x.exp();
            let composed = &e / &e.sum_keepdim(&if shape.is_empty() { vec![] } else { vec![dim] });
            let y = f(&x);
            assert_close(&if log { y.exp() } else { y.clone() }, &composed, 1e-12);
            check_gradients(|x| f(&x[0]), std::slice::from_ref(&x));
            // The fused rule against the composed one.
            let seed = parameter(&shape, seed ^ 1).detach();
            let gradient = |create_graph| {
                x.zero_grad();
                f(&x).backward_with(&seed, BackwardOptions::new().create_graph(create_graph));
                x.grad().unwrap().detach()
            };
            assert_close(&gradient(false), &gradient(true), 1e-12);
        }
    }

    #[test]
    fn memory_format_is_kept() {
        let x = parameter(&[2, 19, 3, 5], 1);
        let last = Var::from(x.tensor().to_format(MemoryFormat::ChannelsLast));
        for dim in 0..4 {
            let y = softmax(&last, dim);
            assert_eq!(y.tensor().strides(), last.tensor().strides());
            assert_close(&y, &softmax(&x, dim), 1e-14);
        }
        let strided = Var::from(x.tensor().step(1, 2));
        assert_close(&softmax(&strided, 1), &softmax(&Var::from(strided.tensor().contiguous()), 1), 1e-14);
    }

    #[test]
    fn infinities() {
        let inf = f32::INFINITY;
        let x = Var::from_vec(vec![-inf, 0.0, -inf, -inf, inf, 0.0], &[3, 2]);
        let y = softmax(&x, 1).to_vec::<f32>();
        assert_eq!(y[..2], [0.0, 1.0]);
        assert!(y[2].is_nan() && y[4].is_nan() && y[5].is_nan() || y[5] == 0.0);
    }

    #[test]
    fn nothing_to_choose_from_is_zero_where_asked() {
        let inf = f32::INFINITY;
        let x = Var::from_vec(vec![-inf, 0.0, -inf, -inf], &[2, 2]);
        assert_eq!(along("softmax", &x, 1, Kind::Safe).to_vec::<f32>(), [0.0, 1.0, 0.0, 0.0]);
        let columns = x.transpose(0, 1);
        let y = along("softmax", &Var::from(columns.tensor().contiguous()), 0, Kind::Safe);
        assert_eq!(y.to_vec::<f32>(), [0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    #[should_panic(expected = "softmax: not defined for int64")]
    fn integers_are_refused() {
        softmax(&Var::from_vec(vec![1i64], &[1]), 0);
    }
}
