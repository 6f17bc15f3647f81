//! Sums of rows of a table.

use tapegrad_tape::Float;
use tapegrad_tape::kernels::parallel::parallel_chunks;

/// The fewest elements of a task for another thread.
const GRAIN: usize = 1 << 14;

/// For each bag `b` the sum of the rows `index[starts[b]..starts[b + 1]]` of the table times their weights; rows of a
/// weight of `None` are left out.
pub(crate) fn sums<T: Float>(
    table: &[T],
    width: usize,
    index: &[usize],
    weights: &[Option<T>],
    starts: &[usize],
    out: &mut [T],
) {
    let each = GRAIN.div_ceil(width.max(1)).min(16);
    parallel_chunks(out, each * width, |task, out| {
        for (k, out) in out.chunks_exact_mut(width).enumerate() {
            let bag = task * each + k;
            out.fill(T::ZERO);
            for i in starts[bag]..starts[bag + 1] {
                if let Some(w) = weights[i] {
                    add_row(out, &table[index[i] * width..][..width], w);
                }
            }
        }
    });
}

/// For each row `r` of a table the sum of the rows `from[entries[k].0]` times `entries[k].1`, for `k` in
/// `starts[r]..starts[r + 1]`: the adjoint of [`sums`].
pub(crate) fn spread<T: Float>(
    from: &[T],
    width: usize,
    entries: &[(usize, T)],
    starts: &[usize],
    out: &mut [T],
) {
    let each = GRAIN.div_ceil(width.max(1));
    parallel_chunks(out, each * width, |task, out| {
        for (k, out) in out.chunks_exact_mut(width).enumerate() {
            let row = task * each + k;
            out.fill(T::ZERO);
            for &(bag, w) in &entries[starts[row]..starts[row + 1]] {
                add_row(out, &from[bag * width..][..width], w);
            }
        }
    });
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn add_row<T: Float>(out: &mut [T], row: &[T], w: T) {
        for (o, &x) in out.iter_mut().zip(row) {
            *o += x * w;
        }
    }
}
