//! The register tile behind matrix products and convolutions: up to 12 rows by 32 columns, split into parts by the
//! vector width.
//!
//! A tile keeps its accumulators in registers over a list of [`Segment`]s, each a run of the inner dimension: a matrix
//! product has one segment, a convolution one for each tap of its kernel. The left operand is read in place, one scalar
//! at a time; the right operand is rows of up to 32 contiguous columns, a packed panel or the rows of a matrix.

mod product;

pub(crate) use product::Product;
use tapegrad_tape::kernels::arch::{self, Kernel, Vector, prefetch};
use tapegrad_tape::unroll;

/// Rows of the largest tile: one that fits 32 registers, or two that fit 16.
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

/// The layout of the left operand in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Each row has its own address and contiguous steps.
    Rows,
    /// The rows of one step are contiguous, from the address of the first row on; the next step is this many elements
    /// further.
    Columns(usize),
}

/// The layout of the rows of the result.
#[derive(Clone, Copy)]
pub enum Output<'a> {
    /// This many elements apart.
    Strided(usize),
    /// Each at its own offset in elements.
    Scattered(&'a [usize; ROWS]),
}

/// What is applied to a product before it is stored: `alpha * product + beta * old + biases`.
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
    /// The layout of the left operand.
    pub left: Left,
    /// Addresses of the rows of the left operand, which the segments refer to.
    pub rows: &'a [Rows],
    /// The right operand, with contiguous columns.
    pub b: *const f32,
    /// Distance between its rows.
    pub b_step: usize,
    /// How many elements ahead of the right operand each step prefetches, if it is not in a near cache; 0 if not. Any
    /// distance is allowed.
    pub ahead: usize,
    /// The result.
    pub c: *mut f32,
    /// The layout of the rows of the result.
    pub output: Output<'a>,
    /// What is applied to the result before it is stored.
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
        arch::run(self);
    }

    /// Splits the tile into parts that fit the registers, of nearly equal height.
    ///
    /// # Safety
    /// Same as for [`Tile::run`].
    #[inline(always)]
    unsafe fn run_parts<V: Vector>(&self) {
        debug_assert!((1..=ROWS).contains(&self.m) && (1..=COLUMNS).contains(&self.n));
        debug_assert!(self.segments.iter().all(|s| s.len > 0));
        let parts = self.m.div_ceil(V::TILE_ROWS);
        let mut row = 0;
        for part in 1..=parts {
            let end = self.m * part / parts;
            for column in (0..self.n).step_by(2 * V::LANES) {
                let n = (self.n - column).min(2 * V::LANES);
                // SAFETY: the part lies inside the tile.
                unsafe { self.run_part::<V>(end - row, row, column, n) };
            }
            row = end;
        }
    }

    /// Calls the part with its size as constants: each size is a separate function, since the register allocator fails
    /// on one that contains them all.
    #[inline(always)]
    unsafe fn run_part<V: Vector>(&self, m: usize, row: usize, column: usize, n: usize) {
        macro_rules! call {
            ($rows:literal, $vectors:literal, $columns:literal) => {
                // SAFETY: V is in use, so the CPU supports it; the rest is the caller's promise.
                unsafe { V::call(Part::<$rows, $vectors, $columns> { tile: self, row, column, n }) }
            };
        }
        macro_rules! by_rows {
            ($($rows:literal)*) => {
                match (m, n > V::LANES, self.left) {
                    // Constant conditions: parts that do not fit are not compiled.
                    $(($rows, true, Left::Rows) if const { $rows <= V::TILE_ROWS } => call!($rows, 2, false),
                    ($rows, true, Left::Columns(_)) if const { $rows <= V::TILE_ROWS } => call!($rows, 2, true),
                    ($rows, false, Left::Rows) if const { $rows <= V::TILE_ROWS } => call!($rows, 1, false),
                    ($rows, false, Left::Columns(_)) if const { $rows <= V::TILE_ROWS } => call!($rows, 1, true),)*
                    _ => unreachable!("a part has 1 to {} rows", V::TILE_ROWS),
                }
            };
        }
        by_rows!(1 2 3 4 5 6 7 8 9 10 11 12)
    }
}

impl Kernel for &Tile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        static ZEROS: [f32; COLUMNS] = [0.0; COLUMNS];
        let zeros = ZEROS.as_ptr();
        let (segments, rows) = (&[Segment::whole(1)], &[[zeros; ROWS]]);
        let tile = if self.segments.is_empty() { &Tile { segments, rows, b: zeros, ..*self } } else { self };
        // SAFETY: the promise of the tile's caller; the segment in the place of none multiplies zeros.
        unsafe { tile.run_parts::<V>() };
    }
}

/// The part of a tile that starts at `row` and `column`, has `M` rows, and `n` columns in `W` vectors.
struct Part<'a, const M: usize, const W: usize, const COLUMNS_LEFT: bool> {
    tile: &'a Tile<'a>,
    row: usize,
    column: usize,
    n: usize,
}

impl<const M: usize, const W: usize, const COLUMNS_LEFT: bool> Kernel for Part<'_, M, W, COLUMNS_LEFT> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Part { tile: t, row, column, n } = self;
        // SAFETY: the caller vouches for every address that the tile names; loads and stores of the last
        // vector are masked to the columns that exist.
        unsafe {
            let mask = V::mask(n - (W - 1) * V::LANES);
            let mut acc = [[V::splat(0.0); W]; M];
            let b = t.b.wrapping_add(column);
            // No segment is empty, so both loops test at their end; with a test at the start the compiler keeps a
            // second copy of the accumulators on the stack.
            let mut s = t.segments.as_ptr();
            let end = s.add(t.segments.len());
            loop {
                let Segment { table, a, b: b_offset, len } = *s;
                let start = t.rows.as_ptr().add(table);
                let mut b = b.wrapping_add(b_offset);
                let mut k = 0;
                let mut rows = [b; M];
                let mut columns = (*start)[0].wrapping_add(a + row);
                let mut a_step = 0;
                if COLUMNS_LEFT {
                    let Left::Columns(step) = t.left else { std::hint::unreachable_unchecked() };
                    a_step = step;
                } else {
                    unroll!(i of 13 < M, {
                        rows[i] = (*start)[row + i].wrapping_add(a);
                    });
                }
                loop {
                    let right = load::<V, W>(b, mask);
                    prefetch(b.wrapping_add(t.ahead));
                    if W * V::LANES > 16 {
                        prefetch(b.wrapping_add(t.ahead + 16));
                    }
                    unroll!(i of 13 < M, {
                        let left = V::splat(if COLUMNS_LEFT { *columns.add(i) } else { *rows[i].add(k) });
                        unroll!(v of 2 < W, {
                            acc[i][v] = left.mul_add(right[v], acc[i][v]);
                        });
                    });
                    columns = columns.wrapping_add(a_step);
                    b = b.wrapping_add(t.b_step);
                    k += 1;
                    if k == len {
                        break;
                    }
                }
                s = s.add(1);
                if s == end {
                    break;
                }
            }
            finish::<V, M, W>(t, row, column, n, acc);
        }
    }
}

#[inline(always)]
unsafe fn load<V: Vector, const W: usize>(p: *const f32, mask: V::Mask) -> [V; W] {
    // SAFETY: the last vector is masked to what may be read.
    unsafe {
        let mut x = [V::splat(0.0); W];
        unroll!(v of 2 < W, {
            x[v] = if v + 1 == W { V::load_masked(p.add(v * V::LANES), mask) } else { V::load(p.add(v * V::LANES)) };
        });
        x
    }
}

#[inline(always)]
unsafe fn finish<V: Vector, const M: usize, const W: usize>(
    t: &Tile,
    row: usize,
    column: usize,
    n: usize,
    mut acc: [[V; W]; M],
) {
    let e = &t.epilogue;
    // SAFETY: as in `Part::run`.
    unsafe {
        let mask = V::mask(n - (W - 1) * V::LANES);
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
            let alpha = V::splat(e.alpha);
            unroll!(i of 13 < M, {
                unroll!(v of 2 < W, {
                    acc[i][v] = acc[i][v].mul(alpha);
                });
            });
        }
        if e.beta != 0.0 {
            let beta = V::splat(e.beta);
            unroll!(i of 13 < M, {
                let old = load::<V, W>(rows[i], mask);
                unroll!(v of 2 < W, {
                    acc[i][v] = beta.mul_add(old[v], acc[i][v]);
                });
            });
        }
        if !e.column_bias.is_null() {
            let bias = load::<V, W>(e.column_bias.add(column), mask);
            unroll!(i of 13 < M, {
                unroll!(v of 2 < W, {
                    acc[i][v] = acc[i][v].add(bias[v]);
                });
            });
        }
        if !e.row_bias.is_null() {
            unroll!(i of 13 < M, {
                let bias = V::splat(*e.row_bias.add(row + i));
                unroll!(v of 2 < W, {
                    acc[i][v] = acc[i][v].add(bias);
                });
            });
        }
        // If all lanes are stored no mask is used: on some CPUs masked stores take tens of cycles.
        if n == W * V::LANES {
            unroll!(i of 13 < M, {
                unroll!(v of 2 < W, {
                    acc[i][v].store(rows[i].add(v * V::LANES));
                });
            });
        } else {
            unroll!(i of 13 < M, {
                unroll!(v of 2 < W, {
                    let p = rows[i].add(v * V::LANES);
                    if v + 1 == W { acc[i][v].store_masked(p, mask) } else { acc[i][v].store(p) }
                });
            });
        }
    }
}

#[cfg(test)]
mod tests;
