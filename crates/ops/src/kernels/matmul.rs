//! Matrix products over strided operands, many of one shape at once.

use super::gemm::{self, Finish, View};
use super::shared::SharedSlice;
use ::gemm::Parallelism;
use tape::kernels::parallel::parallel_for;
use tape::{DType, Number};

/// Arithmetic below which a task is not worth handing to another thread.
const TASK_FLOPS: usize = 1 << 21;

/// Tasks that a single product is cut into at the most.
const MOST_TASKS: usize = 16;

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
        2 * self.m * self.n * self.k
    }
}

/// One operand of several products: the memory, the distances between neighbours down a column and along a
/// row, and where each product's matrix starts.
#[derive(Clone, Copy)]
pub struct Operand<'a, T> {
    /// All memory that the matrices lie in.
    pub data: &'a [T],
    /// From one row to the next, from one column to the next.
    pub strides: [usize; 2],
    /// Where the matrix of each product starts.
    pub offsets: &'a [usize],
}

impl<T> Operand<'_, T> {
    #[track_caller]
    fn check(&self, rows: usize, columns: usize) {
        let reach = (rows - 1) * self.strides[0] + (columns - 1) * self.strides[1];
        let inside = self.offsets.iter().all(|o| o + reach < self.data.len());
        assert!(inside, "a matrix has to lie inside its memory");
    }
}

/// What becomes of a product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Store<T> {
    /// It replaces what the result held.
    Replace,
    /// It is multiplied by a factor and added to what the result holds.
    AddScaled(T),
}

/// Computes `c[i] = a[i] x b[i]` for all products `i`; `c` holds them row-major behind one another.
///
/// The work is cut by its size alone: the bits do not depend on the number of threads.
///
/// # Panics
/// If an operand reaches outside its memory or `c` has another length than all results.
#[track_caller]
pub fn matmul_into<T: Number>(size: ProductSize, a: Operand<T>, b: Operand<T>, c: &mut [T], store: Store<T>) {
    let ProductSize { m, n, k } = size;
    let count = a.offsets.len();
    assert_eq!(count, b.offsets.len(), "as many left operands as right ones");
    assert_eq!(c.len(), count * m * n, "the result has to hold all products");
    if c.is_empty() {
        return;
    }
    if k == 0 {
        if store == Store::Replace {
            c.fill(T::ZERO);
        }
        return;
    }
    a.check(m, k);
    b.check(k, n);
    let c = SharedSlice::new(c);
    if T::DTYPE == DType::F32 {
        // SAFETY: T is f32.
        unsafe { own_products(size, &a, &b, &c, store) };
        return;
    }
    if size.flops() < TASK_FLOPS {
        let per_task = (TASK_FLOPS / size.flops()).max(1);
        parallel_for(count.div_ceil(per_task), |task| {
            for i in task * per_task..count.min((task + 1) * per_task) {
                block(size, &a, &b, &c, store, i, [0, m], [0, n]);
            }
        });
        return;
    }
    // Cut the longer side, so that a block stays near to a square; whole vectors and cache lines.
    let parts = (size.flops() / TASK_FLOPS).clamp(1, MOST_TASKS.div_ceil(count));
    let by_rows = m >= n;
    let length = if by_rows { m } else { n };
    let step = length.div_ceil(parts).next_multiple_of(48);
    let parts = length.div_ceil(step);
    parallel_for(count * parts, |task| {
        let (i, part) = (task / parts, task % parts);
        let range = [part * step, length.min((part + 1) * step)];
        if by_rows {
            block(size, &a, &b, &c, store, i, range, [0, n]);
        } else {
            block(size, &a, &b, &c, store, i, [0, m], range);
        }
    });
}

/// The products in `f32`, by our own kernel, which beats the crate's where operands have to be packed.
///
/// # Safety
/// `T` must be `f32`; the operands were checked.
unsafe fn own_products<T: Number>(
    size: ProductSize,
    a: &Operand<T>,
    b: &Operand<T>,
    c: &SharedSlice<T>,
    store: Store<T>,
) {
    let ProductSize { m, n, k } = size;
    // SAFETY: T is f32.
    let float = |x: T| unsafe { std::mem::transmute_copy::<T, f32>(&x) };
    let finish = match store {
        Store::Replace => Finish::default(),
        Store::AddScaled(factor) => Finish { alpha: float(factor), beta: 1.0, ..Finish::default() },
    };
    let count = a.offsets.len();
    let per_task = (TASK_FLOPS / size.flops()).max(1);
    parallel_for(count.div_ceil(per_task), |task| {
        for i in task * per_task..count.min((task + 1) * per_task) {
            // SAFETY: T is f32, and no other task writes product `i`.
            let (a, b, c) = unsafe {
                (view(a, i), view(b, i), &mut *(c.part(i * m * n, m * n) as *mut [T] as *mut [f32]))
            };
            gemm::matmul([m, n, k], a, b, c, n, finish);
        }
    });
}

/// An operand of product `i`.
///
/// # Safety
/// `T` must be `f32`.
unsafe fn view<'a, T>(operand: &Operand<'a, T>, i: usize) -> View<'a, f32> {
    let data = &operand.data[operand.offsets[i]..];
    // SAFETY: T is f32.
    let data = unsafe { &*(data as *const [T] as *const [f32]) };
    View { data, row: operand.strides[0], column: operand.strides[1] }
}

/// Some rows and columns of product `i`.
#[allow(clippy::too_many_arguments)]
fn block<T: Number>(
    size: ProductSize,
    a: &Operand<T>,
    b: &Operand<T>,
    c: &SharedSlice<T>,
    store: Store<T>,
    i: usize,
    rows: [usize; 2],
    columns: [usize; 2],
) {
    let ProductSize { m, n, k } = size;
    let left = a.offsets[i] + rows[0] * a.strides[0];
    let right = b.offsets[i] + columns[0] * b.strides[1];
    let start = i * m * n + rows[0] * n + columns[0];
    let (height, width) = (rows[1] - rows[0], columns[1] - columns[0]);
    if T::DTYPE == DType::F64 {
        let (add, factor) = match store {
            Store::Replace => (false, T::ONE),
            Store::AddScaled(factor) => (true, factor),
        };
        let [rsa, csa] = a.strides.map(|s| s as isize);
        let [rsb, csb] = b.strides.map(|s| s as isize);
        // SAFETY: T is f64. `check` has shown that all rows and columns lie inside the operands, the
        // result's length was compared with theirs, and no other task writes this block.
        unsafe {
            ::gemm::gemm(
                height,
                width,
                k,
                c.pointer(start),
                1,
                n as isize,
                add,
                a.data.as_ptr().add(left),
                csa,
                rsa,
                b.data.as_ptr().add(right),
                csb,
                rsb,
                T::ONE,
                factor,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
        return;
    }
    for y in 0..height {
        // SAFETY: no other task writes this block.
        let row = unsafe { c.part(start + y * n, width) };
        for (x, out) in row.iter_mut().enumerate() {
            let mut sum = T::ZERO;
            for step in 0..k {
                sum += a.data[left + y * a.strides[0] + step * a.strides[1]]
                    * b.data[right + step * b.strides[0] + x * b.strides[1]];
            }
            *out = match store {
                Store::Replace => sum,
                Store::AddScaled(factor) => *out + factor * sum,
            };
        }
    }
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
            matmul_into(size, a, b, &mut c, Store::Replace);
            prop_assert!(c.iter().zip(&want).all(|(x, y)| (x - y).abs() < 1e-12));
            matmul_into(size, a, b, &mut c, Store::AddScaled(-0.5));
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
            matmul_into(size, a, b, &mut c, Store::Replace);
            assert!(c.iter().zip(naive(size, &a, &b)).all(|(x, y)| (x - y).abs() < 1e-10));
        }
    }

    #[test]
    fn integers() {
        let a = Operand { data: &[1i64, 2, 3, 4], strides: [2, 1], offsets: &[0] };
        let mut c = [0; 4];
        matmul_into(ProductSize { m: 2, n: 2, k: 2 }, a, a, &mut c, Store::Replace);
        assert_eq!(c, [7, 10, 15, 22]);
    }
}
