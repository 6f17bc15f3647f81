//! `one_hot`, `bincount`.

use super::{integers, places};
use crate::dtype::DType;
use crate::int_list::{Int, OptionalInt};
use crate::shape::{self, Dims};
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// Class indices as one-hot vectors, as I64 with a new last dimension (`torch.nn.functional.one_hot`). Without a
    /// number of classes (`None` or -1), it is the largest class plus one. Has no derivative.
    ///
    /// # Panics
    /// If the classes are not integers, one is negative or not below the number of classes, there is none from which to
    /// infer the number, or the result has too many elements.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let classes = Var::from_vec(vec![0i64, 2], &[2]);
    /// assert_eq!(classes.one_hot(3).to_vec::<i64>(), [1, 0, 0, 0, 0, 1]);
    /// ```
    #[track_caller]
    pub fn one_hot(&self, num_classes: impl OptionalInt) -> Var {
        let num_classes = match num_classes.to_option() {
            None | Some(-1) => None,
            Some(n) => Some(n.to_usize().unwrap_or_else(|| panic!("one_hot: num_classes cannot be {n}"))),
        };
        let classes = integers("one_hot", self).to_vec::<i64>();
        assert!(
            num_classes.is_some_and(|n| n > 0) || !classes.is_empty(),
            "one_hot: cannot infer the number of classes from an empty tensor"
        );
        let smallest = classes.iter().min().copied().unwrap_or(0);
        assert!(smallest >= 0, "one_hot: class values must be non-negative, but there is {smallest}");
        let most = classes.iter().max().map_or(0, |&c| c as usize + 1);
        let n = num_classes.unwrap_or(most);
        assert!(
            most <= n,
            "one_hot: class values must be smaller than num_classes {n}, but there is {}",
            most - 1
        );
        let mut to: Dims = self.shape().into();
        to.push(n);
        shape::checked_numel(&to).unwrap_or_else(|| {
            panic!(
                "one_hot: {n} classes for an input of shape {:?} are too many: a tensor has at most {} elements",
                self.shape(),
                shape::MAX_NUMEL
            )
        });
        let mut out = Tensor::zeros_with(&to, DType::I64);
        for (row, &c) in out.data_mut::<i64>().chunks_exact_mut(n.max(1)).zip(&classes) {
            row[c as usize] = 1;
        }
        Var::from(out)
    }

    /// The number of occurrences of each integer in a vector, for at least `minlength` integers (`torch.bincount`). Has
    /// no derivative.
    ///
    /// # Panics
    /// If there is more than one dimension, or a value is negative or not an integer.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// assert_eq!(Var::from_vec(vec![2i64, 0, 2], &[3]).bincount_with(4).to_vec::<i64>(), [1, 0, 2, 0]);
    /// ```
    #[track_caller]
    pub fn bincount(&self) -> Var {
        self.bincount_with(0)
    }

    /// [`Var::bincount`] with a number of counts.
    ///
    /// # Panics
    /// Same as [`Var::bincount`].
    #[track_caller]
    pub fn bincount_with(&self, minlength: usize) -> Var {
        assert!(self.ndim() == 1, "bincount: expects a vector, but got shape {:?}", self.shape());
        let values = integers("bincount", self);
        let smallest = values.to_vec::<i64>().into_iter().min().unwrap_or(0);
        assert!(smallest >= 0, "bincount: values must be non-negative, but there is {smallest}");
        let places = places(&values);
        let n = places.iter().max().map_or(0, |m| m + 1).max(minlength);
        shape::numel_for("bincount", &[n]);
        let mut counts = Tensor::zeros_with(&[n], DType::I64);
        let data = counts.data_mut::<i64>();
        for p in places {
            data[p] += 1;
        }
        Var::from(counts)
    }
}

#[cfg(test)]
mod tests {
    use crate::{DType, Tensor, Var};

    #[test]
    fn classes() {
        assert_eq!(Var::from(2i64).one_hot(None).to_vec::<i64>(), [0, 0, 1]);
        let none = Var::from(Tensor::zeros_with(&[0, 2], DType::I64));
        assert_eq!(none.one_hot(3).shape(), [0, 2, 3]);
    }

    #[test]
    #[should_panic(expected = "one_hot: class values must be smaller than num_classes 2, but there is 2")]
    fn too_few_classes() {
        Var::from(2i64).one_hot(2);
    }
}
