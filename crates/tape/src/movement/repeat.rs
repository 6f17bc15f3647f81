//! `repeat`, `tile`, `repeat_interleave`.

use crate::dtype::DType;
use crate::indexing::pick;
use crate::int_list::{IntList, OptionalInt};
use crate::kernels::list::list_for;
use crate::promote::Operand;
use crate::shape::{self, Dims};
use crate::var::Var;

impl Var {
    /// Repeats the tensor along each dimension; the last entry is for the last dimension, and extra entries add leading
    /// dimensions (`torch.Tensor.repeat`).
    ///
    /// # Panics
    /// If there are fewer entries than dimensions, or the result has too many elements.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0], &[2]);
    /// assert_eq!(x.repeat(&[2, 2]).to_vec::<f32>(), [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0]);
    /// ```
    #[track_caller]
    pub fn repeat(&self, repeats: impl IntList) -> Var {
        let repeats = &repeats.to_sizes("repeat");
        assert!(
            repeats.len() >= self.ndim(),
            "repeat: {repeats:?} has fewer entries than the tensor of shape {:?} has dimensions",
            self.shape()
        );
        self.repeated(repeats)
    }

    /// Like [`Var::repeat`]; missing leading entries are one (`torch.tile`).
    ///
    /// ```
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros_with(&[2, 3], DType::F32));
    /// assert_eq!(x.tile(&[2]).shape(), [2, 6]);
    /// ```
    #[track_caller]
    pub fn tile(&self, repeats: impl IntList) -> Var {
        let repeats = &repeats.to_sizes("tile");
        let mut all = vec![1; self.ndim().saturating_sub(repeats.len())];
        all.extend_from_slice(repeats);
        self.repeated(&all)
    }

    /// Repeats each entry of a dimension, or each element of the flattened tensor (`torch.repeat_interleave`): all of
    /// them so many times, or each as often as a vector of integers says.
    ///
    /// # Panics
    /// If there is no such dimension; or if the repeats are negative, no integers, or not as many as there are entries.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0], &[2]);
    /// assert_eq!(x.repeat_interleave(2, None).to_vec::<f32>(), [1.0, 1.0, 2.0, 2.0]);
    /// let times = Var::from_vec(vec![0i64, 3], &[2]);
    /// assert_eq!(x.repeat_interleave(&times, 0).to_vec::<f32>(), [2.0, 2.0, 2.0]);
    /// ```
    #[track_caller]
    pub fn repeat_interleave(&self, repeats: impl Into<Operand>, dim: impl OptionalInt) -> Var {
        self.repeat_interleave_along(repeats.into(), dim.to_option())
    }

    #[track_caller]
    fn repeat_interleave_along(&self, repeats: Operand, dim: Option<isize>) -> Var {
        let op = "repeat_interleave";
        let x = if dim.is_none() || self.ndim() == 0 { self.flatten(()) } else { self.clone() };
        let d = shape::dim(op, dim.unwrap_or(0), x.ndim());
        let n = x.shape()[d];
        let repeats = repeats.var();
        assert!(
            matches!(repeats.dtype(), DType::I64 | DType::U8),
            "{op}: the repeats have to be integers, not {}",
            repeats.dtype()
        );
        let list = repeats.to_vec::<i64>();
        assert!(
            repeats.ndim() <= 1 && (list.len() == 1 || list.len() == n),
            "{op}: the repeats have to be one number, or {n} for the dimension {d} of shape {:?}, but have shape {:?}",
            x.shape(),
            repeats.shape()
        );
        let times = |i: usize| {
            let times = list[if list.len() == 1 { 0 } else { i }];
            usize::try_from(times)
                .unwrap_or_else(|_| panic!("{op}: the repeats cannot be negative, but one is {times}"))
        };
        let mut to: Dims = x.shape().into();
        to[d] = (0..n).fold(0, |sum: usize, i| sum.saturating_add(times(i)));
        shape::numel_for(op, &to);
        if list.len() == 1 {
            let mut apart: Dims = x.shape().into();
            apart.insert(d + 1, times(0));
            return x.unsqueeze(d + 1).expand_to(&apart).reshape_to(&to);
        }
        let mut entries = (0..n).flat_map(|i| std::iter::repeat_n(i, times(i)));
        pick(op, &x, d, list_for(op, to[d], |_| entries.next().expect("as many as counted")).into())
    }

    /// Each repetition is a new dimension, expanded and merged, so the rules are those of these operations.
    #[track_caller]
    fn repeated(&self, repeats: &[usize]) -> Var {
        let lead = repeats.len() - self.ndim();
        let size = |d: usize| if d < lead { 1 } else { self.shape()[d - lead] };
        let (mut apart, mut expanded, mut merged) = (Dims::new(), Dims::new(), Dims::new());
        for (d, &n) in repeats.iter().enumerate() {
            if n != 1 {
                apart.push(1);
                expanded.push(n);
            }
            apart.push(size(d));
            expanded.push(size(d));
            merged.push(n.saturating_mul(size(d)));
        }
        shape::checked_numel(&merged).unwrap_or_else(|| {
            panic!(
                "repeat: {repeats:?} copies of a tensor of shape {:?} are too many: a tensor has at most {} elements",
                self.shape(),
                shape::MAX_NUMEL
            )
        });
        self.reshape_to(&apart).expand_to(&expanded).reshape_to(&merged)
    }
}

#[cfg(test)]
mod tests {
    use crate::Var;
    use crate::test_views::check;

    #[test]
    fn values() {
        let x = Var::from_vec(vec![1i64, 2, 3, 4], &[2, 2]);
        assert_eq!(x.repeat(&[1, 2]).to_vec::<i64>(), [1, 2, 1, 2, 3, 4, 3, 4]);
        assert_eq!(x.tile(&[2, 1]).to_vec::<i64>(), [1, 2, 3, 4, 1, 2, 3, 4]);
        assert_eq!(x.repeat(&[0, 1, 1]).shape(), [0, 2, 2]);
    }

    #[test]
    fn gradients() {
        for seed in 0..5 {
            check(&[2, 3], seed, |x| x.repeat(&[2, 1, 2]));
            check(&[2, 3], seed, |x| x.tile(&[3]));
        }
    }

    #[test]
    #[should_panic(expected = "repeat: [2] has fewer entries than the tensor of shape [1, 1] has dimensions")]
    fn too_few_entries() {
        Var::from_vec(vec![1f32], &[1, 1]).repeat(&[2]);
    }
}
