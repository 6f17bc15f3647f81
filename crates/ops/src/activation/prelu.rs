//! Leaky rectifiers whose slope is learned or random.

use crate::autocast::lowered;
use tapegrad_tape::kernels::strided;
use tapegrad_tape::{DType, Tensor, Var, record, where_, with_default_generator};

/// `x` above zero, `weight * x` below, with one learned weight or one for each channel
/// (`torch.nn.functional.prelu`). Channels are dimension 1.
///
/// # Panics
/// If the weight has neither one element nor one for each channel, or more than one dimension.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![-1f32, 2.0, -3.0, 4.0], &[2, 2]);
/// let weight = Var::from_vec(vec![0.5f32, 0.25], &[2]);
/// assert_eq!(tapegrad_ops::prelu(&x, &weight).to_vec::<f32>(), [-0.5, 2.0, -1.5, 4.0]);
/// ```
#[track_caller]
pub fn prelu(x: &Var, weight: &Var) -> Var {
    lowered([x, weight], |[x, weight]| piecewise(x, weight))
}

#[track_caller]
fn piecewise(x: &Var, weight: &Var) -> Var {
    let channels = if x.ndim() > 1 { x.shape()[1] } else { 1 };
    assert!(
        weight.ndim() <= 1 && (weight.numel() == 1 || weight.numel() == channels),
        "prelu: weight {:?} has to have one element, or {channels} for the channels of the input {:?}",
        weight.shape(),
        x.shape()
    );
    assert!(
        x.dtype() == weight.dtype() && x.dtype().is_float(),
        "prelu: input and weight have to be of one floating-point type, not {} and {}",
        x.dtype(),
        weight.dtype()
    );
    if !matches!(x.dtype(), DType::F32 | DType::F64) {
        return piecewise(&x.cast(DType::F32), &weight.cast(DType::F32)).cast(x.dtype());
    }
    let mut shape = vec![1isize; x.ndim()];
    if weight.numel() > 1 {
        shape[1] = -1;
    }
    let weight = weight.reshape(&shape);
    let value = tapegrad_tape::dispatch!(float: x.dtype(), "prelu", T => {
        strided::zip(x.shape(), &x.tensor(), &weight.tensor(), |x: T, w: T| if x > 0.0 { x } else { w * x })
    });
    let (saved, w) = (x.saved(), weight.saved());
    record("prelu", [x, &weight], value, move |c| {
        let above = saved.gt(0.0);
        [
            c.wants(0).then(|| where_(&above, c.grad(), c.grad() * &w)),
            c.wants(1).then(|| where_(&above, 0.0, c.grad() * &saved)),
        ]
    })
}

/// A leaky ReLU whose slope is drawn for each element from `[lower, upper)` in training, and is their mean otherwise
/// (`torch.nn.functional.rrelu`): that of 1/8 and 1/3. Draws from the thread's default generator.
///
/// # Panics
/// If `lower` is above `upper`.
///
/// ```
/// assert_eq!(tapegrad_ops::rrelu_with(&tapegrad_tape::Var::from(-4.0), 0.25, 0.75, false).item(), -2.0);
/// ```
#[track_caller]
pub fn rrelu(x: &Var) -> Var {
    rrelu_with(x, 1.0 / 8.0, 1.0 / 3.0, false)
}

/// [`rrelu`] with another range of slopes, and in training.
///
/// # Panics
/// Same as [`rrelu`].
#[track_caller]
pub fn rrelu_with(x: &Var, lower: f64, upper: f64, training: bool) -> Var {
    assert!(lower <= upper, "rrelu: lower = {lower} cannot be greater than upper = {upper}");
    if !training {
        return super::leaky_relu_with(x, (lower + upper) / 2.0);
    }
    let slope: Tensor = with_default_generator(|g| g.uniform(x.shape(), lower, upper)).cast(x.dtype());
    x * &where_(&x.gt(0.0), 1.0, Var::from(slope))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn derivatives() {
        for (shape, channels) in [(vec![2usize, 3, 2], 3usize), (vec![4], 1), (vec![], 1)] {
            let (x, w) = (parameter(&shape, 1), parameter(&[channels], 2));
            check_gradients(|v| prelu(&v[0], &v[1]), &[x, w]);
        }
    }

    #[test]
    fn drawn_slopes_stay_in_their_range() {
        let y = rrelu_with(&Var::from(Tensor::full_with(&[1000], -1, DType::F32)), 0.1, 0.3, true)
            .to_vec::<f32>();
        assert!(y.iter().all(|v| (-0.3..=-0.1).contains(v)) && y.iter().any(|v| *v != y[0]));
    }

    #[test]
    #[should_panic(
        expected = "prelu: weight [9] has to have one element, or 8 for the channels of the input [2, 8, 3]"
    )]
    fn a_weight_of_another_size() {
        prelu(
            &Var::from(Tensor::zeros_with(&[2, 8, 3], DType::F32)),
            &Var::from(Tensor::zeros_with(&[9], DType::F32)),
        );
    }
}
