//! Stacking and the dimensions for it: `atleast_1d`, `hstack`, `vstack`, `dstack`, `column_stack`, `block_diag`.

use super::cat::cat_as;
use super::part::{Part, take};
use crate::dtype::DType;
use crate::kernels::place;
use crate::node::record;
use crate::shape::{self, Dims};
use crate::tensor::Tensor;
use crate::var::Var;
use std::borrow::Borrow;

impl Var {
    /// This with at least one dimension (`torch.atleast_1d`). A view.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from(1.0).atleast_1d().shape(), [1]);
    /// ```
    #[track_caller]
    pub fn atleast_1d(&self) -> Var {
        if self.ndim() == 0 { self.reshape_to(&[1]) } else { self.clone() }
    }

    /// This with at least two dimensions: a vector becomes a row (`torch.atleast_2d`). A view.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from_vec(vec![1f32, 2.0], &[2]).atleast_2d().shape(), [1, 2]);
    /// ```
    #[track_caller]
    pub fn atleast_2d(&self) -> Var {
        if self.ndim() < 2 { self.reshape_to(&[1, self.numel()]) } else { self.clone() }
    }

    /// This with at least three dimensions: `[n]` becomes `[1, n, 1]`, and `[m, n]` becomes `[m, n, 1]`
    /// (`torch.atleast_3d`). A view.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Var::from_vec(vec![1f32, 2.0], &[2]).atleast_3d().shape(), [1, 2, 1]);
    /// ```
    #[track_caller]
    pub fn atleast_3d(&self) -> Var {
        if self.ndim() < 3 { self.atleast_2d().unsqueeze(-1) } else { self.clone() }
    }
}

/// Concatenates tensors, each converted first.
#[track_caller]
fn joined<V: Borrow<Var>>(op: &'static str, tensors: &[V], dim: isize, convert: fn(&Var) -> Var) -> Var {
    let list: Vec<Var> = tensors.iter().map(|t| convert(t.borrow())).collect();
    cat_as(op, &list.iter().collect::<Vec<_>>(), dim)
}

/// Concatenates vectors, or tensors along dimension 1 (`torch.hstack`).
///
/// # Panics
/// If there is no tensor, or the sizes of other dimensions differ.
///
/// ```
/// use tapegrad_tape::{Var, hstack};
/// let (a, b) = (Var::from_vec(vec![1f32, 2.0], &[2]), Var::from(3f32));
/// assert_eq!(hstack(&[a, b]).to_vec::<f32>(), [1.0, 2.0, 3.0]);
/// ```
#[track_caller]
pub fn hstack<V: Borrow<Var>>(tensors: &[V]) -> Var {
    let vectors = tensors.first().is_none_or(|t| t.borrow().ndim() < 2);
    joined("hstack", tensors, if vectors { 0 } else { 1 }, Var::atleast_1d)
}

/// Concatenates tensors along dimension 0, vectors as rows (`torch.vstack`).
///
/// # Panics
/// If there is no tensor, or the sizes of other dimensions differ.
///
/// ```
/// use tapegrad_tape::{Var, vstack};
/// let (a, b) = (Var::from_vec(vec![1f32, 2.0], &[2]), Var::from_vec(vec![3f32, 4.0], &[2]));
/// assert_eq!(vstack(&[a, b]).shape(), [2, 2]);
/// ```
#[track_caller]
pub fn vstack<V: Borrow<Var>>(tensors: &[V]) -> Var {
    joined("vstack", tensors, 0, Var::atleast_2d)
}

/// Concatenates tensors along dimension 2, after [`Var::atleast_3d`] (`torch.dstack`).
///
/// # Panics
/// If there is no tensor, or the sizes of other dimensions differ.
///
/// ```
/// use tapegrad_tape::{Var, dstack};
/// let (a, b) = (Var::from_vec(vec![1f32, 2.0], &[2]), Var::from_vec(vec![3f32, 4.0], &[2]));
/// assert_eq!(dstack(&[a, b]).shape(), [1, 2, 2]);
/// ```
#[track_caller]
pub fn dstack<V: Borrow<Var>>(tensors: &[V]) -> Var {
    joined("dstack", tensors, 2, Var::atleast_3d)
}

/// Concatenates tensors along dimension 1, vectors as columns (`torch.column_stack`).
///
/// # Panics
/// If there is no tensor, or the sizes of other dimensions differ.
///
/// ```
/// use tapegrad_tape::{Var, column_stack};
/// let (a, b) = (Var::from_vec(vec![1f32, 2.0], &[2]), Var::from_vec(vec![3f32, 4.0], &[2]));
/// assert_eq!(column_stack(&[a, b]).to_vec::<f32>(), [1.0, 3.0, 2.0, 4.0]);
/// ```
#[track_caller]
pub fn column_stack<V: Borrow<Var>>(tensors: &[V]) -> Var {
    joined(
        "column_stack",
        tensors,
        1,
        |t| if t.ndim() < 2 { t.reshape_to(&[t.numel(), 1]) } else { t.clone() },
    )
}

/// A matrix with the given matrices along its diagonal and zeros elsewhere (`torch.block_diag`). Vectors are rows. The
/// types are promoted.
///
/// # Panics
/// If there is no tensor, or one has more than two dimensions.
///
/// ```
/// use tapegrad_tape::{Var, block_diag};
/// let (a, b) = (Var::from(1f32), Var::from_vec(vec![2f32, 3.0], &[2]));
/// assert_eq!(block_diag(&[a, b]).to_vec::<f32>(), [1.0, 0.0, 0.0, 0.0, 2.0, 3.0]);
/// ```
#[track_caller]
pub fn block_diag<V: Borrow<Var>>(tensors: &[V]) -> Var {
    assert!(!tensors.is_empty(), "block_diag: expected a list of at least one tensor");
    for (i, t) in tensors.iter().map(Borrow::borrow).enumerate() {
        assert!(
            t.ndim() <= 2,
            "block_diag: input tensors must have two or fewer dimensions, but number {i} has shape {:?}",
            t.shape()
        );
    }
    let blocks: Vec<Var> = tensors.iter().map(|t| t.borrow().atleast_2d()).collect();
    let size = |d: usize| blocks.iter().fold(0usize, |n, b| n.saturating_add(b.shape()[d]));
    let to = [size(0), size(1)];
    shape::numel_for("block_diag", &to);
    let dtype = blocks.iter().map(Var::dtype).reduce(DType::promote).expect("at least one");
    let mut value = Tensor::zeros_with(&to, dtype);
    let mut start: Dims = Dims::from_elem(0, 2);
    let mut parts = Vec::with_capacity(blocks.len());
    for b in &blocks {
        let part =
            Part::Block { start: start.clone(), length: b.shape().into(), step: Dims::from_elem(1, 2) };
        place::write(&mut value, |v| part.of(v), &b.tensor().cast(dtype));
        start.iter_mut().zip(b.shape()).for_each(|(at, n)| *at += n);
        parts.push(part);
    }
    record("block_diag", &blocks.iter().collect::<Vec<_>>(), value, move |c| {
        let gradient =
            |(i, part): (usize, &Part)| c.wants(i).then(|| take("block_diag", c.grad(), part.clone()));
        parts.iter().enumerate().map(gradient).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_views::check2;

    #[test]
    fn gradients() {
        for seed in 0..10 {
            check2([&[2, 3], &[3]], seed, |x, y| block_diag(&[x, y, x]));
            check2([&[2], &[2]], seed, |x, y| {
                [hstack(&[x, y]), vstack(&[x, y]), dstack(&[x, y]), column_stack(&[x, y])]
            });
        }
    }

    #[test]
    fn shapes() {
        let of = |shape: &[usize]| Var::from(Tensor::zeros_with(shape, DType::F32));
        assert_eq!(of(&[]).atleast_3d().shape(), [1, 1, 1]);
        assert_eq!(of(&[4, 5]).atleast_3d().shape(), [4, 5, 1]);
        assert_eq!(hstack(&[of(&[2, 1, 3]), of(&[2, 4, 3])]).shape(), [2, 5, 3]);
        assert_eq!(vstack(&[of(&[3]), of(&[2, 3])]).shape(), [3, 3]);
        assert_eq!(block_diag(&[of(&[0]), of(&[2, 2])]).shape(), [3, 2]);
    }

    #[test]
    #[should_panic(expected = "dstack: expected a list of at least one tensor")]
    fn nothing_to_stack() {
        dstack::<Var>(&[]);
    }
}
