//! Weights packed into panels of 32 columns.

use super::{Tap, run_tasks};
use crate::kernels::microkernel::COLUMNS;
use tapegrad_tape::kernels::shared::SharedSlice;
use tapegrad_tape::kernels::transpose::transpose;

/// A weight as a matrix for each tap, whose rows are what a product sums over. One of the two distances is the number
/// of taps: there the taps of adjacent rows or columns are contiguous.
pub(super) struct View<'a> {
    pub(super) data: &'a [f32],
    /// Taps of the whole kernel.
    pub(super) kernel: usize,
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
    // Where the rows of each tap of the kernel start in a panel; taps that are not used have none.
    let mut places = vec![None; weight.kernel];
    for (t, tap) in taps.iter().enumerate() {
        places[tap.index] = Some(t * rows * COLUMNS);
    }
    let places = &places[..];
    // A packed element costs about as much as twenty operations of a product.
    let flops = packed.len() * 20;
    let out = SharedSlice::new(packed);
    run_tasks(columns.div_ceil(COLUMNS) * chunks, flops, |task| {
        let (panel, chunk) = (task / chunks, task % chunks);
        let n = COLUMNS.min(columns - panel * COLUMNS);
        let chunk = chunk * ROWS..rows.min((chunk + 1) * ROWS);
        let start = panel * panel_len;
        if n < COLUMNS {
            for tap in 0..taps.len() {
                let at = start + (tap * rows + chunk.start) * COLUMNS;
                // SAFETY: these rows of the panel are this task's.
                unsafe { out.part(at, chunk.len() * COLUMNS) }.fill(0.0);
            }
        }
        let mut unused = [0.0f32; COLUMNS];
        let unused = unused.as_mut_ptr();
        let place = |row: usize, tap: usize| match places[tap] {
            Some(at) => out.at(start + at + row * COLUMNS),
            None => unused,
        };
        let from = weight.data[panel * COLUMNS * weight.column..].as_ptr();
        // SAFETY: the rows and columns are inside the weight; each row of a tap has room for 32 columns in the
        // panel, or goes to the unused row, and each is written by one task.
        unsafe {
            if weight.row == weight.kernel {
                let from = from.add(chunk.start * weight.row);
                let to = |i: usize| place(chunk.start + i / weight.kernel, i % weight.kernel);
                transpose(n, chunk.len() * weight.kernel, from, weight.column, to);
            } else {
                for row in chunk {
                    let from = from.add(row * weight.row);
                    if weight.kernel == 1 {
                        std::ptr::copy_nonoverlapping(from, place(row, 0), n);
                    } else {
                        transpose(n, weight.kernel, from, weight.column, |tap| place(row, tap));
                    }
                }
            }
        }
    });
}
