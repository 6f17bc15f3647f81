//! `gumbel_softmax`.

use crate::options::setters;
use crate::softmax;
use tapegrad_tape::{Generator, Tensor, Var, shape, with_default_generator};
use tapegrad_tape::{Int, kernels::list::list_for};

/// The options of [`gumbel_softmax`], with PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GumbelSoftmaxOptions {
    /// The temperature: near zero nearly all weight is on one class.
    pub tau: f64,
    /// Whether the result is one class, with the gradient of the weights.
    pub hard: bool,
    /// The dimension of the classes.
    pub dim: isize,
}

impl GumbelSoftmaxOptions {
    setters! { tau: f64, hard: bool }

    /// Sets `dim`.
    #[must_use]
    pub fn dim(mut self, dim: impl Int) -> Self {
        self.dim = dim.to_isize();
        self
    }
}

impl Default for GumbelSoftmaxOptions {
    fn default() -> GumbelSoftmaxOptions {
        GumbelSoftmaxOptions { tau: 1.0, hard: false, dim: -1 }
    }
}

/// Random weights of classes from unnormalized log-probabilities, as differentiable functions of these: the softmax of the
/// logits plus independent Gumbel noise (`torch.nn.functional.gumbel_softmax`; Maddison et al. 2016, "The concrete
/// distribution"; Jang et al. 2016, "Categorical reparameterization with Gumbel-softmax"). Draws from this thread's default
/// generator.
///
/// # Panics
/// If the elements are not floating point, or the dimension is out of range.
///
/// ```
/// use tapegrad_ops::{GumbelSoftmaxOptions, gumbel_softmax, gumbel_softmax_with};
/// use tapegrad_tape::Var;
/// let logits = Var::from_vec(vec![0f64, 1.0, 2.0], 3);
/// assert!((gumbel_softmax(&logits).sum_all().item() - 1.0).abs() < 1e-12);
/// let one = gumbel_softmax_with(&logits, GumbelSoftmaxOptions::new().hard(true));
/// assert_eq!(one.amax(0).item(), 1.0);
/// ```
#[track_caller]
pub fn gumbel_softmax(logits: &Var) -> Var {
    gumbel_softmax_with(logits, Default::default())
}

/// [`gumbel_softmax`] with options.
///
/// With `hard`, the class of the largest weight is exactly one and the others are zero, while the gradient is that of the
/// weights (the straight-through estimator).
///
/// # Panics
/// Same as [`gumbel_softmax`].
#[track_caller]
pub fn gumbel_softmax_with(logits: &Var, options: GumbelSoftmaxOptions) -> Var {
    with_default_generator(|g| gumbel_softmax_from(logits, options, g))
}

/// [`gumbel_softmax_with`] from a generator.
///
/// # Panics
/// Same as [`gumbel_softmax`].
#[track_caller]
pub fn gumbel_softmax_from(logits: &Var, options: GumbelSoftmaxOptions, generator: &mut Generator) -> Var {
    let op = "gumbel_softmax";
    assert!(logits.dtype().is_float(), "{op}: the logits have to be floating point, not {}", logits.dtype());
    let dim = shape::dim(op, options.dim, logits.ndim()) as isize;
    let noise = list_for(op, logits.numel(), |_| generator.next_gumbel());
    let noise = Tensor::from_vec(noise, logits.shape()).cast(logits.dtype());
    let soft = softmax(&((logits + Var::from(noise)) / options.tau), dim);
    if !options.hard {
        return soft;
    }
    let value = soft.detach();
    let (_, winner) = value.max(dim);
    let hard = value.zeros_like().scatter(dim, &winner.unsqueeze(dim), 1.0);
    straight_through(&hard, &soft)
}

/// One value with the gradient of another.
fn straight_through(value: &Var, gradient_of: &Var) -> Var {
    tapegrad_tape::record("straight_through", [gradient_of], value.tensor(), |c| [Some(c.into_grad())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};
    use tapegrad_tape::DType;

    fn draw(x: &Var, options: GumbelSoftmaxOptions) -> Var {
        gumbel_softmax_from(x, options, &mut Generator::manual_seed(9))
    }

    #[test]
    fn derivatives() {
        for (dim, tau) in [(0, 1.0), (-1, 0.6)] {
            let options = GumbelSoftmaxOptions::new().dim(dim).tau(tau);
            check_gradients(|v| draw(&v[0], options), &[parameter(&[2, 3], 1)]);
        }
    }

    #[test]
    fn hard_is_one_class_with_the_gradient_of_the_soft_one() {
        let x = parameter(&[4, 5], 1);
        let gradient = |hard| {
            let options = GumbelSoftmaxOptions::new().hard(hard).tau(0.7);
            let weights = Var::from_vec((0..20).map(f64::from).collect(), (4, 5));
            tapegrad_tape::grad(&(draw(&x, options) * weights).sum_all(), &x)
        };
        assert_close(&gradient(true), &gradient(false), 1e-14);
        let hard = draw(&x, GumbelSoftmaxOptions::new().hard(true));
        assert_eq!(hard.sum(1).to_vec::<f64>(), [1.0; 4]);
        assert!(hard.to_vec::<f64>().iter().all(|&v| v == 0.0 || v == 1.0));
        assert_eq!(hard.argmax(1).to_vec::<i64>(), draw(&x, Default::default()).argmax(1).to_vec::<i64>());
    }

    #[test]
    fn classes_have_their_probabilities() {
        let logits = Var::from_vec(vec![0f32, 3f32.ln(), 0.0], 3).expand((20_000, -1));
        let share = draw(&logits, GumbelSoftmaxOptions::new().hard(true)).mean(0).to_vec::<f32>();
        assert!((share[0] - 0.2).abs() < 0.012 && (share[1] - 0.6).abs() < 0.015, "{share:?}");
        assert_eq!(draw(&logits.cast(DType::F16), Default::default()).dtype(), DType::F16);
    }

    #[test]
    #[should_panic(expected = "gumbel_softmax: the logits have to be floating point, not int64")]
    fn integers() {
        gumbel_softmax(&Var::from_vec(vec![1i64], 1));
    }
}
