//! `cummax`, `cummin`, `logcumsumexp`.

use super::{as_number, half_as_f32, record_chosen};
use crate::dtype::{Float, Number};
use crate::int_list::Int;
use crate::kernels::scan;
use crate::node::{record, record_with_output};
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// The largest of all elements up to each one, along a dimension, and where the last of them stands, as I64
    /// (`torch.cummax`). From a NaN on it is NaN. The gradient goes to that one element.
    ///
    /// # Panics
    /// If the dimension is out of range.
    ///
    /// ```
    /// let (values, indices) = tapegrad_tape::Var::from_vec(vec![1f32, 3.0, 2.0], &[3]).cummax(0);
    /// assert_eq!((values.to_vec::<f32>(), indices.to_vec::<i64>()), (vec![1.0, 3.0, 3.0], vec![0, 1, 1]));
    /// ```
    #[track_caller]
    pub fn cummax(&self, dim: impl Int) -> (Var, Var) {
        extremes("cummax", self, dim.to_isize(), true)
    }

    /// The smallest of all elements up to each one, along a dimension, and where the last of them stands, as I64
    /// (`torch.cummin`). From a NaN on it is NaN. The gradient goes to that one element.
    ///
    /// # Panics
    /// If the dimension is out of range.
    ///
    /// ```
    /// let (values, indices) = tapegrad_tape::Var::from_vec(vec![2f32, 1.0, 3.0], &[3]).cummin(0);
    /// assert_eq!((values.to_vec::<f32>(), indices.to_vec::<i64>()), (vec![2.0, 1.0, 1.0], vec![0, 1, 1]));
    /// ```
    #[track_caller]
    pub fn cummin(&self, dim: impl Int) -> (Var, Var) {
        extremes("cummin", self, dim.to_isize(), false)
    }

    /// `log(sum(exp(x)))` of all elements up to each one, along a dimension, without overflow (`torch.logcumsumexp`).
    /// Integers are computed as F32.
    ///
    /// # Panics
    /// If the dimension is out of range.
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![1000f64, 1000.0], &[2]);
    /// assert_eq!(x.logcumsumexp(0).to_vec::<f64>(), [1000.0, 1000.0 + 2f64.ln()]);
    /// ```
    #[track_caller]
    pub fn logcumsumexp(&self, dim: impl Int) -> Var {
        self.logcumsumexp_along(dim.to_isize())
    }

    #[track_caller]
    fn logcumsumexp_along(&self, dim: isize) -> Var {
        let d = shape::dim("logcumsumexp", dim, self.ndim());
        let x = self.to_float();
        let (t, dtype) = (x.tensor(), x.dtype());
        if t.ndim() == 0 {
            return record("logcumsumexp", [&x], t, |c| [Some(c.grad().clone())]);
        }
        let value = half_as_f32(t, |t| {
            crate::dispatch!(float: t.dtype(), "logcumsumexp", T => {
                scan::scan::<T, T, T>(&t, d, false, T::ZERO, |a, x, i| if i == 0 { x } else { log_add(a, x) }, |a| a)
            })
        });
        let saved = x.saved();
        record_with_output("logcumsumexp", [&x], value.cast(dtype), move |c| {
            [Some(weighted(&saved, &c.output(), c.grad(), d, false))]
        })
    }
}

/// `ln(e^a + e^b)`
#[inline(always)]
fn log_add<T: Float>(a: T, b: T) -> T {
    if a == b && a.is_infinite() {
        return a;
    }
    a.maximum(b) + (-(a - b).abs()).exp().ln_1p()
}

#[track_caller]
fn extremes(op: &'static str, x: &Var, dim: isize, largest: bool) -> (Var, Var) {
    let d = shape::dim(op, dim, x.ndim());
    if x.ndim() == 0 {
        let zero = Var::from(0i64);
        return (record_chosen(op, x, 0, x.tensor(), &zero), zero);
    }
    let t = as_number(&x.tensor());
    let [values, indices] = crate::dispatch!(number: t.dtype(), op, T => {
        if largest { running::<T>(&t, d, |a, x| x >= a) } else { running::<T>(&t, d, |a, x| x <= a) }
    });
    let indices = Var::from(indices);
    (record_chosen(op, x, d, values.cast(x.dtype()), &indices), indices)
}

/// The last of the best elements up to each one, and its position.
fn running<T: Number>(t: &Tensor, d: usize, better: impl Fn(T, T) -> bool + Sync) -> [Tensor; 2] {
    let takes = |a: T, x: T, i: usize| i == 0 || x.is_nan() || (!a.is_nan() && better(a, x));
    let values = scan::scan(t, d, false, T::ZERO, |a, x: T, i| if takes(a, x, i) { x } else { a }, |a| a);
    let start = (T::ZERO, 0i64);
    let step = |a: (T, i64), x: T, i: usize| if takes(a.0, x, i) { (x, i as i64) } else { a };
    [values, scan::scan(t, d, false, start, step, |a| a.1)]
}

/// Sums of `v` weighted by `e^(x[i] - y[j])` for all `i <= j` along a dimension, where `y` is `logcumsumexp(x)`: for
/// each `i` over `j`, or with `forward` for each `j` over `i`. Each is the other's derivative rule.
#[track_caller]
fn weighted(x: &Var, y: &Var, v: &Var, d: usize, forward: bool) -> Var {
    let dtype = x.dtype();
    let value = half_as_f32(x.tensor(), |t| {
        let (y, v) = (y.tensor().cast(t.dtype()), v.tensor().cast(t.dtype()));
        crate::dispatch!(float: t.dtype(), "logcumsumexp", T => weighted_sums::<T>(&t, &y, &v, d, forward))
    });
    let (sx, sy, sv) = (x.saved(), y.saved(), v.saved());
    record_with_output("logcumsumexp_backward", [x, y, v], value.cast(dtype), move |c| {
        let g = c.grad();
        let other = weighted(&sx, &sy, g, d, !forward);
        if forward {
            [Some(&sv * &other), Some(-(g * c.output())), Some(other)]
        } else {
            [Some(g * c.output()), Some(-(&sv * &other)), Some(other)]
        }
    })
}

/// No factor is above one: `y` does not fall, and no `x` is above its `y`.
fn weighted_sums<T: Float>(x: &Tensor, y: &Tensor, v: &Tensor, d: usize, forward: bool) -> Tensor {
    let factor = |low: T, high: T| if low == high { T::ONE } else { (low - high).exp() };
    let line = |t: &Tensor| scan::to_last(t, d).contiguous();
    let (y, v) = (line(y), line(v));
    let (y, v) = (y.as_slice::<T>().expect("contiguous"), v.as_slice::<T>().expect("contiguous"));
    let n = x.shape()[d];
    scan::rows::<T, T>(x, d, n, &|r, x, out| {
        let (y, v) = (&y[r * n..][..n], &v[r * n..][..n]);
        let mut sum = T::ZERO;
        if forward {
            for j in 0..n {
                let carried = if j == 0 { T::ZERO } else { sum * factor(y[j - 1], y[j]) };
                sum = carried + v[j] * (x[j] - y[j]).exp();
                out[j] = sum;
            }
        } else {
            for i in (0..n).rev() {
                let carried = if i + 1 == n { T::ZERO } else { sum * factor(y[i], y[i + 1]) };
                sum = carried + v[i];
                out[i] = sum * (x[i] - y[i]).exp();
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::test_views::check;
    use crate::{DType, Tensor, Var};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn gradients(seed in 0u64..1000, dim in -2isize..2) {
            check(&[3, 4], seed, |x| x.logcumsumexp(dim));
            // Layout 3 repeats elements: at ties there is no derivative.
            let seed = if seed % 5 == 3 { seed + 1 } else { seed };
            check(&[3, 4], seed, |x| [x.cummax(dim).0, x.cummin(dim).0]);
        }

        #[test]
        fn many_rows_and_columns(rows in 1usize..20, n in 1usize..20, columns in 1usize..300, dim in 0isize..3) {
            let x = Var::from_vec((0..rows * n * columns).map(|i| (i * 7919 % 1009) as f64).collect(), &[rows, n, columns]);
            let size = x.size(dim);
            let (most, at) = x.cummax(dim);
            let (sums, mut sum) = (x.cumsum(dim), x.select(dim, 0) * 0.0);
            for i in 0..size {
                let here = x.narrow(dim, 0, i + 1);
                sum = sum + x.select(dim, i);
                prop_assert_eq!(sums.select(dim, i).to_vec::<f64>(), sum.to_vec::<f64>());
                prop_assert_eq!(most.select(dim, i).to_vec::<f64>(), here.amax(dim).to_vec::<f64>());
            }
            prop_assert_eq!(x.gather(dim, &at).to_vec::<f64>(), most.to_vec::<f64>());
        }
    }

    /// The values are PyTorch's.
    #[test]
    fn ties_nan_and_infinities() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let of = |v: &[f64]| Var::from_vec(v.to_vec(), &[v.len()]);
        assert_eq!(of(&[1.0, 1.0, 0.0]).cummax(0).1.to_vec::<i64>(), [0, 1, 1]);
        assert_eq!(of(&[1.0, nan, 2.0, nan]).cummin(0).1.to_vec::<i64>(), [0, 1, 1, 3]);
        assert_eq!(
            of(&[-inf, -inf, 1.0, inf, 2.0]).logcumsumexp(0).to_vec::<f64>(),
            [-inf, -inf, 1.0, inf, inf]
        );
        assert_eq!(Var::from(Tensor::zeros_with(&[2, 0], DType::F32)).cummax(1).0.shape(), [2, 0]);
        assert_eq!(Var::from(3.0).logcumsumexp(-1).item(), 3.0);
    }
}
