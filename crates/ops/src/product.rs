//! The product of matrices that `matmul`, `linear` and their relatives record.

use crate::kernels::gemm::{Bias, Finish, MAX_STEPS, takes_bf16};
use crate::kernels::matmul::{Operand, Product, ProductSize, matmul_into, replace};
use tapegrad_tape::shape::{self, Dims};
use tapegrad_tape::{DType, Element, Number, RecordOptions, Tensor, Var, bf16, record_with};

/// The product of two variables whose last two dimensions are matrices, each taken as it is or transposed; the
/// dimensions before them are broadcast.
///
/// The derivatives of a product are products of the same kind, so the rule transposes by flags, without copies.
#[track_caller]
pub(crate) fn product(op: &'static str, a: &Var, ta: bool, b: &Var, tb: bool) -> Var {
    let value = product_value(op, &a.tensor(), ta, &b.tensor(), tb, Addend::Nothing);
    let x = b.requires_grad().then(|| a.saved());
    let y = a.requires_grad().then(|| b.saved());
    let terms = |t: &[Option<Var>]| {
        let of_a = t[0].as_ref().map(|t| product(op, t, ta, b, tb));
        vec![of_a, t[1].as_ref().map(|t| product(op, a, ta, t, tb))]
    };
    record_with(op, [a, b], value, RecordOptions::new().forward(&terms), move |c| {
        let g = c.grad();
        [
            c.wants(0).then(|| left_gradient(op, g, ta, other(&y), tb)),
            c.wants(1).then(|| right_gradient(op, g, other(&x), ta, tb)),
        ]
    })
}

fn other(saved: &Option<Var>) -> &Var {
    saved.as_ref().expect("saved, since the other operand requires a gradient")
}

/// The gradient for `a` of `op(a) x op(b)`.
#[track_caller]
pub(crate) fn left_gradient(op: &'static str, g: &Var, ta: bool, b: &Var, tb: bool) -> Var {
    if ta { product(op, b, tb, g, true) } else { product(op, g, false, b, !tb) }
}

/// The gradient for `b` of `op(a) x op(b)`.
#[track_caller]
pub(crate) fn right_gradient(op: &'static str, g: &Var, a: &Var, ta: bool, tb: bool) -> Var {
    if tb { product(op, g, true, a, ta) } else { product(op, a, !ta, g, false) }
}

/// Checks that two operands have one element type in which products exist.
#[track_caller]
pub(crate) fn check_types(op: &str, a: DType, b: DType) {
    assert!(a == b, "{op}: expected both operands to have the same dtype, but got {a} and {b}");
    assert!(a != DType::Bool, "{op}: products are not defined for bool; cast first");
}

/// What is added to a product.
pub(crate) enum Addend {
    /// Nothing.
    Nothing,
    /// The same row to all rows.
    Bias(Tensor),
    /// This tensor of the result's shape; the product is multiplied by the factor first.
    Scaled(Tensor, f64),
}

impl Addend {
    fn cast(self, dtype: DType) -> Addend {
        match self {
            Addend::Nothing => Addend::Nothing,
            Addend::Bias(t) => Addend::Bias(t.cast(dtype)),
            Addend::Scaled(t, factor) => Addend::Scaled(t.cast(dtype), factor),
        }
    }
}

/// The product of two tensors plus something.
#[track_caller]
pub(crate) fn product_value(
    op: &'static str,
    a: &Tensor,
    ta: bool,
    b: &Tensor,
    tb: bool,
    addend: Addend,
) -> Tensor {
    let dtype = a.dtype();
    let wide = match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        DType::U8 => DType::I64,
        other => other,
    };
    if dtype == DType::BF16 && takes_bf16(matrix_size(a, ta, b, tb)) {
        return multiply::<bf16>(op, a, ta, b, tb, addend.cast(wide)).cast(dtype);
    }
    if wide != dtype {
        return product_value(op, &a.cast(wide), ta, &b.cast(wide), tb, addend.cast(wide)).cast(dtype);
    }
    tapegrad_tape::dispatch!(number: dtype, op, T => multiply::<T>(op, a, ta, b, tb, addend))
}

/// Rows, columns and steps of the product of two matrices.
fn matrix_size(a: &Tensor, ta: bool, b: &Tensor, tb: bool) -> [usize; 3] {
    let ([m, k], [_, n]) = (Matrices::new(a, ta).sizes, Matrices::new(b, tb).sizes);
    [m, n, k]
}

/// A tensor's matrices: sizes and strides of the dimensions before the last two, then of those.
struct Matrices {
    batch: Dims,
    batch_strides: Dims,
    sizes: [usize; 2],
    strides: [usize; 2],
}

impl Matrices {
    fn new(t: &Tensor, transposed: bool) -> Matrices {
        let lead = t.ndim() - 2;
        let (r, c) = if transposed { (lead + 1, lead) } else { (lead, lead + 1) };
        Matrices {
            batch: Dims::from_slice(&t.shape()[..lead]),
            batch_strides: Dims::from_slice(&t.strides()[..lead]),
            sizes: [t.shape()[r], t.shape()[c]],
            strides: [t.strides()[r], t.strides()[c]],
        }
    }

    /// Where each matrix of the broadcast batch starts.
    fn offsets(&self, batch: &[usize]) -> Dims {
        let strides = shape::broadcast_strides(&self.batch, &self.batch_strides, batch);
        let mut offsets = one_matrix();
        for (&n, &s) in batch.iter().zip(&strides) {
            offsets = offsets.iter().flat_map(|&o| (0..n).map(move |i| o + i * s)).collect();
        }
        offsets
    }
}

/// The offset of a matrix at the start of its memory.
fn one_matrix() -> Dims {
    Dims::from_elem(0, 1)
}

#[track_caller]
fn multiply<T: Product>(
    op: &'static str,
    a: &Tensor,
    ta: bool,
    b: &Tensor,
    tb: bool,
    addend: Addend,
) -> Tensor {
    let (x, y) = (Matrices::new(a, ta), Matrices::new(b, tb));
    let ([m, k], [k2, n]) = (x.sizes, y.sizes);
    assert!(
        k == k2,
        "{op}: mat1 and mat2 shapes cannot be multiplied ({m}x{k} and {k2}x{n}): shapes {:?}{} and {:?}{}",
        a.shape(),
        if ta { " transposed" } else { "" },
        b.shape(),
        if tb { " transposed" } else { "" },
    );
    let batch = shape::broadcast_for(op, &x.batch, &y.batch);
    let mut result = batch.clone();
    result.extend([m, n]);
    shape::numel_for(op, &result);
    let (mut out, bias, finish) = match addend {
        Addend::Nothing => (Tensor::uninit(&result, T::Sum::DTYPE), None, replace()),
        Addend::Bias(t) => {
            let bias = if t.shape() == [n] { t } else { t.expand(&[n]) };
            (Tensor::uninit(&result, T::Sum::DTYPE), Some(bias.contiguous()), replace())
        }
        Addend::Scaled(t, factor) => {
            let finish = Finish { alpha: T::Sum::from_f64(factor), beta: T::Sum::ONE, ..replace() };
            (t.expand(&result).contiguous(), None, finish)
        }
    };
    let bias =
        bias.as_ref().map_or(Bias::None, |b| Bias::Columns(b.as_slice::<T::Sum>().expect("contiguous")));
    let count = shape::numel(&batch);
    let flops = [count, m, n, k].iter().fold(2, |flops: u64, &n| flops.saturating_mul(n as u64));
    assert!(
        flops <= MAX_STEPS as u64,
        "{op}: the product of shapes {:?} and {:?} takes more than {MAX_STEPS} steps",
        a.shape(),
        b.shape()
    );
    tapegrad_tape::note_flops(flops);
    // Many matrices times the same one are one tall matrix, if their strides allow that view.
    let tall =
        (!ta && count > 1 && shape::numel(&y.batch) == 1).then(|| a.try_view(&[count * m, k])).flatten();
    let (size, left, ones) = match &tall {
        Some(tall) => (ProductSize { m: count * m, n, k }, [tall.strides()[0], tall.strides()[1]], true),
        None => (ProductSize { m, n, k }, x.strides, false),
    };
    let (ao, bo) = if ones { (one_matrix(), one_matrix()) } else { (x.offsets(&batch), y.offsets(&batch)) };
    let left = Operand { data: a.data::<T>(), strides: left, offsets: &ao };
    let right = Operand { data: b.data::<T>(), strides: y.strides, offsets: &bo };
    matmul_into(size, left, right, out.make_mut::<T::Sum>(), Finish { bias, ..finish });
    out
}
