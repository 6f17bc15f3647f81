//! The product of two packed strips by the tile registers: 32 rows by 32 columns of sums.

use super::pack::{CHUNK, SIDE, Source, TILE};
use std::marker::PhantomData;

/// The sums of a block, row after row.
#[repr(align(64))]
pub(super) struct Sums(pub(super) [f32; SIDE * SIDE]);

/// This thread's tile registers, eight tiles of 16 rows of 64 bytes; released when dropped.
pub(super) struct Tiles(PhantomData<*const ()>);

/// What the instruction `ldtilecfg` reads.
#[cfg(target_arch = "x86_64")]
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    /// Configures them, where AMX is in use.
    pub(super) fn new() -> Tiles {
        #[cfg(target_arch = "x86_64")]
        if super::is_available() {
            let mut shapes =
                Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
            shapes.row_bytes[..8].fill(64);
            shapes.rows[..8].fill(16);
            // SAFETY: AMX was detected and the system allows it; the shapes are those of the first palette.
            unsafe {
                std::arch::asm!("ldtilecfg [{}]", in(reg) &shapes, options(nostack, readonly, preserves_flags));
            }
        }
        Tiles(PhantomData)
    }

    /// Sets `sums` to the product of two strips of so many chunks.
    ///
    /// Of three parts the six products of the largest are added up, in this order: 20, 10, 11, 01, 00, 02 (left, right). Then
    /// each step but one loads one operand only. What is left out is at most 2^-26 of a product.
    ///
    /// # Safety
    /// The strips must have so many chunks, at least one.
    pub(super) unsafe fn multiply<T: Source>(
        &self,
        left: *const u16,
        right: *const u16,
        chunks: usize,
        sums: &mut Sums,
    ) {
        #[cfg(target_arch = "x86_64")]
        if super::is_available() {
            // SAFETY: AMX was detected and configured; the strips are the caller's promise.
            return unsafe { amx::multiply(T::PARTS, left, right, chunks, sums.0.as_mut_ptr()) };
        }
        // SAFETY: the caller's promise.
        unsafe { portable(T::PARTS, left, right, chunks, sums) };
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for Tiles {
    fn drop(&mut self) {
        if super::is_available() {
            // SAFETY: AMX was detected; nothing is kept in tiles between calls.
            unsafe { std::arch::asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
        }
    }
}

/// The pairs of parts whose products are added up.
const fn pairs(parts: usize) -> &'static [(usize, usize)] {
    if parts == 1 { &[(0, 0)] } else { &[(2, 0), (1, 0), (1, 1), (0, 1), (0, 0), (0, 2)] }
}

/// The same product without tile registers, against which they are tested.
unsafe fn portable(parts: usize, left: *const u16, right: *const u16, chunks: usize, sums: &mut Sums) {
    let value = |bits: u16| f32::from_bits(u32::from(bits) << 16);
    for (at, sum) in sums.0.iter_mut().enumerate() {
        let (i, j) = (at / SIDE, at % SIDE);
        *sum = 0.0;
        for chunk in 0..chunks {
            for &(p, q) in pairs(parts) {
                let tile = |part: usize, line: usize| ((chunk * parts + part) * 2 + line / 16) * TILE;
                for k in 0..CHUNK {
                    // SAFETY: inside the chunk.
                    let (a, b) = unsafe {
                        (
                            *left.add(tile(p, i) + i % 16 * CHUNK + k),
                            *right.add(tile(q, j) + (k / 2 * 16 + j % 16) * 2 + k % 2),
                        )
                    };
                    *sum += value(a) * value(b);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod amx {
    use std::arch::asm;

    /// Loads the two tiles of a part of an operand.
    macro_rules! load {
        ($first:literal, $second:literal, $operand:literal, $at:literal) => {
            concat!(
                "tileloadd ",
                $first,
                ", [{",
                $operand,
                "} + {row} + ",
                $at,
                "*2048]\n",
                "tileloadd ",
                $second,
                ", [{",
                $operand,
                "} + {row} + ",
                $at,
                "*2048 + 1024]\n",
            )
        };
    }

    /// Adds the products of the loaded tiles.
    macro_rules! products {
        () => {
            "tdpbf16ps tmm0, tmm4, tmm6\ntdpbf16ps tmm1, tmm4, tmm7\ntdpbf16ps tmm2, tmm5, tmm6\ntdpbf16ps tmm3, tmm5, tmm7\n"
        };
    }

    /// The loop over the chunks; `$body` multiplies one of `$bytes` bytes.
    macro_rules! chunks {
        ($left:expr, $right:expr, $chunks:expr, $sums:expr, $bytes:literal, $($body:expr),*) => {
            asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "2:",
                $($body,)*
                concat!("add {left}, ", $bytes),
                concat!("add {right}, ", $bytes),
                "dec {chunks}",
                "jnz 2b",
                "tilestored [{sums} + {sums_row}], tmm0",
                "tilestored [{sums} + {sums_row} + 64], tmm1",
                "tilestored [{sums} + {sums_row} + 2048], tmm2",
                "tilestored [{sums} + {sums_row} + 2112], tmm3",
                left = inout(reg) $left => _,
                right = inout(reg) $right => _,
                chunks = inout(reg) $chunks => _,
                sums = in(reg) $sums,
                row = in(reg) 64usize,
                sums_row = in(reg) 128usize,
                options(nostack),
            )
        };
    }

    /// See [`super::Tiles::multiply`].
    ///
    /// # Safety
    /// The tile registers must be configured, the strips have so many chunks, at least one, and the sums room for a block.
    pub(super) unsafe fn multiply(
        parts: usize,
        left: *const u16,
        right: *const u16,
        chunks: usize,
        sums: *mut f32,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            if parts == 1 {
                chunks!(
                    left,
                    right,
                    chunks,
                    sums,
                    2048,
                    load!("tmm4", "tmm5", "left", 0),
                    load!("tmm6", "tmm7", "right", 0),
                    products!()
                );
            } else {
                chunks!(
                    left,
                    right,
                    chunks,
                    sums,
                    6144,
                    load!("tmm4", "tmm5", "left", 2),
                    load!("tmm6", "tmm7", "right", 0),
                    products!(),
                    load!("tmm4", "tmm5", "left", 1),
                    products!(),
                    load!("tmm6", "tmm7", "right", 1),
                    products!(),
                    load!("tmm4", "tmm5", "left", 0),
                    products!(),
                    load!("tmm6", "tmm7", "right", 0),
                    products!(),
                    load!("tmm6", "tmm7", "right", 2),
                    products!()
                );
            }
        }
    }
}
