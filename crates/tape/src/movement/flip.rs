//! `flip`, `roll`.

use crate::int_list::{Int, IntList};
use crate::kernels::{index, list::list_for};
use crate::node::record;
use crate::shape::{self, Dims};
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// The entries of some dimensions in reverse order (`torch.flip`). A copy.
    ///
    /// # Panics
    /// If a dimension is out of range or appears twice.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// assert_eq!(x.flip(&[1]).to_vec::<f32>(), [2.0, 1.0, 4.0, 3.0]);
    /// ```
    #[track_caller]
    pub fn flip(&self, dims: impl IntList) -> Var {
        let dims = &dims.to_isizes();
        if dims.is_empty() {
            return self.clone();
        }
        let list: Dims = shape::dims("flip", dims, self.ndim());
        let value = reordered("flip", self.tensor(), list.iter().copied(), |_, i, n| n - 1 - i);
        let dims = dims.to_vec();
        record("flip", [self], value, move |c| [Some(c.grad().flip(&dims))])
    }

    /// The columns of matrices in reverse order: [`Var::flip`] of dimension 1 (`torch.fliplr`).
    ///
    /// # Panics
    /// If there are fewer than two dimensions.
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![1f32, 2.0], &[1, 2]);
    /// assert_eq!(x.fliplr().to_vec::<f32>(), [2.0, 1.0]);
    /// ```
    #[track_caller]
    pub fn fliplr(&self) -> Var {
        assert!(
            self.ndim() >= 2,
            "fliplr: the input must have at least 2 dimensions, but has shape {:?}",
            self.shape()
        );
        self.flip(&[1])
    }

    /// The entries of the first dimension in reverse order: [`Var::flip`] of dimension 0 (`torch.flipud`).
    ///
    /// # Panics
    /// If there is no dimension.
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![1f32, 2.0], &[2]);
    /// assert_eq!(x.flipud().to_vec::<f32>(), [2.0, 1.0]);
    /// ```
    #[track_caller]
    pub fn flipud(&self) -> Var {
        assert!(self.ndim() >= 1, "flipud: the input must have at least 1 dimension");
        self.flip(&[0])
    }

    /// Rotates by 90 degrees, `k` times, from the first of two dimensions toward the second (`torch.rot90`, whose defaults
    /// are 1 and the dimensions 0 and 1).
    ///
    /// # Panics
    /// If the dimensions are not two, out of range or the same.
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// assert_eq!(x.rot90().to_vec::<f32>(), [2.0, 4.0, 1.0, 3.0]);
    /// ```
    #[track_caller]
    pub fn rot90(&self) -> Var {
        self.rot90_with(1, [0, 1])
    }

    /// [`Var::rot90`] with a number of times, in other dimensions.
    ///
    /// # Panics
    /// Same as [`Var::rot90`].
    #[track_caller]
    pub fn rot90_with(&self, k: impl Int, dims: impl IntList) -> Var {
        let dims = dims.to_isizes();
        let [a, b] = dims[..] else {
            panic!("rot90: expected two dimensions to rotate in, but got {dims:?}")
        };
        self.turned(k.to_isize(), [a, b])
    }

    #[track_caller]
    fn turned(&self, k: isize, dims: [isize; 2]) -> Var {
        assert!(
            self.ndim() >= 2,
            "rot90: expected at least 2 dimensions, but the shape is {:?}",
            self.shape()
        );
        let [a, b] = dims.map(|d| shape::dim("rot90", d, self.ndim()));
        assert!(a != b, "rot90: expected rotation dims to be different, but got {dims:?}");
        match k.rem_euclid(4) {
            1 => self.flip(&[b]).transpose(a, b),
            2 => self.flip(&[a, b]),
            3 => self.flip(&[a]).transpose(a, b),
            _ => self.clone(),
        }
    }

    /// Shifts the entries of dimensions by `shifts`, wrapping around (`torch.roll`). Without dimensions, one shift
    /// moves all elements in row-major order.
    ///
    /// # Panics
    /// If a dimension is out of range, or there are not as many shifts as dimensions.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// assert_eq!(x.roll(&[1], &[1]).to_vec::<f32>(), [2.0, 1.0, 4.0, 3.0]);
    /// assert_eq!(x.roll(&[1], ()).to_vec::<f32>(), [4.0, 1.0, 2.0, 3.0]);
    /// ```
    #[track_caller]
    pub fn roll(&self, shifts: impl IntList, dims: impl IntList) -> Var {
        let shifts = &shifts.to_isizes();
        let dims = &dims.to_isizes();
        assert!(!shifts.is_empty(), "roll: `shifts` required");
        if dims.is_empty() && shifts.len() == 1 {
            return self.flatten(()).roll(shifts, &[0]).reshape_to(self.shape());
        }
        assert_eq!(
            shifts.len(),
            dims.len(),
            "roll: shifts and dimensions must align: {} shifts, {} dims",
            shifts.len(),
            dims.len()
        );
        assert!(self.ndim() > 0, "roll: dimensions {dims:?}, but the input has none");
        let list: Dims = dims.iter().map(|&d| shape::dim("roll", d, self.ndim())).collect();
        // Modulo the size of the dimension, a shift can be negated.
        let part = |(&shift, &d): (&isize, &usize)| shift.rem_euclid(self.shape()[d].max(1) as isize);
        let shifts: Vec<isize> = shifts.iter().zip(&list).map(part).collect();
        let value = reordered("roll", self.tensor(), list.iter().copied(), |k, i, n| {
            (i as isize - shifts[k]).rem_euclid(n as isize) as usize
        });
        let (back, dims): (Vec<isize>, Vec<isize>) = (shifts.iter().map(|s| -s).collect(), dims.to_vec());
        record("roll", [self], value, move |c| [Some(c.grad().roll(&back, &dims))])
    }
}

/// Every entry `i` of the `k`-th listed dimension, of size `n`, taken from `from(k, i, n)`.
#[track_caller]
fn reordered(
    op: &str,
    t: Tensor,
    dims: impl Iterator<Item = usize>,
    from: impl Fn(usize, usize, usize) -> usize,
) -> Tensor {
    dims.enumerate().fold(t, |t, (k, d)| {
        let n = t.shape()[d];
        let list = list_for(op, n, |i| from(k, i, n));
        index::select(&t, d, &list)
    })
}

#[cfg(test)]
mod tests {
    use crate::Var;
    use crate::test_views::check;

    #[test]
    fn values() {
        let x = Var::from_vec((0..6i64).collect(), &[2, 3]);
        assert_eq!(x.flip(&[0, -1]).to_vec::<i64>(), [5, 4, 3, 2, 1, 0]);
        assert_eq!(x.roll(&[-1, 4], &[0, 1]).to_vec::<i64>(), [5, 3, 4, 2, 0, 1]);
        assert_eq!(x.flip(()).to_vec::<i64>(), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn gradients() {
        for seed in 0..5 {
            check(&[2, 3, 2], seed, |x| x.flip(&[0, 1]));
            check(&[2, 3, 2], seed, |x| x.roll(&[1, -2], &[2, 1]));
            check(&[2, 3], seed, |x| x.roll(&[4], ()));
        }
    }

    #[test]
    #[should_panic(expected = "roll: shifts and dimensions must align: 2 shifts, 1 dims")]
    fn shifts_and_dims() {
        Var::from_vec(vec![1f32], &[1]).roll(&[1, 2], &[0]);
    }
}
