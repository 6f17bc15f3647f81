//! A weight that is multiplied once a step.

use crate::kernels::direct_conv::run_tasks;
use crate::kernels::gemm::{Bias, Finish, Real, View, matmul};
use crate::kernels::microkernel::{COLUMNS, Epilogue, Left, Output, ROWS, Segment, Tile, strided_rows};
use tapegrad_tape::kernels::shared::SharedSlice;

/// Rows that a product prefetches: the whole weight is larger than a near cache.
const AHEAD: usize = 16;

/// The right operand of several products.
pub(super) struct Packed<T> {
    data: Vec<T>,
    rows: usize,
    columns: usize,
}

/// Types whose products take a packed operand.
pub(crate) trait Steps: Real {
    /// Columns that are packed together.
    const PANEL: usize;

    /// `c (m, columns) = a (m, rows) * packed + bias`, or added to it.
    fn multiply(
        packed: &PackedData<Self>,
        m: usize,
        a: &[Self],
        bias: Option<&[Self]>,
        add: bool,
        c: &mut [Self],
    );
}

/// See [`Packed`].
pub(crate) struct PackedData<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
}

impl<T: Steps> Packed<T> {
    pub(super) fn new(right: View<T>, rows: usize, columns: usize) -> Packed<T> {
        let width = T::PANEL.min(columns.max(1));
        let mut data = vec![T::ZERO; columns.div_ceil(width) * width * rows];
        // Blocks of rows: the cache lines of a transposed operand are used while they are cached.
        for (panel, to) in data.chunks_exact_mut((rows * width).max(1)).enumerate() {
            let count = width.min(columns - panel * width);
            for (block, to) in to.chunks_mut(16 * width).enumerate() {
                for j in 0..count {
                    let from = block * 16 * right.row + (panel * width + j) * right.column;
                    for (i, row) in to.chunks_exact_mut(width).enumerate() {
                        row[j] = right.data[from + i * right.row];
                    }
                }
            }
        }
        Packed { data, rows, columns }
    }

    pub(super) fn multiply(&self, m: usize, a: &[T], bias: Option<&[T]>, add: bool, c: &mut [T]) {
        assert!(a.len() == m * self.rows && c.len() == m * self.columns);
        assert!(bias.is_none_or(|b| b.len() == self.columns));
        if !c.is_empty() {
            let packed = PackedData { data: &self.data, rows: self.rows, columns: self.columns };
            T::multiply(&packed, m, a, bias, add, c);
        }
    }
}

impl Steps for f32 {
    const PANEL: usize = COLUMNS;

    fn multiply(
        packed: &PackedData<f32>,
        m: usize,
        a: &[f32],
        bias: Option<&[f32]>,
        add: bool,
        c: &mut [f32],
    ) {
        let PackedData { data, rows, columns } = *packed;
        let width = COLUMNS.min(columns);
        let parts = m.div_ceil(ROWS);
        let whole = [Segment::whole(rows.max(1))];
        let segments = if rows == 0 { &whole[..0] } else { &whole[..] };
        let out = SharedSlice::new(c);
        let flops = (2 * m * rows).saturating_mul(columns);
        run_tasks(columns.div_ceil(width), flops, |panel| {
            let column = panel * width;
            for part in 0..parts {
                let (row, end) = (m * part / parts, m * (part + 1) / parts);
                let epilogue = if add { Epilogue::ADD } else { Epilogue::STORE };
                let tile = Tile {
                    m: end - row,
                    n: width.min(columns - column),
                    segments,
                    left: Left::Rows,
                    rows: &[strided_rows(a.as_ptr().wrapping_add(row * rows), rows)],
                    b: data.as_ptr().wrapping_add(column * rows),
                    b_step: width,
                    ahead: AHEAD * width,
                    c: out.at(row * columns + column),
                    output: Output::Strided(columns),
                    epilogue: Epilogue {
                        column_bias: bias.map_or(std::ptr::null(), |b| b[column..].as_ptr()),
                        ..epilogue
                    },
                };
                // SAFETY: the rows are inside `a`, the panel inside the packed weight, and the columns of a panel
                // are written by one task.
                unsafe { tile.run() };
            }
        });
    }
}

impl Steps for f64 {
    const PANEL: usize = usize::MAX;

    fn multiply(
        packed: &PackedData<f64>,
        m: usize,
        a: &[f64],
        bias: Option<&[f64]>,
        add: bool,
        c: &mut [f64],
    ) {
        let PackedData { data, rows, columns } = *packed;
        let finish = Finish {
            beta: if add { 1.0 } else { 0.0 },
            bias: bias.map_or(Bias::None, Bias::Columns),
            ..Finish::default()
        };
        matmul([m, columns, rows], View::rows(a, rows), View::rows(data, columns), c, columns, finish);
    }
}
