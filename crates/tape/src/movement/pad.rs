//! `pad`, whose adjoint crops.

use super::part::{Part, filled, put, take};
use crate::indexing::pick;
use crate::int_list::IntList;
use crate::kernels::list::list_for;
use crate::node::record_linear;
use crate::shape::{self, Dims};
use crate::var::Var;

/// The values with which [`Var::pad`] pads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PadMode {
    /// One value.
    Constant(f64),
    /// The tensor mirrored at its border, which is not repeated: `c b | a b c | b a`.
    Reflect,
    /// The border: `a a | a b c | c c`.
    Replicate,
    /// The opposite side: `b c | a b c | a b`.
    Circular,
}

impl Var {
    /// Adds entries before and after the last dimensions (`torch.nn.functional.pad`): `[left, right]` for the last one,
    /// then `top, bottom` for the one before, and so on. Negative numbers crop.
    ///
    /// # Panics
    /// If there is an odd number of entries or more pairs than dimensions; if more is cropped than there is, or the
    /// result has too many elements; and, in modes other than constant, if a batch and channel dimension is padded,
    /// `Reflect` pads by the size or more, or `Circular` by more than the size.
    ///
    /// ```
    /// use tapegrad_tape::{PadMode, Var};
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0], &[1, 3]);
    /// assert_eq!(x.pad(&[2, -1]).to_vec::<f32>(), [0.0, 0.0, 1.0, 2.0]);
    /// assert_eq!(x.pad_with(&[2, 1], PadMode::Reflect).to_vec::<f32>(), [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
    /// ```
    #[track_caller]
    pub fn pad(&self, pad: impl IntList) -> Var {
        self.pad_with(pad, PadMode::Constant(0.0))
    }

    /// [`Var::pad`] with a mode of padding.
    ///
    /// # Panics
    /// Same as [`Var::pad`].
    #[track_caller]
    pub fn pad_with(&self, pad: impl IntList, mode: PadMode) -> Var {
        let pad = &pad.to_isizes();
        assert!(
            pad.len().is_multiple_of(2),
            "pad: the padding must hold pairs, but {pad:?} is of odd length"
        );
        assert!(
            pad.len() <= 2 * self.ndim(),
            "pad: {pad:?} pads {} dimensions, but the tensor of shape {:?} has {}",
            pad.len() / 2,
            self.shape(),
            self.ndim()
        );
        let mut sides: Vec<(usize, isize, isize)> = Vec::new();
        for (i, pair) in pad.chunks_exact(2).enumerate() {
            let d = self.ndim() - 1 - i;
            let cut = cut(pair[0]).saturating_add(cut(pair[1]));
            assert!(
                cut <= self.shape()[d],
                "pad: {pair:?} cuts {cut} off dimension {d} of shape {:?}, more than there is",
                self.shape()
            );
            sides.push((d, pair[0], pair[1]));
        }
        let mut to: Dims = self.shape().into();
        for &(d, left, right) in &sides {
            let added = added(left).saturating_add(added(right));
            to[d] = (to[d] - cut(left) - cut(right)).saturating_add(added);
        }
        shape::checked_numel(&to).unwrap_or_else(|| {
            panic!(
                "pad: {pad:?} around a tensor of shape {:?} is too much: a tensor has at most {} elements",
                self.shape(),
                shape::MAX_NUMEL
            )
        });
        match mode {
            PadMode::Constant(value) => constant(self, &sides, &to, value),
            _ => {
                self.check_border(pad, &sides, mode);
                sides.iter().fold(self.clone(), |x, &(d, left, right)| extend(&x, d, left, right, mode))
            }
        }
    }

    #[track_caller]
    fn check_border(&self, pad: &[isize], sides: &[(usize, isize, isize)], mode: PadMode) {
        let pairs = sides.len();
        assert!(
            (1..=3).contains(&pairs) && (pairs + 1..=pairs + 2).contains(&self.ndim()),
            "pad: in mode {mode:?} the last 1, 2 or 3 dimensions of 2 or 3, 3 or 4, 4 or 5 can be padded, not {pad:?} \
             for shape {:?}",
            self.shape()
        );
        for &(d, left, right) in sides {
            let n = self.shape()[d] as isize;
            // The size of the result was checked, so no sum of these overflows.
            let widest = left.max(right);
            let fits = match mode {
                PadMode::Reflect => widest < n,
                PadMode::Circular => widest <= n,
                _ => n > 0 || widest <= 0,
            };
            assert!(
                fits && n + left + right > 0,
                "pad: ({left}, {right}) does not fit dimension {d} of shape {:?} in mode {mode:?}, which takes at \
                 most {} and leaves no dimension empty",
                self.shape(),
                if mode == PadMode::Reflect { "the size less one" } else { "the size" }
            );
        }
    }
}

/// How many entries a number of the padding crops, and how many it adds.
fn cut(n: isize) -> usize {
    n.min(0).unsigned_abs()
}

fn added(n: isize) -> usize {
    n.max(0).unsigned_abs()
}

/// Crops by negative padding, as a view, and copies the rest into a larger tensor of shape `to`.
#[track_caller]
fn constant(x: &Var, sides: &[(usize, isize, isize)], to: &[usize], value: f64) -> Var {
    let (mut kept, mut inner) = (Part::whole(x.shape()), Part::whole(x.shape()));
    if let (Part::Block { start: from, length, .. }, Part::Block { start: at, length: filled, .. }) =
        (&mut kept, &mut inner)
    {
        for &(d, left, right) in sides {
            from[d] = cut(left);
            length[d] -= cut(left) + cut(right);
            filled[d] = length[d];
            at[d] = added(left);
        }
    }
    let cuts = sides.iter().any(|&(_, l, r)| l < 0 || r < 0);
    let x = if cuts { take("pad", x, kept) } else { x.clone() };
    if to == x.shape() {
        return x;
    }
    let padded = filled(&x.tensor(), &inner, to, value);
    let part = inner.clone();
    record_linear(
        "pad",
        &x,
        padded,
        |t| put("pad", t, part.clone(), to),
        move |c| [Some(take("pad", c.grad(), inner.clone()))],
    )
}

/// Extends one dimension beyond its border.
#[track_caller]
fn extend(x: &Var, d: usize, left: isize, right: isize, mode: PadMode) -> Var {
    if (left, right) == (0, 0) {
        return x.clone();
    }
    let n = x.shape()[d] as isize;
    let source = |j: isize| match mode {
        PadMode::Reflect => {
            let i = (j - left).abs();
            if i < n { i } else { 2 * (n - 1) - i }
        }
        PadMode::Circular => {
            // Cropping comes before the tensor is extended.
            let (before, after) = ((-left).max(0), (-right).max(0));
            before + (j - left.max(0)).rem_euclid(n - before - after)
        }
        _ => (j - left).clamp(0, n - 1),
    };
    let index = list_for("pad", (n + left + right) as usize, |j| source(j as isize) as usize);
    pick("pad", x, d, index.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_views::check;
    use crate::{DType, Tensor};
    use proptest::prelude::*;

    #[test]
    fn modes() {
        let x = Var::from_vec(vec![1i64, 2, 3], &[1, 3]);
        let padded = |pad: &[isize], mode| x.pad_with(pad, mode).to_vec::<i64>();
        assert_eq!(padded(&[1, 2, 1, 0], PadMode::Constant(7.0)), [7, 7, 7, 7, 7, 7, 7, 1, 2, 3, 7, 7]);
        assert_eq!(padded(&[2, 2], PadMode::Reflect), [3, 2, 1, 2, 3, 2, 1]);
        assert_eq!(padded(&[2, 1], PadMode::Replicate), [1, 1, 1, 2, 3, 3]);
        assert_eq!(padded(&[2, 1], PadMode::Circular), [2, 3, 1, 2, 3, 1]);
        assert_eq!(padded(&[-1, 1], PadMode::Circular), [2, 3, 2]);
        assert_eq!(padded(&[-1, -2], PadMode::Constant(0.0)), [0i64; 0]);
        let (cut, whole) = (x.pad(&[-1, 0]), x.tensor());
        assert!(cut.tensor().shares_memory_with(&whole), "cutting off alone is a view");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6))]
        #[test]
        fn gradients(seed in 0u64..1000, pad in proptest::array::uniform4(-1isize..2)) {
            check(&[1, 2, 2, 3], seed, |x| x.pad_with(&pad, PadMode::Constant(0.5)));
            for mode in [PadMode::Reflect, PadMode::Replicate, PadMode::Circular] {
                check(&[1, 1, 3, 3], seed, |x| x.pad_with(&pad, mode));
            }
        }
    }

    #[test]
    #[should_panic(expected = "pad: [-3, -2] cuts 5 off dimension 1 of shape [2, 4], more than there is")]
    fn too_much_is_cut_off() {
        Var::from(Tensor::zeros_with(&[2, 4], DType::F32)).pad(&[-3, -2]);
    }

    #[test]
    #[should_panic(expected = "pad: (4, 0) does not fit dimension 1 of shape [2, 4] in mode Reflect")]
    fn a_mirror_is_as_wide_as_the_size_less_one() {
        Var::from(Tensor::zeros_with(&[2, 4], DType::F32)).pad_with(&[4, 0], PadMode::Reflect);
    }
}
