//! `Independent`.

use super::Distribution;
use tapegrad_tape::shape::Dims;
use tapegrad_tape::{Generator, Var};

/// A distribution whose last dimensions of the batch are taken as parts of one outcome: their log-densities are added
/// (`torch.distributions.Independent`).
///
/// ```
/// use tapegrad_ops::distributions::{Distribution, Independent, Normal};
/// use tapegrad_tape::Var;
/// let d = Independent::new(Normal::new(&Var::zeros((2, 3)), 1.0), 1);
/// assert_eq!((&d.batch_shape()[..], &d.event_shape()[..]), (&[2][..], &[3][..]));
/// assert_eq!(d.log_prob(&Var::zeros((2, 3))).shape(), [2]);
/// ```
#[derive(Clone, Debug)]
pub struct Independent<D> {
    /// The distribution of the parts.
    pub base: D,
    /// How many dimensions of its batch belong to an outcome.
    pub reinterpreted_batch_ndims: usize,
}

impl<D: Distribution> Independent<D> {
    /// The last `reinterpreted_batch_ndims` dimensions of the batch become those of an outcome.
    ///
    /// # Panics
    /// If the batch has fewer.
    #[track_caller]
    pub fn new(base: D, reinterpreted_batch_ndims: usize) -> Independent<D> {
        let dims = base.batch_shape().len();
        assert!(
            reinterpreted_batch_ndims <= dims,
            "Independent: expected reinterpreted_batch_ndims of at most {dims}, the dimensions of the batch, got \
             {reinterpreted_batch_ndims}"
        );
        Independent { base, reinterpreted_batch_ndims }
    }

    /// The number of dimensions that stay in the batch.
    fn kept(&self) -> usize {
        self.base.batch_shape().len() - self.reinterpreted_batch_ndims
    }

    pub(super) fn summed(&self, x: &Var) -> Var {
        sum_rightmost(x, self.reinterpreted_batch_ndims)
    }
}

/// The sum over the last dimensions.
fn sum_rightmost(x: &Var, dims: usize) -> Var {
    if dims == 0 { x.clone() } else { x.sum((1..=dims as isize).map(|d| -d).collect::<Vec<_>>()) }
}

impl<D: Distribution> Distribution for Independent<D> {
    fn name(&self) -> &'static str {
        "Independent"
    }

    fn batch_shape(&self) -> Dims {
        self.base.batch_shape()[..self.kept()].into()
    }

    fn event_shape(&self) -> Dims {
        [&self.base.batch_shape()[self.kept()..], &self.base.event_shape()[..]].concat().into()
    }

    fn has_rsample(&self) -> bool {
        self.base.has_rsample()
    }

    fn draw(&self, shape: &[usize], generator: &mut Generator) -> Var {
        self.base.draw(shape, generator)
    }

    #[track_caller]
    fn log_prob(&self, value: &Var) -> Var {
        self.summed(&self.base.log_prob(value))
    }

    fn mean(&self) -> Var {
        self.base.mean()
    }

    fn variance(&self) -> Var {
        self.base.variance()
    }

    fn stddev(&self) -> Var {
        self.base.stddev()
    }

    fn entropy(&self) -> Var {
        self.summed(&self.base.entropy())
    }
}
