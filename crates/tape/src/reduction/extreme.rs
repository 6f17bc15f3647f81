//! Largest and smallest elements, and their indices.

use super::{Reduced, as_number, record_chosen};
use crate::dtype::{DType, Number};
use crate::int_list::{Int, IntList, OptionalInt};
use crate::kernels::parallel::parallel_chunks;
use crate::kernels::reduce;
use crate::node::record_with_output;
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;

/// Methods for the largest and the smallest elements, which differ in a comparison.
macro_rules! extremes {
    ($word:literal, $best:expr, $all:ident, $along:ident, $over:ident, $arg:ident, $arg_all:ident, $over_with:ident, $along_with:ident, $arg_with:ident, $f:literal, $af:literal, $argf:literal) => {
        impl Var {
            #[doc = concat!("The ", $word, " of all elements, without dimensions (`torch.", $f, "`). NaN where there is one. Elements that are equally")]
            /// extreme share the gradient evenly.
            ///
            /// # Panics
            /// If the tensor is empty.
            ///
            /// ```
            #[doc = concat!("let x = tapegrad_tape::Var::from_vec(vec![3f32, 3.0], &[2]);\nassert_eq!(x.", stringify!($all), "().item(), 3.0);")]
            /// ```
            #[track_caller]
            pub fn $all(&self) -> Var {
                over($f, self, &[], false, $best, true)
            }

            #[doc = concat!("The ", $word, " elements over dimensions, all if none is given (`torch.", $af, "`). NaN where there is one. Elements that")]
            /// are equally extreme share the gradient evenly.
            ///
            /// # Panics
            /// If a dimension is out of range, appears twice or is of size zero.
            ///
            /// ```
            #[doc = concat!("let x = tapegrad_tape::Var::from_vec(vec![1f32, 1.0, 5.0, 5.0], &[2, 2]);\nassert_eq!(x.", stringify!($over), "(1).to_vec::<f32>(), [1.0, 5.0]);")]
            /// ```
            #[track_caller]
            pub fn $over(&self, dims: impl IntList) -> Var {
                self.$over_with(dims, false)
            }

            #[doc = concat!("[`Var::", $af, "`], where the reduced dimensions stay with size one if `keepdim`.")]
            #[track_caller]
            pub fn $over_with(&self, dims: impl IntList, keepdim: bool) -> Var {
                over($af, self, &dims.to_isizes(), keepdim, $best, false)
            }

            #[doc = concat!("The ", $word, " elements along a dimension, and where the first of them stands, as I64 (`torch.", $f, "` with a dimension).")]
            /// NaN counts as most extreme. The gradient goes to that one element.
            ///
            /// # Panics
            /// If the dimension is out of range or of size zero.
            ///
            /// ```
            #[doc = concat!("let x = tapegrad_tape::Var::from_vec(vec![1f32, 1.0, 5.0, 5.0], &[2, 2]);\nlet (values, indices) = x.", stringify!($along), "(1);")]
            /// assert_eq!((values.to_vec::<f32>(), indices.to_vec::<i64>()), (vec![1.0, 5.0], vec![0, 0]));
            /// ```
            #[track_caller]
            pub fn $along(&self, dim: impl Int) -> (Var, Var) {
                self.$along_with(dim, false)
            }

            #[doc = concat!("[`Var::", $f, "`], where the dimension stays with size one if `keepdim`.")]
            #[track_caller]
            pub fn $along_with(&self, dim: impl Int, keepdim: bool) -> (Var, Var) {
                along($f, self, dim.to_isize(), keepdim, $best)
            }

            #[doc = concat!("Where the first of the ", $word, " elements along a dimension stands, as I64 (`torch.", $argf, "`). NaN counts as most")]
            /// extreme. Has no derivative.
            ///
            /// # Panics
            /// If the dimension is out of range or of size zero.
            ///
            /// ```
            #[doc = concat!("let x = tapegrad_tape::Var::from_vec(vec![1f32, 1.0, 5.0, 5.0], &[2, 2]);\nassert_eq!(x.", stringify!($arg), "(-1).to_vec::<i64>(), [0, 0]);")]
            /// ```
            #[track_caller]
            pub fn $arg(&self, dim: impl Int) -> Var {
                self.$arg_with(dim, false)
            }

            #[doc = concat!("[`Var::", $argf, "`], where the dimension stays with size one if `keepdim`.")]
            #[track_caller]
            pub fn $arg_with(&self, dim: impl Int, keepdim: bool) -> Var {
                along($argf, &self.detach(), dim.to_isize(), keepdim, $best).1
            }

            #[doc = concat!("Where the first of the ", $word, " elements stands in row-major order, as I64 without dimensions (`torch.", $argf, "` without")]
            /// a dimension). NaN counts as most extreme. Has no derivative.
            ///
            /// # Panics
            /// If the tensor is empty.
            #[track_caller]
            pub fn $arg_all(&self) -> Var {
                along($argf, &self.detach().flatten(()), 0, false, $best).1
            }
        }
    };
}
extremes!(
    "largest",
    Best::Largest,
    max_all,
    max,
    amax,
    argmax,
    argmax_all,
    amax_with,
    max_with,
    argmax_with,
    "max",
    "amax",
    "argmax"
);
extremes!(
    "smallest",
    Best::Smallest,
    min_all,
    min,
    amin,
    argmin,
    argmin_all,
    amin_with,
    min_with,
    argmin_with,
    "min",
    "amin",
    "argmin"
);

impl Var {
    /// The smallest and the largest elements along a dimension, or of all elements (`torch.aminmax`): [`Var::amin`] and
    /// [`Var::amax`].
    ///
    /// # Panics
    /// If the dimension is out of range or of size zero.
    ///
    /// ```
    /// let (low, high) = tapegrad_tape::Var::from_vec(vec![3f32, 1.0, 2.0], &[3]).aminmax(None);
    /// assert_eq!((low.item(), high.item()), (1.0, 3.0));
    /// ```
    #[track_caller]
    pub fn aminmax(&self, dim: impl OptionalInt) -> (Var, Var) {
        self.aminmax_with(dim, false)
    }

    /// [`Var::aminmax`] with a dimension that is kept.
    ///
    /// # Panics
    /// Same as [`Var::aminmax`].
    #[track_caller]
    pub fn aminmax_with(&self, dim: impl OptionalInt, keepdim: bool) -> (Var, Var) {
        let dims: Vec<isize> = dim.to_option().into_iter().collect();
        let of = |best| over("aminmax", self, &dims, keepdim, best, false);
        (of(Best::Smallest), of(Best::Largest))
    }
}

/// Which elements are selected.
#[derive(Clone, Copy, PartialEq)]
enum Best {
    Largest,
    Smallest,
}

/// The extreme values over dimensions, which are not empty; only the kept dimensions are left.
fn values(t: &Tensor, dims: &[usize], best: Best) -> Tensor {
    fn largest<T: Number>(t: &Tensor, dims: &[usize]) -> Tensor {
        let max = |a: T, b: T| if a > b || a.is_nan() { a } else { b };
        reduce::fold(t, dims, T::from_f64(f64::NEG_INFINITY), max, max)
    }
    fn smallest<T: Number>(t: &Tensor, dims: &[usize]) -> Tensor {
        let min = |a: T, b: T| if a < b || a.is_nan() { a } else { b };
        reduce::fold(t, dims, T::from_f64(f64::INFINITY), min, min)
    }
    let dtype = t.dtype();
    let t = as_number(t);
    let value = crate::dispatch!(number: t.dtype(), "amax", T => match best {
        Best::Largest => largest::<T>(&t, dims),
        Best::Smallest => smallest::<T>(&t, dims),
    });
    value.cast(dtype)
}

/// The largest elements over dimensions, which are not empty.
pub(super) fn largest(t: &Tensor, dims: &[usize]) -> Tensor {
    values(t, dims, Best::Largest)
}

#[track_caller]
fn over(op: &'static str, x: &Var, dims: &[isize], keepdim: bool, best: Best, shares_nan: bool) -> Var {
    let r = Reduced::new(shape::dims(op, dims, x.ndim()), x.shape(), keepdim);
    r.check_not_empty(op);
    let value = r.finish(values(&x.tensor(), &r.dims, best));
    record_shared(op, x, r, value, shares_nan)
}

/// Records values that are equal to some of the elements that they come from, which share the gradient evenly.
///
/// PyTorch's operations over all elements give it to a NaN that is the result (`shares_nan`), the others make it NaN.
#[track_caller]
pub(super) fn record_shared(op: &'static str, x: &Var, r: Reduced, value: Tensor, shares_nan: bool) -> Var {
    let saved = x.saved();
    record_with_output(op, [x], value, move |c| {
        let out = r.restore(&c.output().detach());
        let x = saved.detach();
        let mut chosen = x.eq(&out);
        if shares_nan {
            chosen = chosen.logical_or(&x.isnan().logical_and(&out.isnan()));
        }
        let chosen = chosen.cast(x.dtype());
        let share = chosen.div(chosen.sum_keepdim(&r.list()));
        [Some(r.restore(c.grad()).mul(&share))]
    })
}

#[track_caller]
fn along(op: &'static str, x: &Var, dim: isize, keepdim: bool, best: Best) -> (Var, Var) {
    let d = shape::dim(op, dim, x.ndim());
    if x.ndim() == 0 {
        let zero = Var::from(0i64);
        return (record_chosen(op, x, 0, x.tensor(), &zero), zero);
    }
    let r = Reduced::new([d].as_slice().into(), x.shape(), keepdim);
    if x.shape()[d] == 0 {
        panic!("{op}: expected reduction dim {d} of shape {:?} to have non-zero size", x.shape());
    }
    let t = as_number(&x.tensor());
    let best = values(&t, &r.dims, best);
    let indices = crate::dispatch!(number: t.dtype(), op, T => first_equal::<T>(&t, d, &best));
    let with_ones = Var::from(r.with_ones(&indices));
    let value = record_chosen(op, x, d, r.finish(best.cast(x.dtype())), &with_ones);
    (value, Var::from(r.finish(indices)))
}

/// The first position along a dimension where `t` is equal to `values`, or both are NaN.
fn first_equal<T: Number>(t: &Tensor, dim: usize, values: &Tensor) -> Tensor {
    let (t, values) = (t.contiguous(), values.contiguous());
    let mut out = Tensor::uninit(values.shape(), DType::I64);
    let (n, inner) = (t.shape()[dim], shape::numel(&t.shape()[dim + 1..]));
    if values.numel() == 0 {
        return out;
    }
    let source = t.as_slice::<T>().expect("contiguous");
    let values = values.as_slice::<T>().expect("contiguous");
    let outer = (32 * 1024usize).div_ceil(n * inner);
    parallel_chunks(out.data_mut::<i64>(), outer * inner, |task, out| {
        for (k, out) in out.chunks_exact_mut(inner).enumerate() {
            let o = task * outer + k;
            position(out, &source[o * n * inner..][..n * inner], &values[o * inner..][..inner]);
        }
    });
    out
}

crate::multiversion! {
    vectors of T;
    fn position<T: Number>(out: &mut [i64], rows: &[T], values: &[T]) {
        let same = |x: T, v: T| x == v || (x.is_nan() && v.is_nan());
        if let ([out], &[v]) = (&mut *out, values) {
            // Whole blocks are searched in vector lanes, then the one that holds the element.
            let blocks = rows.chunks(64);
            let at = blocks.clone().take_while(|b| !b.iter().fold(false, |any, &x| any | same(x, v))).count();
            *out = rows.iter().skip(64 * at).position(|&x| same(x, v)).map_or(0, |p| (64 * at + p) as i64);
            return;
        }
        for (i, row) in rows.chunks_exact(values.len()).enumerate().rev() {
            for ((o, &x), &v) in out.iter_mut().zip(row).zip(values) {
                *o = if same(x, v) { i as i64 } else { *o };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_views::check;
    use proptest::prelude::*;

    const NAN: f64 = f64::NAN;

    fn of(values: &[f64]) -> Var {
        Var::parameter(Tensor::from_slice(values, &[values.len()]))
    }

    fn gradient(x: &Var, f: impl Fn(&Var) -> Var) -> Vec<f64> {
        x.zero_grad();
        f(x).sum_all().backward();
        x.grad().unwrap().to_vec::<f64>()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn gradients(seed in 0u64..1000, dim in -3isize..3, keepdim: bool) {
            // Without ties, at which there is no derivative: layout 3 repeats elements.
            let seed = if seed % 5 == 3 { seed + 1 } else { seed };
            check(&[2, 3, 2], seed, |x| [x.amax_with(&[dim], keepdim), x.max_with(dim, keepdim).0, x.min_all()]);
            check(&[2, 3, 2], seed, |x| [x.amin_with(&[0, -1], keepdim), x.min_with(dim, keepdim).0, x.max_all()]);
        }
    }

    /// The values are PyTorch's.
    #[test]
    fn ties_and_nan() {
        let tie = of(&[2.0, 1.0, 2.0]);
        assert_eq!(gradient(&tie, |x| x.amax(0)), [0.5, 0.0, 0.5]);
        assert_eq!(gradient(&tie, |x| x.max_all()), [0.5, 0.0, 0.5]);
        assert_eq!(gradient(&tie, |x| x.max(0).0), [1.0, 0.0, 0.0]);
        let nan = of(&[1.0, NAN, NAN]);
        assert!(nan.amin(()).item().is_nan());
        assert_eq!(gradient(&nan, |x| x.max_all()), [0.0, 0.5, 0.5]);
        assert!(gradient(&nan, |x| x.amax(0)).iter().all(|g| g.is_nan()));
        let (value, index) = nan.min_keepdim(0);
        assert!(value.item().is_nan() && index.to_vec::<i64>() == [1]);
        assert_eq!(gradient(&nan, |x| x.max(0).0), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn positions_in_long_and_wide_tensors() {
        let n = 1000;
        let values: Vec<i64> = (0..n * 7).map(|i| (i * 7919 % 4999) as i64).collect();
        let x = Var::from_vec(values.clone(), &[n, 7]);
        let columns: Vec<i64> =
            (0..7).map(|j| (0..n).rev().max_by_key(|i| values[i * 7 + j]).unwrap() as i64).collect();
        assert_eq!(x.argmax(0).to_vec::<i64>(), columns);
        assert_eq!(x.t().argmax(1).to_vec::<i64>(), columns);
        let all = (0..n * 7).rev().max_by_key(|&i| values[i]).unwrap() as i64;
        assert_eq!(x.argmax_all().to_vec::<i64>(), [all]);
    }

    #[test]
    fn other_types_and_no_dimensions() {
        assert_eq!(Var::from_vec(vec![true, false], &[2]).amax(()).to_vec::<bool>(), [true]);
        assert_eq!(Var::from(i64::MIN).max_all().to_vec::<i64>(), [i64::MIN]);
        let x = Var::parameter(Tensor::scalar(3.0));
        assert_eq!(gradient(&x, |x| x.max_keepdim(-1).0), [1.0]);
        assert_eq!(x.argmin_keepdim(0).shape(), [0usize; 0]);
        assert_eq!(Var::from(Tensor::zeros_with(&[0, 2], DType::F32)).amax(1).shape(), [0]);
    }

    #[test]
    #[should_panic(expected = "amax: expected reduction dim 1 of shape [5, 0, 5] to have non-zero size")]
    fn nothing_to_choose_from() {
        Var::from(Tensor::zeros_with(&[5, 0, 5], DType::F32)).amax(1);
    }
}
