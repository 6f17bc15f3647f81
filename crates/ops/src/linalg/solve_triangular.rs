//! `linalg.solve_triangular`.

use super::{batch, mmt, square_size, t};
use crate::kernels::gemm::View;
use crate::kernels::linalg::{Side, solve_triangular as kernel};
use crate::product::check_types;
use tapegrad_tape::shape::broadcast_for;
use tapegrad_tape::{DType, Var, record_with_output};

/// The options of [`solve_triangular`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TriangularOptions {
    /// Whether `A` is an upper triangle; the other one is not read.
    pub upper: bool,
    /// Whether to solve `A X = B`, the default, or `X A = B`.
    pub left: bool,
    /// Whether the diagonal of `A` counts as ones and is not read.
    pub unitriangular: bool,
}

impl TriangularOptions {
    /// An upper or a lower triangle on the left, with its own diagonal.
    pub fn new(upper: bool) -> TriangularOptions {
        TriangularOptions { upper, left: true, unitriangular: false }
    }

    /// Sets `left`.
    #[must_use]
    pub fn left(mut self, left: bool) -> TriangularOptions {
        self.left = left;
        self
    }

    /// Sets `unitriangular`.
    #[must_use]
    pub fn unitriangular(mut self, unitriangular: bool) -> TriangularOptions {
        self.unitriangular = unitriangular;
        self
    }
}

impl From<bool> for TriangularOptions {
    fn from(upper: bool) -> TriangularOptions {
        TriangularOptions::new(upper)
    }
}

/// The solution of `A X = B`, or `X A = B`, for triangular matrices `A` (`torch.linalg.solve_triangular`); `options` may be just `upper`. Batches
/// broadcast. A zero on the diagonal gives infinities and NaN.
///
/// # Panics
/// If `a` is not square or the shapes do not fit.
///
/// ```
/// use tapegrad_ops::linalg::{TriangularOptions, solve_triangular};
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![2f64, 9.0, 1.0, 1.0], &[2, 2]);
/// let b = Var::from_vec(vec![2f64, 3.0], &[2, 1]);
/// assert_eq!(solve_triangular(&a, &b, false).to_vec::<f64>(), [1.0, 2.0]);
/// let ones = TriangularOptions::new(false).unitriangular(true);
/// assert_eq!(solve_triangular(&a, &b, ones).to_vec::<f64>(), [2.0, 1.0]);
/// ```
#[track_caller]
pub fn solve_triangular(a: &Var, b: &Var, options: impl Into<TriangularOptions>) -> Var {
    let op = "linalg.solve_triangular";
    let n = square_size(op, a);
    check_types(op, a.dtype(), b.dtype());
    let TriangularOptions { upper, left, unitriangular } = options.into();
    assert!(
        b.ndim() >= 2 && b.size(if left { -2 } else { -1 }) == n,
        "{op}: incompatible shapes of A and B for the equation {}: {:?} and {:?}",
        if left { "AX = B" } else { "XA = B" },
        a.shape(),
        b.shape()
    );
    broadcast_for(op, batch(a.shape()), batch(b.shape()));
    if left {
        solve_left(op, a, b, upper, unitriangular)
    } else {
        t(&solve_left(op, &t(a), &t(b), !upper, unitriangular))
    }
}

#[track_caller]
pub(super) fn solve_left(op: &'static str, a: &Var, b: &Var, upper: bool, unit: bool) -> Var {
    let (n, k) = (b.size(-2), b.size(-1));
    let all = broadcast_for(op, batch(a.shape()), batch(b.shape()));
    let expand = |v: &Var, size: [usize; 2]| {
        v.tensor().cast(DType::F64).expand(&[&all[..], &size].concat()).contiguous()
    };
    let (left, mut x) = (expand(a, [n, n]), expand(b, [n, k]));
    let data = left.as_slice::<f64>().expect("contiguous");
    tapegrad_tape::kernels::parallel::parallel_chunks(x.make_mut::<f64>(), n * k, |i, x| {
        kernel(View::rows(&data[i * n * n..][..n * n], n), n, Side { upper, unit }, x, k, k);
    });
    let saved = a.saved();
    record_with_output(op, [a, b], x.cast(b.dtype()), move |c| {
        let g = solve_left(op, &t(&saved), c.grad(), !upper, unit);
        let ga = c.wants(0).then(|| {
            let whole = -mmt(&g, &c.output());
            let edge = isize::from(unit);
            if upper { whole.triu_with(edge) } else { whole.tril_with(-edge) }
        });
        [ga, Some(g)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};

    #[test]
    fn every_option_and_its_gradients() {
        for i in 0..8 {
            let options = TriangularOptions { upper: i & 1 > 0, left: i & 2 > 0, unitriangular: i & 4 > 0 };
            let (a, b) = (parameter(&[2, 1, 3, 3], 1), parameter(&[2, 3, 3], 2));
            let x = solve_triangular(&a, &b, options);
            let mut triangle = if options.upper { a.triu() } else { a.tril() };
            if options.unitriangular {
                triangle =
                    triangle.tril_with(-1) + triangle.triu_with(1) + super::super::identity(3, DType::F64);
            }
            let back = if options.left { crate::matmul(&triangle, &x) } else { crate::matmul(&x, &triangle) };
            assert_close(&back, &b.expand(&[2, 2, 3, 3]), 1e-10);
            check_gradients(|v| solve_triangular(&(&v[0] + 2.0), &v[1], options), &[a, b]);
        }
    }

    #[test]
    #[should_panic(
        expected = "linalg.solve_triangular: incompatible shapes of A and B for the equation XA = B"
    )]
    fn sizes_that_do_not_fit() {
        let options = TriangularOptions { left: false, ..TriangularOptions::new(true) };
        solve_triangular(&parameter(&[3, 3], 1), &parameter(&[3, 2], 1), options);
    }
}
