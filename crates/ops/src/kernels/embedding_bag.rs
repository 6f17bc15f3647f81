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
            let of_bag = starts[bag]..starts[bag + 1];
            weighted_sum(out, table, &index[of_bag.clone()], &weights[of_bag]);
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

/// The elements of a row that are summed in registers.
const WIDTH: usize = 64;

tapegrad_tape::multiversion! {
    vectors of T;
    fn weighted_sum<T: Float>(out: &mut [T], table: &[T], index: &[usize], weights: &[Option<T>]) {
        let width = out.len();
        let (blocks, rest) = out.as_chunks_mut::<WIDTH>();
        for (b, block) in blocks.iter_mut().enumerate() {
            let mut sum = [T::ZERO; WIDTH];
            for (&i, w) in index.iter().zip(weights) {
                if let Some(w) = *w {
                    let row = &table[i * width + b * WIDTH..][..WIDTH];
                    for k in 0..WIDTH {
                        sum[k] += row[k] * w;
                    }
                }
            }
            *block = sum;
        }
        let from = width - rest.len();
        rest.fill(T::ZERO);
        for (&i, w) in index.iter().zip(weights) {
            if let Some(w) = *w {
                let row = &table[i * width + from..][..rest.len()];
                rest.iter_mut().zip(row).for_each(|(o, &x)| *o += x * w);
            }
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn add_row<T: Float>(out: &mut [T], row: &[T], w: T) {
        for (o, &x) in out.iter_mut().zip(row) {
            *o += x * w;
        }
    }
}
