//! The pixels along one dimension that each pixel of the result is computed from.

use crate::kernels::resample::Taps;

const OP: &str = "interpolate";

/// One dimension: its sizes, and the distance of output pixels in input pixels.
///
/// Coordinates are computed in the precision of the elements, as in PyTorch, so that both select the same pixels.
pub(super) struct Line {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) step: f64,
    /// Elements are not F64.
    pub(super) single: bool,
    /// The distance follows from the sizes.
    pub(super) exact: bool,
}

impl Line {
    /// The pixels as they are.
    fn same(&self) -> Taps {
        Taps::new(OP, self.from, self.to, 1, |o, put| put(o, 1.0))
    }

    pub(super) fn nearest(&self) -> Taps {
        if self.from == self.to {
            return self.same();
        }
        let place = |i: usize| {
            if self.single { i as f32 * self.step as f32 } else { (i as f64 * self.step) as f32 }
        };
        Taps::new(OP, self.from, self.to, 1, |o, put| {
            put((place(o).floor() as usize).min(self.from - 1), 1.0)
        })
    }

    pub(super) fn nearest_exact(&self) -> Taps {
        let place = |i: usize| (self.center(i, true) + 0.5) as f32;
        Taps::new(OP, self.from, self.to, 1, |o, put| {
            put((place(o).floor() as usize).min(self.from - 1), 1.0)
        })
    }

    /// Where the center of an output pixel lies.
    fn center(&self, i: usize, clamped: bool) -> f64 {
        let at = if self.single {
            f64::from(self.step as f32 * (i as f32 + 0.5) - 0.5)
        } else {
            self.step * (i as f64 + 0.5) - 0.5
        };
        if clamped { at.max(0.0) } else { at }
    }

    /// The distance of output pixels.
    fn step(&self, align_corners: bool) -> f64 {
        match align_corners {
            true if self.to > 1 => (self.from - 1) as f64 / (self.to - 1) as f64,
            true => 0.0,
            false => self.step,
        }
    }

    fn place(&self, i: usize, align_corners: bool, clamped: bool) -> f64 {
        let step = self.step(align_corners);
        match (align_corners, self.single) {
            (true, true) => f64::from(step as f32 * i as f32),
            (true, false) => step * i as f64,
            (false, _) => self.center(i, clamped),
        }
    }

    pub(super) fn linear(&self, align_corners: bool) -> Taps {
        if self.from == self.to && (self.exact || align_corners) {
            return self.same();
        }
        let last = self.from - 1;
        Taps::new(OP, self.from, self.to, 2, |o, put| {
            let at = self.place(o, align_corners, true);
            let low = (at as usize).min(last);
            let share = (at - low as f64).clamp(0.0, 1.0);
            put(low, 1.0 - share);
            put((low + 1).min(last), share);
        })
    }

    /// Cubic convolution (Keys 1981) with the parameter -0.75.
    pub(super) fn cubic(&self, align_corners: bool) -> Taps {
        if self.from == self.to && (self.exact || align_corners) {
            return self.same();
        }
        let last = self.from as isize - 1;
        Taps::new(OP, self.from, self.to, 4, |o, put| {
            let at = self.place(o, align_corners, false);
            let low = at.floor().min(last as f64);
            let weights = cubic_weights((at - low).clamp(0.0, 1.0));
            for (k, w) in weights.into_iter().enumerate() {
                put((low as isize - 1 + k as isize).clamp(0, last) as usize, w);
            }
        })
    }

    /// A triangle (`width` 2) or a cubic kernel (4) that is as wide as the distance of output pixels.
    pub(super) fn antialiased(&self, align_corners: bool, width: usize) -> Taps {
        let step = self.step(align_corners);
        let wide = step.max(1.0);
        let support = width as f64 * 0.5 * wide;
        let filter = |x: f64| {
            let x = x.abs();
            match width {
                2 => (1.0 - x).max(0.0),
                _ if x < 1.0 => near(x, -0.5),
                _ if x < 2.0 => far(x, -0.5),
                _ => 0.0,
            }
        };
        Taps::new(OP, self.from, self.to, width, |o, put| {
            let center = step * (o as f64 + 0.5);
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(self.from);
            let weight = |i: usize| filter((i as f64 - center + 0.5) / wide);
            let total: f64 = (first..end).map(weight).sum();
            for i in first..end {
                put(i, if total == 0.0 { weight(i) } else { weight(i) / total });
            }
        })
    }
}

/// The kernel at a distance of up to 1.
fn near(x: f64, a: f64) -> f64 {
    ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
}

/// The kernel at a distance between 1 and 2.
fn far(x: f64, a: f64) -> f64 {
    ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
}

/// The weights of the four pixels around a point that lies `t` after the second of them.
fn cubic_weights(t: f64) -> [f64; 4] {
    let a = -0.75;
    [far(t + 1.0, a), near(t, a), near(1.0 - t, a), far(2.0 - t, a)]
}
