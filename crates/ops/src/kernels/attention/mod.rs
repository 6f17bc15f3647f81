//! Attention without a matrix of scores (Dao 2023, "FlashAttention-2"): a block of queries meets a block of keys at a
//! time, and the scores of the two never leave the second-level cache.
//!
//! Scores are kept transposed, a row for each key and a column for each query. So the lanes of a vector are queries, whose
//! maxima and sums need no reduction across lanes; keys and values are read in place, in products with either side; and
//! only the block of queries is transposed, once.
//!
//! The work is split by the sizes alone, and sums have a fixed order: the bits do not depend on the number of threads.

mod backward;
mod forward;
mod scores;

pub(crate) use backward::{Results, backward};
pub(crate) use forward::forward;

use super::microkernel::{COLUMNS, Epilogue, Left, Output, ROWS, Segment, Tile, strided_rows};
use tapegrad_tape::kernels::arch::Vector;
use tapegrad_tape::kernels::shared::SharedSlice;

/// Queries of a block: whole tiles as rows and as columns.
pub(crate) const QUERIES: usize = 96;

/// Keys of a block.
pub(crate) const KEYS: usize = 192;

/// The fewest operations of a task.
const TASK: usize = 2_000_000;

/// The number of tasks from which all threads are busy.
const TASKS: usize = 8;

/// Rows of several matrices: those of matrix `i` start at `offsets[i]` and are `stride` elements apart.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// The memory that contains all matrices.
    pub(crate) data: &'a [f32],
    /// Where each matrix starts.
    pub(crate) offsets: &'a [usize],
    /// From one row to the next; the elements of a row are contiguous.
    pub(crate) stride: usize,
}

impl Rows<'_> {
    fn at(&self, i: usize, row: usize) -> *const f32 {
        self.data.as_ptr().wrapping_add(self.offsets[i] + row * self.stride)
    }

    /// Asserts that all rows of all matrices lie inside the memory.
    pub(crate) fn check(&self, count: usize, rows: usize, width: usize) {
        assert_eq!(self.offsets.len(), count);
        let last = self.offsets.iter().max().map_or(0, |o| o + (rows - 1) * self.stride + width);
        assert!(last <= self.data.len(), "attention: rows lie outside of their memory");
    }
}

/// Like [`Rows`], to be written; no two matrices share an element.
pub(crate) struct RowsMut<'a> {
    data: SharedSlice<'a, f32>,
    offsets: &'a [usize],
    stride: usize,
}

impl<'a> RowsMut<'a> {
    pub(crate) fn new(data: &'a mut [f32], offsets: &'a [usize], stride: usize) -> RowsMut<'a> {
        RowsMut { data: SharedSlice::new(data), offsets, stride }
    }

    fn at(&self, i: usize, row: usize) -> *mut f32 {
        self.data.at(self.offsets[i] + row * self.stride)
    }
}

/// The sizes: matrices, queries, keys, and the widths of keys and values.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) count: usize,
    pub(crate) l: usize,
    pub(crate) s: usize,
    pub(crate) e: usize,
    pub(crate) v: usize,
}

/// Numbers added to the scores; element (query, key) of matrix `i` is at `offsets[i] + query * row + key`.
#[derive(Clone, Copy)]
pub(crate) struct Mask<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) offsets: &'a [usize],
    pub(crate) row: usize,
}

/// Dropout of the weights, by the hash of the function `dropout`.
#[derive(Clone, Copy)]
pub(crate) struct Drop {
    pub(crate) p: f64,
    pub(crate) key: u64,
}

/// What attention is computed from.
#[derive(Clone, Copy)]
pub(crate) struct Attention<'a> {
    pub(crate) sizes: Sizes,
    pub(crate) q: Rows<'a>,
    pub(crate) k: Rows<'a>,
    pub(crate) v: Rows<'a>,
    /// Factor of the scores.
    pub(crate) scale: f32,
    /// Query `i` sees keys up to `i` only.
    pub(crate) causal: bool,
    pub(crate) mask: Option<Mask<'a>>,
    pub(crate) drop: Option<Drop>,
}

impl Attention<'_> {
    fn check(&self) {
        let Sizes { count, l, s, e, v } = self.sizes;
        self.q.check(count, l, e);
        self.k.check(count, s, e);
        self.v.check(count, s, v);
        if let Some(m) = &self.mask {
            Rows { data: m.data, offsets: m.offsets, stride: m.row }.check(count, l, s);
        }
    }

    /// The number of blocks of queries.
    fn blocks(&self) -> usize {
        self.sizes.l.div_ceil(QUERIES)
    }

    /// Operations of one block of queries, forward.
    fn block_flops(&self) -> usize {
        let Sizes { s, e, v, .. } = self.sizes;
        (2 * QUERIES).saturating_mul(s).saturating_mul(e.saturating_add(v))
    }
}

/// A block of queries and one of keys.
#[derive(Clone, Copy)]
struct Place {
    /// The matrix.
    i: usize,
    /// The first query, and how many.
    q: usize,
    queries: usize,
    /// The first key, and how many.
    key: usize,
    keys: usize,
    /// From one row of the transposed scores to the next.
    ld: usize,
    /// Key `k` of the block is seen by query `q` of the block if `k + shift <= q`.
    shift: isize,
}

impl Place {
    /// The blocks of keys that a block of queries sees.
    #[inline(always)]
    fn all(a: &Attention, i: usize, block: usize) -> impl Iterator<Item = Place> {
        let (q, causal, s) = (block * QUERIES, a.causal, a.sizes.s);
        let queries = QUERIES.min(a.sizes.l - q);
        let ld = queries.next_multiple_of(COLUMNS);
        let end = if causal { s.min(q + queries) } else { s };
        (0..end).step_by(KEYS).map(move |key| {
            let shift = if causal { key as isize - q as isize } else { isize::MIN / 4 };
            Place { i, q, queries, key, keys: KEYS.min(end - key), ld, shift }
        })
    }

    /// The number of keys that are seen by any of the queries before `end`.
    #[inline(always)]
    fn seen(&self, end: usize) -> usize {
        (end as isize).saturating_sub(self.shift).clamp(0, self.keys as isize) as usize
    }

    /// The first query that sees any of the keys from `first` on.
    #[inline(always)]
    fn sees(&self, first: usize) -> usize {
        (first as isize).saturating_add(self.shift).clamp(0, self.queries as isize) as usize
    }
}

/// Which part of a product counts where keys are hidden from queries.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// Rows are keys, columns queries: rows up to the last one seen.
    Scores,
    /// Rows are queries, steps keys: steps up to the last one seen.
    KeySteps,
    /// Rows are keys, steps queries: steps from the first one on that sees them.
    QuerySteps,
}

/// A product of blocks: `C = alpha A B`, or that added to C.
#[derive(Clone, Copy)]
struct Product {
    part: Part,
    columns: usize,
    /// Steps where they are not counted by queries or keys.
    steps: usize,
    a: *const f32,
    left: Left,
    /// From one row of A to the next.
    a_row: usize,
    b: *const f32,
    b_step: usize,
    c: *mut f32,
    c_row: usize,
    alpha: f32,
    add: bool,
}

impl Product {
    /// # Safety
    /// The matrices must be readable, C writable.
    #[inline(always)]
    unsafe fn run<V: Vector>(self, place: &Place) {
        let (rows, steps) = match self.part {
            Part::Scores => (place.keys, self.steps),
            Part::KeySteps => (place.queries, place.keys),
            Part::QuerySteps => (place.keys, place.queries),
        };
        let a_step = if let Left::Columns(step) = self.left { step } else { 1 };
        let beta = if self.add { 1.0 } else { 0.0 };
        for column in (0..self.columns).step_by(COLUMNS) {
            let n = COLUMNS.min(self.columns - column);
            let rows = if self.part == Part::Scores { place.seen(column + n) } else { rows };
            let tiles = rows.div_ceil(ROWS);
            for tile in 0..tiles {
                let (from, to) = (rows * tile / tiles, rows * (tile + 1) / tiles);
                let steps = match self.part {
                    Part::Scores => 0..steps,
                    Part::KeySteps => 0..place.seen(to),
                    Part::QuerySteps => place.sees(from)..steps,
                };
                if steps.is_empty() && self.add {
                    continue;
                }
                let a = self.a.wrapping_add(from * self.a_row + steps.start * a_step);
                let segments = &[Segment::whole(steps.len())][..usize::from(!steps.is_empty())];
                let tile = Tile {
                    m: to - from,
                    n,
                    segments,
                    left: self.left,
                    rows: &[strided_rows(a, self.a_row)],
                    b: self.b.wrapping_add(steps.start * self.b_step + column),
                    b_step: self.b_step,
                    ahead: 0,
                    c: self.c.wrapping_add(from * self.c_row + column),
                    output: Output::Strided(self.c_row),
                    epilogue: Epilogue { alpha: self.alpha, beta, ..Epilogue::STORE },
                };
                // SAFETY: V is in use, so the CPU supports it. (Inlined, the tile would be compiled for each product.)
                unsafe { V::call(&tile) };
            }
        }
    }
}
