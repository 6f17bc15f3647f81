//! The backward pass: the weights are computed again from the logarithms that the forward pass has kept.

use super::forward::scores_of;
use super::scores::{dot, for_pairs, transposed};
use super::{Attention, KEYS, Part, Place, Product, QUERIES, Rows, RowsMut, Sizes, TASKS};
use crate::kernels::microkernel::Left;
use crate::kernels::scratch::with_scratch;
use tapegrad_tape::kernels::arch::{self, Kernel, Vector};
use tapegrad_tape::kernels::parallel::parallel_for;
use tapegrad_tape::kernels::shared::SharedSlice;
use tapegrad_tape::kernels::vector_math::exp;

/// What the backward pass starts from.
pub(crate) struct Results<'a> {
    /// The result of the forward pass, and its logarithms.
    pub(crate) out: Rows<'a>,
    pub(crate) logs: &'a [f32],
    /// The gradient of the result.
    pub(crate) grad: Rows<'a>,
}

/// The gradients of queries, keys and values.
///
/// A task is a matrix, or where there are few, a range of its queries: its gradients of keys and values are added to those
/// of the ranges before it afterwards.
pub(crate) fn backward(a: &Attention, from: &Results, [dq, dk, dv]: [&RowsMut; 3]) {
    a.check();
    let Sizes { count, l, s, e, v } = a.sizes;
    from.out.check(count, l, v);
    from.grad.check(count, l, v);
    assert_eq!(from.logs.len(), count * l);
    let blocks = a.blocks();
    let ranges = TASKS.div_ceil(count).min(blocks);
    let spare = count * (ranges - 1) * s * (e + v);
    with_scratch(spare, |spare| {
        let spare = SharedSlice::new(spare);
        parallel_for(count * ranges, |task| {
            let (i, range) = (task / ranges, task % ranges);
            let (dk, dv) = if range == 0 {
                ((dk.at(i, 0), dk.stride), (dv.at(i, 0), dv.stride))
            } else {
                let start = (i * (ranges - 1) + range - 1) * s * (e + v);
                ((spare.at(start), e), (spare.at(start + s * e), v))
            };
            let tiles = if a.mask.is_some() || a.drop.is_some() { 4 } else { 2 };
            with_scratch(QUERIES * (e + v + tiles * KEYS + 2), |scratch| {
                // SAFETY: these gradients belong to this task.
                unsafe {
                    zero(dk, s, e);
                    zero(dv, s, v);
                }
                for block in blocks * range / ranges..blocks * (range + 1) / ranges {
                    arch::run(Block { a, from, i, block, dq, dk, dv, scratch });
                }
            });
        });
        if ranges > 1 {
            parallel_for(count, |i| {
                for range in 1..ranges {
                    let start = (i * (ranges - 1) + range - 1) * s * (e + v);
                    // SAFETY: the matrix belongs to this task, and what is added has been written.
                    unsafe {
                        add(dk.at(i, 0), dk.stride, spare.part(start, s * e), e);
                        add(dv.at(i, 0), dv.stride, spare.part(start + s * e, s * v), v);
                    }
                }
            });
        }
    });
}

/// # Safety
/// The rows must be writable.
unsafe fn zero((to, stride): (*mut f32, usize), rows: usize, width: usize) {
    for row in 0..rows {
        // SAFETY: as promised.
        unsafe { std::slice::from_raw_parts_mut(to.add(row * stride), width) }.fill(0.0);
    }
}

/// # Safety
/// The rows must be writable.
unsafe fn add(to: *mut f32, stride: usize, from: &[f32], width: usize) {
    for (row, from) in from.chunks_exact(width).enumerate() {
        // SAFETY: as promised.
        let to = unsafe { std::slice::from_raw_parts_mut(to.add(row * stride), width) };
        to.iter_mut().zip(from).for_each(|(to, x)| *to += x);
    }
}

/// One block of queries of one matrix.
struct Block<'a> {
    a: &'a Attention<'a>,
    from: &'a Results<'a>,
    i: usize,
    block: usize,
    dq: &'a RowsMut<'a>,
    /// The gradients of the matrix's keys and values, and the distances of their rows.
    dk: (*mut f32, usize),
    dv: (*mut f32, usize),
    scratch: &'a mut [f32],
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Block { a, from, i, block, dq, dk, dv, scratch } = self;
        let (Sizes { l, e, v, .. }, first) = (a.sizes, block * QUERIES);
        let queries = QUERIES.min(l - first);
        let (logs, rest) = scratch.split_at_mut(QUERIES);
        let (means, rest) = rest.split_at_mut(QUERIES);
        let (query, rest) = rest.split_at_mut(QUERIES * e);
        let (grad, rest) = rest.split_at_mut(QUERIES * v);
        let (weights, rest) = rest.split_at_mut(QUERIES * KEYS);
        let (slopes, spare) = rest.split_at_mut(QUERIES * KEYS);
        let ld = queries.next_multiple_of(super::COLUMNS);
        logs[..queries].copy_from_slice(&from.logs[i * l + first..][..queries]);
        // SAFETY: operands and results were checked to have these rows; the gradients belong to this task.
        unsafe {
            transposed(a.q.at(i, first), a.q.stride, [queries, e], query, ld, a.scale);
            transposed(from.grad.at(i, first), from.grad.stride, [queries, v], grad, ld, 1.0);
            for (q, mean) in means[..queries].iter_mut().enumerate() {
                *mean = dot::<V>(from.out.at(i, first + q), from.grad.at(i, first + q), v);
            }
            for place in Place::all(a, i, block) {
                scores_of(a, &place, query, weights).run::<V>(&place);
                place.hide(a, weights, spare);
                let values = Product {
                    part: Part::Scores,
                    columns: queries,
                    steps: v,
                    a: a.v.at(i, place.key),
                    left: Left::Rows,
                    a_row: a.v.stride,
                    b: grad.as_ptr(),
                    b_step: ld,
                    c: slopes.as_mut_ptr(),
                    c_row: ld,
                    alpha: 1.0,
                    add: false,
                };
                values.run::<V>(&place);
                if a.drop.is_some() {
                    let (factors, spare) = spare.split_at_mut(QUERIES * KEYS);
                    place.drop_factors(a, factors, spare);
                    differentiate::<V, true>(&place, weights, slopes, factors, logs, means);
                } else {
                    differentiate::<V, false>(&place, weights, slopes, &[], logs, means);
                }
                place.end_with_zeros(weights);
                place.end_with_zeros(slopes);
                let by_keys =
                    |to: (*mut f32, usize), left: &[f32], right: (*const f32, usize), columns, alpha| {
                        Product {
                            part: Part::QuerySteps,
                            columns,
                            steps: 0,
                            a: left.as_ptr(),
                            left: Left::Rows,
                            a_row: ld,
                            b: right.0,
                            b_step: right.1,
                            c: to.0.wrapping_add(place.key * to.1),
                            c_row: to.1,
                            alpha,
                            add: true,
                        }
                    };
                by_keys(dv, weights, (from.grad.at(i, first), from.grad.stride), v, 1.0).run::<V>(&place);
                by_keys(dk, slopes, (a.q.at(i, first), a.q.stride), e, a.scale).run::<V>(&place);
                let of_queries = Product {
                    part: Part::KeySteps,
                    columns: e,
                    steps: 0,
                    a: slopes.as_ptr(),
                    left: Left::Columns(ld),
                    a_row: 1,
                    b: a.k.at(i, place.key),
                    b_step: a.k.stride,
                    c: dq.at(i, first),
                    c_row: dq.stride,
                    alpha: a.scale,
                    add: place.key > 0,
                };
                of_queries.run::<V>(&place);
            }
        }
    }
}

/// Replaces scores by weights (after dropout), and the gradients of the weights by those of the scores.
#[inline(always)]
fn differentiate<V: Vector, const DROP: bool>(
    place: &Place,
    weights: &mut [f32],
    slopes: &mut [f32],
    factors: &[f32],
    logs: &[f32],
    means: &[f32],
) {
    let (ld, all) = (place.ld, place.keys * place.ld);
    assert!(weights.len() >= all && slopes.len() >= all && (!DROP || factors.len() >= all));
    assert!(logs.len() >= ld && means.len() >= ld);
    for_pairs!(V, place, |column, seen| {
        for half in [column, column + V::LANES] {
            // SAFETY: rows and totals have `ld` elements, whole pairs of vectors.
            unsafe {
                let (log, mean) = (V::load(logs.as_ptr().add(half)), V::load(means.as_ptr().add(half)));
                for key in 0..seen {
                    let at = key * ld + half;
                    let (weight, slope) = (weights.as_mut_ptr().add(at), slopes.as_mut_ptr().add(at));
                    let p = exp(V::load(weight).sub(log));
                    if DROP {
                        let factor = V::load(factors.as_ptr().add(at));
                        V::load(slope).mul(factor).sub(mean).mul(p).store(slope);
                        p.mul(factor).store(weight);
                    } else {
                        V::load(slope).sub(mean).mul(p).store(slope);
                        p.store(weight);
                    }
                }
            }
        }
    });
}
