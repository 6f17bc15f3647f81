//! The register tile of products: up to 13 rows of the left matrix by one or two vectors of columns.

use super::lanes::{Kernel, Lanes, prefetch, unroll};

/// Columns of a packed panel of weights.
pub(super) const PANEL: usize = 32;

/// How the left matrix lies: each row along its steps, or each step along its rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Rows,
    Columns,
}

/// `C[i][j] (+)= sum over k of A[i][k] * B[k][j]`.
#[derive(Clone, Copy)]
pub(super) struct Product {
    /// Rows of the result.
    pub(super) rows: usize,
    /// Columns of the result; rounded up to whole vectors.
    pub(super) cols: usize,
    /// Steps of the inner dimension.
    pub(super) steps: usize,
    /// The left matrix, and the distance of its rows (of its steps with [`Left::Columns`]).
    pub(super) a: *const f32,
    pub(super) a_stride: usize,
    /// The right matrix, and the distance of its steps.
    pub(super) b: *const f32,
    pub(super) b_stride: usize,
    /// The result, and the distance of its rows.
    pub(super) c: *mut f32,
    pub(super) c_stride: usize,
    /// Whether the product is added to what the result holds.
    pub(super) add: bool,
    /// What will be read next: one cache line is asked for at each step.
    pub(super) next: *const f32,
}

impl Product {
    /// Computes the product, cut into register tiles of nearly equal height.
    ///
    /// # Safety
    /// The matrices are readable, the result writable, columns rounded up to whole vectors.
    #[inline(always)]
    pub(super) unsafe fn run<L: Lanes>(self, left: Left) {
        let groups = self.rows.div_ceil(L::ROWS);
        let mut row = 0;
        for group in 0..groups {
            let end = self.rows * (group + 1) / groups;
            let rows = end - row;
            let mut col = 0;
            while col < self.cols {
                let vecs = if self.cols - col > L::N { 2 } else { 1 };
                let tile = Product {
                    rows,
                    cols: vecs,
                    a: self.a.wrapping_add(if left == Left::Rows { row * self.a_stride } else { row }),
                    b: self.b.wrapping_add(col),
                    c: self.c.wrapping_add(row * self.c_stride + col),
                    next: self.next.wrapping_add((group & 1) * self.steps * 16),
                    ..self
                };
                // SAFETY: the caller promises the matrices; the tile lies inside.
                unsafe { tile.dispatch::<L>(left) };
                col += vecs * L::N;
            }
            row = end;
        }
    }

    #[inline(always)]
    unsafe fn dispatch<L: Lanes>(self, left: Left) {
        macro_rules! call {
            ($rows:literal, $vecs:literal, $columns:literal) => {
                // SAFETY: L is in use, so the machine has it; the rest is the caller's promise.
                unsafe { L::call(Tile::<$rows, $vecs, $columns>(self)) }
            };
        }
        macro_rules! by_rows {
            ($($n:literal)*) => {
                match (self.rows, self.cols, left) {
                    // Constant guards: higher tiles are not even compiled.
                    $(($n, 2, Left::Rows) if const { $n <= L::ROWS } => call!($n, 2, false),
                    ($n, 2, Left::Columns) if const { $n <= L::ROWS } => call!($n, 2, true),
                    ($n, _, Left::Rows) if const { $n <= L::ROWS } => call!($n, 1, false),
                    ($n, _, Left::Columns) if const { $n <= L::ROWS } => call!($n, 1, true),)*
                    _ => unreachable!("a tile has 1 to {} rows", L::ROWS),
                }
            };
        }
        by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13)
    }
}

/// A product of exactly `ROWS` rows and `VECS` vectors of columns.
struct Tile<const ROWS: usize, const VECS: usize, const COLUMNS: bool>(Product);

impl<const ROWS: usize, const VECS: usize, const COLUMNS: bool> Kernel for Tile<ROWS, VECS, COLUMNS> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let p = self.0;
        // No closures in here: they would be compiled without the instruction set of L.
        let mut sums = [[L::splat(0.0); VECS]; ROWS];
        // Three rows share an address register. The compiler must not see that the addresses are related, or it
        // computes them anew at each step, and loads far ahead to save them, until the vector registers spill.
        let mut bases = [p.a; 5];
        if !COLUMNS {
            for (i, base) in bases.iter_mut().enumerate() {
                *base = p.a.wrapping_add(3 * i * p.a_stride);
            }
            bases = std::hint::black_box(bases);
        }
        let (mut b, mut next) = (p.b, p.next);
        macro_rules! step {
            ($unrolled:expr) => {
                prefetch(next);
                next = next.wrapping_add(16);
                let mut right = [L::splat(0.0); VECS];
                unroll!(j of 2 < VECS, {
                    // SAFETY: as Product::run's caller promises.
                    right[j] = unsafe { L::load(b.wrapping_add(j * L::N)) };
                });
                unroll!(i of 13 < ROWS, {
                    let left = if COLUMNS {
                        bases[0].wrapping_add(i)
                    } else {
                        bases[i / 3].wrapping_add(i % 3 * p.a_stride + $unrolled)
                    };
                    // SAFETY: as above.
                    let left = L::splat(unsafe { *left });
                    unroll!(j of 2 < VECS, {
                        sums[i][j] = left.mul_add(right[j], sums[i][j]);
                    });
                });
                b = b.wrapping_add(p.b_stride);
                if COLUMNS {
                    bases[0] = bases[0].wrapping_add(p.a_stride);
                }
            };
        }
        macro_rules! advance {
            ($steps:expr) => {
                if !COLUMNS {
                    for base in &mut bases {
                        *base = base.wrapping_add($steps);
                    }
                }
            };
        }
        for _ in 0..p.steps / 4 {
            step!(0);
            step!(1);
            step!(2);
            step!(3);
            advance!(4);
        }
        for _ in 0..p.steps % 4 {
            step!(0);
            advance!(1);
        }
        unroll!(i of 13 < ROWS, {
            unroll!(j of 2 < VECS, {
                let c = p.c.wrapping_add(i * p.c_stride + j * L::N);
                // SAFETY: as above.
                unsafe { if p.add { L::load(c).add(sums[i][j]).store(c) } else { sums[i][j].store(c) } }
            });
        });
    }
}
