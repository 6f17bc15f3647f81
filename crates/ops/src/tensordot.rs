//! `tensordot`.

use crate::einsum::{Label, Part, join};
use tapegrad_tape::{Int, IntList, Var};

/// Which dimensions [`tensordot`] sums over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TensordotDims {
    /// The last of the left operand against the first of the right one, this many.
    Count(usize),
    /// These of the left operand against these of the right one.
    Pairs(Vec<isize>, Vec<isize>),
}

impl From<usize> for TensordotDims {
    fn from(n: usize) -> TensordotDims {
        TensordotDims::Count(n)
    }
}

impl<T: Int> From<(&[T], &[T])> for TensordotDims {
    fn from((a, b): (&[T], &[T])) -> TensordotDims {
        TensordotDims::Pairs(a.to_isizes().into_vec(), b.to_isizes().into_vec())
    }
}

impl<T: Int, const N: usize> From<([T; N], [T; N])> for TensordotDims {
    fn from((a, b): ([T; N], [T; N])) -> TensordotDims {
        TensordotDims::from((&a[..], &b[..]))
    }
}

/// The sum of products over pairs of dimensions (`torch.tensordot`). The result has the other dimensions, those of
/// the left operand first.
///
/// # Panics
/// If there are no such dimensions or their sizes differ.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
/// assert_eq!(tapegrad_ops::tensordot(&a, &a).item(), 30.0);
/// assert_eq!(tapegrad_ops::tensordot_with(&a, &a, ([0], [1])).to_vec::<f32>(), [7.0, 15.0, 10.0, 22.0]);
/// ```
#[track_caller]
pub fn tensordot(a: &Var, b: &Var) -> Var {
    tensordot_with(a, b, 2)
}

/// [`tensordot`] with other dimensions.
///
/// # Panics
/// Same as [`tensordot`].
#[track_caller]
pub fn tensordot_with(a: &Var, b: &Var, dims: impl Into<TensordotDims>) -> Var {
    let (da, db): (Vec<isize>, Vec<isize>) = match dims.into() {
        TensordotDims::Count(n) => {
            assert!(
                n <= a.ndim() && n <= b.ndim(),
                "tensordot: {n} dimensions are to be summed, but the shapes are {:?} and {:?}",
                a.shape(),
                b.shape()
            );
            ((a.ndim() - n..a.ndim()).map(|d| d as isize).collect(), (0..n as isize).collect())
        }
        TensordotDims::Pairs(x, y) => (x, y),
    };
    assert!(
        da.len() == db.len(),
        "tensordot: both dimension lists should have the same length, got {da:?} and {db:?}"
    );
    let check = |dims: &[isize], v: &Var| match dims {
        [] => tapegrad_tape::shape::Dims::new(),
        _ => tapegrad_tape::shape::dims("tensordot", dims, v.ndim()),
    };
    let (da, db) = (check(&da, a), check(&db, b));
    // Names: every dimension of the left operand, then those of the right one that are not summed.
    let name = |i: usize| Label::Rest(std::cmp::Reverse(i));
    let left = Part { v: a.clone(), labels: (0..a.ndim()).map(name).collect() };
    let right_names = (0..b.ndim()).map(|d| match db.iter().position(|&x| x == d) {
        Some(i) => name(da[i]),
        None => name(a.ndim() + d),
    });
    let right = Part { v: b.clone(), labels: right_names.collect() };
    for (&i, &j) in da.iter().zip(&db) {
        let (m, n) = (a.shape()[i], b.shape()[j]);
        assert!(
            m == n || m == 1 || n == 1,
            "tensordot: contracted dimensions need to match, but first has size {m} in dim {i} and second has size {n} \
             in dim {j}"
        );
    }
    let summed: Vec<Label> = da.iter().map(|&d| name(d)).collect();
    let order: Vec<Label> =
        left.labels.iter().chain(&right.labels).copied().filter(|l| !summed.contains(l)).collect();
    join(left, right, |l| !summed.contains(l)).arrange(&order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn gradients() {
        let inputs = [parameter(&[2, 3], 1), parameter(&[3, 3, 2], 2)];
        check_gradients(|x| tensordot_with(&x[0], &x[1], ([1, 0], [0, 2])), &inputs);
    }

    #[test]
    #[should_panic(
        expected = "tensordot: contracted dimensions need to match, but first has size 3 in dim 1"
    )]
    fn sizes_that_do_not_fit() {
        tensordot_with(&parameter(&[2, 3], 1), &parameter(&[2, 2], 1), 1);
    }
}
