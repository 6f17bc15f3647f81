//! The products of the `gemm` crates, cut into blocks of rows.

use super::{Bias, Finish, Real, View};
use crate::kernels::shared::SharedPointer;
use gemm_common::Parallelism;
use tape::kernels::parallel::parallel_for;

/// A product by the `gemm` crates: sizes m, n, k; C with its column and row strides, and whether it is read; A and B
/// with theirs; the factors of C and of the product; which of C, A and B are conjugated.
pub(super) type Function<T> = unsafe fn(
    usize,
    usize,
    usize,
    *mut T,
    isize,
    isize,
    bool,
    *const T,
    isize,
    isize,
    *const T,
    isize,
    isize,
    T,
    T,
    bool,
    bool,
    bool,
    Parallelism,
);

/// The types that the `gemm` crates multiply.
pub trait CrateProduct: Copy {
    /// The function for this type and this machine.
    fn crate_product() -> Function<Self>;
}

impl CrateProduct for f32 {
    #[inline]
    fn crate_product() -> Function<f32> {
        gemm_f32::gemm::f32::get_gemm_fn()
    }
}

impl CrateProduct for f64 {
    #[inline]
    fn crate_product() -> Function<f64> {
        gemm_f64::gemm::f64::get_gemm_fn()
    }
}

/// The product by the `gemm` crates; the arguments are those of [`matmul`](super::matmul), already checked there.
///
/// # Panics
/// If C is too short.
pub fn product<T: Real>(
    size: [usize; 3],
    a: View<T>,
    b: View<T>,
    c: &mut [T],
    row: usize,
    finish: Finish<T>,
) {
    let [m, n, k] = size;
    assert!(m == 0 || n == 0 || c.len() >= (m - 1) * row + n, "matrix product: C is too short");
    // Rows of a block: at least some four million operations, at most 256.
    let block = (2_000_000 / (n * k).max(1)).clamp(8, 256).next_multiple_of(8);
    let out = SharedPointer::new(c);
    parallel_for(m.div_ceil(block), |task| {
        let (start, end) = (task * block, m.min((task + 1) * block));
        // SAFETY: the matrices are inside their slices (checked by the caller and above), and each task
        // writes its own rows of C.
        unsafe {
            let c = out.at(start * row);
            T::crate_product()(
                end - start,
                n,
                k,
                c,
                1,
                row as isize,
                finish.beta != T::ZERO,
                a.data.as_ptr().wrapping_add(start * a.row),
                a.column as isize,
                a.row as isize,
                b.data.as_ptr(),
                b.column as isize,
                b.row as isize,
                finish.beta,
                finish.alpha,
                false,
                false,
                false,
                Parallelism::None,
            );
            for i in start..end {
                let line = std::slice::from_raw_parts_mut(out.at(i * row), n);
                match finish.bias {
                    Bias::None => {}
                    Bias::Rows(bias) => line.iter_mut().for_each(|c| *c = T::ONE.times_plus(*c, bias[i])),
                    Bias::Columns(bias) => {
                        line.iter_mut().zip(bias).for_each(|(c, &b)| *c = T::ONE.times_plus(*c, b));
                    }
                }
                if finish.relu {
                    line.iter_mut().for_each(|c| *c = if *c < T::ZERO { T::ZERO } else { *c });
                }
            }
        }
    });
}
