//! The forward pass: running maxima and sums, by which earlier results are corrected.

use super::scores::{for_pairs, scale_row, transposed};
use super::{Attention, KEYS, Part, Place, Product, QUERIES, Rows, RowsMut, TASK};
use crate::kernels::microkernel::Left;
use crate::kernels::scratch::with_scratch;
use tapegrad_tape::kernels::arch::{self, Kernel, Vector};
use tapegrad_tape::kernels::parallel::parallel_for;
use tapegrad_tape::kernels::shared::SharedSlice;
use tapegrad_tape::kernels::vector_math::exp;

/// The results, and for each query the logarithm of the sum of its exponentials. A query that a mask hides all keys from
/// gets zeros, and infinity for the logarithm.
pub(crate) fn forward(a: &Attention, out: &RowsMut, logs: &mut [f32]) {
    a.check();
    let sizes = a.sizes;
    assert_eq!(logs.len(), sizes.count * sizes.l);
    let blocks = a.blocks();
    let all = sizes.count * blocks;
    let each = (TASK / a.block_flops().max(1)).max(1);
    let logs = SharedSlice::new(logs);
    parallel_for(all.div_ceil(each), |task| {
        // Blocks, twice if there is something to be transposed.
        let tiles = if a.mask.is_some() || a.drop.is_some() { 3 } else { 1 };
        with_scratch(QUERIES * (sizes.e + tiles * KEYS + 3), |scratch| {
            for block in task * each..all.min((task + 1) * each) {
                let (i, block) = (block / blocks, block % blocks);
                let queries = QUERIES.min(sizes.l - block * QUERIES);
                // SAFETY: each block of queries has its own logarithms.
                let logs = unsafe { logs.part(i * sizes.l + block * QUERIES, queries) };
                arch::run(Block { a, i, block, out, logs, scratch });
            }
        });
    });
}

/// One block of queries of one matrix.
struct Block<'a> {
    a: &'a Attention<'a>,
    i: usize,
    block: usize,
    out: &'a RowsMut<'a>,
    logs: &'a mut [f32],
    scratch: &'a mut [f32],
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Block { a, i, block, out, logs, scratch } = self;
        let (sizes, first, queries) = (a.sizes, block * QUERIES, logs.len());
        let (maxima, rest) = scratch.split_at_mut(QUERIES);
        let (sums, rest) = rest.split_at_mut(QUERIES);
        let (corrections, rest) = rest.split_at_mut(QUERIES);
        let (query, rest) = rest.split_at_mut(QUERIES * sizes.e);
        let (scores, spare) = rest.split_at_mut(QUERIES * KEYS);
        // Finite: what is hidden then gets exp(-inf) = 0.
        maxima.fill(f32::MIN);
        sums.fill(0.0);
        let ld = queries.next_multiple_of(super::COLUMNS);
        // SAFETY: operands and results were checked to have these rows; each block of queries has its own results.
        unsafe {
            let Rows { stride, .. } = a.q;
            transposed(a.q.at(i, first), stride, [queries, sizes.e], query, ld, a.scale);
            for place in Place::all(a, i, block) {
                scores_of(a, &place, query, scores).run::<V>(&place);
                place.hide(a, scores, spare);
                weigh::<V>(&place, scores, maxima, sums, corrections);
                if place.key > 0 {
                    for (q, &by) in corrections[..queries].iter().enumerate() {
                        if by != 1.0 {
                            scale_row::<V>(out.at(i, first + q), sizes.v, by);
                        }
                    }
                }
                place.end_with_zeros(scores);
                if a.drop.is_some() {
                    let (factors, spare) = spare.split_at_mut(QUERIES * KEYS);
                    place.drop_factors(a, factors, spare);
                    let all = place.keys * ld;
                    scores[..all].iter_mut().zip(&factors[..all]).for_each(|(x, f)| *x *= f);
                }
                let product = Product {
                    part: Part::KeySteps,
                    columns: sizes.v,
                    steps: 0,
                    a: scores.as_ptr(),
                    left: Left::Columns(ld),
                    a_row: 1,
                    b: a.v.at(i, place.key),
                    b_step: a.v.stride,
                    c: out.at(i, first),
                    c_row: out.stride,
                    alpha: 1.0,
                    add: place.key > 0,
                };
                product.run::<V>(&place);
            }
            for (q, log) in logs.iter_mut().enumerate() {
                let nothing = a.mask.is_some() && sums[q] == 0.0;
                *log = if nothing { f32::INFINITY } else { maxima[q] + sums[q].ln() };
                let by = if nothing { 0.0 } else { 1.0 / sums[q] };
                scale_row::<V>(out.at(i, first + q), sizes.v, by);
            }
        }
    }
}

/// The product that gives the transposed scores of a place.
pub(super) fn scores_of(a: &Attention, place: &Place, query: &[f32], scores: &mut [f32]) -> Product {
    Product {
        part: Part::Scores,
        columns: place.queries,
        steps: a.sizes.e,
        a: a.k.at(place.i, place.key),
        left: Left::Rows,
        a_row: a.k.stride,
        b: query.as_ptr(),
        b_step: place.ld,
        c: scores.as_mut_ptr(),
        c_row: place.ld,
        alpha: 1.0,
        add: false,
    }
}

/// Replaces scores by exponentials less the new maxima, and adds them to the sums; `corrections` are the factors that
/// earlier sums had to be multiplied by.
#[inline(always)]
fn weigh<V: Vector>(
    place: &Place,
    scores: &mut [f32],
    maxima: &mut [f32],
    sums: &mut [f32],
    corrections: &mut [f32],
) {
    let ld = place.ld;
    assert!(
        scores.len() >= place.keys * ld && maxima.len() >= ld && sums.len() >= ld && corrections.len() >= ld
    );
    for_pairs!(V, place, |column, seen| {
        for half in [column, column + V::LANES] {
            // SAFETY: rows and totals have `ld` elements, whole pairs of vectors.
            unsafe {
                let at = scores.as_mut_ptr().add(half);
                let old = V::load(maxima.as_ptr().add(half));
                let (mut even, mut odd) = (old, old);
                for key in 0..seen / 2 {
                    even = even.max(V::load(at.add(2 * key * ld)));
                    odd = odd.max(V::load(at.add((2 * key + 1) * ld)));
                }
                if seen % 2 == 1 {
                    even = even.max(V::load(at.add((seen - 1) * ld)));
                }
                let max = even.max(odd);
                let mut sum = V::splat(0.0);
                for key in 0..seen {
                    let x = exp(V::load(at.add(key * ld)).sub(max));
                    x.store(at.add(key * ld));
                    sum = sum.add(x);
                }
                let by = exp(old.sub(max));
                max.store(maxima.as_mut_ptr().add(half));
                by.store(corrections.as_mut_ptr().add(half));
                let total = V::load(sums.as_ptr().add(half));
                total.mul_add(by, sum).store(sums.as_mut_ptr().add(half));
            }
        }
    });
}
