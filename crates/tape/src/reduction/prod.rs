//! `prod`.

use super::{Reduced, half_as_f32};
use crate::dtype::{DType, Float, Number};
use crate::grad_mode::is_grad_enabled;
use crate::int_list::Int;
use crate::kernels::{reduce, scan};
use crate::node::record_with_output;
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// The product along a dimension (`torch.prod` with a dimension). Integers are multiplied as I64; for PyTorch's
    /// `dtype`, [cast](Var::cast) first. The gradient is correct with zeros, too. Each of the `n - 1` multiplications
    /// rounds: in F32 the result is within `n * 2^-24`, relatively.
    ///
    /// # Panics
    /// If the dimension is out of range.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// assert_eq!(x.prod(1).to_vec::<f32>(), [2.0, 12.0]);
    /// ```
    #[track_caller]
    pub fn prod(&self, dim: impl Int) -> Var {
        self.prod_with(dim, false)
    }

    /// [`Var::prod`], where the reduced dimensions stay with size one if `keepdim`.
    #[track_caller]
    pub fn prod_with(&self, dim: impl Int, keepdim: bool) -> Var {
        self.prod_along(dim.to_isize(), keepdim)
    }

    #[track_caller]
    fn prod_along(&self, dim: isize, keepdim: bool) -> Var {
        let dims = shape::dims("prod", &[dim], self.ndim());
        let r = Reduced::new(dims, self.shape(), keepdim);
        let value = r.finish(product(self.tensor(), &r.dims));
        let saved = self.saved();
        record_with_output("prod", [self], value, move |c| {
            let (g, out) = (r.restore(c.grad()), r.restore(&c.output()));
            [Some(match r.dims.first() {
                None => g,
                Some(&d) => gradient(&saved, d, &g, &out),
            })]
        })
    }

    /// The product of all elements, without dimensions (`torch.prod`); 1 if there are none.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from_vec(vec![2f32, 3.0], &[2]).prod_all().item(), 6.0);
    /// ```
    #[track_caller]
    pub fn prod_all(&self) -> Var {
        self.flatten(()).prod(0)
    }
}

fn product(t: Tensor, dims: &[usize]) -> Tensor {
    fn product<T: Number>(t: &Tensor, dims: &[usize]) -> Tensor {
        reduce::fold(t, dims, T::ONE, |a, x: T| a * x, |a, b| a * b)
    }
    match t.dtype() {
        DType::Bool | DType::U8 | DType::I64 => product::<i64>(&t.cast(DType::I64), dims),
        dtype => half_as_f32(t, |t| crate::dispatch!(float: t.dtype(), "prod", T => product::<T>(&t, dims)))
            .cast(dtype),
    }
}

/// `g` times the product of all other elements along `d`.
fn gradient(x: &Var, d: usize, g: &Var, out: &Var) -> Var {
    // The product of one element is linear: the rounding of a division would affect the second derivative.
    let divide = x.shape()[d] != 1 && x.detach().eq(0.0).any(()).item() == 0.0;
    if divide {
        return g.mul(out).div(x);
    }
    if !is_grad_enabled() {
        let others = half_as_f32(
            x.tensor(),
            |t| crate::dispatch!(float: t.dtype(), "prod", T => products_of_others::<T>(&t, d)),
        );
        return g.mul(Var::from(others.cast(x.dtype())));
    }
    g.mul(without_each(x, d).prod(-1).movedim(-1, d))
}

/// Along the last two dimensions a square matrix: each row is the line along `d`, with one element replaced by 1.
pub(super) fn without_each(x: &Var, d: usize) -> Var {
    let n = x.shape()[d];
    let row = x.movedim(d, -1).unsqueeze(-2);
    let diagonal: Vec<bool> = (0..n * n).map(|i| i % (n + 1) == 0).collect();
    row.masked_fill(&Var::from_vec(diagonal, &[n, n]), 1.0)
}

fn products_of_others<T: Float>(t: &Tensor, d: usize) -> Tensor {
    scan::rows::<T, T>(t, d, t.shape()[d], &|_, x, out| {
        let mut before = T::ONE;
        for (o, &x) in out.iter_mut().zip(x) {
            *o = before;
            before = before * x;
        }
        let mut after = T::ONE;
        for (o, &x) in out.iter_mut().zip(x).rev() {
            *o = *o * after;
            after = after * x;
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::test_views::{check, values};
    use crate::{DType, GradOptions, Tensor, Var, grad_with, gradcheck, gradgradcheck};
    use proptest::prelude::*;

    #[test]
    fn one_element_is_linear() {
        let x = Var::parameter(Tensor::from_vec(vec![0.3f64], &[1]));
        // PyTorch's gradient of `cumprod` has no graph either; that of `prod` has one, and is constant.
        for (y, second) in [(x.prod_all(), Some(0.0)), (x.prod_keepdim(0), Some(0.0)), (x.cumprod(0), None)] {
            let options = GradOptions::new().create_graph(true);
            let g = grad_with(&[&y], &[&x], options)[0].clone().expect("it depends on x");
            assert_eq!(g.item(), 1.0);
            let again = || grad_with(&[&g], &[&x], Default::default())[0].as_ref().map(Var::item);
            assert_eq!(g.requires_grad().then(again).flatten(), second);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn gradients(seed in 0u64..1000, dim in -2isize..2, keepdim: bool, zeros in proptest::collection::vec(0usize..6, 0..4)) {
            check(&[2, 3], seed, |x| [x.prod_with(dim, keepdim), x.prod_all()]);
            let mut with_zeros = values(6, seed);
            zeros.iter().for_each(|&z| with_zeros[z] = 0.0);
            let x = Var::parameter(Tensor::from_vec(with_zeros, &[2, 3]));
            let f = |x: &[Var]| [x[0].prod_with(dim, keepdim), x[0].prod_all()];
            gradcheck(f, std::slice::from_ref(&x)).unwrap();
            gradgradcheck(f, &[x]).unwrap();
        }
    }

    #[test]
    fn nothing_and_integers() {
        assert_eq!(Var::from(Tensor::zeros_with(&[2, 0], DType::F32)).prod(1).to_vec::<f32>(), [1.0, 1.0]);
        let x = Var::from_vec(vec![true, true], &[2]).prod_all();
        assert_eq!((x.dtype(), x.item()), (DType::I64, 1.0));
        assert_eq!(Var::from(3.0).prod_keepdim(0).shape(), [0usize; 0]);
    }
}
