//! The `f32` product on the register tile.
//!
//! The left operand is read in place, the right one is packed into panels of 32 columns, unless its rows can be read
//! directly. If packing the other operand is so much cheaper that transposing the result pays off, the transposed
//! product is computed: a linear layer packs the samples, not its weight. With many inputs and few samples, neither is
//! transposed: see [`dots`](super::dots). Large products pack both: see [`blocked`](super::blocked).

use super::dots::Dots;
use super::{Bias, Finish, View, amx, vector};
use crate::kernels::microkernel::{COLUMNS, Epilogue, Left, Output, ROWS, Segment, Tile, strided_rows};
use crate::kernels::scratch::with_scratch;
use std::ops::Range;
use tapegrad_tape::kernels::arch::{prefetch, prefetch_write};
use tapegrad_tape::kernels::parallel::{parallel_chunks, parallel_for};
use tapegrad_tape::kernels::shared::SharedSlice;
use tapegrad_tape::kernels::transpose::transpose;

/// Steps of the inner dimension that are packed and multiplied at once.
const DEPTH: usize = 1024;

/// Elements of the panels that are packed together, so that memory is read and written in long runs: 256 KiB.
const PACK_ELEMENTS: usize = 1 << 16;

/// How many steps ahead packing prefetches: rows far apart are slow to load.
const PREFETCH_DISTANCE: usize = 8;

/// The fewest operations for which a second thread pays off: about 20 microseconds.
const MIN_PARALLEL_FLOPS: usize = 2_500_000;

pub(super) fn product(
    size: [usize; 3],
    a: View<f32>,
    b: View<f32>,
    c: &mut [f32],
    row: usize,
    finish: Finish<f32>,
) {
    let [m, n, k] = size;
    if m == 1 && row_times_matrix(size, a, b, c, finish) {
        return;
    }
    if n == 1
        && m > 1
        && row == 1
        && row_times_matrix([n, m, k], b.transposed(), a.transposed(), c, finish.transposed())
    {
        return;
    }
    if k == 1 && b.column == 1 && finish == Finish::default() {
        let whole = (m - 1) * row + n;
        vector::outer(a.data, a.row, &b.data[..n], &mut c[..whole], row);
        return;
    }
    if amx::takes_f32(size, [a.column == 1, b.column == 1]) {
        return amx::product(size, a, b, c, row, finish, Some(by_vectors));
    }
    by_vectors(size, a, b, c, row, finish);
}

/// A product of several rows, columns and steps, on the register tile.
pub(super) fn by_vectors(
    size: [usize; 3],
    a: View<f32>,
    b: View<f32>,
    c: &mut [f32],
    row: usize,
    finish: Finish<f32>,
) {
    let [m, n, k] = size;
    let plain = Operands { m, n, k, left: a, right: b, swapped: false };
    if plain.is_large() {
        return plain.run_blocked(c, row, finish);
    }
    let swapped = Operands { m: n, n: m, k, left: b.transposed(), right: a.transposed(), swapped: true };
    let best = if swapped.cost() < plain.cost() { swapped } else { plain };
    match Dots::new(size, a, b, row, finish) {
        Some(dots) if dots.cost() < best.cost() => dots.run(c),
        _ if best.far_columns() => best.with_rows(|best| best.run(c, row, finish)),
        _ => best.run(c, row, finish),
    }
}

/// The product for one row, if a kernel for vectors applies; the finish is then a separate pass.
fn row_times_matrix(
    size: [usize; 3],
    a: View<f32>,
    b: View<f32>,
    c: &mut [f32],
    finish: Finish<f32>,
) -> bool {
    let [_, n, k] = size;
    if finish.beta != 0.0 || k < 4 {
        return false;
    }
    let c = &mut c[..n];
    vector::times_matrix(a.data, a.column, b, k, c);
    let bias = |j: usize| match finish.bias {
        Bias::None => 0.0,
        Bias::Columns(bias) => bias[j],
        Bias::Rows(bias) => bias[0],
    };
    if finish.alpha != 1.0 || finish.bias != Bias::None {
        for (j, c) in c.iter_mut().enumerate() {
            *c = finish.alpha * *c + bias(j);
        }
    }
    true
}

/// The product that is computed: the caller's, or its transpose.
pub(super) struct Operands<'a> {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) left: View<'a, f32>,
    right: View<'a, f32>,
    swapped: bool,
}

/// The tasks of a product: each is some rows of some panels.
struct Cut {
    row_blocks: usize,
    panel_groups: usize,
    /// Whether all panels are packed before the tasks start, since several tasks use each.
    shared: bool,
}

impl Operands<'_> {
    /// Estimated cycles, to compare the product with its transpose.
    fn cost(&self) -> f64 {
        let [m, n, k] = [self.m, self.n, self.k].map(|x| x as f64);
        let vectors = self.n.div_ceil(16);
        // A single vector leaves the FMA units half idle; so does a tile of few rows.
        let multiply = m.max(4.0) * k * (vectors + vectors % 2).max(vectors) as f64 / 2.0;
        let pack = if self.reads_right() {
            0.0
        } else if self.right.column == 1 {
            0.15 * n * k
        } else {
            0.5 * n * k
        };
        let unpack = if self.swapped { 0.5 * m * n } else { 0.0 };
        let gather = if self.left.column == 1 || self.left.row == 1 { 0.0 } else { m * k };
        multiply + pack + unpack + gather
    }

    /// Whether the right operand is read in place.
    fn reads_right(&self) -> bool {
        self.right.column == 1 && self.m <= 2 * ROWS
    }

    fn panels(&self) -> usize {
        self.n.div_ceil(COLUMNS)
    }

    /// The partition depends on the sizes alone.
    fn cut(&self) -> Cut {
        let flops = 2 * self.m * self.n * self.k;
        if flops < MIN_PARALLEL_FLOPS {
            return Cut { row_blocks: 1, panel_groups: 1, shared: false };
        }
        let panels = self.panels();
        let tasks = (flops / 2_000_000).clamp(2, 64);
        let panel_groups = if panels < 4 { 1 } else { panels.div_ceil(4).max(tasks).min(panels) };
        let row_blocks =
            if panel_groups >= 4 { 1 } else { (tasks / panel_groups).clamp(1, self.m.div_ceil(ROWS)) };
        Cut { row_blocks, panel_groups, shared: row_blocks > 1 && !self.reads_right() }
    }

    /// Whether the steps of the left operand are so far apart, each on another page, that a large product is faster
    /// with it transposed.
    fn far_columns(&self) -> bool {
        self.left.row == 1 && self.left.column >= 256 && self.m.min(self.n).min(self.k) >= 128
    }

    /// The same product with a row-major copy of the left operand.
    fn with_rows(&self, f: impl FnOnce(Operands)) {
        const ROWS: usize = 64;
        // Rows a power of two apart would share sets of the cache.
        let row = self.k + 16;
        with_scratch(self.m * row, |rows| {
            parallel_chunks(rows, ROWS * row, |block, to| {
                let (first, to) = (block * ROWS, SharedSlice::new(to));
                for step in (0..self.k).step_by(ROWS) {
                    let from = self.left.data[first + step * self.left.column..].as_ptr();
                    let (steps, rows) = (ROWS.min(self.k - step), ROWS.min(self.m - first));
                    // SAFETY: the operand holds these steps of these rows; each row of the scratch has room for them.
                    unsafe { transpose(steps, rows, from, self.left.column, |i| to.at(i * row + step)) };
                }
            });
            f(Operands { left: View { data: rows, row, column: 1 }, ..*self });
        });
    }

    fn run(&self, c: &mut [f32], row: usize, finish: Finish<f32>) {
        let cut = self.cut();
        let panels = self.panels();
        let whole = if cut.shared { panels * self.k * COLUMNS } else { 0 };
        let out = SharedSlice::new(c);
        with_scratch(whole, |packed| {
            if cut.shared {
                let to = SharedSlice::new(packed);
                let chunks = self.k.div_ceil(256);
                let task = |task: usize| {
                    let (panel, chunk) = (task / chunks, task % chunks);
                    let steps = chunk * 256..self.k.min((chunk + 1) * 256);
                    let start = (panel * self.k + steps.start) * COLUMNS;
                    // SAFETY: each task writes its own steps of its own panel.
                    unsafe { self.pack(panel..panel + 1, steps, to.at(start)) };
                };
                let tasks = panels * chunks;
                if whole < 1 << 16 { (0..tasks).for_each(task) } else { parallel_for(tasks, task) }
            }
            let packed = &*packed;
            parallel_for(cut.row_blocks * cut.panel_groups, |task| {
                let (block, group) = (task % cut.row_blocks, task / cut.row_blocks);
                let rows = self.m * block / cut.row_blocks..self.m * (block + 1) / cut.row_blocks;
                let group = panels * group / cut.panel_groups..panels * (group + 1) / cut.panel_groups;
                self.task(rows, group, cut.shared.then_some(packed), out, row, finish);
            });
        });
    }

    /// Packs some steps of some panels, one panel after the other: 32 columns for each step, zeros past the last.
    ///
    /// # Safety
    /// `to` must have room for them.
    pub(super) unsafe fn pack(&self, panels: Range<usize>, steps: Range<usize>, to: *mut f32) {
        let right = &self.right;
        let len = steps.len() * COLUMNS;
        let first = steps.start * right.row + panels.start * COLUMNS * right.column;
        let from = right.data.as_ptr().wrapping_add(first);
        // SAFETY: the steps and columns are inside the operand, whose size was checked; `to` has room.
        unsafe {
            let mut whole = 0;
            if right.column == 1 {
                // All panels of a step together, since they are contiguous.
                whole = (self.n / COLUMNS).min(panels.end) - panels.start;
                for k in 0..steps.len() {
                    for panel in 0..whole {
                        let ahead = from.wrapping_add((k + PREFETCH_DISTANCE) * right.row + panel * COLUMNS);
                        prefetch(ahead);
                        prefetch(ahead.wrapping_add(16));
                        let line = from.add(k * right.row + panel * COLUMNS).cast::<[f32; COLUMNS]>();
                        to.add(panel * len + k * COLUMNS)
                            .cast::<[f32; COLUMNS]>()
                            .write_unaligned(line.read_unaligned());
                    }
                }
            }
            for panel in whole..panels.len() {
                let n = COLUMNS.min(self.n - (panels.start + panel) * COLUMNS);
                let (from, to) = (from.wrapping_add(panel * COLUMNS * right.column), to.add(panel * len));
                if n < COLUMNS {
                    std::slice::from_raw_parts_mut(to, len).fill(0.0);
                }
                if right.row == 1 {
                    transpose(n, steps.len(), from, right.column, |k| to.add(k * COLUMNS));
                } else {
                    for k in 0..steps.len() {
                        for j in 0..n {
                            *to.add(k * COLUMNS + j) = *from.add(k * right.row + j * right.column);
                        }
                    }
                }
            }
        }
    }

    fn task(
        &self,
        rows: Range<usize>,
        panels: Range<usize>,
        packed: Option<&[f32]>,
        out: SharedSlice<f32>,
        row: usize,
        finish: Finish<f32>,
    ) {
        let columns = panels.start * COLUMNS..self.n.min(panels.end * COLUMNS);
        if !self.swapped {
            let c = out.at(rows.start * row + columns.start);
            // SAFETY: C was checked, and each task has its own block of it.
            unsafe { self.block(rows, panels, packed, c, row, finish) };
            return;
        }
        let (height, width) = (rows.len(), columns.len());
        with_scratch(height * width, |block| {
            // SAFETY: the scratch has the size of the block; C was checked, and each task has its own block of it, here
            // with rows and columns swapped.
            unsafe {
                let c = out.at(columns.start * row + rows.start);
                let scratch = block.as_mut_ptr();
                if finish.beta != 0.0 {
                    transpose(width, height, c, row, |i| scratch.add(i * width));
                }
                self.block(rows, panels, packed, scratch, width, finish.transposed());
                transpose(height, width, scratch, width, |j| c.add(j * row));
            }
        });
    }

    /// Copies some steps of rows starting at `first`, row after row.
    #[inline(always)]
    fn gather(&self, first: usize, steps: &Range<usize>, to: &mut [f32]) {
        let View { data, row, column } = self.left;
        for (i, line) in to.chunks_exact_mut(steps.len().max(1)).enumerate() {
            // The step of an expanded matrix is zero.
            let from = &data[(first + i) * row + steps.start * column..];
            line.iter_mut().enumerate().for_each(|(i, to)| *to = from[i * column]);
        }
    }

    /// The left operand of a tile from a row and the first of `steps` on: its address, the distance between rows, and
    /// its layout. `gathered` is the address of the steps if they were gathered.
    #[inline(always)]
    fn left_tile(
        &self,
        row: usize,
        steps: &Range<usize>,
        gathered: Option<*const f32>,
    ) -> (*const f32, usize, Left) {
        let left = &self.left;
        let at = |offset: usize| left.data.as_ptr().wrapping_add(offset);
        match (gathered, left.column) {
            (Some(gathered), _) => (gathered, steps.len(), Left::Rows),
            (_, 1) => (at(row * left.row + steps.start), left.row, Left::Rows),
            (_, step) => (at(row + steps.start * step), 1, Left::Columns(step)),
        }
    }

    /// The product of some rows and panels into `c`, whose rows are `stride` apart.
    ///
    /// # Safety
    /// `c` must have room for the block.
    unsafe fn block(
        &self,
        rows: Range<usize>,
        panels: Range<usize>,
        packed: Option<&[f32]>,
        c: *mut f32,
        stride: usize,
        finish: Finish<f32>,
    ) {
        let left = &self.left;
        let tiles = rows.len().div_ceil(ROWS);
        // A left operand of which neither rows nor columns are contiguous is packed, too.
        let gather = left.column != 1 && left.row != 1;
        let depth = DEPTH.min(self.k);
        let together = (PACK_ELEMENTS / (depth * COLUMNS).max(1)).clamp(1, panels.len().max(1));
        let packs = packed.is_none() && !self.reads_right();
        let own = if packs { together * depth * COLUMNS } else { 0 };
        let gathered = if gather { rows.len() * DEPTH.min(self.k) } else { 0 };
        with_scratch(own + gathered, |scratch| {
            let (own, gathered) = scratch.split_at_mut(own);
            let mut start = 0;
            // Without steps the epilogue is still applied, to zero.
            while start < self.k.max(1) {
                let steps = start..self.k.min(start + DEPTH);
                let last = steps.end == self.k;
                let first = start == 0;
                start += DEPTH;
                let gathered = gather.then(|| {
                    self.gather(rows.start, &steps, &mut gathered[..rows.len() * steps.len()]);
                    gathered.as_ptr()
                });
                let (a, a_row, mode) = self.left_tile(rows.start, &steps, gathered);
                let segments = &[Segment::whole(steps.len())][..usize::from(!steps.is_empty())];
                for group in panels.clone().step_by(together) {
                    let group = group..panels.end.min(group + together);
                    let place = |panel: usize| (panel - group.start) * steps.len() * COLUMNS;
                    if packs {
                        // SAFETY: the scratch has room for the steps of these panels.
                        unsafe { self.pack(group.clone(), steps.clone(), own.as_mut_ptr()) };
                    }
                    for (tile, panel) in
                        (0..tiles).flat_map(|tile| group.clone().map(move |panel| (tile, panel)))
                    {
                        let (b, b_step) = match packed {
                            Some(packed) => {
                                (packed[(panel * self.k + steps.start) * COLUMNS..].as_ptr(), COLUMNS)
                            }
                            None if packs => (own[place(panel)..].as_ptr(), COLUMNS),
                            None => {
                                let at = steps.start * self.right.row + panel * COLUMNS;
                                (self.right.data.as_ptr().wrapping_add(at), self.right.row)
                            }
                        };
                        let column = panel * COLUMNS;
                        let (from, to) = (rows.len() * tile / tiles, rows.len() * (tile + 1) / tiles);
                        let epilogue = finish.epilogue(first, last, rows.start + from, column);
                        let tile = Tile {
                            m: to - from,
                            n: COLUMNS.min(self.n - column),
                            segments,
                            left: mode,
                            rows: &[strided_rows(a.wrapping_add(from * a_row), a_row)],
                            b,
                            b_step,
                            ahead: 0,
                            c: c.wrapping_add(from * stride + (panel - panels.start) * COLUMNS),
                            output: Output::Strided(stride),
                            epilogue,
                        };
                        // Rows of C are prefetched while the tile is multiplied.
                        prefetch_rows(&tile, stride);
                        // SAFETY: rows, steps and columns are inside the operands, whose sizes were checked;
                        // `c` has room for the block.
                        unsafe { tile.run() };
                    }
                }
            }
        });
    }
}

impl Finish<'_, f32> {
    /// The epilogue of one chunk of the inner dimension, for a tile that starts at this row and column: the first chunk
    /// scales the old C, the last one adds the bias.
    #[inline(always)]
    pub(super) fn epilogue(&self, first: bool, last: bool, row: usize, column: usize) -> Epilogue {
        let beta = if first { self.beta } else { 1.0 };
        let mut epilogue = Epilogue { alpha: self.alpha, beta, ..Epilogue::STORE };
        if last {
            match self.bias {
                Bias::None => {}
                Bias::Columns(bias) => epilogue.column_bias = bias[column..].as_ptr(),
                Bias::Rows(bias) => epilogue.row_bias = bias[row..].as_ptr(),
            }
        }
        epilogue
    }
}

/// Prefetches the rows of a tile's result, `stride` elements apart.
#[inline(always)]
pub(super) fn prefetch_rows(tile: &Tile, stride: usize) {
    for i in 0..tile.m {
        let line = tile.c.wrapping_add(i * stride);
        prefetch_write(line);
        prefetch_write(line.wrapping_add(16));
    }
}
