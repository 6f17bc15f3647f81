//! The transposition behind packing: 16 by 16 elements at a time in registers.

use crate::kernels::simd::{SimdLevel, simd_level};

/// `to(j)[i] = from[i * stride + j]` for `i < rows`, `j < columns`.
///
/// # Safety
/// The source must be readable and `to(j)` point to `rows` writable elements, for all `j < columns`.
pub unsafe fn transpose(
    rows: usize,
    columns: usize,
    from: *const f32,
    stride: usize,
    to: impl Fn(usize) -> *mut f32,
) {
    match simd_level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: AVX-512 was detected; the addresses are the caller's promise.
        SimdLevel::Avx512 => unsafe { x86::transpose(rows, columns, from, stride, to) },
        // SAFETY: as the caller promised.
        _ => unsafe { plain(rows, columns, from, stride, to) },
    }
}

/// As [`transpose`], to columns that begin `apart` elements from one another: compiled once for all who ask for that.
///
/// # Safety
/// As for [`transpose`], with `to + j * apart` for `to(j)`.
pub unsafe fn transpose_to(
    [rows, columns]: [usize; 2],
    from: *const f32,
    stride: usize,
    to: *mut f32,
    apart: usize,
) {
    // SAFETY: as the caller promised.
    unsafe { transpose(rows, columns, from, stride, |j| to.wrapping_add(j * apart)) }
}

unsafe fn plain(
    rows: usize,
    columns: usize,
    from: *const f32,
    stride: usize,
    to: impl Fn(usize) -> *mut f32,
) {
    // Eight columns of all rows at a time: each cache line of the source is used while it is near.
    for first in (0..columns).step_by(8) {
        for j in first..columns.min(first + 8) {
            let to = to(j);
            for i in 0..rows {
                // SAFETY: as the caller promised.
                unsafe { *to.add(i) = *from.add(i * stride + j) };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// See `super::transpose`.
    #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
    #[allow(clippy::needless_range_loop)]
    pub(super) unsafe fn transpose(
        rows: usize,
        columns: usize,
        from: *const f32,
        stride: usize,
        to: impl Fn(usize) -> *mut f32,
    ) {
        for i in (0..rows).step_by(16) {
            let height = (rows - i).min(16);
            let row_mask = (0xFFFFu32 >> (16 - height)) as __mmask16;
            for j in (0..columns).step_by(16) {
                let width = (columns - j).min(16);
                let column_mask = (0xFFFFu32 >> (16 - width)) as __mmask16;
                let mut x = [_mm512_setzero_ps(); 16];
                // Constant bounds keep the block in registers; what lies outside is masked away.
                for r in 0..16 {
                    let mask = if r < height { column_mask } else { 0 };
                    let at = from.wrapping_add((i + r) * stride + j);
                    // SAFETY: the mask keeps the read to rows and columns that exist.
                    x[r] = unsafe { _mm512_maskz_loadu_ps(mask, at) };
                }
                let x = transposed(x);
                for c in 0..16 {
                    if c < width {
                        // SAFETY: the mask keeps the write to rows that exist, and so is column j + c.
                        unsafe { _mm512_mask_storeu_ps(to(j + c).add(i), row_mask, x[c]) };
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn transposed(x: [__m512; 16]) -> [__m512; 16] {
        // Pairs of rows, then of pairs, inside each quarter of 128 bits ...
        let mut y = [_mm512_setzero_pd(); 16];
        for i in (0..16).step_by(2) {
            y[i] = _mm512_castps_pd(_mm512_unpacklo_ps(x[i], x[i + 1]));
            y[i + 1] = _mm512_castps_pd(_mm512_unpackhi_ps(x[i], x[i + 1]));
        }
        let mut z = x;
        for i in (0..16).step_by(4) {
            z[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(y[i], y[i + 2]));
            z[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(y[i], y[i + 2]));
            z[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(y[i + 1], y[i + 3]));
            z[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(y[i + 1], y[i + 3]));
        }
        // ... z[4 g + c] now holds column c (and c + 4, c + 8, c + 12) of rows 4 g to 4 g + 3: move quarters.
        let mut out = z;
        for c in 0..4 {
            let low = _mm512_shuffle_f32x4::<0b10_00_10_00>(z[c], z[4 + c]);
            let high = _mm512_shuffle_f32x4::<0b11_01_11_01>(z[c], z[4 + c]);
            let low2 = _mm512_shuffle_f32x4::<0b10_00_10_00>(z[8 + c], z[12 + c]);
            let high2 = _mm512_shuffle_f32x4::<0b11_01_11_01>(z[8 + c], z[12 + c]);
            out[c] = _mm512_shuffle_f32x4::<0b10_00_10_00>(low, low2);
            out[8 + c] = _mm512_shuffle_f32x4::<0b11_01_11_01>(low, low2);
            out[4 + c] = _mm512_shuffle_f32x4::<0b10_00_10_00>(high, high2);
            out[12 + c] = _mm512_shuffle_f32x4::<0b11_01_11_01>(high, high2);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_small_sizes() {
        for rows in 0..35 {
            for columns in 0..35 {
                let stride = columns + 3;
                let from: Vec<f32> = (0..rows * stride).map(|i| i as f32).collect();
                let mut to = vec![-1.0f32; columns * (rows + 1)];
                let start = to.as_mut_ptr();
                // SAFETY: the source has `rows` lines of `stride`, the target `columns` of `rows + 1`.
                unsafe {
                    transpose(rows, columns, from.as_ptr(), stride, |j| start.add(j * (rows + 1)));
                }
                for (j, line) in to.chunks(rows + 1).enumerate() {
                    for (i, &x) in line.iter().enumerate() {
                        assert_eq!(x, if i < rows { from[i * stride + j] } else { -1.0 });
                    }
                }
            }
        }
    }
}
