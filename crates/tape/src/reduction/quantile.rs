//! `quantile`, `nanquantile`.

use crate::dtype::DType;
use crate::int_list::OptionalInt;
use crate::promote::Operand;
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;
use crate::where_;

/// What a quantile between two elements is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Interpolation {
    /// On the line between them.
    #[default]
    Linear,
    /// The lower one.
    Lower,
    /// The higher one.
    Higher,
    /// Halfway between them.
    Midpoint,
    /// The nearer one; halfway, the one whose place is even.
    Nearest,
}

impl Var {
    /// The quantiles `q`, a number or a vector of them, along a dimension or of all elements (`torch.quantile`). With a
    /// vector they come along a new first dimension. NaN where there is one.
    ///
    /// # Panics
    /// If the elements are not F32 or F64, there are none, or the dimension is out of range; or if `q` has more than one
    /// dimension, another type, or elements outside of `[0, 1]`.
    ///
    /// ```
    /// use tapegrad_tape::{Interpolation, Var};
    /// let x = Var::from_vec(vec![3f32, 1.0, 2.0, 4.0], &[4]);
    /// assert_eq!(x.quantile(0.5, None).item(), 2.5);
    /// assert_eq!(x.quantile_with(0.5, 0, false, Interpolation::Lower).item(), 2.0);
    /// ```
    #[track_caller]
    pub fn quantile(&self, q: impl Into<Operand>, dim: impl OptionalInt) -> Var {
        self.quantile_with(q, dim, false, Interpolation::Linear)
    }

    /// [`Var::quantile`] with a dimension that is kept, or another interpolation.
    ///
    /// # Panics
    /// Same as [`Var::quantile`].
    #[track_caller]
    pub fn quantile_with(
        &self,
        q: impl Into<Operand>,
        dim: impl OptionalInt,
        keepdim: bool,
        interpolation: Interpolation,
    ) -> Var {
        quantiles("quantile", self, q.into(), dim.to_option(), keepdim, interpolation)
    }

    /// Like [`Var::quantile`], of the elements that are not NaN (`torch.nanquantile`); NaN only where all are.
    ///
    /// # Panics
    /// Same as [`Var::quantile`].
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![3f32, f32::NAN, 2.0], &[3]);
    /// assert_eq!(x.nanquantile(0.5, None).item(), 2.5);
    /// ```
    #[track_caller]
    pub fn nanquantile(&self, q: impl Into<Operand>, dim: impl OptionalInt) -> Var {
        self.nanquantile_with(q, dim, false, Interpolation::Linear)
    }

    /// [`Var::nanquantile`] with a dimension that is kept, or another interpolation.
    ///
    /// # Panics
    /// Same as [`Var::nanquantile`].
    #[track_caller]
    pub fn nanquantile_with(
        &self,
        q: impl Into<Operand>,
        dim: impl OptionalInt,
        keepdim: bool,
        interpolation: Interpolation,
    ) -> Var {
        quantiles("nanquantile", self, q.into(), dim.to_option(), keepdim, interpolation)
    }
}

/// Checks the arguments; returns `q` as a variable.
#[track_caller]
fn checked(op: &str, x: &Var, q: Operand, dim: Option<isize>) -> Var {
    let dtype = x.dtype();
    assert!(
        matches!(dtype, DType::F32 | DType::F64),
        "{op}: the input has to be of type float32 or float64, not {dtype}"
    );
    let d = shape::dim(op, dim.unwrap_or(0), if dim.is_none() { 0 } else { x.ndim() });
    let empty = if dim.is_none() { x.numel() == 0 } else { x.shape().get(d) == Some(&0) };
    assert!(!empty, "{op}: the input of shape {:?} has no elements to choose from", x.shape());
    let q = match q {
        Operand::Var(q) => q,
        Operand::Scalar(s) => Var::from(Tensor::full_with((), s, dtype)),
    };
    assert!(q.ndim() <= 1, "{op}: q has to be a number or a vector, but has shape {:?}", q.shape());
    assert_eq!(q.dtype(), dtype, "{op}: q has to be of the type of the input");
    let outside = q.to_vec::<f64>().into_iter().find(|q| !(0.0..=1.0).contains(q));
    assert!(outside.is_none(), "{op}: q has to be in the range [0, 1], but is {}", outside.unwrap_or(0.0));
    q
}

#[track_caller]
fn quantiles(
    op: &'static str,
    x: &Var,
    q: Operand,
    dim: Option<isize>,
    keepdim: bool,
    interpolation: Interpolation,
) -> Var {
    let q = checked(op, x, q, dim);
    let lines = match dim {
        Some(dim) if x.ndim() > 0 => x.movedim(&[dim], &[-1]),
        _ => x.flatten(()),
    };
    let sorted = lines.sort(-1).0;
    let list = if q.ndim() == 0 { q.unsqueeze(0) } else { q.clone() };
    let ranks = ranks(&sorted, &list, op == "nanquantile");
    let ranks = match interpolation {
        Interpolation::Lower => ranks.floor(),
        Interpolation::Higher => ranks.ceil(),
        Interpolation::Nearest => ranks.round(),
        Interpolation::Linear | Interpolation::Midpoint => ranks,
    };
    let below = ranks.detach().cast(DType::I64);
    let mut value = sorted.gather(-1, &below);
    if matches!(interpolation, Interpolation::Linear | Interpolation::Midpoint) {
        let weight = match interpolation {
            Interpolation::Linear => &ranks - below.cast(ranks.dtype()),
            _ => ranks.full_like(0.5),
        };
        let above = sorted.gather(-1, &ranks.detach().ceil().cast(DType::I64));
        value = value.lerp(&above, &weight);
    }
    // The quantiles are along the last dimension.
    let value = if q.ndim() == 0 { value.squeeze(-1) } else { value.movedim(&[-1], &[0]) };
    match dim {
        _ if !keepdim || x.ndim() == 0 => value,
        Some(dim) => value.unsqueeze((shape::dim(op, dim, x.ndim()) + q.ndim()) as isize),
        None => {
            let ones: Vec<usize> = q.shape().iter().copied().chain(vec![1; x.ndim()]).collect();
            value.reshape_to(&ones)
        }
    }
}

/// The places of the quantiles in sorted lines, from zero on.
#[track_caller]
fn ranks(sorted: &Var, q: &Var, ignore_nan: bool) -> Var {
    let last = sorted.size(-1) as i64 - 1;
    let nan = sorted.detach().isnan();
    if ignore_nan {
        let numbers = nan.logical_not().sum_keepdim(-1).cast(sorted.dtype());
        let ranks = q * (numbers - 1.0);
        return where_(&ranks.lt(0.0), 0.0, &ranks);
    }
    // NaN is sorted to the end.
    let mut to: shape::Dims = sorted.shape().into();
    *to.last_mut().expect("a line") = q.numel();
    (q * last as f64).expand_to(&to).masked_fill(&nan.narrow(-1, last, 1), last as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_views::check;

    #[test]
    fn gradients() {
        use Interpolation::*;
        let q = Var::from_vec(vec![0.1f64, 0.8], &[2]);
        for seed in [0, 1, 2, 4] {
            for how in [Linear, Lower, Higher, Midpoint, Nearest] {
                check(&[3, 4], seed, |x| {
                    [x.quantile_with(0.35, Some(0), true, how), x.nanquantile_with(&q, None, false, how)]
                });
            }
            // Of the places, too.
            let x = Var::from_vec(crate::test_views::values(6, seed), &[6]);
            check(&[2], 5 * seed, |q| x.quantile_with(q.abs() * 0.6, None, false, Linear));
        }
    }

    /// The shapes and values are PyTorch's.
    #[test]
    fn shapes_and_nan() {
        let x = Var::from_vec(vec![1f64, f64::NAN, 3.0, 4.0, 5.0, 6.0], &[2, 3]);
        let q = Var::from_vec(vec![0.5f64; 4], &[4]);
        assert_eq!(x.quantile_with(&q, Some(1), true, Interpolation::Linear).shape(), [4, 2, 1]);
        assert_eq!(x.quantile_with(&q, None, true, Interpolation::Linear).shape(), [4, 1, 1]);
        assert_eq!(x.quantile(0.5, -1).shape(), [2]);
        let row = |y: Var| y.to_vec::<f64>();
        let y = row(x.quantile(0.5, 1));
        assert!(y[0].is_nan() && y[1] == 5.0);
        assert_eq!(row(x.nanquantile(0.5, 1)), [2.0, 5.0]);
    }

    #[test]
    #[should_panic(expected = "quantile: q has to be in the range [0, 1], but is 1.5")]
    fn outside() {
        Var::from_vec(vec![1f32], &[1]).quantile(1.5, None);
    }
}
