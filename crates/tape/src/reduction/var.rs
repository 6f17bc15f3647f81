//! `var`, `std`, and both with the mean.

use super::{Reduced, half_as_f32};
use crate::dtype::{DType, Element, Float};
use crate::grad_mode::is_grad_enabled;
use crate::int_list::IntList;
use crate::kernels::{channels, reduce, strided};
use crate::node::{record, record_with_output};
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// The variance over dimensions, all if none is given: the sum of squared distances from the mean, divided by the
    /// count less one (`torch.var`). As accurate far from zero as near
    /// it, for the elements as rounded to their type.
    ///
    /// # Panics
    /// If the elements are not floating point, or a dimension is out of range or appears twice.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 3.0, 2.0, 6.0], &[2, 2]);
    /// assert_eq!(x.var(1).to_vec::<f32>(), [2.0, 8.0]);
    /// ```
    #[track_caller]
    pub fn var(&self, dims: impl IntList) -> Var {
        self.var_with(dims, 1.0, false)
    }

    /// [`Var::var`] with another `correction`, and with the reduced dimensions kept with size one if `keepdim`.
    #[track_caller]
    pub fn var_with(&self, dims: impl IntList, correction: f64, keepdim: bool) -> Var {
        let dims = &dims.to_isizes();
        Moments::new("var", self, dims, correction, keepdim).var()
    }

    /// The standard deviation over dimensions: the square root of [`Var::var`] (`torch.std`). At zero its gradient is
    /// zero.
    ///
    /// # Panics
    /// Same as [`Var::var`].
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 3.0, 5.0], &[3]);
    /// assert_eq!(x.std(()).item(), 2.0);
    /// ```
    #[track_caller]
    pub fn std(&self, dims: impl IntList) -> Var {
        self.std_with(dims, 1.0, false)
    }

    /// [`Var::std`] with another `correction`, and with the reduced dimensions kept with size one if `keepdim`.
    #[track_caller]
    pub fn std_with(&self, dims: impl IntList, correction: f64, keepdim: bool) -> Var {
        let dims = &dims.to_isizes();
        Moments::new("std", self, dims, correction, keepdim).std()
    }

    /// [`Var::var`] and [`Var::mean`] (`torch.var_mean`).
    ///
    /// # Panics
    /// Same as [`Var::var`].
    #[track_caller]
    pub fn var_mean(&self, dims: impl IntList) -> (Var, Var) {
        self.var_mean_with(dims, 1.0, false)
    }

    /// [`Var::var_mean`] with another `correction`, and with the reduced dimensions kept with size one if `keepdim`.
    #[track_caller]
    pub fn var_mean_with(&self, dims: impl IntList, correction: f64, keepdim: bool) -> (Var, Var) {
        let dims = &dims.to_isizes();
        let m = Moments::new("var_mean", self, dims, correction, keepdim);
        (m.var(), m.mean())
    }

    /// [`Var::std`] and [`Var::mean`] (`torch.std_mean`).
    ///
    /// # Panics
    /// Same as [`Var::var`].
    #[track_caller]
    pub fn std_mean(&self, dims: impl IntList) -> (Var, Var) {
        self.std_mean_with(dims, 1.0, false)
    }

    /// [`Var::std_mean`] with another `correction`, and with the reduced dimensions kept with size one if `keepdim`.
    #[track_caller]
    pub fn std_mean_with(&self, dims: impl IntList, correction: f64, keepdim: bool) -> (Var, Var) {
        let dims = &dims.to_isizes();
        let m = Moments::new("std_mean", self, dims, correction, keepdim);
        (m.std(), m.mean())
    }
}

/// Mean and variance of a variable, computed once.
struct Moments<'a> {
    op: &'static str,
    x: &'a Var,
    r: Reduced,
    /// In F64: far from zero, rounding the mean to the type of `x` would be off by as much as the elements differ.
    mean: Tensor,
    variance: Tensor,
    /// The count less the correction.
    freedom: f64,
    /// No dimensions were given, or there are none.
    all: bool,
}

impl Moments<'_> {
    #[track_caller]
    fn new<'a>(op: &'static str, x: &'a Var, dims: &[isize], correction: f64, keepdim: bool) -> Moments<'a> {
        assert!(x.dtype().is_float(), "{op}: only supports floating point types, not {}", x.dtype());
        let r = Reduced::new(shape::dims(op, dims, x.ndim()), x.shape(), keepdim);
        let n = r.count() as f64;
        let freedom = n - correction;
        let t = as_float(&x.tensor());
        let [mean, variance] = crate::dispatch!(float: t.dtype(), op, T => {
            moments::<T>(&t, &r.dims, n, freedom.max(0.0))
        });
        let all = dims.is_empty() || x.ndim() == 0;
        Moments { op, x, mean, variance: variance.cast(x.dtype()), r, freedom, all }
    }

    /// The derivative of the variance, times `g`.
    fn rule(&self) -> impl Fn(&Var) -> Var + Send + Sync + use<> {
        let (x, mean, r) = (self.x.saved(), self.r.with_ones(&self.mean), self.r.clone());
        let (freedom, all) = (self.freedom, self.all);
        move |g| {
            let g = r.restore(g);
            if all && freedom <= 0.0 {
                // As in PyTorch: the divisor is zero, so the gradient is NaN at the mean and infinite elsewhere.
                let at_mean = x.detach().eq(Var::from(mean.cast(x.dtype())));
                return g
                    .mul(Var::from(f64::INFINITY).where_(&at_mean.logical_not(), f64::NAN).cast(x.dtype()));
            }
            let g = g.mul(2.0 / freedom);
            if is_grad_enabled() {
                // First shifted near zero, where the mean is accurate.
                let near = x.sub(Var::from(mean.cast(x.dtype())));
                return near.sub(near.mean_keepdim(&r.list())).mul(&g);
            }
            let (x, g) = (as_float(&x.tensor()), as_float(&g.tensor()));
            Var::from(crate::dispatch!(float: x.dtype(), "var", T => {
                let rounded = mean.cast(T::DTYPE);
                let off = strided::map::<f64, T>(&mean, |m| T::from_f64(m - T::from_f64(m).to_f64()));
                strided::zip4::<T>(x.shape(), [&x, &rounded, &off, &g], |x, m, off, g| (x - m - off) * g)
            }))
        }
    }

    #[track_caller]
    fn var(&self) -> Var {
        let rule = self.rule();
        record(self.op, [self.x], self.r.finish(self.variance.clone()), move |c| [Some(rule(c.grad()))])
    }

    #[track_caller]
    fn std(&self) -> Var {
        let rule = self.rule();
        let root = half_as_f32(
            self.variance.clone(),
            |t| crate::dispatch!(float: t.dtype(), "std", T => strided::map::<T, T>(&t, |v| v.sqrt())),
        );
        record_with_output(self.op, [self.x], self.r.finish(root.cast(self.x.dtype())), move |c| {
            let std = c.output();
            let g = c.grad().div(std.mul(2.0)).masked_fill(&std.detach().eq(0.0), 0.0);
            [Some(rule(&g))]
        })
    }

    #[track_caller]
    fn mean(&self) -> Var {
        let (r, n) = (self.r.clone(), self.r.count().max(1) as f64);
        record(self.op, [self.x], self.r.finish(self.mean.cast(self.x.dtype())), move |c| {
            [Some(r.spread(&c.grad().div(n)))]
        })
    }
}

fn as_float(t: &Tensor) -> Tensor {
    half_as_f32(t.clone(), |t| t)
}

/// Means in F64, and the sums of squared distances from them divided by `freedom`.
fn moments<T: Float>(t: &Tensor, dims: &[usize], n: f64, freedom: f64) -> [Tensor; 2] {
    if t.numel() == 0 {
        let shape = reduce::reduced_shape(t.shape(), dims, false);
        return [DType::F64, T::DTYPE].map(|dtype| Tensor::full_with(&shape, f64::NAN, dtype));
    }
    let Some((layout, shape, strides)) = reduce::channels(t, dims) else {
        let kept = (0..t.ndim()).filter(|d| !dims.contains(d));
        let order: Vec<isize> = kept.chain(dims.iter().copied()).map(|d| d as isize).collect();
        let trailing: Vec<usize> = (t.ndim() - dims.len()..t.ndim()).collect();
        return moments::<T>(&t.permute(&order).contiguous(), &trailing, n, freedom);
    };
    let [mut mean, mut variance] =
        [DType::F64, T::DTYPE].map(|dtype| Tensor::uninit_strided(&shape, strides.clone(), dtype));
    let (means, variances) = channels::moments(&t.data::<T>()[..t.numel()], layout);
    mean.data_mut().copy_from_slice(&means);
    for (to, v) in variance.data_mut::<T>().iter_mut().zip(variances) {
        *to = T::from_f64(v * (n / freedom));
    }
    [mean, variance]
}

#[cfg(test)]
mod tests {
    use crate::test_views::check;
    use crate::{DType, Tensor, Var};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn gradients(seed in 0u64..1000, dims in proptest::sample::subsequence(vec![0isize, 1], 0..3), correction in -1i8..2) {
            let c = f64::from(correction);
            check(&[2, 3], seed, |x| {
                let (var, mean) = x.var_mean_with(&dims, c, true);
                [var, mean]
            });
            // Layout 3 repeats the first dimension: its standard deviation is zero, a corner.
            let seed = if seed % 5 == 3 { seed + 1 } else { seed };
            check(&[3, 2], seed, |x| x.std_with(&dims, c, false));
        }
    }

    #[test]
    fn a_first_element_far_from_all_others() {
        let values = |x: f32| (0..10_000).map(|i| if i == 0 { x } else { 1.0 + i as f32 / 1e4 }).collect();
        let x = Var::from_vec(values(1e6), &[10_000]);
        let [(var, mean), (exact_var, exact_mean)] =
            [&x, &x.cast(DType::F64)].map(|x| x.var_mean(())).map(|(v, m)| (v.item(), m.item()));
        assert!((var / exact_var - 1.0).abs() < 1e-5 && (mean / exact_mean - 1.0).abs() < 1e-6);
        // The mean is right even where differences overflow.
        let x = Var::from_vec([vec![3e38f32], vec![0.0; 98], vec![-3e38]].concat(), &[100]);
        let (var, mean) = x.var_mean(());
        assert_eq!((var.item(), mean.item()), (f64::INFINITY, 0.0));
        let (var, mean) = Var::from_vec(vec![3e38f32, -3e38], &[2]).var_mean(());
        assert_eq!((var.item(), mean.item()), (f64::INFINITY, 0.0));
    }

    /// The values are PyTorch's.
    #[test]
    fn edges() {
        let gradient = |values: &[f64], f: &dyn Fn(&Var) -> Var| {
            let x = Var::parameter(Tensor::from_slice(values, &[values.len()]));
            f(&x).backward();
            x.grad().unwrap().to_vec::<f64>()
        };
        assert_eq!(gradient(&[1.0, 1.0], &|x| x.std(())), [0.0, 0.0]);
        assert!(gradient(&[1.0], &|x| x.var(()))[0].is_nan());
        assert!(gradient(&[1.0], &|x| x.std(0))[0].is_nan());
        assert_eq!(gradient(&[1.0, 2.0], &|x| x.var_with((), 3.0, false)), [f64::INFINITY; 2]);
        assert_eq!(gradient(&[1.0, 2.0], &|x| x.var_with(0, 3.0, false)), [1.0, -1.0]);
        assert!(Var::from(Tensor::zeros_with(&[0], DType::F32)).var(()).item().is_nan());
    }

    #[test]
    fn far_from_zero() {
        let x = Var::from_vec((0..1000).map(|i| 1e5 + (i % 7) as f32).collect(), &[1000]);
        let exact = x.cast(DType::F64).var(()).item();
        assert!((x.var(()).item() / exact - 1.0).abs() < 1e-4);
    }

    #[test]
    #[should_panic(expected = "std: only supports floating point types, not int64")]
    fn integers() {
        Var::from(1i64).std(());
    }
}
