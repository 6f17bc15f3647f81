//! The loop nest over a tensor: its dimensions in memory order.

use crate::kernels::channels::Layout;
use crate::shape::{Dims, sort_descending};
use crate::tensor::Tensor;
use smallvec::SmallVec;

/// How the results of a reduction along `dims` lie in memory: as the channels of a layout, with the shape and the strides
/// of the results. None if the elements are not contiguous, or lie in no such order.
pub(crate) fn channels(t: &Tensor, dims: &[usize]) -> Option<(Layout, Dims, Dims)> {
    let plan = Plan::new(t, dims);
    let mut stride = 1;
    for level in plan.levels.iter().rev() {
        if level.stride != stride {
            return None;
        }
        stride *= level.size;
    }
    let layout = match plan.levels[..] {
        [Level { size, kept: true, .. }] => Layout::Last { rows: 1, channels: size },
        // One channel: its elements are rows of one.
        [Level { size, kept: false, .. }] => Layout::Last { rows: size, channels: 1 },
        [kept, Level { size, kept: false, .. }] => Layout::First { batch: 1, channels: kept.size, size },
        [reduced, Level { size, kept: true, .. }] => Layout::Last { rows: reduced.size, channels: size },
        [Level { size: batch, kept: false, .. }, kept, Level { size, .. }] => {
            Layout::First { batch, channels: kept.size, size }
        }
        _ => return None,
    };
    Some((layout, plan.shape, plan.strides))
}

/// A dimension, or several that are contiguous.
#[derive(Clone, Copy)]
pub(super) struct Level {
    pub(super) size: usize,
    pub(super) stride: usize,
    pub(super) kept: bool,
}

/// The loop nest over a tensor.
pub(super) struct Plan {
    /// In memory order, the innermost last; at least one.
    pub(super) levels: SmallVec<[Level; 6]>,
    pub(super) shape: Dims,
    pub(super) strides: Dims,
    pub(super) empty: bool,
}

impl Plan {
    pub(super) fn new(t: &Tensor, dims: &[usize]) -> Plan {
        let mut order: Dims = (0..t.ndim()).filter(|&d| t.shape()[d] != 1).collect();
        // Expanded dimensions are outermost: nothing is contiguous along them.
        let reach = |d: usize| match t.strides()[d] {
            0 => usize::MAX,
            s => s,
        };
        sort_descending(&mut order, &reach);
        let mut levels: SmallVec<[Level; 6]> = SmallVec::new();
        for &d in &order {
            let level = Level { size: t.shape()[d], stride: t.strides()[d], kept: !dims.contains(&d) };
            match levels.last_mut() {
                Some(last) if last.kept == level.kept && last.stride == level.stride * level.size => {
                    *last = Level { size: last.size * level.size, ..level };
                }
                _ => levels.push(level),
            }
        }
        if levels.is_empty() {
            levels.push(Level { size: 1, stride: 1, kept: false });
        }
        // The results are stored in the order of the kept dimensions.
        let kept: Dims = (0..t.ndim()).filter(|d| !dims.contains(d)).collect();
        let shape: Dims = kept.iter().map(|&d| t.shape()[d]).collect();
        let mut strides = Dims::from_elem(1, kept.len());
        let mut next = 1;
        for &d in order.iter().rev() {
            if let Some(i) = kept.iter().position(|&k| k == d) {
                strides[i] = next;
                next *= t.shape()[d];
            }
        }
        // A dimension of size one takes the stride that it would have in row-major order.
        for i in (0..kept.len()).rev().filter(|&i| shape[i] == 1) {
            strides[i] = if i + 1 < kept.len() { strides[i + 1] * shape[i + 1] } else { 1 };
        }
        Plan { levels, shape, strides, empty: t.numel() == 0 }
    }

    pub(super) fn results(&self) -> usize {
        self.shape.iter().product()
    }

    pub(super) fn count(&self, kept: bool) -> usize {
        self.levels.iter().filter(|l| l.kept == kept).map(|l| l.size).product()
    }

    pub(super) fn levels(&self, kept: bool) -> impl Iterator<Item = Level> + '_ {
        self.levels.iter().copied().filter(move |l| l.kept == kept)
    }
}

/// Offsets of consecutive positions of a loop nest, starting at any position.
pub(super) struct Walk {
    pub(super) levels: SmallVec<[Level; 6]>,
    index: Dims,
    offset: usize,
}

impl Walk {
    pub(super) fn new(levels: SmallVec<[Level; 6]>, position: usize) -> Walk {
        let mut walk = Walk { index: Dims::from_elem(0, levels.len()), levels, offset: 0 };
        let mut rest = position;
        for (i, level) in walk.index.iter_mut().zip(&walk.levels).rev() {
            *i = rest % level.size;
            rest /= level.size;
            walk.offset += *i * level.stride;
        }
        walk
    }

    pub(super) fn next(&mut self) -> usize {
        let here = self.offset;
        for (i, level) in self.index.iter_mut().zip(&self.levels).rev() {
            *i += 1;
            self.offset += level.stride;
            if *i < level.size {
                break;
            }
            self.offset -= level.size * level.stride;
            *i = 0;
        }
        here
    }
}
