//! `matmul` and the products of fixed dimensions: `mm`, `bmm`, `mv`, `dot`, `outer`.

use crate::autocast::lowered;
use crate::product::{check_types, product};
use tapegrad_tape::{DType, Var};

/// The matrix product, by the dimensions of its operands (`torch.matmul`).
///
/// Two vectors give their dot product, a matrix and a vector a vector. With more dimensions the last two are matrices,
/// and the ones before are broadcast. Operands of any strides are read in place.
///
/// # Panics
/// If an operand has no dimension, the sizes do not fit, or the element types differ.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
/// let x = Var::from_vec(vec![1f32, -1.0], &[2]);
/// assert_eq!(tapegrad_ops::matmul(&a, &x).to_vec::<f32>(), [-1.0, -1.0]);
/// assert_eq!(tapegrad_ops::matmul(&a, &a).to_vec::<f32>(), [7.0, 10.0, 15.0, 22.0]);
/// ```
#[track_caller]
pub fn matmul(a: &Var, b: &Var) -> Var {
    lowered([a, b], |[a, b]| multiply("matmul", a, b))
}

/// [`matmul`] under another operation's name.
#[track_caller]
fn multiply(op: &'static str, a: &Var, b: &Var) -> Var {
    let (sa, sb) = (a.shape(), b.shape());
    assert!(
        !sa.is_empty() && !sb.is_empty(),
        "{op}: both arguments need to be at least 1D, but got shapes {sa:?} and {sb:?}"
    );
    check_types(op, a.dtype(), b.dtype());
    let (k, l) = (sa[sa.len() - 1], sb[sb.len().saturating_sub(2)]);
    assert!(
        k == l,
        "{op}: shapes {sa:?} and {sb:?} cannot be multiplied: the last size of the left operand ({k}) must be \
         {} of the right one ({l})",
        if sb.len() == 1 { "the size" } else { "the second last size" }
    );
    let signed = |s: &[usize]| s.iter().map(|&n| n as isize).collect::<Vec<_>>();
    // A vector is a matrix of one row on the left, of one column on the right; that dimension is removed again.
    if sa.len() == 1 {
        let row = a.reshape((1, k));
        if sb.len() == 1 {
            return product(op, &row, false, &row_of(b), true).reshape(());
        }
        let y = product(op, &row, false, b, false);
        let mut shape = signed(y.shape());
        shape.remove(y.ndim() - 2);
        return y.reshape(&shape);
    }
    if sb.len() == 1 {
        // The right operand is a single matrix: the left is viewed as one tall matrix, whatever its dimensions.
        let y = product(op, &a.reshape(&[rows(sa), k as isize]), false, &row_of(b), true);
        return y.reshape(&signed(&sa[..sa.len() - 1]));
    }
    if sb.len() == 2 && sa.len() > 2 {
        let y = product(op, &a.reshape(&[rows(sa), k as isize]), false, b, false);
        let mut shape = signed(&sa[..sa.len() - 1]);
        shape.push(sb[1] as isize);
        return y.reshape(&shape);
    }
    product(op, a, false, b, false)
}

fn row_of(v: &Var) -> Var {
    v.reshape((1, v.numel()))
}

/// The number of rows of all matrices together.
pub(crate) fn rows(shape: &[usize]) -> isize {
    shape[..shape.len() - 1].iter().product::<usize>() as isize
}

#[track_caller]
fn check_dims(op: &str, operands: [(&str, &Var, usize); 2]) {
    for (name, v, want) in operands {
        assert!(
            v.ndim() == want,
            "{op}: {name} must be {want}D, but got shapes {:?} and {:?}",
            operands[0].1.shape(),
            operands[1].1.shape()
        );
    }
}

/// The product of two matrices, without broadcasting (`torch.mm`).
///
/// # Panics
/// If an operand is not a matrix, the sizes do not fit, or the element types differ.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![1f32, 2.0, 3.0], &[3, 1]);
/// let b = Var::from_vec(vec![1f32, 10.0], &[1, 2]);
/// assert_eq!(tapegrad_ops::mm(&a, &b).to_vec::<f32>(), [1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
/// ```
#[track_caller]
pub fn mm(a: &Var, b: &Var) -> Var {
    check_dims("mm", [("self", a, 2), ("mat2", b, 2)]);
    lowered([a, b], |[a, b]| {
        check_types("mm", a.dtype(), b.dtype());
        product("mm", a, false, b, false)
    })
}

/// The products of two batches of equally many matrices, without broadcasting (`torch.bmm`).
///
/// # Panics
/// If an operand is not `[batch, rows, columns]`, the sizes do not fit, or the element types differ.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 1, 2]);
/// let b = Var::from_vec(vec![1f32, 1.0, 2.0, 2.0], &[2, 2, 1]);
/// assert_eq!(tapegrad_ops::bmm(&a, &b).to_vec::<f32>(), [3.0, 14.0]);
/// ```
#[track_caller]
pub fn bmm(a: &Var, b: &Var) -> Var {
    check_dims("bmm", [("batch1", a, 3), ("batch2", b, 3)]);
    assert!(
        a.shape()[0] == b.shape()[0],
        "bmm: batch1 and batch2 must have the same number of matrices, got shapes {:?} and {:?}",
        a.shape(),
        b.shape()
    );
    lowered([a, b], |[a, b]| {
        check_types("bmm", a.dtype(), b.dtype());
        product("bmm", a, false, b, false)
    })
}

/// The product of a matrix and a vector (`torch.mv`).
///
/// # Panics
/// If the operands are not a matrix and a vector, the sizes do not fit, or the element types differ.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
/// assert_eq!(tapegrad_ops::mv(&a, &Var::from_vec(vec![1f32, 1.0], &[2])).to_vec::<f32>(), [3.0, 7.0]);
/// ```
#[track_caller]
pub fn mv(a: &Var, x: &Var) -> Var {
    check_dims("mv", [("input", a, 2), ("vec", x, 1)]);
    multiply("mv", a, x)
}

/// The sum of the products of two vectors' elements (`torch.dot`).
///
/// # Panics
/// If the operands are not vectors of one length, or the element types differ.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f32, 2.0], &[2]);
/// assert_eq!(tapegrad_ops::dot(&x, &x).item(), 5.0);
/// ```
#[track_caller]
pub fn dot(a: &Var, b: &Var) -> Var {
    inner_product("dot", a, b)
}

/// The same as [`dot`], since there are no complex numbers (`torch.vdot`).
///
/// # Panics
/// Same as [`dot`].
#[track_caller]
pub fn vdot(a: &Var, b: &Var) -> Var {
    inner_product("vdot", a, b)
}

#[track_caller]
fn inner_product(op: &'static str, a: &Var, b: &Var) -> Var {
    assert!(
        a.ndim() == 1 && b.ndim() == 1,
        "{op}: 1D tensors expected, but got {}D and {}D tensors (shapes {:?} and {:?})",
        a.ndim(),
        b.ndim(),
        a.shape(),
        b.shape()
    );
    assert!(
        a.numel() == b.numel(),
        "{op}: inconsistent tensor size, expected tensor {:?} and src {:?} to have the same number of elements",
        a.shape(),
        b.shape()
    );
    multiply(op, a, b)
}

/// All products of an element of one vector and one of the other: `[n]` and `[m]` give `[n, m]`
/// (`torch.outer`).
///
/// # Panics
/// If an operand is not a vector.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f32, 2.0], &[2]);
/// assert_eq!(tapegrad_ops::outer(&x, &x).to_vec::<f32>(), [1.0, 2.0, 2.0, 4.0]);
/// ```
#[track_caller]
pub fn outer(a: &Var, b: &Var) -> Var {
    check_dims("outer", [("self", a, 1), ("vec2", b, 1)]);
    if a.dtype() == b.dtype() && matches!(a.dtype(), DType::F32 | DType::F64) {
        return product("outer", &a.reshape((a.numel(), 1)), false, &row_of(b), false);
    }
    a.reshape((a.numel(), 1)).mul(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};
    use proptest::prelude::*;
    use tapegrad_tape::Tensor;

    fn counting(shape: &[usize]) -> Var {
        let n = shape.iter().product::<usize>() as i64;
        Var::from(Tensor::arange(0, n).cast(DType::F64).reshape(shape))
    }

    #[test]
    fn shapes_are_those_of_pytorch() {
        let cases: [(&[usize], &[usize], &[usize]); 9] = [
            (&[3], &[3], &[]),
            (&[2, 3], &[3], &[2]),
            (&[3], &[3, 4], &[4]),
            (&[3], &[5, 3, 4], &[5, 4]),
            (&[5, 2, 3], &[3], &[5, 2]),
            (&[5, 2, 3], &[3, 4], &[5, 2, 4]),
            (&[2, 3], &[5, 3, 4], &[5, 2, 4]),
            (&[6, 1, 2, 3], &[5, 3, 4], &[6, 5, 2, 4]),
            (&[2, 0], &[0, 4], &[2, 4]),
        ];
        for (a, b, want) in cases {
            let y = matmul(&counting(a), &counting(b));
            assert_eq!(y.shape(), want, "{a:?} x {b:?}");
        }
    }

    #[test]
    fn views_are_multiplied_where_they_lie() {
        let a = counting(&[4, 3, 2]);
        let t = Var::from(a.tensor().transpose(1, 2));
        let copy = Var::from(t.tensor().contiguous());
        assert_eq!(matmul(&t, &a).to_vec::<f64>(), matmul(&copy, &a).to_vec::<f64>());
        let wide = Var::from(counting(&[3]).tensor().expand(&[5, 2, 3]));
        assert_eq!(matmul(&wide, &counting(&[3])).to_vec::<f64>(), vec![5.0; 10]);
    }

    #[test]
    fn integers_are_multiplied_as_integers() {
        let a = Var::from_vec(vec![1i64 << 40, 1], &[1, 2]);
        assert_eq!(mm(&a, &Var::from_vec(vec![3i64, 4], &[2, 1])).to_vec::<i64>(), [(3 << 40) + 4]);
    }

    #[test]
    #[should_panic(expected = "mm: mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)")]
    fn sizes_that_do_not_fit() {
        mm(&counting(&[2, 3]), &counting(&[4, 5]));
    }

    #[test]
    #[should_panic(expected = "same dtype, but got float64 and float32")]
    fn types_are_not_mixed() {
        matmul(&counting(&[2, 2]), &counting(&[2, 2]).cast(DType::F32));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn gradients(m in 1usize..4, k in 0usize..4, n in 1usize..4, case in 0usize..7, seed: u64) {
            let shapes: [(Vec<usize>, Vec<usize>); 7] = [
                (vec![k], vec![k]),
                (vec![m, k], vec![k]),
                (vec![k], vec![2, k, n]),
                (vec![m, k], vec![k, n]),
                (vec![2, m, k], vec![k, n]),
                (vec![m, k], vec![2, k, n]),
                (vec![2, 1, m, k], vec![3, k, n]),
            ];
            let (a, b) = &shapes[case];
            check_gradients(|x| matmul(&x[0], &x[1]), &[parameter(a, seed), parameter(b, seed ^ 1)]);
        }
    }
}
