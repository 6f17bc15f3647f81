//! Four lanes in plain Rust, for architectures without a file of their own.

use super::{Kernel, Vector, four_lanes};

/// Four lanes: the vector width that every 64-bit machine has.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 4]);

/// The four lanes, written out: `array::from_fn` is not always inlined.
macro_rules! lanes {
    (|$i:ident| $lane:expr) => {{
        macro_rules! lane {
            ($index:literal) => {{
                let $i: usize = $index;
                $lane
            }};
        }
        Portable([lane!(0), lane!(1), lane!(2), lane!(3)])
    }};
}

/// `2^n` for `-126 <= n <= 127`; anything for others.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

// SAFETY: needs no instruction set beyond the baseline.
unsafe impl Vector for Portable {
    const LANES: usize = 4;
    const TILE_ROWS: usize = 6;

    #[inline(never)]
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Self>()
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Portable([x; 4])
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        lanes!(|i| self.0[i] + b.0[i])
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        lanes!(|i| self.0[i] - b.0[i])
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        lanes!(|i| self.0[i] * b.0[i])
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        lanes!(|i| self.0[i] / b.0[i])
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        lanes!(|i| if self.0[i] < b.0[i] { b.0[i] } else { self.0[i] })
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        lanes!(|i| if self.0[i] > b.0[i] { b.0[i] } else { self.0[i] })
    }
    #[inline(always)]
    fn by_sign(self, negative: Self, positive: Self) -> Self {
        lanes!(|i| if self.0[i].is_sign_negative() { negative.0[i] } else { positive.0[i] })
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        lanes!(|i| {
            let (n, half) = (n.0[i] as i32, n.0[i] as i32 >> 1);
            self.0[i] * power_of_two(half) * power_of_two(n - half)
        })
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        self.mul(b).add(c)
    }
    #[inline(always)]
    fn neg_mul_add(self, b: Self, c: Self) -> Self {
        c.sub(self.mul(b))
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller promises four readable values.
        Portable(unsafe { p.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller promises four writable values.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    four_lanes!();
}
