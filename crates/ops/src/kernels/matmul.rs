//! A batch of matrix products of one shape, over strided operands of any numeric type.

use super::gemm::{self, Bias, Finish, View};
use tapegrad_tape::kernels::parallel::parallel_for;
use tapegrad_tape::kernels::shared::SharedSlice;
use tapegrad_tape::{Element, Number, bf16};

/// The fewest operations with which a single product keeps all threads busy.
const LARGE: usize = 1 << 23;
/// The fewest operations of a task for another thread.
const TASK: usize = 1 << 20;

/// The sizes of a product of `m` x `k` and `k` x `n`.
#[derive(Clone, Copy, Debug)]
pub struct ProductSize {
    /// Rows of the left operand and of the result.
    pub m: usize,
    /// Columns of the right operand and of the result.
    pub n: usize,
    /// Columns of the left operand, rows of the right one.
    pub k: usize,
}

impl ProductSize {
    /// Floating-point operations of one product.
    pub fn flops(self) -> usize {
        [self.m, self.n, self.k].iter().fold(2, |flops: usize, &n| flops.saturating_mul(n))
    }
}

/// One operand of several products: the memory, the distances between neighbors down a column and along a
/// row, and where each product's matrix starts.
#[derive(Clone, Copy)]
pub struct Operand<'a, T> {
    /// The memory that contains all matrices.
    pub data: &'a [T],
    /// From one row to the next, from one column to the next.
    pub strides: [usize; 2],
    /// Where the matrix of each product starts.
    pub offsets: &'a [usize],
}

impl<'a, T> Operand<'a, T> {
    fn view(&self, i: usize) -> View<'a, T> {
        // Empty matrices may start past the end.
        let data = self.data.get(self.offsets[i]..).unwrap_or(&[]);
        View { data, row: self.strides[0], column: self.strides[1] }
    }
}

/// A type whose matrices can be multiplied.
pub trait Product: Element {
    /// The type of the results.
    type Sum: Number;

    /// One product; see [`gemm::matmul`].
    #[doc(hidden)]
    fn product(
        size: ProductSize,
        a: View<Self>,
        b: View<Self>,
        c: &mut [Self::Sum],
        finish: Finish<Self::Sum>,
    );
}

macro_rules! float_product {
    ($($ty:ty)*) => {$(
        impl Product for $ty {
            type Sum = $ty;

            fn product(s: ProductSize, a: View<Self>, b: View<Self>, c: &mut [Self], finish: Finish<Self>) {
                gemm::matmul([s.m, s.n, s.k], a, b, c, s.n, finish);
            }
        }
    )*};
}
float_product!(f32 f64);

// Where `gemm::takes_bf16` says so.
impl Product for bf16 {
    type Sum = f32;

    fn product(s: ProductSize, a: View<bf16>, b: View<bf16>, c: &mut [f32], finish: Finish<f32>) {
        gemm::matmul_bf16([s.m, s.n, s.k], a, b, c, s.n, finish);
    }
}

impl Product for i64 {
    type Sum = i64;

    fn product(s: ProductSize, a: View<i64>, b: View<i64>, c: &mut [i64], finish: Finish<i64>) {
        for (i, row) in c.chunks_exact_mut(s.n).enumerate() {
            for (j, out) in row.iter_mut().enumerate() {
                let term = |l: usize| {
                    a.data[i * a.row + l * a.column].wrapping_mul(b.data[l * b.row + j * b.column])
                };
                let sum = (0..s.k).fold(0i64, |sum, l| sum.wrapping_add(term(l)));
                let bias = match finish.bias {
                    Bias::None => 0,
                    Bias::Columns(bias) => bias[j],
                    Bias::Rows(bias) => bias[i],
                };
                let old = out.wrapping_mul(finish.beta);
                *out = sum.wrapping_mul(finish.alpha).wrapping_add(old).wrapping_add(bias);
            }
        }
    }
}

/// Stores a product alone.
pub fn replace<T: Number>() -> Finish<'static, T> {
    Finish { alpha: T::ONE, beta: T::ZERO, bias: Bias::None }
}

/// Computes `c[i] = alpha (a[i] x b[i]) + beta c[i] + bias` for all products `i`; `c` holds them row-major, one after
/// the other.
///
/// The work is partitioned by its size alone: results are bit-identical for any number of threads.
///
/// # Panics
/// If an operand reaches outside its memory or `c` has another length than all results.
#[track_caller]
pub fn matmul_into<T: Product>(
    size: ProductSize,
    a: Operand<T>,
    b: Operand<T>,
    c: &mut [T::Sum],
    finish: Finish<T::Sum>,
) {
    let count = a.offsets.len();
    let each = size.m.saturating_mul(size.n);
    assert_eq!(count, b.offsets.len(), "as many left operands as right ones");
    assert_eq!(c.len(), count.saturating_mul(each), "the result has to hold all products");
    if c.is_empty() {
        return;
    }
    if count == 1 || size.flops() >= LARGE {
        for (i, c) in c.chunks_exact_mut(each).enumerate() {
            T::product(size, a.view(i), b.view(i), c, finish);
        }
        return;
    }
    let per_task = (TASK / size.flops().max(1)).max(1);
    let c = SharedSlice::new(c);
    parallel_for(count.div_ceil(per_task), |task| {
        for i in task * per_task..count.min((task + 1) * per_task) {
            // SAFETY: each product belongs to one task.
            let c = unsafe { c.part(i * each, each) };
            T::product(size, a.view(i), b.view(i), c, finish);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition.
    fn naive(size: ProductSize, a: &Operand<f64>, b: &Operand<f64>) -> Vec<f64> {
        let mut out = Vec::new();
        for (&ao, &bo) in a.offsets.iter().zip(b.offsets) {
            for i in 0..size.m {
                for j in 0..size.n {
                    let at = |l: usize| {
                        a.data[ao + i * a.strides[0] + l * a.strides[1]]
                            * b.data[bo + l * b.strides[0] + j * b.strides[1]]
                    };
                    out.push((0..size.k).map(at).sum());
                }
            }
        }
        out
    }

    fn numbers(len: usize) -> Vec<f64> {
        (0..len).map(|i| (i * 7919 % 2003) as f64 / 1001.5 - 1.0).collect()
    }

    fn strides(rows: usize, columns: usize, transposed: bool) -> [usize; 2] {
        if transposed { [1, rows] } else { [columns, 1] }
    }

    proptest! {
        #[test]
        fn any_layout_gives_the_same(
            m in 1usize..70, n in 1usize..70, k in 0usize..50, count in 0usize..4, flip: [bool; 2],
        ) {
            let size = ProductSize { m, n, k };
            let (data_a, data_b) = (numbers(m * k * count.max(1)), numbers(k * n));
            let offsets: Vec<usize> = (0..count).map(|i| i * m * k).collect();
            let a = Operand { data: &data_a, strides: strides(m, k, flip[0]), offsets: &offsets };
            // The right operand is the same matrix for all products.
            let zeros = vec![0; count];
            let b = Operand { data: &data_b, strides: strides(k, n, flip[1]), offsets: &zeros };
            let want = naive(size, &a, &b);
            let mut c = vec![f64::NAN; count * m * n];
            matmul_into(size, a, b, &mut c, replace());
            prop_assert!(c.iter().zip(&want).all(|(x, y)| (x - y).abs() < 1e-12));
            matmul_into(size, a, b, &mut c, Finish { alpha: -0.5, beta: 1.0, ..replace() });
            prop_assert!(c.iter().zip(&want).all(|(x, y)| (x - 0.5 * y).abs() < 1e-12));
        }
    }

    #[test]
    fn large_products_are_cut() {
        for size in [ProductSize { m: 301, n: 67, k: 400 }, ProductSize { m: 67, n: 301, k: 400 }] {
            let (data_a, data_b) = (numbers(2 * size.m * size.k), numbers(2 * size.k * size.n));
            let (oa, ob) = ([0, size.m * size.k], [0, size.k * size.n]);
            let a = Operand { data: &data_a, strides: [size.k, 1], offsets: &oa };
            let b = Operand { data: &data_b, strides: [1, size.k], offsets: &ob };
            let mut c = vec![f64::NAN; 2 * size.m * size.n];
            matmul_into(size, a, b, &mut c, replace());
            assert!(c.iter().zip(naive(size, &a, &b)).all(|(x, y)| (x - y).abs() < 1e-10));
        }
    }

    #[test]
    fn integers() {
        let a = Operand { data: &[1i64, 2, 3, 4], strides: [2, 1], offsets: &[0] };
        let mut c = [0; 4];
        matmul_into(ProductSize { m: 2, n: 2, k: 2 }, a, a, &mut c, replace());
        assert_eq!(c, [7, 10, 15, 22]);
    }
}
