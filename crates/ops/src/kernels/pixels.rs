//! Pixels of few channels as whole vectors: lanes read from the next pixel are unused, and lanes written over it are
//! overwritten later.

/// The most channels of such pixels, and the size to which a pixel is padded.
pub(crate) const MAX_CHANNELS: usize = 8;

/// The vector at the start of a slice, which must be at least as long.
#[inline(always)]
pub(crate) fn lanes<T: Copy>(x: &[T]) -> [T; MAX_CHANNELS] {
    *x.first_chunk().expect("a vector more than there are pixels")
}

/// Writes a pixel of `c` channels, and the lanes behind it where the slice has more: they belong to the next pixel.
#[inline(always)]
pub(crate) fn put_lanes<T: Copy>(to: &mut [T], c: usize, values: [T; MAX_CHANNELS]) {
    match to.first_chunk_mut() {
        Some(lanes) => *lanes = values,
        None => to[..c].copy_from_slice(&values[..c]),
    }
}
