//! Reductions of tensors of any strides, without a copy.
//!
//! Dimensions are sorted into memory order. If the innermost one is reduced, each result is folded along it, in enough
//! partial results to fill the vector registers. If it is kept, a whole row of results is folded at once, row by row.
//! Results are stored in the order of the operand's kept dimensions.
//!
//! The work is partitioned by the shape of the tensor alone, and partial results are joined in a fixed order: results
//! are bit-identical for any number of threads. Long sums consist of sums of some thousand elements, which are added in
//! pairs, so that errors stay small.

mod plan;

use crate::dtype::Element;
use crate::kernels::parallel::parallel_blocks;
use crate::kernels::shared::SharedSlice;
use crate::shape::Dims;
use crate::tensor::Tensor;
use smallvec::SmallVec;

pub(crate) use plan::channels;
use plan::{Level, Plan, Walk};

/// The fewest elements that one task reduces.
const GRAIN: usize = 32 * 1024;
/// The most contiguous elements that are folded into one partial result.
const SEGMENT: usize = 4096;
/// Results that are folded at once across rows: they stay in the L1 cache.
const COLUMNS: usize = 1024;
/// Rows that are folded before their result is joined with those of earlier rows.
const BATCH: usize = 64;

/// The sizes of a result: reduced dimensions are removed, or of size one with `keepdim`.
pub(crate) fn reduced_shape(shape: &[usize], dims: &[usize], keepdim: bool) -> Dims {
    let mut out = Dims::new();
    for (d, &n) in shape.iter().enumerate() {
        if !dims.contains(&d) {
            out.push(n);
        } else if keepdim {
            out.push(1);
        }
    }
    out
}

/// Folds the elements along `dims`: `init` is the neutral element, `step` takes in one element, `join` two partial
/// results. The result has the kept dimensions.
pub(crate) fn fold<T: Element, A: Element>(
    t: &Tensor,
    dims: &[usize],
    init: A,
    step: impl Fn(A, T) -> A + Sync,
    join: impl Fn(A, A) -> A + Sync,
) -> Tensor {
    let plan = Plan::new(t, dims);
    fold_planned(t, &plan, &vec![(); plan.results().max(COLUMNS)], init, |a, x, ()| step(a, x), join)
}

/// Like [`fold`], with a value of `with` for each result: a tensor that [`fold`] has made for the same tensor and
/// `dims`.
pub(crate) fn fold_with<T: Element, A: Element, C: Element>(
    t: &Tensor,
    dims: &[usize],
    with: &Tensor,
    init: A,
    step: impl Fn(A, T, C) -> A + Sync,
    join: impl Fn(A, A) -> A + Sync,
) -> Tensor {
    let plan = Plan::new(t, dims);
    let context = &with.data::<C>()[..plan.results()];
    fold_planned(t, &plan, context, init, step, join)
}

fn fold_planned<T: Element, A: Element, C: Copy + Sync>(
    t: &Tensor,
    plan: &Plan,
    context: &[C],
    init: A,
    step: impl Fn(A, T, C) -> A + Sync,
    join: impl Fn(A, A) -> A + Sync,
) -> Tensor {
    let mut out = Tensor::uninit_strided(&plan.shape, plan.strides.clone(), A::DTYPE);
    let results = out.data_mut::<A>();
    if plan.empty || results.is_empty() {
        results.fill(init);
        return out;
    }
    let data = t.data::<T>();
    let join_rows = |a: &mut [A], b: &[A]| a.iter_mut().zip(b).for_each(|(a, &b)| *a = join(*a, b));
    if plan.levels[plan.levels.len() - 1].kept {
        fold_across(plan, context, results, init, &join_rows, &|acc, starts, stride, context| {
            across(acc, data, starts, stride, context, &step);
        });
    } else {
        fold_along(plan, results, &join_rows, &|out, rows, stride, of, first| {
            along(out, data, rows, stride, context, of, first, init, &step, &join);
        });
    }
    out
}

/// Folds `rows`, each a start and a length, each into its result. Row `i` belongs to result `(first + i) / of`.
type Along<'a, A> = &'a (dyn Fn(&mut [A], &[(usize, usize)], usize, usize, usize) + Sync);

/// The innermost dimension is reduced.
fn fold_along<A: Element>(plan: &Plan, results: &mut [A], join: JoinRows<A>, along: Along<A>) {
    let inner = plan.levels[plan.levels.len() - 1];
    let pieces = inner.size.div_ceil(SEGMENT);
    let length = inner.size.div_ceil(pieces);
    let mut levels: SmallVec<[Level; 6]> = plan.levels(true).chain(plan.levels(false)).collect();
    levels.pop();
    let of = plan.count(false) / inner.size * pieces;
    let fill = |partial: &mut [A]| {
        let (count, pointer) = (partial.len(), SharedSlice::new(partial));
        parallel_blocks(count, GRAIN.div_ceil(length), |start, end| {
            // SAFETY: blocks of the partial results do not overlap.
            let block = unsafe { pointer.part(start, end - start) };
            let mut walk = Walk::new(levels.clone(), start / pieces);
            let mut row = 0;
            let mut rows = [(0, 0); 256];
            for (batch, first) in block.chunks_mut(rows.len()).zip((start..).step_by(rows.len())) {
                for (i, r) in rows[..batch.len()].iter_mut().enumerate() {
                    let piece = (first + i) % pieces;
                    if piece == 0 || first + i == start {
                        row = walk.next();
                    }
                    let (from, to) = (piece * length, inner.size.min((piece + 1) * length));
                    *r = (row + from * inner.stride, to.saturating_sub(from));
                }
                along(batch, &rows[..batch.len()], inner.stride, of, first);
            }
        });
    };
    if of == 1 {
        return fill(results);
    }
    let mut partial = vec![results[0]; results.len() * of];
    fill(&mut partial);
    for (o, list) in results.iter_mut().zip(partial.chunks_exact_mut(of)) {
        join_pairs(list, 1, join);
        *o = list[0];
    }
}

/// Joins a row of partial results with a second one of equal length: a call for each element would take longer.
type JoinRows<'a, A> = &'a (dyn Fn(&mut [A], &[A]) + Sync);

/// Joins neighboring rows of length `m`, then neighbors of these, until the first row is the result of all.
fn join_pairs<A: Copy>(list: &mut [A], m: usize, join: JoinRows<A>) {
    let mut n = list.len() / m;
    while n > 1 {
        for i in 0..n / 2 {
            let (first, second) = list[2 * i * m..][..2 * m].split_at_mut(m);
            join(first, second);
            list.copy_within(2 * i * m..(2 * i + 1) * m, i * m);
        }
        if !n.is_multiple_of(2) {
            list.copy_within((n - 1) * m..n * m, n / 2 * m);
        }
        n = n.div_ceil(2);
    }
}

/// Folds rows that begin at the given offsets into a row of results.
type Across<'a, A, C> = &'a (dyn Fn(&mut [A], &[usize], usize, &[C]) + Sync);

/// The innermost dimension is kept.
fn fold_across<A: Element, C: Copy + Sync>(
    plan: &Plan,
    context: &[C],
    results: &mut [A],
    init: A,
    join: JoinRows<A>,
    across: Across<A, C>,
) {
    let inner = plan.levels[plan.levels.len() - 1];
    let m = inner.size;
    let mut reduced: SmallVec<[Level; 6]> = plan.levels(false).collect();
    let mut kept: SmallVec<[Level; 6]> = plan.levels(true).collect();
    kept.pop();
    let groups: usize = kept.iter().map(|l| l.size).product();
    let wide = widen(&mut reduced, inner);
    let width = m * wide;
    let repeated: Vec<C>;
    let context = if wide > 1 && std::mem::size_of::<C>() > 0 {
        repeated = context.chunks_exact(m).flat_map(|row| row.iter().cycle().take(width).copied()).collect();
        &repeated[..]
    } else {
        context
    };
    let context_of = |group: usize, from: usize, to: usize| match std::mem::size_of::<C>() {
        0 => &context[..to - from],
        _ => &context[group * width + from..group * width + to],
    };
    let rows: usize = reduced.iter().map(|l| l.size).product();
    let chunks = (rows * width / GRAIN).clamp(1, (64 / groups).max(1));
    let per_chunk = rows.div_ceil(chunks);
    let chunks = rows.div_ceil(per_chunk);
    let blocks = width.div_ceil(COLUMNS);
    let fill = |partial: &mut [A]| {
        let pointer = SharedSlice::new(partial);
        let work = per_chunk * width.min(COLUMNS);
        parallel_blocks(groups * chunks * blocks, GRAIN.div_ceil(work), |start, end| {
            let mut batch = [init; COLUMNS];
            let mut starts = [0; BATCH];
            for task in start..end {
                let (row, block) = (task / blocks, task % blocks);
                let (group, chunk) = (row / chunks, row % chunks);
                let (from, to) = (block * COLUMNS, width.min((block + 1) * COLUMNS));
                // SAFETY: each task has its own range of the partial results.
                let acc = unsafe { pointer.part(row * width + from, to - from) };
                acc.fill(init);
                let base = Walk::new(kept.clone(), group).next() + from * inner.stride;
                let (first, last) = (chunk * per_chunk, rows.min((chunk + 1) * per_chunk));
                let mut walk = Walk::new(reduced.clone(), first);
                for at in (first..last).step_by(BATCH) {
                    let n = BATCH.min(last - at);
                    starts[..n].iter_mut().for_each(|s| *s = base + walk.next());
                    if last - first <= BATCH {
                        across(acc, &starts[..n], inner.stride, context_of(group, from, to));
                    } else {
                        let batch = &mut batch[..to - from];
                        batch.fill(init);
                        across(batch, &starts[..n], inner.stride, context_of(group, from, to));
                        join(acc, batch);
                    }
                }
            }
        });
    };
    if chunks * wide == 1 {
        return fill(results);
    }
    let mut partial = vec![init; groups * chunks * width];
    fill(&mut partial);
    join_groups(&mut partial, results, m, join);
}

/// Merges short rows that are contiguous into one. Returns how many it merges.
fn widen(reduced: &mut [Level], inner: Level) -> usize {
    match reduced.last_mut() {
        Some(last) if inner.size < 64 && last.stride == inner.size * inner.stride => {
            let wide = (1..=64 / inner.size).rev().find(|k| last.size.is_multiple_of(*k)).unwrap_or(1);
            *last = Level { size: last.size / wide, stride: last.stride * wide, ..*last };
            wide
        }
        _ => 1,
    }
}

/// Joins the partial results of each row of `m` results, which are `m` apart.
fn join_groups<A: Copy>(partial: &mut [A], results: &mut [A], m: usize, join: JoinRows<A>) {
    let per_group = partial.len() / results.len() * m;
    for (parts, results) in partial.chunks_exact_mut(per_group).zip(results.chunks_exact_mut(m)) {
        join_pairs(parts, m, join);
        results.copy_from_slice(&parts[..m]);
    }
}

crate::multiversion! {
    vectors of T;
    fn along<T: Element, A: Element, C: Copy>(out: &mut [A], data: &[T], rows: &[(usize, usize)], stride: usize, context: &[C],
        of: usize, first: usize, init: A, step: &F, join: &G) where F: [Fn(A, T, C) -> A], G: [Fn(A, A) -> A] {
        for (i, (o, &(start, length))) in out.iter_mut().zip(rows).enumerate() {
            let c = context[(first + i) / of];
            if stride != 1 {
                *o = (0..length).fold(init, |acc, k| step(acc, data[start + k * stride], c));
                continue;
            }
            let row = &data[start..start + length];
            let mut acc = init;
            // Types that are not vectorized gain nothing from so many lanes.
            let rest = if T::VECTORIZED && row.len() >= 64 {
                let mut lanes = [init; 64];
                let chunks = row.chunks_exact(64);
                let rest = chunks.remainder();
                for chunk in chunks {
                    for (l, &x) in lanes.iter_mut().zip(chunk) {
                        *l = step(*l, x, c);
                    }
                }
                let mut width = 32;
                while width > 0 {
                    for k in 0..width {
                        lanes[k] = join(lanes[k], lanes[k + width]);
                    }
                    width /= 2;
                }
                acc = lanes[0];
                rest
            } else {
                row
            };
            let mut lanes = [init; 8];
            let chunks = rest.chunks_exact(8);
            let last = chunks.remainder();
            if rest.len() >= 16 {
                for chunk in chunks {
                    for (l, &x) in lanes.iter_mut().zip(chunk) {
                        *l = step(*l, x, c);
                    }
                }
                for l in lanes {
                    acc = join(acc, l);
                }
                for &x in last {
                    acc = step(acc, x, c);
                }
            } else {
                for &x in rest {
                    acc = step(acc, x, c);
                }
            }
            *o = acc;
        }
    }
}

crate::multiversion! {
    vectors of T;
    fn across<T: Element, A: Element, C: Copy>(acc: &mut [A], data: &[T], starts: &[usize], stride: usize, context: &[C], step: &F)
    where F: [Fn(A, T, C) -> A] {
        let n = acc.len();
        let context = &context[..n];
        if stride != 1 {
            for &start in starts {
                for (k, (a, &c)) in acc.iter_mut().zip(context).enumerate() {
                    *a = step(*a, data[start + k * stride], c);
                }
            }
            return;
        }
        let eights = starts.chunks_exact(8);
        for &start in eights.remainder() {
            let x = &data[start..start + n];
            for k in 0..n {
                acc[k] = step(acc[k], x[k], context[k]);
            }
        }
        for eight in eights {
            let row = |i: usize| &data[eight[i]..][..n];
            let (x, y, z, w) = (row(0), row(1), row(2), row(3));
            let (p, q, r, s) = (row(4), row(5), row(6), row(7));
            for k in 0..n {
                let (c, mut a) = (context[k], acc[k]);
                a = step(step(step(step(a, x[k], c), y[k], c), z[k], c), w[k], c);
                acc[k] = step(step(step(step(a, p[k], c), q[k], c), r[k], c), s[k], c);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, MemoryFormat, set_num_threads};
    use proptest::prelude::*;

    fn sum(t: &Tensor, dims: &[usize]) -> Tensor {
        fold(t, dims, 0.0, |a, x: f32| a + x, |a, b| a + b)
    }

    fn naive(t: &Tensor, dims: &[usize]) -> Vec<f64> {
        let kept: Vec<usize> = (0..t.ndim()).filter(|d| !dims.contains(d)).collect();
        let order: Vec<isize> = kept.iter().chain(dims).map(|&d| d as isize).collect();
        let values = t.permute(&order).to_vec::<f64>();
        let length: usize = dims.iter().map(|&d| t.shape()[d]).product();
        let count: usize = kept.iter().map(|&d| t.shape()[d]).product();
        (0..count).map(|i| values[i * length..(i + 1) * length].iter().sum()).collect()
    }

    fn filled(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i as u64 * 2654435761) % 1000) as f32 / 500.0 - 1.0).collect()
    }

    fn close(got: &[f64], want: &[f64]) -> bool {
        got.len() == want.len() && got.iter().zip(want).all(|(a, b)| (a - b).abs() <= 1e-4 * (1.0 + b.abs()))
    }

    proptest! {
        #[test]
        fn any_strides_and_dims(
            shape in proptest::collection::vec(0usize..6, 0..5),
            chosen in any::<u8>(),
            layout in 0u8..5,
        ) {
            let n: usize = shape.iter().product();
            let base = Tensor::from_vec(filled(4 * n + 9), &[4 * n + 9]);
            let mut strides = crate::shape::contiguous_strides(&shape);
            match layout {
                1 => strides = crate::shape::channels_last_strides(&shape),
                2 => strides.iter_mut().for_each(|s| *s *= 2),
                3 if !shape.is_empty() => strides[0] = 0,
                4 => {
                    let reversed: Vec<usize> = shape.iter().rev().copied().collect();
                    strides = crate::shape::contiguous_strides(&reversed).into_iter().rev().collect();
                }
                _ => {}
            }
            let t = Tensor::from_strided(base.data::<f32>(), &shape, &strides, 3);
            let dims: Vec<usize> = (0..shape.len()).filter(|d| chosen >> d & 1 == 1).collect();
            prop_assert!(close(&sum(&t, &dims).to_vec::<f64>(), &naive(&t, &dims)));
            // Squares of the distance from a value for each result.
            let with = sum(&t, &dims);
            let squares = fold_with(&t, &dims, &with, 0.0, |a, x: f32, c: f32| a + (x - c) * (x - c), |a, b| a + b);
            let far = with.to_vec::<f64>();
            let length: usize = dims.iter().map(|&d| shape[d]).product();
            let sums = naive(&t, &dims);
            let all = crate::kernels::strided::map::<f32, f32>(&t, |x| x * x);
            let want: Vec<f64> = naive(&all, &dims)
                .iter()
                .zip(far.iter().zip(&sums))
                .map(|(q, (c, s))| q - 2.0 * c * s + length as f64 * c * c)
                .collect();
            prop_assert!(close(&squares.to_vec::<f64>(), &want), "{:?} {:?}", squares.to_vec::<f64>(), want);
        }
    }

    #[test]
    fn large_tensors_give_the_same_bits_on_any_number_of_threads() {
        for (shape, dims) in [
            (vec![3_000_000], vec![0]),
            (vec![70_000, 10], vec![0]),
            (vec![70_000, 10], vec![1]),
            (vec![33, 64, 900], vec![0, 2]),
            (vec![5, 3000, 70], vec![1]),
            (vec![9, 40_000], vec![0]),
            (vec![9, 40_000], vec![1]),
        ] {
            let n: usize = shape.iter().product();
            let t = Tensor::from_vec(filled(n), &shape);
            set_num_threads(1);
            let one = sum(&t, &dims).to_vec::<f32>();
            set_num_threads(3);
            assert_eq!(sum(&t, &dims).to_vec::<f32>(), one, "{shape:?} {dims:?}");
            let got: Vec<f64> = one.iter().map(|&x| f64::from(x)).collect();
            // The error is measured by the sum of the magnitudes, at most the count.
            let count = (n / got.len()) as f64;
            assert!(
                got.iter().zip(naive(&t, &dims)).all(|(a, b)| (a - b).abs() < 1e-6 * count),
                "{shape:?} {dims:?}"
            );
        }
    }

    #[test]
    fn results_keep_the_order_of_memory() {
        let t = Tensor::zeros_with(&[2, 3, 4, 5], DType::F32).to_format(MemoryFormat::ChannelsLast);
        assert_eq!(sum(&t, &[0]).strides(), [1, 15, 3]);
        assert!(sum(&t, &[2, 3]).is_contiguous());
    }

    #[test]
    fn long_sums_stay_accurate() {
        let t = Tensor::full_with(&[1 << 24], 0.1, DType::F32);
        let exact = f64::from(0.1f32) * f64::from(1 << 24);
        assert!((f64::from(sum(&t, &[0]).item::<f32>()) / exact - 1.0).abs() < 1e-6);
        let columns = Tensor::full_with(&[1 << 20, 3], 0.1, DType::F32);
        let exact = f64::from(0.1f32) * f64::from(1 << 20);
        assert!(sum(&columns, &[0]).to_vec::<f64>().iter().all(|s| (s / exact - 1.0).abs() < 3e-6));
    }
}
