//! `kron`.

use tapegrad_tape::Var;
use tapegrad_tape::shape::numel_for;

/// The Kronecker product: each element of `a` times the whole of `b`, as blocks (`torch.kron`). Of the tensor with fewer
/// dimensions the missing ones are of size 1.
///
/// # Panics
/// If the result would have too many elements.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![1i64, 10], &[2]);
/// let b = Var::from_vec(vec![1i64, 2], &[2]);
/// assert_eq!(tapegrad_ops::kron(&a, &b).to_vec::<i64>(), [1, 2, 10, 20]);
/// ```
#[track_caller]
pub fn kron(a: &Var, b: &Var) -> Var {
    let n = a.ndim().max(b.ndim());
    let size = |v: &Var, i: usize| if i + v.ndim() >= n { v.shape()[i + v.ndim() - n] } else { 1 };
    // Each dimension of `a` stands before that of `b`.
    let sizes: Vec<[usize; 2]> = (0..n).map(|i| [size(a, i), size(b, i)]).collect();
    let merged: Vec<usize> = sizes.iter().map(|[x, y]| x.saturating_mul(*y)).collect();
    numel_for("kron", &merged);
    let shape = |f: &dyn Fn([usize; 2]) -> Vec<usize>| -> Vec<isize> {
        sizes.iter().flat_map(|&s| f(s)).map(|n| n as isize).collect()
    };
    let a = a.reshape(&shape(&|[x, _]| vec![x, 1]));
    let b = b.reshape(&shape(&|[_, y]| vec![1, y]));
    a.mul(b).reshape(&shape(&|[x, y]| vec![x * y]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn blocks() {
        let a = Var::from_vec(vec![1i64, 2, 3, 4], &[2, 2]);
        let b = Var::from_vec(vec![1i64, 10], &[2]);
        assert_eq!(kron(&a, &b).to_vec::<i64>(), [1, 10, 2, 20, 3, 30, 4, 40]);
        assert_eq!(kron(&b, &a).to_vec::<i64>(), [1, 2, 10, 20, 3, 4, 30, 40]);
        assert_eq!(kron(&Var::from(2i64), &Var::from(3i64)).item(), 6.0);
        check_gradients(|v| kron(&v[0], &v[1]), &[parameter(&[2, 1, 2], 1), parameter(&[3, 2], 2)]);
    }
}
