//! `cumsum`, `cumprod`.

use super::half_as_f32;
use super::prod::without_each;
use crate::dtype::{DType, Float};
use crate::grad_mode::is_grad_enabled;
use crate::int_list::Int;
use crate::kernels::scan;
use crate::node::{record_linear, record_with_output};
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// The sums of all elements up to each one, along a dimension (`torch.cumsum`). Integers are summed as I64; for
    /// PyTorch's `dtype`, [cast](Var::cast) first. Sums are kept in F64, and each is rounded once.
    ///
    /// # Panics
    /// If the dimension is out of range.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0], &[3]);
    /// assert_eq!(x.cumsum(0).to_vec::<f32>(), [1.0, 3.0, 6.0]);
    /// ```
    #[track_caller]
    pub fn cumsum(&self, dim: impl Int) -> Var {
        let d = shape::dim("cumsum", dim, self.ndim());
        sums(&integers_as_i64(self), d, false)
    }

    /// The products of all elements up to each one, along a dimension (`torch.cumprod`). Integers are multiplied as
    /// I64; for PyTorch's `dtype`, [cast](Var::cast) first. The gradient is correct with zeros, too. Products are kept
    /// in F64, and each is rounded once.
    ///
    /// # Panics
    /// If the dimension is out of range.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0], &[3]);
    /// assert_eq!(x.cumprod(0).to_vec::<f32>(), [1.0, 2.0, 6.0]);
    /// ```
    #[track_caller]
    pub fn cumprod(&self, dim: impl Int) -> Var {
        self.cumprod_along(dim.to_isize())
    }

    #[track_caller]
    fn cumprod_along(&self, dim: isize) -> Var {
        let d = shape::dim("cumprod", dim, self.ndim());
        let x = integers_as_i64(self);
        let value = x.tensor();
        let value = if x.ndim() == 0 {
            value
        } else if value.dtype() == DType::I64 {
            scan::scan::<i64, i64, i64>(&value, d, false, 1, |a, x, _| a.wrapping_mul(x), |a| a)
        } else {
            half_as_f32(value, |t| crate::dispatch!(float: t.dtype(), "cumprod", T => {
                scan::scan::<T, f64, T>(&t, d, false, 1.0, |a, x, _| a * crate::Element::to_f64(x), crate::Element::from_f64)
            }))
            .cast(x.dtype())
        };
        let saved = x.saved();
        record_with_output("cumprod", [&x], value, move |c| {
            // One element is its own product.
            [Some(if saved.ndim() == 0 || saved.shape()[d] == 1 {
                c.grad().clone()
            } else {
                gradient(&saved, d, c.grad(), &c.output())
            })]
        })
    }
}

#[track_caller]
fn integers_as_i64(x: &Var) -> Var {
    if x.dtype().is_float() { x.clone() } else { x.cast(DType::I64) }
}

/// The sums from the front or from the back: each is the other's derivative rule.
#[track_caller]
fn sums(x: &Var, d: usize, reverse: bool) -> Var {
    let t = x.tensor();
    let value = if t.ndim() == 0 {
        t
    } else if t.dtype() == DType::I64 {
        scan::scan::<i64, i64, i64>(&t, d, reverse, 0, |a, x, _| a.wrapping_add(x), |a| a)
    } else {
        half_as_f32(t, |t| crate::dispatch!(float: t.dtype(), "cumsum", T => {
            scan::scan::<T, f64, T>(&t, d, reverse, 0.0, |a, x, _| a + crate::Element::to_f64(x), crate::Element::from_f64)
        }))
        .cast(x.dtype())
    };
    record_linear("cumsum", x, value, |t| sums(t, d, reverse), move |c| [Some(sums(c.grad(), d, !reverse))])
}

fn gradient(x: &Var, d: usize, g: &Var, out: &Var) -> Var {
    let has_zero = x.detach().eq(0.0).any(()).item() != 0.0;
    if !has_zero {
        return sums(&g.mul(out), d, true).div(x);
    }
    if !is_grad_enabled() {
        let dtype = x.dtype();
        let value = half_as_f32(x.tensor(), |t| {
            let g = g.tensor().cast(t.dtype());
            crate::dispatch!(float: t.dtype(), "cumprod", T => with_zeros::<T>(&t, d, &g))
        });
        return Var::from(value.cast(dtype));
    }
    // For each element the products without it, from its own position on.
    let products = without_each(x, d).cumprod(-1).triu();
    products.mul(g.movedim(d, -1).unsqueeze(-2)).sum(-1).movedim(-1, d)
}

/// After the first zero of a line the gradient is zero; at it, the products without it count; before it, the usual rule
/// holds.
fn with_zeros<T: Float>(x: &Tensor, d: usize, g: &Tensor) -> Tensor {
    let gradients = scan::to_last(g, d).contiguous();
    let gradients = gradients.as_slice::<T>().expect("contiguous");
    let n = x.shape()[d];
    scan::rows::<T, T>(x, d, n, &|r, x, out| {
        let g = &gradients[r * n..][..n];
        let first = x.iter().position(|&x| x == T::ZERO).unwrap_or(n);
        out.fill(T::ZERO);
        let mut product = T::ONE;
        for k in 0..first {
            product = product * x[k];
            out[k] = g[k] * product;
        }
        let mut sum = T::ZERO;
        for k in (0..first).rev() {
            sum += out[k];
            out[k] = sum / x[k];
        }
        if first < n {
            let mut sum = T::ZERO;
            for k in first..n {
                if k > first {
                    product = product * x[k];
                }
                sum += g[k] * product;
            }
            out[first] = sum;
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::test_views::{check, values};
    use crate::{DType, Tensor, Var, gradcheck, gradgradcheck};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn gradients(seed in 0u64..1000, dim in -2isize..2, zeros in proptest::collection::vec(0usize..6, 0..4)) {
            check(&[2, 3], seed, |x| [x.cumsum(dim), x.cumprod(dim)]);
            let mut with_zeros = values(6, seed);
            zeros.iter().for_each(|&z| with_zeros[z] = 0.0);
            let x = Var::parameter(Tensor::from_vec(with_zeros, &[2, 3]));
            let f = |x: &[Var]| x[0].cumprod(dim);
            gradcheck(f, std::slice::from_ref(&x)).unwrap();
            gradgradcheck(f, &[x]).unwrap();
        }
    }

    #[test]
    fn types_and_edges() {
        let x = Var::from_vec(vec![true, true, true], &[3]).cumsum(0);
        assert_eq!((x.dtype(), x.to_vec::<i64>()), (DType::I64, vec![1, 2, 3]));
        assert_eq!(Var::from(Tensor::zeros_with(&[2, 0], DType::F32)).cumprod(1).shape(), [2, 0]);
        let s = Var::parameter(Tensor::scalar(3.0));
        (s.cumsum(0) + s.cumprod(-1)).backward();
        assert_eq!(s.grad().unwrap().item(), 2.0);
        // Sums are kept in f64: a sum of a million tenths in f32 is accurate.
        let long = Var::from(Tensor::full_with(&[1_000_000], 0.1, DType::F32)).cumsum(0);
        assert!((long.select(0, -1).item() - 1e5).abs() < 1.0);
    }
}
