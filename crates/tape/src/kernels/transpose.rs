//! The transposition for packing: 16 by 16 elements at a time in registers.

#[cfg(target_arch = "x86_64")]
use crate::kernels::arch::{InstructionSet, instruction_set};

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
    #[cfg(target_arch = "x86_64")]
    if instruction_set() == InstructionSet::Avx512 {
        // SAFETY: AVX-512 was detected; the addresses are the caller's promise.
        return unsafe { x86::transpose(rows, columns, from, stride, to) };
    }
    // SAFETY: as the caller promised.
    unsafe { plain(rows, columns, from, stride, to) }
}

/// Like [`transpose`], to columns that are `apart` elements apart: compiled once for all callers.
///
/// If up to eight values are contiguous on either side, like the channels of small images, whole vectors are read and
/// written: excess lanes of one are overwritten by the next.
///
/// # Safety
/// Same as for [`transpose`], with `to + j * apart` for `to(j)`.
pub unsafe fn transpose_to(
    [rows, columns]: [usize; 2],
    from: *const f32,
    stride: usize,
    to: *mut f32,
    apart: usize,
) {
    #[cfg(target_arch = "x86_64")]
    if matches!(instruction_set(), InstructionSet::Avx2 | InstructionSet::Avx512) {
        if apart == rows && (2..=8).contains(&rows) && columns >= 8 {
            // SAFETY: AVX2 was detected; the addresses are the caller's promise.
            return unsafe { narrow::to_few_rows(rows, columns, from, stride, to) };
        }
        if stride == columns && (2..=8).contains(&columns) && rows >= 8 {
            // SAFETY: as above.
            return unsafe { narrow::from_few_columns(rows, columns, from, to, apart) };
        }
    }
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
    // Eight columns of all rows at a time: each cache line of the source is used while it is cached.
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
    #[target_feature(enable = "avx512f")]
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
                // Constant bounds keep the block in registers; what is out of bounds is masked.
                for r in 0..16 {
                    let mask = if r < height { column_mask } else { 0 };
                    let at = from.wrapping_add((i + r) * stride + j);
                    // SAFETY: the mask keeps the read to rows and columns that exist.
                    x[r] = unsafe { _mm512_maskz_loadu_ps(mask, at) };
                }
                let x = transposed(x);
                if height == 16 && width == 16 {
                    // On some CPUs masked stores take tens of cycles.
                    for c in 0..16 {
                        // SAFETY: the rows and columns exist.
                        unsafe { _mm512_storeu_ps(to(j + c).add(i), x[c]) };
                    }
                    continue;
                }
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

#[cfg(target_arch = "x86_64")]
mod narrow {
    use std::arch::x86_64::*;

    /// `to[j * rows + i] = from[i * stride + j]` for at most eight rows and at least eight columns.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn to_few_rows(
        rows: usize,
        columns: usize,
        from: *const f32,
        stride: usize,
        to: *mut f32,
    ) {
        let mut j = 0;
        loop {
            // The last block begins early enough to be whole.
            let first = j.min(columns - 8);
            let mut x = [_mm256_setzero_ps(); 8];
            for i in 0..8 {
                if i < rows {
                    // SAFETY: eight columns of a row that exists.
                    x[i] = unsafe { _mm256_loadu_ps(from.add(i * stride + first)) };
                }
            }
            let x = transposed(x);
            for c in 0..8 {
                let column = first + c;
                // SAFETY: a whole vector fits before the end of the last column, and the next columns are written
                // later; else only the rows are written.
                unsafe {
                    let to = to.add(column * rows);
                    if (columns - column) * rows >= 8 {
                        _mm256_storeu_ps(to, x[c]);
                    } else {
                        let mut values = [0.0f32; 8];
                        _mm256_storeu_ps(values.as_mut_ptr(), x[c]);
                        for i in 0..rows {
                            *to.add(i) = values[i];
                        }
                    }
                }
            }
            j += 8;
            if j >= columns {
                return;
            }
        }
    }

    /// `to[j * apart + i] = from[i * columns + j]` for at most eight columns and at least eight rows.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn from_few_columns(
        rows: usize,
        columns: usize,
        from: *const f32,
        to: *mut f32,
        apart: usize,
    ) {
        let mut i = 0;
        loop {
            let first = i.min(rows - 8);
            let mut x = [_mm256_setzero_ps(); 8];
            for r in 0..8 {
                let row = first + r;
                // SAFETY: a whole vector fits before the end of the last row; else only the columns are read.
                unsafe {
                    let from = from.add(row * columns);
                    x[r] = if (rows - row) * columns >= 8 {
                        _mm256_loadu_ps(from)
                    } else {
                        let mut values = [0.0f32; 8];
                        for j in 0..columns {
                            values[j] = *from.add(j);
                        }
                        _mm256_loadu_ps(values.as_ptr())
                    };
                }
            }
            let x = transposed(x);
            for c in 0..8 {
                if c < columns {
                    // SAFETY: eight rows of a column that exists.
                    unsafe { _mm256_storeu_ps(to.add(c * apart + first), x[c]) };
                }
            }
            i += 8;
            if i >= rows {
                return;
            }
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn transposed(x: [__m256; 8]) -> [__m256; 8] {
        let mut y = x;
        for i in (0..8).step_by(2) {
            y[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
            y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
        }
        let mut z = y;
        for i in (0..8).step_by(4) {
            z[i] = _mm256_shuffle_ps::<0b01_00_01_00>(y[i], y[i + 2]);
            z[i + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(y[i], y[i + 2]);
            z[i + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(y[i + 1], y[i + 3]);
            z[i + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(y[i + 1], y[i + 3]);
        }
        let mut out = z;
        for c in 0..4 {
            out[c] = _mm256_permute2f128_ps::<0x20>(z[c], z[4 + c]);
            out[4 + c] = _mm256_permute2f128_ps::<0x31>(z[c], z[4 + c]);
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

    #[test]
    fn dense_values_and_nothing_behind_them() {
        for (rows, columns) in (0..20).flat_map(|rows| (0..20).map(move |columns| (rows, columns))) {
            for (gap, apart) in [(0, rows), (0, rows + 3), (2, rows)] {
                let stride = columns + gap;
                // The slice ends at its last element, so that a read past it would be detected.
                let len = if rows * columns == 0 { 0 } else { (rows - 1) * stride + columns };
                let from: Vec<f32> = (0..len).map(|i| i as f32).collect();
                let mut to = vec![-1.0f32; columns * apart + 9];
                // SAFETY: the source has `rows` lines of `stride`, the target `columns` of `apart`.
                unsafe { transpose_to([rows, columns], from.as_ptr(), stride, to.as_mut_ptr(), apart) };
                for (at, &x) in to.iter().enumerate() {
                    let (j, i) = (at / apart.max(1), at % apart.max(1));
                    let expected = if i < rows && j < columns { from[i * stride + j] } else { -1.0 };
                    assert_eq!(x, expected, "{rows} by {columns}, {apart} apart: element {at}");
                }
            }
        }
    }
}
