//! Products of whole matrices inside a kernel, such as those of Winograd's frequencies.
//!
//! They have a register tile of their own. [`super::Tile`] handles segments, masks and epilogues; without them a step
//! takes fewer instructions, which counts where an AVX2 tile of 6 rows has 12 multiplications for 8 loads: the
//! 3x3 convolutions of ResNet-18 take 1.15 of this tile's time on [`super::Tile`] (AMD Zen 4, AVX2).

use super::Left;
use tapegrad_tape::kernels::arch::{Kernel, Vector, prefetch};
use tapegrad_tape::unroll;

/// `C[i][j] (+)= sum over k of A[i][k] * B[k][j]`.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    /// Rows of the result.
    pub(crate) rows: usize,
    /// Columns of the result; rounded up to whole vectors.
    pub(crate) cols: usize,
    /// Steps of the inner dimension.
    pub(crate) steps: usize,
    /// How the left matrix lies.
    pub(crate) left: Left,
    /// The left matrix, and the distance of its rows (of its steps with [`Left::Columns`]).
    pub(crate) a: *const f32,
    pub(crate) a_stride: usize,
    /// The right matrix, and the distance of its steps.
    pub(crate) b: *const f32,
    pub(crate) b_stride: usize,
    /// The result, and the distance of its rows.
    pub(crate) c: *mut f32,
    pub(crate) c_stride: usize,
    /// Whether the product is added to what the result holds.
    pub(crate) add: bool,
    /// What will be read next: one cache line is asked for at each step.
    pub(crate) next: *const f32,
}

/// Rows of the tile: with 32 registers there is room for one more than with masks.
const fn most_rows<V: Vector>() -> usize {
    if V::TILE_ROWS == 12 { 13 } else { V::TILE_ROWS }
}

impl Product {
    /// Computes the product, cut into register tiles of nearly equal height.
    ///
    /// # Safety
    /// The matrices are readable, the result writable, columns rounded up to whole vectors.
    #[inline(always)]
    pub(crate) unsafe fn run<V: Vector>(self) {
        // A function of its own: with all its tiles it is too large to be repeated at each caller.
        // SAFETY: V is in use, so the machine has it; the rest is the caller's promise.
        unsafe { V::call(self) };
    }

    #[inline(always)]
    unsafe fn dispatch<V: Vector>(self) {
        macro_rules! call {
            ($rows:literal, $vecs:literal, $columns:literal) => {
                // SAFETY: V is in use, so the machine has it; the rest is the caller's promise.
                unsafe { V::call(Tile::<$rows, $vecs, $columns>(self)) }
            };
        }
        macro_rules! by_rows {
            ($($n:literal)*) => {
                match (self.rows, self.cols, self.left) {
                    // Constant guards: higher tiles are not even compiled.
                    $(($n, 2, Left::Rows) if const { $n <= most_rows::<V>() } => call!($n, 2, false),
                    ($n, 2, Left::Columns(_)) if const { $n <= most_rows::<V>() } => call!($n, 2, true),
                    ($n, _, Left::Rows) if const { $n <= most_rows::<V>() } => call!($n, 1, false),
                    ($n, _, Left::Columns(_)) if const { $n <= most_rows::<V>() } => call!($n, 1, true),)*
                    _ => unreachable!("a tile has 1 to {} rows", most_rows::<V>()),
                }
            };
        }
        by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13)
    }
}

impl Kernel for Product {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let groups = self.rows.div_ceil(most_rows::<V>());
        let mut row = 0;
        for group in 0..groups {
            let end = self.rows * (group + 1) / groups;
            let rows = end - row;
            let mut col = 0;
            while col < self.cols {
                let vecs = if self.cols - col > V::LANES { 2 } else { 1 };
                let tile = Product {
                    rows,
                    cols: vecs,
                    a: self.a.wrapping_add(if self.left == Left::Rows { row * self.a_stride } else { row }),
                    b: self.b.wrapping_add(col),
                    c: self.c.wrapping_add(row * self.c_stride + col),
                    next: self.next.wrapping_add((group & 1) * self.steps * 16),
                    ..self
                };
                // SAFETY: the matrices are as `Product::run` asks for; the tile lies inside.
                unsafe { tile.dispatch::<V>() };
                col += vecs * V::LANES;
            }
            row = end;
        }
    }
}

/// A product of exactly `ROWS` rows and `VECS` vectors of columns.
struct Tile<const ROWS: usize, const VECS: usize, const COLUMNS: bool>(Product);

impl<const ROWS: usize, const VECS: usize, const COLUMNS: bool> Kernel for Tile<ROWS, VECS, COLUMNS> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let p = self.0;
        // No closures in here: they would be compiled without the instruction set of V.
        let mut sums = [[V::splat(0.0); VECS]; ROWS];
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
                let mut right = [V::splat(0.0); VECS];
                unroll!(j of 2 < VECS, {
                    // SAFETY: as Product::run's caller promises.
                    right[j] = unsafe { V::load(b.wrapping_add(j * V::LANES)) };
                });
                unroll!(i of 13 < ROWS, {
                    let left = if COLUMNS {
                        bases[0].wrapping_add(i)
                    } else {
                        bases[i / 3].wrapping_add(i % 3 * p.a_stride + $unrolled)
                    };
                    // SAFETY: as above.
                    let left = V::splat(unsafe { *left });
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
                let c = p.c.wrapping_add(i * p.c_stride + j * V::LANES);
                // SAFETY: as above.
                unsafe { if p.add { V::load(c).add(sums[i][j]).store(c) } else { sums[i][j].store(c) } }
            });
        });
    }
}
