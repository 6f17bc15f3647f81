//! `broadcast_tensors`, `meshgrid`, `cartesian_prod`.

use super::cat::stack;
use crate::shape::{self, Dims};
use crate::var::Var;
use std::borrow::Borrow;

/// The tensors, expanded to the shape that they broadcast to (`torch.broadcast_tensors`). Views.
///
/// # Panics
/// If the shapes do not broadcast.
///
/// ```
/// use tapegrad_tape::{Var, broadcast_tensors};
/// let (a, b) = (Var::from_vec(vec![1f32, 2.0], &[2, 1]), Var::from_vec(vec![3f32, 4.0, 5.0], &[3]));
/// assert!(broadcast_tensors(&[a, b]).iter().all(|t| t.shape() == &[2, 3]));
/// ```
#[track_caller]
pub fn broadcast_tensors<V: Borrow<Var>>(tensors: &[V]) -> Vec<Var> {
    let common = tensors
        .iter()
        .fold(Dims::new(), |shape, t| shape::broadcast_for("broadcast_tensors", &shape, t.borrow().shape()));
    tensors.iter().map(|t| t.borrow().expand_to(&common)).collect()
}

/// Which dimension of a grid belongs to the first of two vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Indexing {
    /// The first one, as the row of a matrix.
    #[default]
    Ij,
    /// The second one, as the abscissa of a plot.
    Xy,
}

/// The coordinates of all points of a grid, given by a vector along each dimension (`torch.meshgrid`): one tensor for
/// each vector, of the shape of the grid. Views.
///
/// # Panics
/// If there is no vector, one has more than one dimension, or the types differ.
///
/// ```
/// use tapegrad_tape::{Indexing, Var, meshgrid};
/// let (x, y) = (Var::from_vec(vec![1f32, 2.0], &[2]), Var::from_vec(vec![3f32, 4.0, 5.0], &[3]));
/// let grid = meshgrid(&[x, y]);
/// assert_eq!(grid[0].to_vec::<f32>(), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
/// ```
#[track_caller]
pub fn meshgrid<V: Borrow<Var>>(tensors: &[V]) -> Vec<Var> {
    meshgrid_with(tensors, Indexing::Ij)
}

/// [`meshgrid`] with a choice of the indexing.
///
/// # Panics
/// Same as [`meshgrid`].
#[track_caller]
pub fn meshgrid_with<V: Borrow<Var>>(tensors: &[V], indexing: Indexing) -> Vec<Var> {
    let mut vectors = checked("meshgrid", tensors, 0);
    let swap = indexing == Indexing::Xy && vectors.len() >= 2;
    if swap {
        vectors.swap(0, 1);
    }
    let mut grid = grid("meshgrid", &vectors);
    if swap {
        grid.swap(0, 1);
    }
    grid
}

/// All combinations of one element of each vector, as the rows of a matrix; of one vector, the vector itself
/// (`torch.cartesian_prod`).
///
/// # Panics
/// If there is no vector, one has another number of dimensions, or the types differ.
///
/// ```
/// use tapegrad_tape::{Var, cartesian_prod};
/// let (a, b) = (Var::from_vec(vec![1i64, 2], &[2]), Var::from_vec(vec![3i64, 4], &[2]));
/// assert_eq!(cartesian_prod(&[a, b]).to_vec::<i64>(), [1, 3, 1, 4, 2, 3, 2, 4]);
/// ```
#[track_caller]
pub fn cartesian_prod<V: Borrow<Var>>(tensors: &[V]) -> Var {
    let vectors = checked("cartesian_prod", tensors, 1);
    if let [one] = &vectors[..] {
        return one.clone();
    }
    let columns: Vec<Var> = grid("cartesian_prod", &vectors).iter().map(|g| g.flatten(())).collect();
    stack(&columns, 1)
}

/// Vectors of one type; those without dimensions may be allowed.
#[track_caller]
fn checked<V: Borrow<Var>>(op: &str, tensors: &[V], least: usize) -> Vec<Var> {
    assert!(!tensors.is_empty(), "{op}: expected a list of at least one tensor");
    let first = tensors[0].borrow().dtype();
    let check = |(i, t): (usize, &V)| {
        let t = t.borrow();
        assert!(
            (least..=1).contains(&t.ndim()),
            "{op}: expected a vector, but number {i} has shape {:?}",
            t.shape()
        );
        assert_eq!(
            t.dtype(),
            first,
            "{op}: expected tensors of one type, but number {i} differs from the first"
        );
        t.atleast_1d()
    };
    tensors.iter().enumerate().map(check).collect()
}

#[track_caller]
fn grid(op: &str, vectors: &[Var]) -> Vec<Var> {
    let to: Dims = vectors.iter().map(Var::numel).collect();
    shape::numel_for(op, &to);
    let along = |(d, v): (usize, &Var)| {
        let mut line = Dims::from_elem(1, to.len());
        line[d] = v.numel();
        v.reshape_to(&line).expand_to(&to)
    };
    vectors.iter().enumerate().map(along).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_views::check2;

    #[test]
    fn gradients() {
        for seed in 0..10 {
            check2([&[2], &[3]], seed, |x, y| meshgrid_with(&[x, y, x], Indexing::Xy));
            check2([&[2], &[3]], seed, |x, y| cartesian_prod(&[x, y]));
            check2([&[2, 1], &[3]], seed, |x, y| broadcast_tensors(&[x, y]));
        }
    }

    /// The values are PyTorch's.
    #[test]
    fn the_first_two_dimensions_are_swapped() {
        let (a, b) = (Var::from_vec(vec![1i64, 2], &[2]), Var::from_vec(vec![3i64, 4, 5], &[3]));
        let grid = meshgrid_with(&[&a, &b, &Var::from(7)], Indexing::Xy);
        assert_eq!(grid[0].shape(), [3, 2, 1]);
        assert_eq!(grid[0].to_vec::<i64>(), [1, 2, 1, 2, 1, 2]);
        assert_eq!(grid[1].to_vec::<i64>(), [3, 3, 4, 4, 5, 5]);
        assert_eq!(cartesian_prod(&[&a]).shape(), [2]);
    }
}
