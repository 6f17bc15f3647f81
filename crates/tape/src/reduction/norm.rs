//! `norm`, `vector_norm`.

use super::{Reduced, half_as_f32};
use crate::dtype::Float;
use crate::int_list::IntList;
use crate::kernels::{reduce, strided};
use crate::node::{record, record_with_output};
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// The `p`-norm over dimensions, all if none is given: `sum(|x|^p)^(1/p)`; for infinity the largest magnitude, for
    /// minus infinity the smallest, for 0 the number of elements that are not zero (`torch.norm`,
    /// `torch.linalg.vector_norm`; the Frobenius norm is `p = 2`). At zero its gradient is zero; that count has none.
    /// The relative error is that of [`Var::sum`], divided by `p`. Squares are not scaled: beyond 1e19 in F32 they overflow.
    ///
    /// # Panics
    /// If the elements are not floating point; a dimension is out of range or appears twice; or one is of size zero
    /// and `p` is negative or infinite.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![3f32, -4.0], &[2]);
    /// assert_eq!(x.norm().item(), 5.0);
    /// assert_eq!(x.norm_with(f64::INFINITY, 0, true).to_vec::<f32>(), [4.0]);
    /// ```
    #[track_caller]
    pub fn norm_with(&self, p: f64, dims: impl IntList, keepdim: bool) -> Var {
        self.norm_named("norm", p, &dims.to_isizes(), keepdim)
    }

    /// The 2-norm of all elements, without dimensions (`torch.norm`).
    ///
    /// # Panics
    /// If the elements are not floating point.
    #[track_caller]
    pub fn norm(&self) -> Var {
        self.norm_with(2.0, (), false)
    }

    #[track_caller]
    fn norm_named(&self, op: &'static str, p: f64, dims: &[isize], keepdim: bool) -> Var {
        assert!(self.dtype().is_float(), "{op}: expected a floating point tensor, got {}", self.dtype());
        let r = Reduced::new(shape::dims(op, dims, self.ndim()), self.shape(), keepdim);
        if p < 0.0 || p.is_infinite() {
            r.check_not_empty(op);
        }
        let dtype = self.dtype();
        let value = half_as_f32(
            self.tensor(),
            |t| crate::dispatch!(float: t.dtype(), op, T => values::<T>(&t, &r.dims, p)),
        );
        let value = r.finish(value.cast(dtype));
        if p == 0.0 {
            // A count: piecewise constant.
            return record(op, [self], value, |_| [None]);
        }
        let saved = self.saved();
        record_with_output(op, [self], value, move |c| {
            let (norm, g) = (r.restore(&c.output()), r.restore(c.grad()));
            [Some(gradient(&saved, &norm, &g, p, &r))]
        })
    }

    /// [`Var::norm`] over dimensions (`torch.linalg.vector_norm`).
    ///
    /// # Panics
    /// Same as [`Var::norm_with`].
    #[track_caller]
    pub fn vector_norm(&self, dims: impl IntList) -> Var {
        self.vector_norm_with(2.0, dims, false)
    }

    /// [`Var::norm_with`] under the name of `torch.linalg.vector_norm`.
    ///
    /// # Panics
    /// Same as [`Var::norm_with`].
    #[track_caller]
    pub fn vector_norm_with(&self, ord: f64, dims: impl IntList, keepdim: bool) -> Var {
        self.norm_named("vector_norm", ord, &dims.to_isizes(), keepdim)
    }
}

fn values<T: Float>(t: &Tensor, dims: &[usize], p: f64) -> Tensor {
    let sum = |a: T, b: T| a + b;
    let max = |a: T, b: T| a.maximum(b);
    let min = |a: T, b: T| a.minimum(b);
    if p == 0.0 {
        reduce::fold(t, dims, T::ZERO, |a, x: T| if x == T::ZERO { a } else { a + T::ONE }, sum)
    } else if p == 1.0 {
        reduce::fold(t, dims, T::ZERO, |a, x: T| a + x.abs(), sum)
    } else if p == 2.0 {
        strided::map_owned::<T>(reduce::fold(t, dims, T::ZERO, |a, x: T| a + x * x, sum), |s| s.sqrt())
    } else if p == f64::INFINITY {
        reduce::fold(t, dims, T::ZERO, |a, x: T| max(a, x.abs()), max)
    } else if p == f64::NEG_INFINITY {
        reduce::fold(t, dims, T::INFINITY, |a, x: T| min(a, x.abs()), min)
    } else {
        let (e, root) = (T::c(p), T::c(1.0 / p));
        let sums = reduce::fold(t, dims, T::ZERO, |a, x: T| a + x.abs().powf(e), sum);
        strided::map_owned::<T>(sums, |s| s.powf(root))
    }
}

/// PyTorch's rules for the edge cases: zero at zero, and an equal share for each of several extreme elements.
fn gradient(x: &Var, norm: &Var, g: &Var, p: f64, r: &Reduced) -> Var {
    if p == 1.0 {
        return x.sign().mul(g);
    }
    if p.is_infinite() {
        let size = x.abs();
        let chosen = size.eq(norm).logical_or(&size.isnan()).cast(x.dtype());
        return x.sign().mul(g.div(chosen.sum_keepdim(&r.list())).mul(&chosen));
    }
    let at_zero = norm.detach().eq(0.0);
    let scale = |power: f64| g.div(norm.powf(power)).masked_fill(&at_zero, 0.0);
    if p == 2.0 {
        g.mul(x.div(norm).masked_fill(&at_zero, 0.0))
    } else if p < 1.0 {
        let part = x.sign().mul(x.abs().powf(p - 1.0)).masked_fill(&x.detach().eq(0.0), 0.0);
        part.mul(g).mul(norm.powf(1.0 - p))
    } else if p < 2.0 {
        x.sign().mul(x.abs().powf(p - 1.0)).mul(scale(p - 1.0))
    } else {
        x.mul(x.abs().powf(p - 2.0)).mul(scale(p - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use crate::test_views::check;
    use crate::{DType, Tensor, Var};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn gradients(
            seed in 0u64..1000,
            dims in proptest::sample::subsequence(vec![0isize, 1], 0..3),
            p in proptest::sample::select(vec![1.0, 1.5, 2.0, 3.0, 4.5, 0.5, -1.0, f64::INFINITY, f64::NEG_INFINITY]),
        ) {
            // Layout 3 repeats elements: where the infinite norms have no derivative.
            let seed = if seed % 5 == 3 { seed + 1 } else { seed };
            check(&[2, 3], seed, |x| x.norm_with(p, &dims, true));
        }
    }

    /// The values are PyTorch's.
    #[test]
    fn at_zero() {
        for p in [0.5, 1.0, 1.5, 2.0, 3.0, f64::INFINITY, f64::NEG_INFINITY, -1.0] {
            let x = Var::parameter(Tensor::zeros_with(&[2], DType::F64));
            x.norm_with(p, (), false).backward();
            assert_eq!(x.grad().unwrap().to_vec::<f64>(), [0.0, 0.0], "p = {p}");
        }
        let x = Var::parameter(Tensor::from_vec(vec![0f64, 2.0, -3.0], &[3]));
        assert_eq!(x.norm_with(0.0, (), false).item(), 2.0);
        x.norm_with(f64::INFINITY, (), false).backward();
        assert_eq!(x.grad().unwrap().to_vec::<f64>(), [0.0, 0.0, -1.0]);
        assert_eq!(Var::from(Tensor::zeros_with(&[0], DType::F32)).norm().item(), 0.0);
    }

    #[test]
    #[should_panic(expected = "norm: expected reduction dim 1 of shape [2, 0] to have non-zero size")]
    fn no_largest_of_nothing() {
        Var::from(Tensor::zeros_with(&[2, 0], DType::F32)).norm_with(f64::INFINITY, 1, false);
    }
}
