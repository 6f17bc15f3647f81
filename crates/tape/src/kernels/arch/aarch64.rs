//! NEON, which every arm64 CPU has.

use super::{Kernel, Vector, four_lanes, instructions};
use std::arch::aarch64::*;

/// Four lanes: one of 32 registers.
#[derive(Clone, Copy)]
pub(crate) struct Neon(float32x4_t);

/// `a * b + c`: the intrinsic takes the addend first.
#[inline(always)]
unsafe fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
    // SAFETY: every arm64 CPU has NEON.
    unsafe { vfmaq_f32(c, a, b) }
}

/// `c - a * b`.
#[inline(always)]
unsafe fn neg_mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
    // SAFETY: every arm64 CPU has NEON.
    unsafe { vfmsq_f32(c, a, b) }
}

// SAFETY: needs nothing beyond NEON, which every arm64 CPU has.
unsafe impl Vector for Neon {
    const LANES: usize = 4;
    const TILE_ROWS: usize = 12;

    #[inline(never)]
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Self>()
    }

    instructions!(vdupq_n_f32 vaddq_f32 vsubq_f32 vmulq_f32 mul_add neg_mul_add vld1q_f32 vst1q_f32);
    four_lanes!();
}
