//! The positions of pooling windows.

use tapegrad_tape::kernels::list::list_for;

/// The windows along one dimension, clipped to the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(crate) input: usize,
    /// First element and number of elements of each window.
    pub(crate) windows: Vec<(usize, usize)>,
    /// The distance between the elements of a window.
    pub(crate) step: usize,
    /// The number of elements that each window has with its padding.
    pub(crate) padded: Vec<usize>,
}

impl Axis {
    /// Windows of `kernel` elements, `dilation` apart, every `stride` elements.
    #[track_caller]
    pub(crate) fn sliding(
        op: &str,
        input: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        dilation: usize,
        ceil_mode: bool,
    ) -> Axis {
        let reach = dilation * (kernel - 1) + 1;
        let room = (input + 2 * padding).checked_sub(reach);
        let room = match room {
            Some(room) => room,
            // Rounding up still finds one window where the kernel overhangs by less than a stride.
            None if ceil_mode && reach - (input + 2 * padding) < stride => 0,
            None => panic!(
                "{op}: invalid computed output size: the kernel (with dilation, {reach}) is larger than the padded input ({})",
                input + 2 * padding
            ),
        };
        let mut count = if ceil_mode { room.div_ceil(stride) } else { room / stride } + 1;
        // The last window has to start inside the input or the padding before it.
        if ceil_mode && (count - 1) * stride >= input + padding {
            count -= 1;
        }
        let start = |o: usize| (o * stride) as isize - padding as isize;
        let windows = list_for(op, count, |o| {
            let start = start(o);
            let skipped = if start < 0 { start.unsigned_abs().div_ceil(dilation) } else { 0 };
            let first = (start + (skipped * dilation) as isize) as usize;
            let taps = (0..kernel - skipped.min(kernel)).take_while(|k| first + k * dilation < input).count();
            (first, taps)
        });
        let padded = list_for(op, count, |o| {
            let end = (start(o) + reach as isize).min((input + padding) as isize);
            (end - start(o)) as usize
        });
        Axis { input, windows, step: dilation, padded }
    }

    /// One window for each output element, of nearly equal size.
    #[track_caller]
    pub(crate) fn adaptive(op: &str, input: usize, output: usize) -> Axis {
        // (A product of two sizes may overflow a size.)
        let (wide, of) = (input as u128, output as u128);
        let windows = list_for(op, output, |o| {
            let (start, end) = (o as u128 * wide / of, ((o as u128 + 1) * wide).div_ceil(of));
            (start as usize, (end - start) as usize)
        });
        Axis { input, padded: list_for(op, output, |o| windows[o].1), windows, step: 1 }
    }

    /// The single window of a missing dimension.
    pub(crate) fn unit() -> Axis {
        Axis::adaptive("pool", 1, 1)
    }

    #[inline]
    pub(crate) fn output(&self) -> usize {
        self.windows.len()
    }

    /// The indices of the elements in window `o`.
    #[inline]
    pub(crate) fn taps(&self, o: usize) -> impl Iterator<Item = usize> + use<> {
        let (start, count) = self.windows[o];
        let step = self.step;
        (0..count).map(move |k| start + k * step)
    }
}

/// The windows along three dimensions, of a tensor `[n, c, d, h, w]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    pub(crate) n: usize,
    pub(crate) c: usize,
    /// How many spatial dimensions the tensors have.
    pub(crate) dims: usize,
    pub(crate) axes: [Axis; 3],
}

impl Windows {
    /// From one axis for each of `dims` spatial dimensions of an input of this shape.
    pub(crate) fn new(shape: &[usize], axes: Vec<Axis>) -> Windows {
        let dims = axes.len();
        let mut all = vec![Axis::unit(); 3 - dims];
        all.extend(axes);
        Windows {
            n: shape[0],
            c: shape[1],
            dims,
            axes: all.try_into().expect("at most three spatial dimensions"),
        }
    }

    pub(crate) fn input_shape(&self) -> Vec<usize> {
        self.shape(|a| a.input)
    }

    pub(crate) fn output_shape(&self) -> Vec<usize> {
        self.shape(Axis::output)
    }

    fn shape(&self, size: impl Fn(&Axis) -> usize) -> Vec<usize> {
        [self.n, self.c].into_iter().chain(self.axes[3 - self.dims..].iter().map(size)).collect()
    }

    #[inline]
    pub(crate) fn input_size(&self) -> usize {
        self.axes.iter().map(|a| a.input).product()
    }

    #[inline]
    pub(crate) fn output_size(&self) -> usize {
        self.axes.iter().map(Axis::output).product()
    }

    /// The number of elements in the largest window.
    pub(crate) fn most_taps(&self) -> usize {
        self.axes.iter().map(|a| a.windows.iter().map(|w| w.1).max().unwrap_or(0)).product()
    }

    /// The three coordinates of an output pixel.
    #[inline]
    pub(crate) fn pixel(&self, p: usize) -> [usize; 3] {
        let (h, w) = (self.axes[1].output(), self.axes[2].output());
        [p / (h * w), p / w % h, p % w]
    }

    /// Calls `f` with the flat index of each input pixel in the window of output pixel `p`.
    #[inline(always)]
    pub(crate) fn for_each_tap(&self, p: usize, mut f: impl FnMut(usize)) {
        let [od, oh, ow] = self.pixel(p);
        for z in self.axes[0].taps(od) {
            for y in self.axes[1].taps(oh) {
                let row = (z * self.axes[1].input + y) * self.axes[2].input;
                for x in self.axes[2].taps(ow) {
                    f(row + x);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sliding_windows_are_clipped() {
        let a = Axis::sliding("pool", 5, 3, 2, 1, 1, false);
        assert_eq!(a.windows, [(0, 2), (1, 3), (3, 2)]);
        assert_eq!(a.padded, [3, 3, 3]);
        let a = Axis::sliding("pool", 6, 3, 2, 0, 1, true);
        assert_eq!(a.windows, [(0, 3), (2, 3), (4, 2)]);
        assert_eq!(a.padded, [3, 3, 2]);
        let a = Axis::sliding("pool", 6, 2, 3, 1, 2, false);
        assert_eq!(a.windows, [(1, 1), (2, 2)]);
    }

    #[test]
    fn adaptive_windows_cover_the_input() {
        assert_eq!(Axis::adaptive("pool", 7, 3).windows, [(0, 3), (2, 3), (4, 3)]);
        assert_eq!(Axis::adaptive("pool", 2, 4).windows, [(0, 1), (0, 1), (1, 1), (1, 1)]);
    }
}
