//! How an image is split into tiles, and the transforms of activations into the frequency domain and back.

use super::scheme::{MAX, Scheme, WeightScheme, square};
use crate::kernels::geometry::Conv2dShape;
use crate::kernels::microkernel::COLUMNS;
use std::marker::PhantomData;
use tapegrad_tape::kernels::arch::{Kernel, Vector, prefetch, prefetch_write};
use tapegrad_tape::kernels::shared::SharedSlice;
use tapegrad_tape::unroll;

/// Transforms some channels of one tile, `from` by `from` pixels, to `out`, where there is room for whole vectors, and
/// prefetches those of the next tile: they are in as many streams as there are rows, too many for the hardware
/// prefetcher. A macro, since a transform that is passed as a value might not be inlined.
macro_rules! transform_tile {
    ($S:ident, $from:expr, $transform:path, $pixels:ident, $next:ident, $channels:expr, $out:expr) => {{
        let ((first, last), out) = ($channels, $out);
        let mut c = first;
        while c + V::LANES <= last {
            let out = out.at(0, c - first);
            square!(
                $from => $S::SIDE,
                $transform,
                |i, j| {
                    prefetch($next[i][j].wrapping_add(c));
                    V::load($pixels[i][j].add(c))
                },
                |k, l, v| v.store(out.of(k * $S::SIDE + l))
            );
            c += V::LANES;
        }
        if c < last {
            let out = out.at(0, c - first);
            square!(
                $from => $S::SIDE,
                $transform,
                |i, j| V::load_part($pixels[i][j].add(c), last - c),
                |k, l, v| v.store(out.of(k * $S::SIDE + l))
            );
        }
    }};
}

/// Images of `h` by `w` pixels of `c` channels, channels-last.
#[derive(Clone, Copy)]
pub(super) struct Images {
    pub(super) h: usize,
    pub(super) w: usize,
    pub(super) c: usize,
}

/// A convolution, split into tiles of outputs.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub(super) input: Images,
    pub(super) output: Images,
    pub(super) padding: [usize; 2],
    /// Tiles down and across an image.
    down: usize,
    across: usize,
    /// Tiles of all images.
    pub(super) count: usize,
}

impl Grid {
    /// The forward pass of `s`.
    pub(super) fn new<S: Scheme>(s: &Conv2dShape) -> Self {
        let output = Images { h: s.out_h(), w: s.out_w(), c: s.c_out };
        Grid::of::<S>(s.n, Images { h: s.h, w: s.w, c: s.c_in }, output, s.padding)
    }

    /// The input gradient of `s`: a convolution of the output's gradient with the kernel rotated by 180 degrees.
    pub(super) fn transposed<S: Scheme>(s: &Conv2dShape) -> Self {
        let input = Images { h: s.out_h(), w: s.out_w(), c: s.c_out };
        // With stride 2 and three taps the first tile begins with the first pixel of the gradient, with four one before it.
        let padding = s.padding.map(|p| if s.stride == [1, 1] { 2 - p } else { S::TAPS - 3 });
        Grid::of::<S>(s.n, input, Images { h: s.h, w: s.w, c: s.c_in }, padding)
    }

    fn of<S: Scheme>(n: usize, input: Images, output: Images, padding: [usize; 2]) -> Self {
        let (down, across) = (output.h.div_ceil(S::OUT), output.w.div_ceil(S::OUT));
        Grid { input, output, padding, down, across, count: n * down * across }
    }

    /// The image of a tile, and where its outputs begin.
    #[inline(always)]
    fn place<S: Scheme>(&self, tile: usize) -> (usize, usize, usize) {
        let (row, column) = (tile / self.across, tile % self.across);
        (row / self.down, row % self.down * S::OUT, column * S::OUT)
    }

    /// `B^T x B` of the tiles `from..to` and `channels`, to `out[frequency][tile][channel]`.
    ///
    /// # Safety
    /// `x` holds the images, `zeros` one zero for each channel, and `out` has room for the tiles: each row of
    /// channels is rounded up to whole vectors.
    #[inline(always)]
    pub(super) unsafe fn transform_input<V: Vector, S: Scheme>(
        &self,
        source: (*const f32, *const f32),
        tiles: (usize, usize),
        channels: (usize, usize),
        out: Frequencies,
    ) {
        let task = TransformInput { grid: self, source, tiles, channels, out, scheme: PhantomData::<S> };
        // SAFETY: V is in use, so the CPU supports it; the rest is the caller's promise.
        unsafe { V::call(task) }
    }

    /// `A dy A^T` of the tiles `from..to` and `channels`, to `out[frequency][tile][channel]`.
    ///
    /// # Safety
    /// Same as for [`Grid::transform_input`], `dy` holding the output's gradient.
    #[inline(always)]
    pub(super) unsafe fn transform_output_grad<V: Vector, S: WeightScheme>(
        &self,
        (dy, zeros): (*const f32, *const f32),
        (from, to): (usize, usize),
        channels: (usize, usize),
        out: Frequencies,
    ) {
        let pixels = |tile: usize| {
            let (image, y0, x0) = self.place::<S>(tile.min(self.count - 1));
            self.output.pixels(dy, zeros, image, (y0 as isize, x0 as isize), S::OUT)
        };
        let mut next = pixels(from);
        for tile in from..to {
            let tile_pixels = next;
            next = pixels(tile + 1);
            // SAFETY: the tile is inside the grid; the rest is the caller's promise.
            unsafe {
                transform_tile!(
                    S,
                    S::OUT,
                    S::output_grad::<V>,
                    tile_pixels,
                    next,
                    channels,
                    out.at(tile - from, 0)
                )
            };
        }
    }
}

/// The work of [`Grid::transform_input`], a separate function, compiled once for all callers.
struct TransformInput<'a, S> {
    grid: &'a Grid,
    source: (*const f32, *const f32),
    tiles: (usize, usize),
    channels: (usize, usize),
    out: Frequencies,
    scheme: PhantomData<S>,
}

impl<S: Scheme> Kernel for TransformInput<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let TransformInput { grid, source: (x, zeros), tiles: (from, to), channels, out, .. } = self;
        let pixels = |tile: usize| {
            let (image, y0, x0) = grid.place::<S>(tile.min(grid.count - 1));
            let y0 = (y0 / S::OUT * S::STEP + S::MARGIN) as isize - grid.padding[0] as isize;
            let x0 = (x0 / S::OUT * S::STEP + S::MARGIN) as isize - grid.padding[1] as isize;
            grid.input.pixels(x, zeros, image, (y0, x0), S::IN)
        };
        let mut next = pixels(from);
        for tile in from..to {
            let tile_pixels = next;
            next = pixels(tile + 1);
            // SAFETY: the tile is inside the grid; the rest is the promise of transform_input's caller.
            unsafe {
                transform_tile!(S, S::IN, S::input::<V>, tile_pixels, next, channels, out.at(tile - from, 0))
            };
        }
    }
}

/// The addresses of the pixels of a tile; of zeros for those outside the image.
type Pixels = [[*const f32; MAX]; MAX];

impl Images {
    /// The addresses of a square of pixels, row by row; `zeros` for those outside the image.
    #[inline(always)]
    fn pixels(
        &self,
        data: *const f32,
        zeros: *const f32,
        image: usize,
        (y0, x0): (isize, isize),
        side: usize,
    ) -> Pixels {
        let mut table = [[zeros; MAX]; MAX];
        for (i, row) in table.iter_mut().enumerate().take(side) {
            let y = y0 + i as isize;
            if y < 0 || y >= self.h as isize {
                continue;
            }
            let line = data.wrapping_add((image * self.h + y as usize) * self.w * self.c);
            for (j, pixel) in row.iter_mut().enumerate().take(side) {
                let x = x0 + j as isize;
                if x >= 0 && x < self.w as isize {
                    *pixel = line.wrapping_add(x as usize * self.c);
                }
            }
        }
        table
    }
}

/// The layout of transformed tiles: `[frequency][tile][channel]`.
#[derive(Clone, Copy)]
pub(super) struct Frequencies {
    pub(super) data: *mut f32,
    /// Distance between frequencies. Not a multiple of 4 KiB, or all of a tile would share one set of the cache.
    pub(super) frequency: usize,
    /// Distance between tiles.
    pub(super) tile: usize,
}

impl Frequencies {
    #[inline(always)]
    pub(super) fn at(self, tile: usize, channel: usize) -> Self {
        Frequencies { data: self.data.wrapping_add(tile * self.tile + channel), ..self }
    }

    #[inline(always)]
    pub(super) fn of(self, frequency: usize) -> *mut f32 {
        self.data.wrapping_add(frequency * self.frequency)
    }
}

/// What is applied to outputs before they are stored.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    pub(super) y: SharedSlice<'a, f32>,
    pub(super) bias: Option<&'a [f32]>,
}

impl Finish<'_> {
    /// `A^T m A` of the tiles `from..to` and one panel of channels, finished and written to the output.
    ///
    /// # Safety
    /// `m` holds `[frequency][tile - from][channel of the panel]`; the output has room, and no other task writes these
    /// tiles and channels.
    #[inline(always)]
    pub(super) unsafe fn transform_output<V: Vector, S: Scheme>(
        &self,
        grid: &Grid,
        tiles: (usize, usize),
        panel: usize,
        m: Frequencies,
    ) {
        let task = TransformOutput { finish: self, grid, tiles, panel, m, scheme: PhantomData::<S> };
        // SAFETY: V is in use, so the CPU supports it; the rest is the caller's promise.
        unsafe { V::call(task) }
    }

    /// One vector of channels of [`Finish::transform_output`].
    #[inline(always)]
    unsafe fn vector<V: Vector, S: Scheme>(
        &self,
        grid: &Grid,
        (from, to): (usize, usize),
        (c, lanes): (usize, usize),
        m: Frequencies,
    ) {
        let Images { h, w, c: channels } = grid.output;
        let bias = match self.bias {
            // SAFETY: a bias has one value for each channel.
            Some(bias) => unsafe { V::load_part(bias.as_ptr().add(c), lanes) },
            None => V::splat(0.0),
        };
        let corner =
            |(image, y0, x0): (usize, usize, usize)| self.y.at(((image * h + y0) * w + x0) * channels + c);
        let mut places = [grid.place::<S>(from), grid.place::<S>(from + 1)];
        for tile in from..to {
            // Prefetches the lines that will be written two tiles later, which take long to load from memory.
            let ahead = grid.place::<S>((tile + 2).min(to - 1));
            unroll!(i of 10 < S::OUT, {
                unroll!(j of 10 < S::OUT, {
                    prefetch_write(corner(ahead).wrapping_add((i * w + j) * channels));
                });
            });
            let (_, y0, x0) = places[0];
            let corner = corner(places[0]);
            places = [places[1], ahead];
            let m = m.at(tile - from, 0);
            let (rows, columns) = (h - y0, w - x0);
            if rows >= S::OUT && columns >= S::OUT && lanes == V::LANES {
                square!(
                    S::SIDE => S::OUT,
                    S::output::<V>,
                    // SAFETY: the caller promises the transformed tile.
                    |i, j| unsafe { V::load(m.of(i * S::SIDE + j)) },
                    // SAFETY: all outputs lie inside the image.
                    |k, l, v| unsafe { v.add(bias).store(corner.wrapping_add((k * w + l) * channels)) }
                );
            } else {
                square!(
                    S::SIDE => S::OUT,
                    S::output::<V>,
                    // SAFETY: as above.
                    |i, j| unsafe { V::load(m.of(i * S::SIDE + j)) },
                    |k, l, v| if k < rows && l < columns {
                        // SAFETY: the pixel lies inside the image, and it has `lanes` channels from here on.
                        unsafe { v.add(bias).store_part(corner.wrapping_add((k * w + l) * channels), lanes) }
                    }
                );
            }
        }
    }
}

/// The work of [`Finish::transform_output`], a separate function, compiled once for all callers.
struct TransformOutput<'a, S> {
    finish: &'a Finish<'a>,
    grid: &'a Grid,
    tiles: (usize, usize),
    panel: usize,
    m: Frequencies,
    scheme: PhantomData<S>,
}

impl<S: Scheme> Kernel for TransformOutput<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let TransformOutput { finish, grid, tiles, panel, m, .. } = self;
        let channels = grid.output.c;
        let end = channels.min((panel + 1) * COLUMNS);
        for c in (panel * COLUMNS..end).step_by(V::LANES) {
            let m = m.at(0, c - panel * COLUMNS);
            let lanes = (end - c).min(V::LANES);
            // SAFETY: these channels exist; the rest is the caller's promise.
            unsafe { finish.vector::<V, S>(grid, tiles, (c, lanes), m) };
        }
    }
}
