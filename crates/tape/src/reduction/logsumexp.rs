//! `logsumexp`.

use super::{Reduced, extreme, half_as_f32};
use crate::dtype::Float;
use crate::int_list::IntList;
use crate::kernels::{reduce, strided};
use crate::node::record_with_output;
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// `log(sum(exp(x)))` over dimensions, all if none is given, without overflow (`torch.logsumexp`). Integers are
    /// computed as F32. As accurate as [`Var::sum`], whose relative error is an absolute one of the logarithm.
    ///
    /// # Panics
    /// If a dimension is out of range or appears twice.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1000f64, 1000.0], &[2]);
    /// assert_eq!(x.logsumexp(0).item(), 1000.0 + 2f64.ln());
    /// ```
    #[track_caller]
    pub fn logsumexp(&self, dims: impl IntList) -> Var {
        self.logsumexp_with(dims, false)
    }

    /// [`Var::logsumexp`], where the reduced dimensions stay with size one if `keepdim`.
    #[track_caller]
    pub fn logsumexp_with(&self, dims: impl IntList, keepdim: bool) -> Var {
        let dims = &dims.to_isizes();
        let x = self.to_float();
        let r = Reduced::new(shape::dims("logsumexp", dims, self.ndim()), self.shape(), keepdim);
        let dtype = x.dtype();
        let value = half_as_f32(
            x.tensor(),
            |t| crate::dispatch!(float: t.dtype(), "logsumexp", T => values::<T>(&t, &r.dims)),
        );
        let saved = x.saved();
        record_with_output("logsumexp", [&x], r.finish(value.cast(dtype)), move |c| {
            let share = saved.sub(r.restore(&c.output())).exp();
            [Some(r.restore(c.grad()).mul(&share))]
        })
    }
}

fn values<T: Float>(t: &Tensor, dims: &[usize]) -> Tensor {
    if dims.iter().any(|&d| t.shape()[d] == 0) {
        let sums = reduce::fold(t, dims, T::ZERO, |a, _: T| a, |a, _| a);
        return strided::map::<T, T>(&sums, |_| -T::INFINITY);
    }
    // Infinities are not subtracted: they would make NaN.
    let shift =
        strided::map::<T, T>(&extreme::largest(t, dims), |m| if m.is_infinite() { T::ZERO } else { m });
    let sums = reduce::fold_with(t, dims, &shift, T::ZERO, |a, x: T, m: T| a + (x - m).exp(), |a, b| a + b);
    strided::zip::<T, T, T>(sums.shape(), &sums, &shift, |s, m| s.ln() + m)
}

#[cfg(test)]
mod tests {
    use crate::test_views::check;
    use crate::{DType, Tensor, Var};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn gradients(seed in 0u64..1000, dims in proptest::sample::subsequence(vec![0isize, 1, -1], 0..4), keepdim: bool) {
            check(&[2, 3, 2], seed, |x| x.logsumexp_with(&dims, keepdim));
        }
    }

    #[test]
    fn infinities() {
        let inf = f64::INFINITY;
        let of = |v: &[f64]| Var::from_vec(v.to_vec(), &[v.len()]).logsumexp(0).item();
        assert_eq!((of(&[-inf, -inf]), of(&[inf, 1.0]), of(&[-inf, 2.0])), (-inf, inf, 2.0));
        assert!(of(&[f64::NAN, 1.0]).is_nan());
        let nothing = Var::from(Tensor::zeros_with(&[2, 0], DType::F32));
        assert_eq!(nothing.logsumexp(1).to_vec::<f64>(), [-inf, -inf]);
        assert_eq!(Var::from_vec(vec![0i64, 0], &[2]).logsumexp(()).dtype(), DType::F32);
    }
}
