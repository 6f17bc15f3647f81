//! The `f64` product: the crate `gemm`, split into our own tasks.

use super::{Bias, Finish, View};
use gemm_common::Parallelism;
use tapegrad_tape::kernels::parallel::parallel_for;
use tapegrad_tape::kernels::shared::SharedSlice;

/// The fewest operations for which a second thread pays off.
const MIN_PARALLEL_FLOPS: usize = 2_000_000;

/// Rows or columns of a task are a multiple of this: whole register tiles of the crate on every machine.
const UNIT: usize = 24;

/// The product; the arguments are those of [`matmul`](super::matmul), already checked there.
pub(super) fn product(
    size: [usize; 3],
    a: View<f64>,
    b: View<f64>,
    c: &mut [f64],
    row: usize,
    finish: Finish<f64>,
) {
    let [m, n, k] = size;
    let flops = 2 * m * n * k;
    // The partition depends on the sizes alone: results are bit-identical for any number of threads.
    let tasks = if flops < MIN_PARALLEL_FLOPS { 1 } else { (flops / 3_000_000).clamp(2, 8) };
    let side = m.max(n);
    let part = side.div_ceil(tasks).next_multiple_of(UNIT);
    let out = SharedSlice::new(c);
    parallel_for(side.div_ceil(part), |task| {
        let part = task * part..side.min((task + 1) * part);
        let (rows, columns) = if m >= n { (part, 0..n) } else { (0..m, part) };
        // The crate stores columns: it computes the transposed product.
        // SAFETY: the operands hold matrices of these sizes, and each task has its own elements of C.
        unsafe {
            gemm_f64::gemm::f64::get_gemm_fn()(
                columns.len(),
                rows.len(),
                k,
                out.at(rows.start * row + columns.start),
                row as isize,
                1,
                finish.beta != 0.0,
                b.data.as_ptr().wrapping_add(columns.start * b.column),
                b.row as isize,
                b.column as isize,
                a.data.as_ptr().wrapping_add(rows.start * a.row),
                a.row as isize,
                a.column as isize,
                finish.beta,
                finish.alpha,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
        if finish.bias == Bias::None {
            return;
        }
        for i in rows {
            // SAFETY: as above.
            let line =
                unsafe { std::slice::from_raw_parts_mut(out.at(i * row + columns.start), columns.len()) };
            match finish.bias {
                Bias::None => {}
                Bias::Rows(bias) => line.iter_mut().for_each(|c| *c += bias[i]),
                Bias::Columns(bias) => {
                    line.iter_mut().zip(&bias[columns.start..]).for_each(|(c, &b)| *c += b);
                }
            }
        }
    });
}
