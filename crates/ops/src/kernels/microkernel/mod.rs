//! The register tile on which matrix products and convolutions stand: up to 12 rows by 32 columns.
//!
//! A tile keeps its accumulators in registers over a list of [`Segment`]s, each a run of the inner
//! dimension: a matrix product has one segment, a convolution one for each tap of its kernel. The
//! left operand is read where it lies, one scalar at a time; the right operand is rows of up to 32
//! contiguous columns, a packed panel or the rows of a matrix.

mod lanes;

use crate::kernels::lanes::{prefetch, unroll};
use lanes::Lanes;
use tape::kernels::simd::{SimdLevel, simd_level};

/// Rows of the largest tile. With 13 the registers are full, with 14 they spill.
pub const ROWS: usize = 12;

/// Columns of the largest tile, and of a packed panel.
pub const COLUMNS: usize = 32;

/// Where each row of the left operand starts.
pub type Rows = [*const f32; ROWS];

/// Rows that lie `stride` elements apart.
#[inline(always)]
pub fn strided_rows(a: *const f32, stride: usize) -> Rows {
    let mut rows = [a; ROWS];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = a.wrapping_add(i * stride);
    }
    rows
}

/// A run of the inner dimension over which all addresses advance evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Which entry of [`Tile::rows`] tells where the rows of the left operand start.
    pub table: usize,
    /// Added to those addresses, in elements.
    pub a: usize,
    /// Where the right operand starts, in elements after [`Tile::b`].
    pub b: usize,
    /// Number of steps, at least 1.
    pub len: usize,
}

impl Segment {
    /// The whole inner dimension of a matrix product.
    pub const fn whole(len: usize) -> Self {
        Segment { table: 0, a: 0, b: 0, len }
    }
}

/// How the left operand lies in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Each row has its own address and its steps are neighbours.
    Rows,
    /// The rows of one step are neighbours, from the address of the first row on; the next step is this
    /// many elements further.
    Columns(usize),
}

/// Where the rows of the result lie.
#[derive(Clone, Copy)]
pub enum Output<'a> {
    /// This many elements apart.
    Strided(usize),
    /// Each at its own offset in elements.
    Scattered(&'a [usize; ROWS]),
}

/// What becomes of a product before it is stored: `alpha * product + beta * old + biases`.
#[derive(Clone, Copy)]
pub struct Epilogue {
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of what the output held before; with 0 the output is not read.
    pub beta: f32,
    /// One term for each column of the tile, or null.
    pub column_bias: *const f32,
    /// One term for each row of the tile, or null.
    pub row_bias: *const f32,
}

impl Epilogue {
    /// Stores the product alone.
    pub const STORE: Epilogue =
        Epilogue { alpha: 1.0, beta: 0.0, column_bias: std::ptr::null(), row_bias: std::ptr::null() };

    /// Adds the product to what the output holds.
    pub const ADD: Epilogue = Epilogue { beta: 1.0, ..Epilogue::STORE };
}

/// One tile of a product: `C[i][j] = epilogue(sum over segments and steps k of A[i][k] * B[k][j])`.
#[derive(Clone, Copy)]
pub struct Tile<'a> {
    /// Rows of the tile, 1 to [`ROWS`].
    pub m: usize,
    /// Columns of the tile, 1 to [`COLUMNS`].
    pub n: usize,
    /// The inner dimension. Without a segment the product is zero.
    pub segments: &'a [Segment],
    /// How the left operand lies.
    pub left: Left,
    /// Addresses of the rows of the left operand, which the segments refer to.
    pub rows: &'a [Rows],
    /// The right operand: its columns are neighbours.
    pub b: *const f32,
    /// Distance between its rows.
    pub b_step: usize,
    /// How many elements ahead the right operand is called into the cache, where it comes from afar; 0 if not.
    pub ahead: usize,
    /// The result.
    pub c: *mut f32,
    /// Where the rows of the result lie.
    pub output: Output<'a>,
    /// The last pass over the result.
    pub epilogue: Epilogue,
}

impl Tile<'_> {
    /// Computes the tile.
    ///
    /// # Safety
    /// All addresses that the description names must be readable (the output writable); `m` and `n`
    /// must be within their bounds. Only the first `n` columns of the right operand are read.
    #[inline]
    pub unsafe fn run(&self) {
        debug_assert!((1..=ROWS).contains(&self.m) && (1..=COLUMNS).contains(&self.n));
        debug_assert!(self.segments.iter().all(|s| s.len > 0));
        if self.segments.is_empty() {
            static ZEROS: [f32; COLUMNS] = [0.0; COLUMNS];
            let zeros = ZEROS.as_ptr();
            let (segments, rows) = (&[Segment::whole(1)], &[[zeros; ROWS]]);
            // SAFETY: the segment multiplies zeros; the rest is the caller's promise.
            return unsafe { Tile { segments, rows, b: zeros, ..*self }.run() };
        }
        match simd_level() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: simd_level() answers Avx512 only where it was detected; the rest is the caller's.
            SimdLevel::Avx512 => unsafe { run_avx512(self) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::Avx2 => unsafe { run_avx2(self) },
            // SAFETY: as the caller promised.
            _ => unsafe { run_portable(self) },
        }
    }
}

/// Calls `$tile` with the number of rows as a constant, one or two vectors wide, rows of `left` or columns.
macro_rules! by_size {
    ($tile:ident, $lanes:ty, $t:expr, $m:expr, $row:expr, $column:expr, $n:expr, [$($rows:literal)+]) => {
        match ($m, $n > <$lanes>::N, $t.left) {
            $(
                ($rows, true, Left::Rows) => $tile::<$rows, 2, false>($t, $row, $column, $n),
                ($rows, true, Left::Columns(_)) => $tile::<$rows, 2, true>($t, $row, $column, $n),
                ($rows, false, Left::Rows) => $tile::<$rows, 1, false>($t, $row, $column, $n),
                ($rows, false, Left::Columns(_)) => $tile::<$rows, 1, true>($t, $row, $column, $n),
            )+
            _ => unreachable!("a tile has 1 to {ROWS} rows"),
        }
    };
}

// Each size is a function of its own: the register allocator gives up on one that holds them all.

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
#[inline(never)]
unsafe fn avx512<const M: usize, const V: usize, const C: bool>(
    t: &Tile,
    row: usize,
    column: usize,
    n: usize,
) {
    // SAFETY: the addresses are the caller's promise.
    unsafe { tile::<lanes::Avx512, M, V, C>(t, row, column, n) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
unsafe fn avx2<const M: usize, const V: usize, const C: bool>(t: &Tile, row: usize, column: usize, n: usize) {
    // SAFETY: the addresses are the caller's promise.
    unsafe { tile::<lanes::Avx2, M, V, C>(t, row, column, n) }
}

#[inline(never)]
unsafe fn portable<const M: usize, const V: usize, const C: bool>(
    t: &Tile,
    row: usize,
    column: usize,
    n: usize,
) {
    // SAFETY: the addresses are the caller's promise.
    unsafe { tile::<lanes::Portable, M, V, C>(t, row, column, n) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
unsafe fn run_avx512(t: &Tile) {
    // SAFETY: the addresses are the caller's promise.
    unsafe { by_size!(avx512, lanes::Avx512, t, t.m, 0, 0, t.n, [1 2 3 4 5 6 7 8 9 10 11 12]) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(t: &Tile) {
    for (row, m) in halves(t.m) {
        for column in (0..t.n).step_by(16) {
            let n = (t.n - column).min(16);
            // SAFETY: the addresses are the caller's promise.
            unsafe { by_size!(avx2, lanes::Avx2, t, m, row, column, n, [1 2 3 4 5 6]) }
        }
    }
}

unsafe fn run_portable(t: &Tile) {
    for (row, m) in halves(t.m) {
        for column in (0..t.n).step_by(8) {
            let n = (t.n - column).min(8);
            // SAFETY: the addresses are the caller's promise.
            unsafe { by_size!(portable, lanes::Portable, t, m, row, column, n, [1 2 3 4 5 6]) }
        }
    }
}

/// Cuts more than six rows into two parts: (first row, rows).
#[inline(always)]
fn halves(m: usize) -> impl Iterator<Item = (usize, usize)> {
    let first = if m > 6 { m.div_ceil(2) } else { m };
    [(0, first), (first, m - first)].into_iter().filter(|&(_, m)| m > 0)
}

/// The part of a tile that starts at `row` and `column`, has `M` rows, and `n` columns in `V` vectors.
#[inline(always)]
unsafe fn tile<L: Lanes, const M: usize, const V: usize, const COLUMNS_LEFT: bool>(
    t: &Tile,
    row: usize,
    column: usize,
    n: usize,
) {
    // SAFETY: the caller vouches for every address that the tile names; loads and stores of the last
    // vector are masked to the columns that exist.
    unsafe {
        let mask = L::mask(n - (V - 1) * L::N);
        let mut acc = [[L::zero(); V]; M];
        let b = t.b.add(column);
        // No segment is empty, so both loops test at their end: with a test at the start the
        // compiler keeps a second copy of the accumulators, on the stack.
        let mut s = t.segments.as_ptr();
        let end = s.add(t.segments.len());
        loop {
            let Segment { table, a, b: b_offset, len } = *s;
            let start = t.rows.as_ptr().add(table);
            let mut b = b.wrapping_add(b_offset);
            let mut k = 0;
            if COLUMNS_LEFT {
                let Left::Columns(a_step) = t.left else { std::hint::unreachable_unchecked() };
                let mut a = (*start)[0].wrapping_add(a + row);
                loop {
                    let right = load::<L, V>(b, mask);
                    unroll!(i of 13 < M, {
                        let left = L::splat(*a.add(i));
                        unroll!(v of 2 < V, {
                            acc[i][v] = L::fma(left, right[v], acc[i][v]);
                        });
                    });
                    a = a.wrapping_add(a_step);
                    b = b.wrapping_add(t.b_step);
                    k += 1;
                    if k == len {
                        break;
                    }
                }
            } else {
                let mut rows = [b; M];
                unroll!(i of 13 < M, {
                    rows[i] = (*start)[row + i].wrapping_add(a);
                });
                loop {
                    let right = load::<L, V>(b, mask);
                    prefetch(b.wrapping_add(t.ahead));
                    if V * L::N > 16 {
                        prefetch(b.wrapping_add(t.ahead + 16));
                    }
                    unroll!(i of 13 < M, {
                        let left = L::splat(*rows[i].add(k));
                        unroll!(v of 2 < V, {
                            acc[i][v] = L::fma(left, right[v], acc[i][v]);
                        });
                    });
                    b = b.wrapping_add(t.b_step);
                    k += 1;
                    if k == len {
                        break;
                    }
                }
            }
            s = s.add(1);
            if s == end {
                break;
            }
        }
        finish::<L, M, V>(t, row, column, mask, acc);
    }
}

#[inline(always)]
unsafe fn load<L: Lanes, const V: usize>(p: *const f32, mask: L::Mask) -> [L::Vec; V] {
    // SAFETY: the last vector is masked to what may be read.
    unsafe {
        let mut x = [L::zero(); V];
        unroll!(v of 2 < V, {
            x[v] = if v + 1 == V { L::load_masked(p.add(v * L::N), mask) } else { L::load(p.add(v * L::N)) };
        });
        x
    }
}

#[inline(always)]
unsafe fn finish<L: Lanes, const M: usize, const V: usize>(
    t: &Tile,
    row: usize,
    column: usize,
    mask: L::Mask,
    mut acc: [[L::Vec; V]; M],
) {
    let e = &t.epilogue;
    // SAFETY: as in `tile`.
    unsafe {
        let c = t.c.wrapping_add(column);
        let mut rows = [c; M];
        match t.output {
            Output::Strided(stride) => {
                unroll!(i of 13 < M, {
                    rows[i] = c.wrapping_add((row + i) * stride);
                });
            }
            Output::Scattered(offsets) => {
                unroll!(i of 13 < M, {
                    rows[i] = c.wrapping_add(offsets[row + i]);
                });
            }
        }
        if e.alpha != 1.0 {
            let alpha = L::splat(e.alpha);
            unroll!(i of 13 < M, {
                unroll!(v of 2 < V, {
                    acc[i][v] = L::mul(acc[i][v], alpha);
                });
            });
        }
        if e.beta != 0.0 {
            let beta = L::splat(e.beta);
            unroll!(i of 13 < M, {
                let old = load::<L, V>(rows[i], mask);
                unroll!(v of 2 < V, {
                    acc[i][v] = L::fma(beta, old[v], acc[i][v]);
                });
            });
        }
        if !e.column_bias.is_null() {
            let bias = load::<L, V>(e.column_bias.add(column), mask);
            unroll!(i of 13 < M, {
                unroll!(v of 2 < V, {
                    acc[i][v] = L::add(acc[i][v], bias[v]);
                });
            });
        }
        if !e.row_bias.is_null() {
            unroll!(i of 13 < M, {
                let bias = L::splat(*e.row_bias.add(row + i));
                unroll!(v of 2 < V, {
                    acc[i][v] = L::add(acc[i][v], bias);
                });
            });
        }
        unroll!(i of 13 < M, {
            unroll!(v of 2 < V, {
                let p = rows[i].add(v * L::N);
                if v + 1 == V { L::store_masked(p, mask, acc[i][v]) } else { L::store(p, acc[i][v]) }
            });
        });
    }
}

#[cfg(test)]
mod tests;
