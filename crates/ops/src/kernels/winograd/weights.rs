//! The transform of weights into packed panels, and of their gradient back.

use super::scheme::{Scheme, WeightScheme, square};
use super::tiles::Frequencies;
use crate::kernels::geometry::Conv2dShape;
use crate::kernels::microkernel::COLUMNS;
use tapegrad_tape::kernels::arch::{MAX_LANES, Vector};
use tapegrad_tape::kernels::transpose::transpose_to;

/// The number of steps whose taps are transposed together if they are contiguous: nine whole squares of lanes.
const GROUP: usize = 16;

/// Weights as the right matrix of a product: `steps` by `columns`, nine taps each.
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
        Weights { data, steps: s.c_in, columns: s.c_out, step: 9, column: 9 * s.c_in, flipped: false }
    }

    /// From output channels to input channels, flipped by half a circle.
    pub(super) fn transposed(s: &Conv2dShape, data: &'a [f32]) -> Self {
        Weights { data, steps: s.c_out, columns: s.c_in, step: 9 * s.c_in, column: 9, flipped: true }
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
        let group = if self.step == 9 { GROUP } else { 1 };
        let mut taps = [0.0f32; GROUP * 9 * MAX_LANES];
        for column in (first..end).step_by(V::LANES) {
            let lanes = (end - column).min(V::LANES);
            if lanes < V::LANES {
                taps.fill(0.0);
            }
            for start in (from..to).step_by(group) {
                let steps = group.min(to - start);
                let w = self.data[column * self.column + start * self.step..].as_ptr();
                // SAFETY: the taps of these columns and steps exist, and `taps` has room for them.
                unsafe { transpose_to([lanes, 9 * steps], w, self.column, taps.as_mut_ptr(), V::LANES) };
                for step in 0..steps {
                    let taps = taps[step * 9 * V::LANES..].as_ptr();
                    let out = out.at(start + step - from, column - first);
                    let tap = |i: usize, j: usize| if self.flipped { 8 - (i * 3 + j) } else { i * 3 + j };
                    square!(
                        3 => S::WEIGHTS,
                        S::weight::<V>,
                        // SAFETY: `taps` holds nine vectors for each step.
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
    let mut taps = [0.0f32; 9 * MAX_LANES];
    for co in 0..c_out {
        for ci in (0..c_in).step_by(V::LANES) {
            let u = u.at(co, ci);
            let t = taps.as_mut_ptr();
            square!(
                S::WEIGHTS => 3,
                S::weight_grad::<V>,
                // SAFETY: the caller promises `u`.
                |i, j| unsafe { V::load(u.of(i * S::WEIGHTS + j)) },
                // SAFETY: `taps` has room for nine vectors.
                |k, l, v| unsafe { v.store(t.add((k * 3 + l) * V::LANES)) }
            );
            let lanes = (c_in - ci).min(V::LANES);
            // SAFETY: the caller promises room for these channels.
            unsafe { transpose_to([9, lanes], t, V::LANES, dw.wrapping_add(co * dw_row + ci * 9), 9) };
        }
    }
}
