//! The `f64` product: that of the crate `gemm-f64`, cut into blocks of rows.

use super::{Bias, Finish, View};
use crate::kernels::shared::SharedPointer;
use gemm_common::Parallelism;
use gemm_f64::gemm::f64::get_gemm_fn;
use tape::kernels::parallel::parallel_for;

/// The product; the arguments are those of [`matmul`](super::matmul), already checked there.
///
/// # Panics
/// If C is too short.
pub(super) fn product(
    size: [usize; 3],
    a: View<f64>,
    b: View<f64>,
    c: &mut [f64],
    row: usize,
    finish: Finish<f64>,
) {
    let [m, n, k] = size;
    assert!(m == 0 || n == 0 || c.len() >= (m - 1) * row + n, "matrix product: C is too short");
    // Rows of a block: at least some four million operations, at most 256.
    let block = (2_000_000 / (n * k).max(1)).clamp(8, 256).next_multiple_of(8);
    let out = SharedPointer::new(c);
    let gemm = get_gemm_fn();
    parallel_for(m.div_ceil(block), |task| {
        let (start, end) = (task * block, m.min((task + 1) * block));
        // SAFETY: the matrices are inside their slices (checked by the caller and above), and each task
        // writes its own rows of C.
        unsafe {
            let c = out.at(start * row);
            gemm(
                end - start,
                n,
                k,
                c,
                1,
                row as isize,
                finish.beta != 0.0,
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
                    Bias::Rows(bias) => line.iter_mut().for_each(|c| *c += bias[i]),
                    Bias::Columns(bias) => {
                        line.iter_mut().zip(bias).for_each(|(c, &b)| *c += b);
                    }
                }
                if finish.relu {
                    line.iter_mut().for_each(|c| *c = if *c < 0.0 { 0.0 } else { *c });
                }
            }
        }
    });
}
