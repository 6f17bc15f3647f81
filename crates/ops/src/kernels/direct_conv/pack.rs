//! Weights packed into panels of 32 columns.

use super::{Tap, run_tasks};
use crate::kernels::microkernel::COLUMNS;
use crate::kernels::scratch::Shared;

/// A weight as a matrix for each tap, whose rows are what a product sums over.
pub(super) struct View<'a> {
    pub(super) data: &'a [f32],
    /// Distance between rows, in elements.
    pub(super) row: usize,
    /// Distance between columns.
    pub(super) column: usize,
}

/// Writes the panels one after the other: for each tap, for each row, 32 columns, with zeros past the last.
pub(super) fn panels(weight: &View, taps: &[Tap], rows: usize, columns: usize, packed: &mut [f32]) {
    if packed.is_empty() {
        return;
    }
    const ROWS: usize = 64;
    let chunks = rows.div_ceil(ROWS);
    let panel_len = taps.len() * rows * COLUMNS;
    assert_eq!(packed.len(), columns.div_ceil(COLUMNS) * panel_len);
    let out = Shared(packed.as_mut_ptr());
    // A copied element costs about as much as twenty operations of a product.
    run_tasks(columns.div_ceil(COLUMNS) * chunks, packed.len() * 20, |task| {
        let (panel, chunk) = (task / chunks, task % chunks);
        let n = COLUMNS.min(columns - panel * COLUMNS);
        let first = &weight.data[panel * COLUMNS * weight.column..];
        for row in chunk * ROWS..rows.min((chunk + 1) * ROWS) {
            for (t, tap) in taps.iter().enumerate() {
                let start = panel * panel_len + (t * rows + row) * COLUMNS;
                // SAFETY: `start + COLUMNS` is inside the panel, and each row of it is written by one task.
                let to = unsafe { std::slice::from_raw_parts_mut(out.get().add(start), COLUMNS) };
                let from = &first[row * weight.row + tap.index..];
                for (to, from) in to[..n].iter_mut().zip(from.iter().step_by(weight.column)) {
                    *to = *from;
                }
                to[n..].fill(0.0);
            }
        }
    });
}
