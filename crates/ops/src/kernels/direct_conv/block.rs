//! How a correlation is split into blocks of pixels whose data stay in the L2 cache.

use super::{Correlation, Tap};
use crate::kernels::microkernel::{COLUMNS, Epilogue, Left, Output, ROWS, Rows, Segment, Tile, strided_rows};
use crate::kernels::scratch::with_scratch;
use std::ops::Range;

/// How a correlation is split.
pub(super) struct Plan {
    pub(super) blocks: usize,
    order: Order,
}

#[derive(Clone, Copy)]
enum Order {
    /// A block is this many grid positions, counted through all images; taps outside the image read zeros.
    Pixels(usize),
    /// A block is all positions of this many images, and the rows of a tile are one position in several
    /// images: taps outside the image are left out. For small images, where they are many.
    Images(usize),
    /// A block is some grid rows of some images, copied with zero padding, so that neighboring taps of few channels
    /// become one run. `Bands { images, rows }`.
    Bands(usize, usize),
}

/// The most channels with which images are copied with zero padding.
const MAX_CHANNELS: usize = 16;

/// Panels of at least this many bytes are prefetched.
const PREFETCH_BYTES: usize = 128 << 10;

/// Bytes of the source that a block may touch.
const SOURCE_BYTES: usize = 512 << 10;

impl Plan {
    pub(super) fn new(c: &Correlation) -> Plan {
        let image = c.source.len() * 4;
        let [gh, gw] = c.grid;
        let pixel_bytes = (c.source.c * 4 * c.source_step[0] * c.source_step[1]).max(1);
        if c.source.c <= MAX_CHANNELS {
            let rows = if gh * gw <= 4096 { gh } else { (2048 / gw).clamp(1, gh) };
            let images = if rows == gh { (1024 / (gh * gw)).clamp(1, c.n) } else { 1 };
            // An even number of blocks divides evenly between two threads.
            let images = c.n.div_ceil(c.n.div_ceil(images).next_multiple_of(2));
            return Plan {
                blocks: c.n.div_ceil(images) * gh.div_ceil(rows),
                order: Order::Bands(images, rows),
            };
        }
        if c.n >= 8 && image * ROWS <= 2 * SOURCE_BYTES && covered(c) < 0.9 {
            let tiles = (SOURCE_BYTES / (image * ROWS).max(1)).max(1);
            let blocks = c.n.div_ceil(ROWS * tiles).next_multiple_of(2);
            let images = c.n.div_ceil(blocks);
            return Plan { blocks: c.n.div_ceil(images), order: Order::Images(images) };
        }
        let pixels = (SOURCE_BYTES / pixel_bytes).clamp(8 * ROWS, 32 * ROWS) / ROWS * ROWS;
        Plan { blocks: c.positions().div_ceil(pixels), order: Order::Pixels(pixels) }
    }

    /// Calls `f` with a block.
    pub(super) fn with_block(&self, c: &Correlation, source: &[f32], block: usize, f: impl FnOnce(&Block)) {
        match self.order {
            Order::Pixels(pixels) => with_scratch(c.source.c, |zeros| {
                zeros.fill(0.0);
                let start = block * pixels;
                f(&pixel_block(c, source, start..c.positions().min(start + pixels), zeros))
            }),
            Order::Images(images) => {
                f(&image_block(c, source, block * images..c.n.min((block + 1) * images)))
            }
            Order::Bands(images, rows) => {
                let bands = c.grid[0].div_ceil(rows);
                let (group, band) = (block / bands, block % bands);
                let images = group * images..c.n.min((group + 1) * images);
                with_band(c, source, images, band * rows..c.grid[0].min((band + 1) * rows), f)
            }
        }
    }
}

/// The fraction of (position, tap) pairs inside the image.
fn covered(c: &Correlation) -> f64 {
    let inside = |axis: usize, size: usize| {
        let mut count = 0;
        for tap in &c.taps {
            let at = |p: usize| (p * c.source_step[axis]) as isize + tap.at[axis];
            count += (0..c.grid[axis]).filter(|&p| (at(p) as usize) < size).count();
        }
        count as f64 / (c.taps.len() * c.grid[axis]).max(1) as f64
    };
    inside(0, c.source.h) * inside(1, c.source.w)
}

/// The tiles of a block and what their segments refer to.
pub(super) struct Block<'a> {
    tables: Vec<Rows>,
    segments: Vec<Segment>,
    tiles: Vec<Place>,
    /// The source, or the copy of it, that the tables point into.
    _source: std::marker::PhantomData<&'a [f32]>,
}

struct Place {
    m: usize,
    table: usize,
    segments: Range<usize>,
    to: To,
}

/// Where a tile's rows go, in elements of the target.
enum To {
    Strided(usize, usize),
    Scattered([usize; ROWS]),
}

impl Block<'_> {
    fn new() -> Self {
        Block {
            tables: Vec::new(),
            segments: Vec::new(),
            tiles: Vec::new(),
            _source: std::marker::PhantomData,
        }
    }

    /// Computes `n` columns of all tiles.
    ///
    /// # Safety
    /// `target` must hold the `n` columns at all offsets of the block, and `weights` be one whole panel.
    pub(super) unsafe fn run(&self, weights: &[f32], target: *mut f32, n: usize, epilogue: Epilogue) {
        for place in &self.tiles {
            let (first, output) = match &place.to {
                To::Strided(first, stride) => (*first, Output::Strided(*stride)),
                To::Scattered(offsets) => (0, Output::Scattered(offsets)),
            };
            let tile = Tile {
                m: place.m,
                n,
                segments: &self.segments[place.segments.clone()],
                left: Left::Rows,
                rows: &self.tables[place.table..],
                b: weights.as_ptr(),
                b_step: COLUMNS,
                ahead: if weights.len() * 4 >= PREFETCH_BYTES { 28 * COLUMNS } else { 0 },
                c: target.wrapping_add(first),
                output,
                epilogue,
            };
            // SAFETY: tables and segments were made for pixels inside the source (or a row of zeros) and taps inside
            // the panel; the caller guarantees the target.
            unsafe { tile.run() };
        }
    }
}

/// Iterates over grid positions in the order (image, row, column).
struct Walk {
    grid: [usize; 2],
    image: usize,
    a: usize,
    b: usize,
}

impl Walk {
    fn new(grid: [usize; 2], position: usize) -> Walk {
        let (row, b) = (position / grid[1], position % grid[1]);
        Walk { grid, image: row / grid[0], a: row % grid[0], b }
    }

    fn step(&mut self) {
        self.b += 1;
        if self.b == self.grid[1] {
            (self.b, self.a) = (0, self.a + 1);
            if self.a == self.grid[0] {
                (self.a, self.image) = (0, self.image + 1);
            }
        }
    }
}

fn to_target(c: &Correlation, offsets: &[usize; ROWS], m: usize) -> To {
    let contiguous = (1..m).all(|i| offsets[i] == offsets[0] + i * c.target.c);
    if contiguous { To::Strided(offsets[0], c.target.c) } else { To::Scattered(*offsets) }
}

/// Taps that read neighboring pixels of a row, as ranges.
fn runs(taps: &[Tap]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (t, tap) in taps.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if taps[t - 1].at == [tap.at[0], tap.at[1] - 1] => run.end = t + 1,
            _ => runs.push(t..t + 1),
        }
    }
    runs
}

fn pixel_block<'a>(
    c: &Correlation,
    source: &'a [f32],
    positions: Range<usize>,
    zeros: &'a [f32],
) -> Block<'a> {
    let channels = c.source.c;
    let mut block = Block::new();
    block.tables.reserve(positions.len().div_ceil(ROWS) * c.taps.len());
    let runs = if channels > 0 { runs(&c.taps) } else { Vec::new() };
    let mut walk = Walk::new(c.grid, positions.start);
    let mut start = positions.start;
    while start < positions.end {
        let m = ROWS.min(positions.end - start);
        // Origin of each row's window: coordinates, and the address as an element of the source.
        let mut origin = [[0isize; 3]; ROWS];
        let mut offsets = [0; ROWS];
        for i in 0..m {
            let (y, x) = (walk.a * c.source_step[0], walk.b * c.source_step[1]);
            let pixel = (walk.image * c.source.h + y) * c.source.w + x;
            origin[i] = [y as isize, x as isize, (pixel * channels) as isize];
            offsets[i] = walk.image * c.target.len() + c.target_offset(walk.a, walk.b);
            walk.step();
        }
        let (table, segments) = (block.tables.len(), block.segments.len());
        let spread = |axis: usize| {
            let all = origin[..m].iter().map(|o| o[axis]);
            (all.clone().min().unwrap_or(0), all.max().unwrap_or(0))
        };
        let ((low_y, high_y), (low_x, high_x)) = (spread(0), spread(1));
        for run in &runs {
            let (first, last) = (&c.taps[run.start], &c.taps[run.end - 1]);
            let inside = low_y + first.at[0] >= 0
                && high_y + first.at[0] < c.source.h as isize
                && low_x + first.at[1] >= 0
                && high_x + last.at[1] < c.source.w as isize;
            // Taps that all rows have inside the image are one segment.
            let step = if inside { run.len() } else { 1 };
            for t in run.clone().step_by(step) {
                let tap = &c.taps[t];
                let by = (tap.at[0] * c.source.w as isize + tap.at[1]) * channels as isize;
                let mut rows = [zeros.as_ptr(); ROWS];
                let mut some = false;
                for (row, [y, x, at]) in rows.iter_mut().zip(&origin[..m]) {
                    let (y, x) = ((y + tap.at[0]) as usize, (x + tap.at[1]) as usize);
                    if inside || (y < c.source.h && x < c.source.w) {
                        *row = source.as_ptr().wrapping_offset(at + by);
                        some = true;
                    }
                }
                if some {
                    let table = block.tables.len() - table;
                    block.tables.push(rows);
                    block.segments.push(Segment {
                        table,
                        a: 0,
                        b: t * channels * COLUMNS,
                        len: step * channels,
                    });
                }
            }
        }
        let to = to_target(c, &offsets, m);
        block.tiles.push(Place { m, table, segments: segments..block.segments.len(), to });
        start += m;
    }
    block
}

fn image_block<'a>(c: &Correlation, source: &'a [f32], images: Range<usize>) -> Block<'a> {
    let channels = c.source.c;
    let mut block = Block::new();
    let tiles = images.len().div_ceil(ROWS);
    for tile in 0..tiles {
        let first = images.start + images.len() * tile / tiles;
        block.tables.push(strided_rows(source[first * c.source.len()..].as_ptr(), c.source.len()));
    }
    for a in 0..c.grid[0] {
        for b in 0..c.grid[1] {
            let segments = block.segments.len();
            let (y, x) = ((a * c.source_step[0]) as isize, (b * c.source_step[1]) as isize);
            for (t, tap) in c.taps.iter().enumerate() {
                let (y, x) = ((y + tap.at[0]) as usize, (x + tap.at[1]) as usize);
                if y < c.source.h && x < c.source.w && channels > 0 {
                    let (a, b) = ((y * c.source.w + x) * channels, t * channels * COLUMNS);
                    match block.segments[segments..].last_mut() {
                        Some(s) if s.a + s.len == a && s.b + s.len * COLUMNS == b => s.len += channels,
                        _ => block.segments.push(Segment { table: 0, a, b, len: channels }),
                    }
                }
            }
            for tile in 0..tiles {
                let first = images.start + images.len() * tile / tiles;
                let end = images.start + images.len() * (tile + 1) / tiles;
                block.tiles.push(Place {
                    m: end - first,
                    table: tile,
                    segments: segments..block.segments.len(),
                    to: To::Strided(first * c.target.len() + c.target_offset(a, b), c.target.len()),
                });
            }
        }
    }
    block
}

/// Calls `f` with the block of some grid rows of some images. Where taps leave the image, the part of it that the rows
/// see is copied with zero padding.
fn with_band(
    c: &Correlation,
    source: &[f32],
    images: Range<usize>,
    rows: Range<usize>,
    f: impl FnOnce(&Block),
) {
    let channels = c.source.c;
    if c.taps.is_empty() || channels == 0 {
        return f(&band_block(c, &[], Window::default(), images, rows));
    }
    // The part of an image that the rows read, in its coordinates.
    let least = |axis: usize| c.taps.iter().map(|t| t.at[axis]).min().unwrap_or(0);
    let most = |axis: usize| c.taps.iter().map(|t| t.at[axis]).max().unwrap_or(0);
    let top = (rows.start * c.source_step[0]) as isize + least(0);
    let bottom = ((rows.end - 1) * c.source_step[0]) as isize + most(0) + 1;
    let (left, right) = (least(1), ((c.grid[1] - 1) * c.source_step[1]) as isize + most(1) + 1);
    let (h, w) = (c.source.h as isize, c.source.w as isize);
    if top >= 0 && left >= 0 && bottom <= h && right <= w {
        let window = Window { top: 0, left: 0, width: c.source.w, image: c.source.len() };
        return f(&band_block(c, &source[images.start * c.source.len()..], window, images, rows));
    }
    let (height, width) = ((bottom - top) as usize, (right - left) as usize);
    let window = Window { top, left, width, image: height * width * channels };
    with_scratch(images.len() * window.image, |copy| {
        let line = width * channels;
        for (i, to) in copy.chunks_exact_mut(line).enumerate() {
            let (image, y) = (images.start + i / height, top + (i % height) as isize);
            let (first, last) = (left.clamp(0, w) as usize, right.clamp(0, w) as usize);
            if y < 0 || y >= h || first == last {
                to.fill(0.0);
                continue;
            }
            let from = (image * c.source.h + y as usize) * c.source.w;
            let before = (first as isize - left) as usize * channels;
            let inside = (last - first) * channels;
            to[..before].fill(0.0);
            to[before..before + inside]
                .copy_from_slice(&source[(from + first) * channels..(from + last) * channels]);
            to[before + inside..].fill(0.0);
        }
        f(&band_block(c, copy, window, images, rows));
    });
}

/// A rectangle of the plane, in coordinates of the source image.
#[derive(Clone, Copy, Default)]
struct Window {
    top: isize,
    left: isize,
    /// Pixels of a line.
    width: usize,
    /// Elements from one image to the next.
    image: usize,
}

/// `window` holds all that the rows read; `source` starts with the window of the first image.
fn band_block<'a>(
    c: &Correlation,
    source: &'a [f32],
    window: Window,
    images: Range<usize>,
    rows: Range<usize>,
) -> Block<'a> {
    let channels = c.source.c;
    let mut block = Block::new();
    for (t, tap) in c.taps.iter().enumerate().filter(|_| channels > 0) {
        let y = (rows.start * c.source_step[0]) as isize + tap.at[0] - window.top;
        let x = tap.at[1] - window.left;
        let (a, b) = ((y as usize * window.width + x as usize) * channels, t * channels * COLUMNS);
        match block.segments.last_mut() {
            Some(s) if s.a + s.len == a && s.b + s.len * COLUMNS == b => s.len += channels,
            _ => block.segments.push(Segment { table: 0, a, b, len: channels }),
        }
    }
    let count = images.len() * rows.len() * c.grid[1];
    block.tables.reserve(count.div_ceil(ROWS));
    block.tiles.reserve(count.div_ceil(ROWS));
    let mut walk = Walk::new([rows.len(), c.grid[1]], 0);
    let mut start = 0;
    while start < count {
        let m = ROWS.min(count - start);
        let mut table = [source.as_ptr(); ROWS];
        let mut offsets = [0; ROWS];
        for (row, offset) in table.iter_mut().zip(&mut offsets).take(m) {
            let pixel = walk.a * c.source_step[0] * window.width + walk.b * c.source_step[1];
            *row = source.as_ptr().wrapping_add(walk.image * window.image + pixel * channels);
            *offset =
                (images.start + walk.image) * c.target.len() + c.target_offset(rows.start + walk.a, walk.b);
            walk.step();
        }
        let to = to_target(c, &offsets, m);
        block.tiles.push(Place { m, table: block.tables.len(), segments: 0..block.segments.len(), to });
        block.tables.push(table);
        start += m;
    }
    block
}
