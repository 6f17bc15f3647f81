//! Sums in a fixed order.

use crate::engine::Sum;
use std::ops::Range;
use tapegrad_tape::{DType, Element, Tensor};

/// How the values of ranks are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// The sum, over a balanced tree of the ranks in their order: the same bits in every run.
    Sum,
    /// The sum, in the order that MPI chooses: it may depend on the size and the network.
    SumAnyOrder,
    /// The largest value; NaN if there is one.
    Max,
    /// The smallest value; NaN if there is one.
    Min,
}

/// An element that can be combined.
pub(crate) trait Combined: Element {
    fn combined(self, other: Self, how: Reduce) -> Self;
}

macro_rules! combined {
    ($($ty:ty)*) => {$(
        impl Combined for $ty {
            #[inline(always)]
            fn combined(self, other: Self, how: Reduce) -> Self {
                match how {
                    Reduce::Sum | Reduce::SumAnyOrder => self + other,
                    Reduce::Max => tapegrad_tape::Float::maximum(self, other),
                    Reduce::Min => tapegrad_tape::Float::minimum(self, other),
                }
            }
        }
    )*};
}
combined! { f32 f64 }

impl Combined for i64 {
    fn combined(self, other: Self, how: Reduce) -> Self {
        match how {
            Reduce::Sum | Reduce::SumAnyOrder => self.wrapping_add(other),
            Reduce::Max => self.max(other),
            Reduce::Min => self.min(other),
        }
    }
}

impl Combined for tapegrad_tape::bf16 {
    fn combined(self, other: Self, how: Reduce) -> Self {
        Self::from_f32(self.to_f32().combined(other.to_f32(), how))
    }
}

/// Elements that are combined at once: small enough for the nearest cache.
const BLOCK: usize = 1024;

/// Combines rows over a balanced tree: the first half, as large as a power of two can be, with the rest. So a row that is
/// itself the sum of two neighbors, or of four, gives the same bits as if they were rows.
pub(crate) fn combine<T: Combined>(rows: &[&[T]], out: &mut [T], how: Reduce) {
    let mut scratch =
        vec![T::from_f64(0.0); BLOCK * rows.len().next_power_of_two().trailing_zeros() as usize];
    for start in (0..out.len()).step_by(BLOCK) {
        let end = out.len().min(start + BLOCK);
        let rows: Vec<&[T]> = rows.iter().map(|row| &row[start..end]).collect();
        tree(&rows, &mut out[start..end], &mut scratch, how);
    }
}

fn tree<T: Combined>(rows: &[&[T]], out: &mut [T], scratch: &mut [T], how: Reduce) {
    match rows {
        [] => {}
        [row] => out.copy_from_slice(row),
        [a, b] => {
            for ((o, &x), &y) in out.iter_mut().zip(*a).zip(*b) {
                *o = x.combined(y, how);
            }
        }
        _ => {
            let half = rows.len().next_power_of_two() / 2;
            tree(&rows[..half], out, scratch, how);
            let (right, rest) = scratch.split_at_mut(out.len());
            tree(&rows[half..], right, rest, how);
            for (o, &x) in out.iter_mut().zip(&*right) {
                *o = o.combined(x, how);
            }
        }
    }
}

/// Calls a body for the element types that can be combined.
macro_rules! dispatch_combined {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            tapegrad_tape::DType::F32 => {
                type $T = f32;
                $body
            }
            tapegrad_tape::DType::F64 => {
                type $T = f64;
                $body
            }
            tapegrad_tape::DType::BF16 => {
                type $T = tapegrad_tape::bf16;
                $body
            }
            tapegrad_tape::DType::I64 => {
                type $T = i64;
                $body
            }
            other => {
                panic!("all_reduce: not defined for {other}; it takes float32, float64, bfloat16 or int64")
            }
        }
    };
}

/// Combines the rows of `received` into elements of `buffer` from `start` on.
pub(crate) fn combine_into(buffer: &mut Tensor, start: usize, received: &Tensor, rows: usize, how: Reduce) {
    let len = received.numel() / rows;
    dispatch_combined!(buffer.dtype(), T => {
        let all = received.as_slice::<T>().expect("contiguous");
        let rows: Vec<&[T]> = (0..rows).map(|r| &all[r * len..(r + 1) * len]).collect();
        combine(&rows, &mut buffer.data_mut::<T>()[start..start + len], how);
    });
}

/// Combines `own`, the row of rank `rank`, with the rows of the other ranks in their order, in place.
fn combine_with<T: Combined>(own: &mut [T], rank: usize, others: &[T], how: Reduce) {
    let len = own.len();
    if len == 0 {
        return;
    }
    let levels = (others.len() / len + 1).next_power_of_two().trailing_zeros() as usize;
    let mut scratch = vec![T::from_f64(0.0); BLOCK * (levels + 1)];
    for start in (0..len).step_by(BLOCK) {
        let end = len.min(start + BLOCK);
        let (mine, scratch) = scratch.split_at_mut(end - start);
        mine.copy_from_slice(&own[start..end]);
        let mut rows: Vec<&[T]> = others.chunks(len).map(|row| &row[start..end]).collect();
        rows.insert(rank, mine);
        tree(&rows, &mut own[start..end], scratch, how);
    }
}

/// [`combine_with`] for elements of `buffer` from `start` on; `received` has the rows of the others. Then multiplies them.
pub(crate) fn combine_own(
    buffer: &mut Tensor,
    start: usize,
    received: &Tensor,
    (rank, size): (usize, usize),
    sum: Sum,
) {
    let len = received.numel() / (size - 1);
    dispatch_combined!(buffer.dtype(), T => {
        let own = &mut buffer.data_mut::<T>()[start..start + len];
        combine_with(own, rank, received.as_slice::<T>().expect("contiguous"), sum.how);
    });
    scale_range(buffer, start..start + len, sum.factor);
}

/// `a + b` in the memory of `a`, where it is not shared.
pub(crate) fn add(mut a: Tensor, b: &Tensor) -> Tensor {
    dispatch_combined!(a.dtype(), T => {
        let b = b.contiguous();
        let b = b.as_slice::<T>().expect("contiguous");
        let values = a.make_mut::<T>();
        for (x, &y) in values.iter_mut().zip(b) {
            *x = x.combined(y, Reduce::Sum);
        }
    });
    a
}

/// Multiplies all elements, in place where the memory is not shared.
pub(crate) fn scale(t: &mut Tensor, factor: f64) {
    scale_range(t, 0..t.numel(), factor);
}

fn scale_range(t: &mut Tensor, range: Range<usize>, factor: f64) {
    if factor == 1.0 {
        return;
    }
    match t.dtype() {
        DType::F32 => t.make_mut::<f32>()[range].iter_mut().for_each(|x| *x *= factor as f32),
        DType::F64 => t.make_mut::<f64>()[range].iter_mut().for_each(|x| *x *= factor),
        other => panic!("a gradient of type {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapegrad_tape::Generator;

    #[test]
    fn sums_of_neighbors_are_rows_of_the_tree() {
        let values = Generator::manual_seed(1).normal(&[8 * 1500], 0.0, 1.0).to_vec::<f32>();
        let rows: Vec<&[f32]> = values.chunks(1500).collect();
        let sum = |rows: &[&[f32]]| {
            let mut out = vec![0f32; 1500];
            combine(rows, &mut out, Reduce::Sum);
            out
        };
        let all = sum(&rows);
        for parts in [2, 4] {
            let halves: Vec<Vec<f32>> = rows.chunks(8 / parts).map(sum).collect();
            let halves: Vec<&[f32]> = halves.iter().map(Vec::as_slice).collect();
            assert_eq!(sum(&halves), all);
        }
        // Six in pairs; and the order matters at all.
        let pairs: Vec<Vec<f32>> = rows[..6].chunks(2).map(sum).collect();
        let pairs: Vec<&[f32]> = pairs.iter().map(Vec::as_slice).collect();
        assert_eq!(sum(&pairs), sum(&rows[..6]));
        let plain: Vec<f32> = (0..1500).map(|i| rows.iter().map(|row| row[i]).sum()).collect();
        assert_ne!(plain, all);
    }

    #[test]
    fn a_rank_adds_its_row_in_its_place() {
        for size in 2..=5 {
            let values = Generator::manual_seed(2).normal(&[size * 1500], 0.0, 1.0).to_vec::<f32>();
            let rows: Vec<&[f32]> = values.chunks(1500).collect();
            let mut expected = vec![0f32; 1500];
            combine(&rows, &mut expected, Reduce::Sum);
            expected.iter_mut().for_each(|x| *x *= 0.25);
            for rank in 0..size {
                let mut buffer = Tensor::from_slice(&[&[7f32], rows[rank], &[8.0]].concat(), &[1502]);
                let others = [&values[..rank * 1500], &values[(rank + 1) * 1500..]].concat();
                let others = Tensor::from_vec(others, &[(size - 1) * 1500]);
                let sum = Sum { how: Reduce::Sum, target: crate::engine::Target::Own, factor: 0.25 };
                combine_own(&mut buffer, 1, &others, (rank, size), sum);
                assert_eq!(buffer.to_vec::<f32>(), [&[7.0], &expected[..], &[8.0]].concat());
            }
        }
    }

    #[test]
    fn extremes_and_half_precision() {
        let (a, b) = ([1f32, f32::NAN, -2.0], [3f32, 0.0, -5.0]);
        let mut out = [0f32; 3];
        combine(&[&a, &b], &mut out, Reduce::Max);
        assert!(out[0] == 3.0 && out[1].is_nan() && out[2] == -2.0);
        combine(&[&a, &b], &mut out, Reduce::Min);
        assert!(out[0] == 1.0 && out[1].is_nan() && out[2] == -5.0);
        let half = |x: f32| tapegrad_tape::bf16::from_f32(x);
        let mut out = [half(0.0)];
        combine(&[&[half(1.0)], &[half(2.5)]], &mut out, Reduce::Sum);
        assert_eq!(out[0].to_f32(), 3.5);
    }
}
