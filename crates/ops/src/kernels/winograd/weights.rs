//! The transform of weights into packed panels, and of their gradient back.

use super::scheme::{Scheme, WeightScheme, square};
use super::tiles::Frequencies;
use crate::kernels::geometry::Conv2dShape;
use crate::kernels::microkernel::COLUMNS;
use tapegrad_tape::kernels::arch::{MAX_LANES, Vector};
use tapegrad_tape::kernels::transpose::transpose_to;

/// The number of steps whose taps are transposed together if they are contiguous: whole squares of lanes.
const GROUP: usize = 16;

/// Taps of the largest kernel.
const TAPS: usize = 16;

/// Weights as the right matrix of a product: `steps` by `columns`, all taps of each.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    data: &'a [f32],
    pub(super) steps: usize,
    pub(super) columns: usize,
    step: usize,
    column: usize,
    /// Whether the taps are read in reverse.
    flipped: bool,
}

impl<'a> Weights<'a> {
    /// From input channels to output channels.
    pub(super) fn new(s: &Conv2dShape, data: &'a [f32]) -> Self {
        let taps = s.kh * s.kw;
        Weights { data, steps: s.c_in, columns: s.c_out, step: taps, column: taps * s.c_in, flipped: false }
    }

    /// From output channels to input channels, flipped by half a circle.
    pub(super) fn transposed(s: &Conv2dShape, data: &'a [f32]) -> Self {
        let taps = s.kh * s.kw;
        Weights { data, steps: s.c_out, columns: s.c_in, step: taps * s.c_in, column: taps, flipped: true }
    }

    pub(super) fn panels(&self) -> usize {
        self.columns.div_ceil(COLUMNS)
    }

    /// `G w G^T` of the steps `from..to` of one panel, to `out[frequency][step - from][column of the panel]`.
    /// Columns past the last are zero, up to a whole vector.
    ///
    /// # Safety
    /// `out`, whose tiles are steps here, has room.
    #[inline(always)]
    pub(super) unsafe fn transform<V: Vector, S: Scheme>(
        &self,
        panel: usize,
        (from, to): (usize, usize),
        out: Frequencies,
    ) {
        let first = panel * COLUMNS;
        let end = self.columns.min(first + COLUMNS);
        let count = S::TAPS * S::TAPS;
        let group = if self.step == count { GROUP } else { 1 };
        let mut taps = [0.0f32; GROUP * TAPS * MAX_LANES];
        for column in (first..end).step_by(V::LANES) {
            let lanes = (end - column).min(V::LANES);
            if lanes < V::LANES {
                taps.fill(0.0);
            }
            for start in (from..to).step_by(group) {
                let steps = group.min(to - start);
                let w = self.data[column * self.column + start * self.step..].as_ptr();
                // SAFETY: the taps of these columns and steps exist, and `taps` has room for them.
                unsafe { transpose_to([lanes, count * steps], w, self.column, taps.as_mut_ptr(), V::LANES) };
                for step in 0..steps {
                    let taps = taps[step * count * V::LANES..].as_ptr();
                    let out = out.at(start + step - from, column - first);
                    let tap = |i: usize, j: usize| {
                        let tap = i * S::TAPS + j;
                        if self.flipped { count - 1 - tap } else { tap }
                    };
                    square!(
                        S::TAPS => S::WEIGHTS,
                        S::weight::<V>,
                        // SAFETY: `taps` holds a vector for each tap of each step.
                        |i, j| unsafe { V::load(taps.add(tap(i, j) * V::LANES)) },
                        // SAFETY: the caller promises room.
                        |k, l, v| unsafe { v.store(out.of(k * S::WEIGHTS + l)) }
                    );
                }
            }
        }
    }
}

/// `G^T u G` of some channels, from `u[frequency][output channel][input channel]` to
/// `dw[output channel][input channel][tap]`, where `dw_row` is the distance between output channels.
///
/// # Safety
/// `u` holds the channels, rounded up to whole vectors; `dw` has room.
#[inline(always)]
pub(super) unsafe fn transform_weight_grad<V: Vector, S: WeightScheme>(
    u: Frequencies,
    (c_out, c_in): (usize, usize),
    dw: *mut f32,
    dw_row: usize,
) {
    let mut taps = [0.0f32; TAPS * MAX_LANES];
    let count = S::TAPS * S::TAPS;
    for co in 0..c_out {
        for ci in (0..c_in).step_by(V::LANES) {
            let u = u.at(co, ci);
            let t = taps.as_mut_ptr();
            square!(
                S::WEIGHTS => S::TAPS,
                S::weight_grad::<V>,
                // SAFETY: the caller promises `u`.
                |i, j| unsafe { V::load(u.of(i * S::WEIGHTS + j)) },
                // SAFETY: `taps` has room for a vector of each tap.
                |k, l, v| unsafe { v.store(t.add((k * S::TAPS + l) * V::LANES)) }
            );
            let lanes = (c_in - ci).min(V::LANES);
            // SAFETY: the caller promises room for these channels.
            unsafe {
                transpose_to([count, lanes], t, V::LANES, dw.wrapping_add(co * dw_row + ci * count), count)
            };
        }
    }
}
