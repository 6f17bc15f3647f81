//! `masked_fill`, `masked_select`, `nonzero`.

use super::pick;
use crate::dtype::{DType, Element};
use crate::kernels::strided;
use crate::node::{RecordOptions, record, record_with};
use crate::promote::Operand;
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// A copy with one value where the mask is true (`torch.masked_fill`). Tensor and mask are broadcast.
    ///
    /// # Panics
    /// If the mask is not of booleans, the shapes do not broadcast, or the value is a tensor with dimensions.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0], &[2]);
    /// let mask = Var::from_vec(vec![true, false], &[2]);
    /// assert_eq!(x.masked_fill(&mask, -1.0).to_vec::<f32>(), [-1.0, 2.0]);
    /// ```
    #[track_caller]
    pub fn masked_fill(&self, mask: &Var, value: impl Into<Operand>) -> Var {
        self.masked_fill_with(mask, value.into())
    }

    #[track_caller]
    fn masked_fill_with(&self, mask: &Var, value: Operand) -> Var {
        let shape = self.check_mask("masked_fill", mask);
        assert!(
            value.shape().is_empty(),
            "masked_fill: only supports a 0-dimensional value tensor, but got shape {:?}",
            value.shape()
        );
        let (x, m) = (self.tensor(), mask.tensor());
        let fill = value.tensor(self.dtype());
        let filled = crate::dispatch!(all: self.dtype(), "masked_fill", T => {
            let v = fill.item::<T>();
            strided::zip::<T, bool, T>(&shape, &x, &m, |x, m| if m { v } else { x })
        });
        let kept = Var::from(m);
        match &value {
            Operand::Scalar(_) => {
                record_with("masked_fill", [self], filled, RecordOptions::new().pointwise(), move |c| {
                    [Some(c.grad().masked_fill(&kept, 0.0))]
                })
            }
            Operand::Var(v) => record("masked_fill", [self, v], filled, move |c| {
                [
                    c.wants(0).then(|| c.grad().masked_fill(&kept, 0.0)),
                    c.wants(1).then(|| c.grad().masked_fill(&opposite(&kept), 0.0).sum_all()),
                ]
            }),
        }
    }

    /// The elements where the mask is true, in row-major order, as a vector (`torch.masked_select`). Tensor and mask
    /// are broadcast.
    ///
    /// # Panics
    /// If the mask is not of booleans, or the shapes do not broadcast.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0], &[3]);
    /// let mask = Var::from_vec(vec![true, false, true], &[3]);
    /// assert_eq!(x.masked_select(&mask).to_vec::<f32>(), [1.0, 3.0]);
    /// ```
    #[track_caller]
    pub fn masked_select(&self, mask: &Var) -> Var {
        let shape = self.check_mask("masked_select", mask);
        let mask = mask.tensor().expand(&shape).to_vec::<bool>();
        let chosen: Vec<usize> = (0..mask.len()).filter(|&i| mask[i]).collect();
        pick("masked_select", &self.expand_to(&shape).flatten(()), 0, chosen.into())
    }

    /// The positions of all elements that are not zero, one row each, in row-major order: `[count, ndim]` as I64
    /// (`torch.nonzero`). Has no derivative.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![0f32, 2.0, 0.0, 4.0], &[2, 2]);
    /// assert_eq!(x.nonzero().to_vec::<i64>(), [0, 1, 1, 1]);
    /// ```
    pub fn nonzero(&self) -> Var {
        let n = self.ndim();
        let columns = nonzero(&self.tensor());
        let count = columns.first().map_or_else(|| usize::from(self.item() != 0.0), Vec::len);
        let mut rows = vec![0i64; count * n];
        for (d, column) in columns.iter().enumerate() {
            for (i, &v) in column.iter().enumerate() {
                rows[i * n + d] = v;
            }
        }
        Var::from_vec(rows, &[count, n])
    }

    #[track_caller]
    fn check_mask(&self, op: &str, mask: &Var) -> shape::Dims {
        assert_eq!(mask.dtype(), DType::Bool, "{op}: expects a mask of type bool, not {}", mask.dtype());
        shape::broadcast_for(op, self.shape(), mask.shape())
    }
}

fn opposite(mask: &Var) -> Var {
    Var::from(strided::map::<bool, bool>(&mask.tensor(), |m| !m))
}

/// For each dimension, the positions of the elements that are not zero.
pub(crate) fn nonzero(t: &Tensor) -> Vec<Vec<i64>> {
    fn flat<T: Element>(t: &Tensor) -> Vec<usize> {
        let t = t.contiguous();
        let values = t.as_slice::<T>().expect("contiguous");
        (0..values.len()).filter(|&i| values[i] != T::default()).collect()
    }
    let mut rest = crate::dispatch!(all: t.dtype(), "nonzero", T => flat::<T>(t));
    let mut columns = vec![Vec::new(); t.ndim()];
    for (column, &n) in columns.iter_mut().zip(t.shape()).rev() {
        *column = rest.iter().map(|r| (r % n) as i64).collect();
        rest.iter_mut().for_each(|r| *r /= n);
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_views::{check, check2};

    fn mask(shape: &[usize]) -> Var {
        let n = shape::numel(shape);
        Var::from_vec((0..n).map(|i| i * i % 3 == 1).collect(), shape)
    }

    #[test]
    fn gradients() {
        for seed in 0..10 {
            check(&[2, 3], seed, |x| x.masked_fill(&mask(&[3]), 4.0));
            check(&[3], seed, |x| x.masked_fill(&mask(&[2, 3]), -1));
            check2([&[2, 3], &[]], seed, |x, v| x.masked_fill(&mask(&[2, 1]), v));
            check(&[2, 1, 2], seed, |x| x.masked_select(&mask(&[3, 1])));
        }
    }

    #[test]
    fn a_number_does_not_change_the_type() {
        let x = Var::from_vec(vec![1i64, 2], &[2]);
        assert_eq!(x.masked_fill(&mask(&[2]), 7).to_vec::<i64>(), [1, 7]);
        assert_eq!(Var::from(0.0).nonzero().shape(), [0, 0]);
    }

    #[test]
    #[should_panic(expected = "masked_fill: only supports a 0-dimensional value tensor, but got shape [1]")]
    fn a_value_with_dimensions() {
        Var::from_vec(vec![1f32], &[1]).masked_fill(&mask(&[1]), Var::from_vec(vec![1f32], &[1]));
    }
}
