//! Features of boxes, interpolated at the points of their cells.

use tapegrad_tape::Float;
use tapegrad_tape::kernels::list::list_for;
use tapegrad_tape::kernels::parallel::parallel_chunks;

/// Two neighboring pixels along one side, and their weights; zero weights for points outside.
#[derive(Clone, Copy)]
struct Tap<T> {
    index: [usize; 2],
    weight: [T; 2],
}

/// The points of a box: `count` for each cell along each side.
pub(crate) struct Region<T> {
    image: usize,
    width: usize,
    rows: Vec<Tap<T>>,
    columns: Vec<Tap<T>>,
    counts: [usize; 2],
    /// The inverse of the number of points of a cell.
    share: T,
}

impl<T: Float> Region<T> {
    /// Of the box with these edges on a feature map.
    pub(crate) fn new(
        image: usize,
        [x1, y1, x2, y2]: [T; 4],
        [height, width]: [usize; 2],
        cells: [usize; 2],
        ratio: Option<usize>,
        aligned: bool,
    ) -> Region<T> {
        let side = |start: T, end: T, size: usize, cells: usize| {
            let offset = if aligned { T::c(0.5) } else { T::ZERO };
            let (start, end) = (start - offset, end - offset);
            let mut length = end - start;
            if !aligned {
                length = length.maximum(T::ONE);
            }
            let cell = length / T::c(cells as f64);
            let count = match ratio.filter(|&n| n > 0) {
                Some(n) => n,
                // More points than pixels of the feature map along a side would be no finer.
                None => (cell.ceil().to_f64().max(0.0) as usize).min(1 << 16),
            };
            let taps = list_for("roi_align", cells.saturating_mul(count), |i| {
                let within = (T::c((i % count) as f64) + T::c(0.5)) * cell / T::c(count as f64);
                tap(start + T::c((i / count) as f64) * cell + within, size)
            });
            (taps, count)
        };
        let (rows, down) = side(y1, y2, height, cells[0]);
        let (columns, across) = side(x1, x2, width, cells[1]);
        let share = T::ONE / T::c((down * across).max(1) as f64);
        Region { image, width, rows, columns, counts: [down, across], share }
    }

    /// Calls `f` with the number of a cell, and each pixel and its weight.
    #[inline(always)]
    fn each(&self, cells: usize, mut f: impl FnMut(usize, usize, T)) {
        let [down, across] = self.counts;
        if down * across == 0 {
            return;
        }
        let cells_across = self.columns.len() / across;
        debug_assert_eq!(cells, cells_across * (self.rows.len() / down));
        for (i, row) in self.rows.iter().enumerate() {
            for (j, column) in self.columns.iter().enumerate() {
                let cell = i / down * cells_across + j / across;
                for (&y, &wy) in row.index.iter().zip(&row.weight) {
                    for (&x, &wx) in column.index.iter().zip(&column.weight) {
                        f(cell, y * self.width + x, wy * wx * self.share);
                    }
                }
            }
        }
    }
}

/// The pixels around a coordinate. Up to one pixel outside of the map, it is that of the edge.
fn tap<T: Float>(at: T, size: usize) -> Tap<T> {
    let last = size.saturating_sub(1);
    if !(at >= -T::ONE && at <= T::c(size as f64)) || size == 0 {
        return Tap { index: [0; 2], weight: [T::ZERO; 2] };
    }
    let at = at.maximum(T::ZERO);
    let low = at.to_f64() as usize;
    if low >= last {
        return Tap { index: [last; 2], weight: [T::ONE, T::ZERO] };
    }
    let part = at - T::c(low as f64);
    Tap { index: [low, low + 1], weight: [T::ONE - part, part] }
}

/// The cells `[k, channels, cells]` from features `[n, channels, pixels]`.
pub(crate) fn gather<T: Float>(
    out: &mut [T],
    x: &[T],
    regions: &[Region<T>],
    channels: usize,
    pixels: usize,
) {
    let size = out.len() / (regions.len() * channels).max(1);
    if pixels == 0 || size == 0 {
        return;
    }
    parallel_chunks(out, channels * size, |k, out| {
        let region = &regions[k];
        let image = &x[region.image * channels * pixels..][..channels * pixels];
        for (out, plane) in out.chunks_exact_mut(size).zip(image.chunks_exact(pixels)) {
            region.each(size, |cell, pixel, weight| out[cell] += weight * plane[pixel]);
        }
    });
}

/// The adjoint of [`gather`]: adds to features what each cell gives.
pub(crate) fn scatter<T: Float>(
    out: &mut [T],
    g: &[T],
    regions: &[Region<T>],
    channels: usize,
    pixels: usize,
) {
    let size = g.len() / (regions.len() * channels).max(1);
    parallel_chunks(out, pixels, |i, out| {
        let (image, channel) = (i / channels, i % channels);
        for (k, region) in regions.iter().enumerate().filter(|(_, r)| r.image == image) {
            let g = &g[(k * channels + channel) * size..][..size];
            region.each(size, |cell, pixel, weight| out[pixel] += weight * g[cell]);
        }
    });
}
