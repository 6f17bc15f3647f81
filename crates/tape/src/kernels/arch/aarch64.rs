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

    instructions!(vdupq_n_f32 vaddq_f32 vsubq_f32 vmulq_f32 vdivq_f32 mul_add neg_mul_add vld1q_f32 vst1q_f32);
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        // SAFETY: as in splat.
        Self(unsafe { vbslq_f32(vcltq_f32(self.0, b.0), b.0, self.0) })
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        // SAFETY: as in splat.
        Self(unsafe { vbslq_f32(vcgtq_f32(self.0, b.0), b.0, self.0) })
    }
    #[inline(always)]
    fn by_sign(self, negative: Self, positive: Self) -> Self {
        // SAFETY: as in splat.
        unsafe {
            let sign = vshrq_n_s32::<31>(vreinterpretq_s32_f32(self.0));
            Self(vbslq_f32(vreinterpretq_u32_s32(sign), negative.0, positive.0))
        }
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        // SAFETY: as in splat. Half of the exponent at a time stays in range.
        unsafe {
            let n = vcvtnq_s32_f32(n.0);
            let (half, bias) = (vshrq_n_s32::<1>(n), vdupq_n_s32(127));
            let low = vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(half, bias)));
            let high = vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vsubq_s32(n, half), bias)));
            Self(vmulq_f32(vmulq_f32(self.0, low), high))
        }
    }
    four_lanes!();
}
