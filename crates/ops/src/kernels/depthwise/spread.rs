//! Channels repeated for each output channel of their group.

use super::Channels;
use tapegrad_tape::kernels::arch::{Kernel, MAX_LANES, Vector};

/// Writes, for each pixel of the source and each channel of a group, a vector of [`MAX_LANES`] with that channel of the
/// group of each target channel of a block.
pub(super) struct Spread<'a> {
    source: &'a [f32],
    channels: Channels,
    /// (lane, source channel, lanes) of the first channel of each group that the block has a part of.
    parts: Vec<(usize, usize, usize)>,
    to: &'a mut [f32],
}

impl<'a> Spread<'a> {
    /// For as many pixels as there is room for, and a vector more.
    pub(super) fn new(channels: Channels, block: usize, source: &'a [f32], to: &'a mut [f32]) -> Spread<'a> {
        let (from, per_group) = (channels.per_group(), channels.target / channels.groups);
        let (first, mut lane, mut parts) = (block * MAX_LANES, 0, Vec::new());
        while lane < MAX_LANES && first + lane < channels.target {
            let group = (first + lane) / per_group;
            let end = ((group + 1) * per_group - first).min(MAX_LANES);
            parts.push((lane, group * from, end - lane));
            lane = end;
        }
        Spread { source, channels, parts, to }
    }
}

impl Kernel for Spread<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let from = self.channels.per_group();
        let pixels = (self.to.len() - MAX_LANES) / (from * MAX_LANES);
        let source = &self.source[..pixels * self.channels.source];
        for (pixel, to) in
            source.chunks_exact(self.channels.source).zip((0..pixels).map(|p| p * from * MAX_LANES))
        {
            for r in 0..from {
                for &(lane, channel, lanes) in &self.parts {
                    let value = V::splat(pixel[channel + r]);
                    for l in (0..lanes).step_by(V::LANES) {
                        // Lanes past the group are overwritten by what follows.
                        let at = to + r * MAX_LANES + lane + l;
                        debug_assert!(at + V::LANES <= self.to.len());
                        // SAFETY: the vector begins inside the pixels, after which there is room for one more.
                        unsafe { value.store(self.to.as_mut_ptr().add(at)) };
                    }
                }
            }
        }
    }
}
