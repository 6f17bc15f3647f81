//! `sum`.

use crate::dtype::{DType, Number};
use crate::kernels::reduce;
use crate::node::record;
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// The sum over dimensions, all if none is given (`torch.sum`). Integers are summed as I64.
    ///
    /// # Panics
    /// If a dimension is out of range or appears twice.
    ///
    /// ```
    /// use tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// assert_eq!(x.sum(&[0], false).to_vec::<f32>(), [4.0, 6.0]);
    /// assert_eq!(x.sum(&[-1], true).shape(), [2, 1]);
    /// ```
    #[track_caller]
    pub fn sum(&self, dims: &[isize], keepdim: bool) -> Var {
        let dims = shape::dims("sum", dims, self.ndim());
        let value = match self.dtype() {
            DType::Bool | DType::U8 | DType::I64 => sum_value::<i64>(&self.tensor().cast(DType::I64), &dims),
            DType::F64 => sum_value::<f64>(&self.tensor(), &dims),
            DType::F32 => sum_value::<f32>(&self.tensor(), &dims),
            half => sum_value::<f32>(&self.tensor().cast(DType::F32), &dims).cast(half),
        };
        let value = value.reshape(&reduce::reduced_shape(self.shape(), &dims, keepdim));
        let shape = self.shape().to_vec();
        record("sum", [self], value, move |c| {
            let kept: Vec<isize> =
                reduce::reduced_shape(&shape, &dims, true).iter().map(|&n| n as isize).collect();
            [Some(c.grad().reshape(&kept).expand_to(&shape))]
        })
    }

    /// The sum of all elements, without dimensions.
    #[track_caller]
    pub fn sum_all(&self) -> Var {
        self.sum(&[], false)
    }
}

fn sum_value<T: Number>(t: &Tensor, dims: &[usize]) -> Tensor {
    reduce::rows::<T, T>(t, dims, |row| sum_slice(row))
}

/// Sums in blocks, pairwise above them: the error grows with the logarithm of the length.
pub(crate) fn sum_slice<T: Number>(x: &[T]) -> T {
    if x.len() <= 512 {
        return sum_block(x);
    }
    let half = (x.len() / 2).next_multiple_of(512);
    let half = if half >= x.len() { x.len() / 2 } else { half };
    let (a, b) = x.split_at(half);
    sum_slice(a) + sum_slice(b)
}

crate::multiversion! {
    fn sum_block<T: Number>(x: &[T]) -> T {
        let mut lanes = [T::ZERO; 16];
        let chunks = x.chunks_exact(16);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (l, &v) in lanes.iter_mut().zip(chunk) {
                *l += v;
            }
        }
        let mut sum = T::ZERO;
        for l in lanes {
            sum += l;
        }
        for &v in rest {
            sum += v;
        }
        sum
    }
}
