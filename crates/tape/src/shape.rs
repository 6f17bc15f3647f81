//! Shapes: dimension numbers, broadcasting, strides, memory formats.

use crate::int_list::{Int, IntList};
use smallvec::SmallVec;

/// A short list of sizes or strides; up to six are stored inline.
pub type Dims = SmallVec<[usize; 6]>;

/// The order of a tensor's elements in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryFormat {
    /// Row-major: the last dimension is dense.
    Contiguous,
    /// Channels last (NHWC, NDHWC, NLC): dimension 1 is dense.
    ChannelsLast,
}

/// Row-major strides of a shape.
pub fn contiguous_strides(shape: &[usize]) -> Dims {
    let mut strides = Dims::from_elem(1, shape.len());
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d].saturating_mul(shape[d].max(1));
    }
    strides
}

/// Strides of a shape `[N, C, ...]` whose channels are dense; for fewer than three dimensions, row-major.
pub fn channels_last_strides(shape: &[usize]) -> Dims {
    if shape.len() < 3 {
        return contiguous_strides(shape);
    }
    let mut strides = Dims::from_elem(1, shape.len());
    let mut step = shape[1].max(1);
    for d in (2..shape.len()).rev() {
        strides[d] = step;
        step = step.saturating_mul(shape[d].max(1));
    }
    strides[0] = step;
    strides
}

/// Sorts dimensions by a key, the largest first; the sort is stable.
///
/// The lists are short and there are many of them: the sort of the standard library, compiled anew for each, took
/// a tenth of this crate's build.
pub(crate) fn sort_descending(dims: &mut [usize], key: &dyn Fn(usize) -> usize) {
    for i in 1..dims.len() {
        let mut k = i;
        while k > 0 && key(dims[k - 1]) < key(dims[k]) {
            dims.swap(k - 1, k);
            k -= 1;
        }
    }
}

/// Dense strides of a shape whose dimensions lie in memory in the order of other strides, the largest outermost;
/// equal ones keep the order of the dimensions.
pub fn strides_in_order(shape: &[usize], order: &[usize]) -> Dims {
    let mut dims: Dims = (0..shape.len()).collect();
    sort_descending(&mut dims, &|d| order[d]);
    let mut strides = Dims::from_elem(1, shape.len());
    let mut step = 1;
    for &d in dims.iter().rev() {
        strides[d] = step;
        step = step.saturating_mul(shape[d].max(1));
    }
    strides
}

/// True if row-major order of `shape` with `strides` visits consecutive elements.
pub fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut step = 1;
    for (&n, &s) in shape.iter().zip(strides).rev() {
        if n == 0 {
            return true;
        }
        if n != 1 {
            if s != step {
                return false;
            }
            step = step.saturating_mul(n);
        }
    }
    true
}

/// The maximum number of elements that a tensor can have: in the widest type they take `isize::MAX` bytes.
pub const MAX_NUMEL: usize = isize::MAX as usize / 8;

/// The number of elements of a shape, unless it goes beyond [`MAX_NUMEL`].
///
/// Every number of elements or bytes in this workspace relies on this check: code that computes a size from a caller's
/// numbers lets it saturate, and this check refuses it. Sizes of zero count as one toward the limit, so that strides
/// and the product of any of the sizes stay below it, too.
///
/// ```
/// use tapegrad_tape::shape::checked_numel;
/// assert_eq!(checked_numel(&[2, 3, 0]), Some(0));
/// assert_eq!(checked_numel(&[1 << 32, 1 << 32]), None);
/// assert_eq!(checked_numel(&[1 << 32, 1 << 32, 0]), None);
/// ```
pub fn checked_numel(shape: &[usize]) -> Option<usize> {
    let most = shape.iter().try_fold(1usize, |most, &n| most.checked_mul(n.max(1)))?;
    (most <= MAX_NUMEL).then_some(if shape.contains(&0) { 0 } else { most })
}

/// The number of elements of an operation's result.
///
/// # Panics
/// If it is more than [`MAX_NUMEL`].
#[track_caller]
pub fn numel_for(op: &str, shape: &[usize]) -> usize {
    checked_numel(shape).unwrap_or_else(|| too_large(op, shape))
}

#[track_caller]
fn too_large(op: &str, shape: &[usize]) -> ! {
    panic!("{op}: shape {shape:?} is too large: a tensor has at most {MAX_NUMEL} elements")
}

/// The number of elements.
///
/// # Panics
/// If it is more than [`MAX_NUMEL`].
#[track_caller]
pub fn numel(shape: &[usize]) -> usize {
    numel_for("numel", shape)
}

/// A dimension counted from the front; negative ones count from the back. A tensor without dimensions
/// accepts 0 and -1, as in PyTorch.
///
/// # Panics
/// If there is no such dimension.
#[track_caller]
pub fn dim(op: &str, dim: impl Int, ndim: usize) -> usize {
    from_front(op, dim.to_isize(), ndim)
}

#[track_caller]
fn from_front(op: &str, dim: isize, ndim: usize) -> usize {
    let n = ndim.max(1) as isize;
    assert!(
        (-n..n).contains(&dim),
        "{op}: dimension out of range (expected to be in range of [{}, {}], but got {dim})",
        -n,
        n - 1
    );
    if dim < 0 { (dim + n) as usize } else { dim as usize }
}

/// Several dimensions, each checked by [`dim`], with no duplicates. An empty list means all of them.
///
/// # Panics
/// If one is out of range or appears twice, or there are more than 64 dimensions.
#[track_caller]
pub fn dims(op: &str, list: &[impl Int], ndim: usize) -> Dims {
    assert!(ndim <= 64, "{op}: only tensors with up to 64 dims are supported, not {ndim}");
    if list.is_empty() {
        return (0..ndim).collect();
    }
    let mut seen = Dims::new();
    for &d in list {
        let d = from_front(op, d.to_isize(), ndim);
        assert!(
            !seen.contains(&d),
            "{op}: dim {d} appears multiple times in the list of dims {:?}",
            list.to_isizes()
        );
        seen.push(d);
    }
    // A tensor without dimensions has nothing to reduce, though it accepts 0 and -1.
    seen.retain(|d| *d < ndim);
    seen
}

/// The shape that two shapes broadcast to, if they do.
pub fn broadcast(a: &[usize], b: &[usize]) -> Option<Dims> {
    let n = a.len().max(b.len());
    let mut out = Dims::from_elem(1, n);
    for (i, o) in out.iter_mut().enumerate() {
        let x = if i + a.len() >= n { a[i + a.len() - n] } else { 1 };
        let y = if i + b.len() >= n { b[i + b.len() - n] } else { 1 };
        *o = match (x, y) {
            (x, y) if x == y => x,
            (1, y) => y,
            (x, 1) => x,
            _ => return None,
        };
    }
    Some(out)
}

/// The shape that two operands of `op` broadcast to.
///
/// # Panics
/// If they do not, naming the first dimension that does not fit; or if it has too many elements.
#[track_caller]
pub fn broadcast_for(op: &str, a: &[usize], b: &[usize]) -> Dims {
    let shape = broadcast(a, b).unwrap_or_else(|| {
        let n = a.len().max(b.len());
        let at = |s: &[usize], i: usize| if i + s.len() >= n { s[i + s.len() - n] } else { 1 };
        let bad = (0..n).rev().find(|&i| {
            let (x, y) = (at(a, i), at(b, i));
            x != y && x != 1 && y != 1
        });
        let bad = bad.expect("shapes that do not broadcast differ somewhere");
        panic!(
            "{op}: the size of tensor a ({}) must match the size of tensor b ({}) at non-singleton dimension {bad}: \
             shapes {a:?} and {b:?} cannot be broadcast",
            at(a, bad),
            at(b, bad)
        )
    });
    numel_for(op, &shape);
    shape
}

/// Strides that broadcast a tensor of `shape` to the larger shape `to`, with stride 0 along repeated dimensions.
///
/// # Panics
/// If `shape` does not broadcast to `to`: its strides would be out of bounds.
#[track_caller]
pub fn broadcast_strides(shape: &[usize], strides: &[usize], to: &[usize]) -> Dims {
    let fits =
        shape.len() <= to.len() && shape.iter().rev().zip(to.iter().rev()).all(|(&n, &t)| n == t || n == 1);
    assert!(fits, "shape {shape:?} cannot be broadcast to {to:?}");
    let lead = to.len() - shape.len();
    (0..to.len())
        .map(|i| if i < lead || (shape[i - lead] == 1 && to[i] != 1) { 0 } else { strides[i - lead] })
        .collect()
}

/// Strides that view the same memory as `to`, without a copy, if there are any.
pub fn view_strides(shape: &[usize], strides: &[usize], to: &[usize]) -> Option<Dims> {
    let count = checked_numel(shape)?;
    if checked_numel(to)? != count {
        return None;
    }
    if count == 0 {
        return Some(contiguous_strides(to));
    }
    // Runs of contiguous dimensions can be split differently.
    let mut runs: SmallVec<[(usize, usize); 6]> = SmallVec::new();
    for (&n, &s) in shape.iter().zip(strides).filter(|(n, _)| **n != 1) {
        match runs.last_mut() {
            Some((size, stride)) if Some(*stride) == n.checked_mul(s) => (*size, *stride) = (*size * n, s),
            _ => runs.push((n, s)),
        }
    }
    let mut out = Dims::from_elem(1, to.len());
    let (mut left, mut step) = runs.pop().unwrap_or((1, 1));
    for (o, &n) in out.iter_mut().zip(to).rev() {
        if n != 1 && left == 1 {
            (left, step) = runs.pop()?;
        }
        if !left.is_multiple_of(n) {
            return None;
        }
        *o = step;
        step = step.saturating_mul(n);
        left /= n;
    }
    Some(out)
}

/// Infers the one size that may be -1 and checks the number of elements.
///
/// # Panics
/// If the shape cannot hold `numel` elements.
#[track_caller]
pub fn infer(op: &str, shape: &[usize], to: &[isize]) -> Dims {
    let count = numel(shape);
    assert!(to.iter().all(|&n| n >= -1), "{op}: invalid shape dimension in {to:?}");
    assert!(
        to.iter().filter(|&&n| n == -1).count() <= 1,
        "{op}: only one dimension can be inferred, got {to:?}"
    );
    let given: Dims = to.iter().map(|&n| if n == -1 { 1 } else { n as usize }).collect();
    let inferred = to.contains(&-1);
    let known = checked_numel(&given);
    assert!(
        known.is_some_and(|n| if inferred { n != 0 && count.is_multiple_of(n) } else { n == count }),
        "{op}: shape {to:?} is invalid for an input of {count} elements (shape {shape:?}){}",
        if known == Some(0) && inferred { ": the size -1 would be ambiguous" } else { "" }
    );
    let known = known.expect("checked");
    to.iter().map(|&n| if n == -1 { count / known } else { n as usize }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_keep_their_order() {
        let mut dims = [0, 1, 2, 3, 4];
        sort_descending(&mut dims, &|d| [1, 3, 0, 3, 1][d]);
        assert_eq!(dims, [1, 3, 0, 4, 2]);
    }

    #[test]
    fn broadcasting() {
        assert_eq!(broadcast(&[2, 1, 4], &[3, 1]).unwrap().as_slice(), [2, 3, 4]);
        assert_eq!(broadcast(&[], &[3, 0]).unwrap().as_slice(), [3, 0]);
        assert!(broadcast(&[2], &[3]).is_none());
    }

    #[test]
    fn views_of_strided_memory() {
        // [2, 3, 4] row-major viewed as [6, 4], [24], [2, 1, 12]
        assert_eq!(view_strides(&[2, 3, 4], &[12, 4, 1], &[6, 4]).unwrap().as_slice(), [4, 1]);
        assert_eq!(view_strides(&[2, 3, 4], &[12, 4, 1], &[24]).unwrap().as_slice(), [1]);
        // Transposed: the last two cannot be merged, but each can be split.
        assert!(view_strides(&[2, 4, 3], &[12, 1, 4], &[24]).is_none());
        assert_eq!(view_strides(&[2, 4, 3], &[12, 1, 4], &[2, 2, 2, 3]).unwrap().as_slice(), [12, 2, 1, 4]);
        // Expanded dimensions merge where all their strides are zero.
        assert_eq!(view_strides(&[2, 3], &[0, 0], &[6]).unwrap().as_slice(), [0]);
        assert_eq!(view_strides(&[], &[], &[1, 1]).unwrap().len(), 2);
    }

    #[test]
    fn a_size_is_inferred() {
        assert_eq!(infer("reshape", &[2, 6], &[-1, 3]).as_slice(), [4, 3]);
        assert_eq!(infer("reshape", &[0, 6], &[-1, 3]).as_slice(), [0, 3]);
    }

    #[test]
    #[should_panic(expected = "reshape: shape [5, -1] is invalid for an input of 12 elements")]
    fn a_wrong_size_is_refused() {
        infer("reshape", &[2, 6], &[5, -1]);
    }

    #[test]
    fn channels_last() {
        assert_eq!(channels_last_strides(&[2, 3, 4, 5]).as_slice(), [60, 1, 15, 3]);
    }
}
