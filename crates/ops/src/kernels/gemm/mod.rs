//! Matrix products: `C = alpha * A B + beta * C + bias` for `f32` and `f64`.
//!
//! Products in `f32` are our own, built on the register tile and tuned for the layers of small models; products in
//! `f64` are computed by the crate `gemm`. Work is partitioned by the sizes alone, so results are bit-identical for any
//! number of threads.

mod amx;
mod blocked;
mod dots;
mod double;
mod sgemm;
mod vector;

pub(crate) use amx::takes_bf16;

use tapegrad_tape::{Float, Number, bf16};

/// More multiplications would take weeks, and their operands fit in memory only if strides are zero. Up to this limit
/// no size of a packed operand overflows.
pub(crate) const MAX_STEPS: usize = usize::MAX >> 8;

/// A matrix in a slice: element (i, j) is `data[i * row + j * column]`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    /// The elements.
    pub data: &'a [T],
    /// Distance between rows, in elements.
    pub row: usize,
    /// Distance between columns, in elements.
    pub column: usize,
}

impl<'a, T> View<'a, T> {
    /// A matrix with rows of `columns` contiguous elements.
    pub fn rows(data: &'a [T], columns: usize) -> Self {
        View { data, row: columns, column: 1 }
    }

    /// The same matrix with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        View { data: self.data, row: self.column, column: self.row }
    }

    /// Asserts that all elements of a matrix of this size are inside the slice.
    #[track_caller]
    fn check(&self, name: &str, rows: usize, columns: usize) {
        if rows > 0 && columns > 0 {
            let last =
                (rows - 1).saturating_mul(self.row).saturating_add((columns - 1).saturating_mul(self.column));
            assert!(
                last < self.data.len(),
                "matrix product: {name} [{rows}, {columns}] with strides ({}, {}) needs {} elements, not {}",
                self.row,
                self.column,
                last.saturating_add(1),
                self.data.len()
            );
        }
    }
}

/// Terms added to a product.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Bias<'a, T> {
    /// None.
    #[default]
    None,
    /// One for each column of C: the bias of a linear layer whose rows are samples.
    Columns(&'a [T]),
    /// One for each row of C.
    Rows(&'a [T]),
}

/// What a product is stored as: `C = alpha * product + beta * C + bias`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finish<'a, T> {
    /// Factor of the product.
    pub alpha: T,
    /// Factor of the old C, which is not read if this is zero.
    pub beta: T,
    /// Added after that.
    pub bias: Bias<'a, T>,
}

impl<T: Float> Default for Finish<'_, T> {
    /// Stores the product alone.
    fn default() -> Self {
        Finish { alpha: T::ONE, beta: T::ZERO, bias: Bias::None }
    }
}

impl<T> Finish<'_, T> {
    /// The same for the transposed product.
    fn transposed(self) -> Self {
        let bias = match self.bias {
            Bias::None => Bias::None,
            Bias::Rows(b) => Bias::Columns(b),
            Bias::Columns(b) => Bias::Rows(b),
        };
        Finish { bias, ..self }
    }
}

/// The types that have matrix products: `f32` and `f64`.
pub trait Real: Float {
    /// The product of checked operands, all sizes nonzero except possibly `k`. Use [`matmul`].
    #[doc(hidden)]
    fn product(
        size: [usize; 3],
        a: View<Self>,
        b: View<Self>,
        c: &mut [Self],
        row: usize,
        finish: Finish<Self>,
    );
}

impl Real for f32 {
    fn product(size: [usize; 3], a: View<f32>, b: View<f32>, c: &mut [f32], row: usize, finish: Finish<f32>) {
        sgemm::product(size, a, b, c, row, finish);
    }
}

impl Real for f64 {
    fn product(size: [usize; 3], a: View<f64>, b: View<f64>, c: &mut [f64], row: usize, finish: Finish<f64>) {
        double::product(size, a, b, c, row, finish);
    }
}

/// The product of `a` (m, k) and `b` (k, n) into `c` (m, n), whose rows are contiguous and `row` elements apart;
/// `size` is `[m, n, k]`.
///
/// ```
/// use tapegrad_ops::kernels::gemm::{Finish, View, matmul};
///
/// let (a, b) = ([1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 0.0, 1.0]);
/// let mut c = [0.0; 4];
/// // [[1, 2], [3, 4]] times the transpose of [[1, 1], [0, 1]]
/// matmul([2, 2, 2], View::rows(&a, 2), View::rows(&b, 2).transposed(), &mut c, 2, Finish::default());
/// assert_eq!(c, [3.0, 2.0, 7.0, 4.0]);
/// ```
///
/// # Panics
/// If a slice is too short for its matrix, or `row` is less than `n`.
#[track_caller]
pub fn matmul<T: Real>(size: [usize; 3], a: View<T>, b: View<T>, c: &mut [T], row: usize, finish: Finish<T>) {
    check(size, a, b, c, row, finish);
    if size[0] > 0 && size[1] > 0 {
        T::product(size, a, b, c, row, finish);
    }
}

/// [`matmul`] of operands in BF16: products are exact, sums are F32.
///
/// # Panics
/// If [`takes_bf16`] is false for the size, and as [`matmul`].
#[track_caller]
pub(crate) fn matmul_bf16(
    size: [usize; 3],
    a: View<bf16>,
    b: View<bf16>,
    c: &mut [f32],
    row: usize,
    finish: Finish<f32>,
) {
    check(size, a, b, c, row, finish);
    assert!(
        takes_bf16(size),
        "matrix product: bfloat16 operands of size {size:?} have to be converted first"
    );
    amx::product(size, a, b, c, row, finish, None);
}

#[track_caller]
fn check<T, S: Number>(
    [m, n, k]: [usize; 3],
    a: View<T>,
    b: View<T>,
    c: &[S],
    row: usize,
    finish: Finish<S>,
) {
    let steps = m.checked_mul(n).and_then(|steps| steps.checked_mul(k));
    assert!(
        steps.is_some_and(|steps| steps <= MAX_STEPS),
        "matrix product: [{m}, {k}] times [{k}, {n}] takes more than {MAX_STEPS} steps"
    );
    a.check("A", m, k);
    b.check("B", k, n);
    View { data: c, row, column: 1 }.check("C", m, n);
    assert!(row >= n || m <= 1, "matrix product: rows of C are {row} apart but have {n} elements");
    match finish.bias {
        Bias::None => {}
        Bias::Columns(bias) => assert_eq!(bias.len(), n, "matrix product: a bias for each of {n} columns"),
        Bias::Rows(bias) => assert_eq!(bias.len(), m, "matrix product: a bias for each of {m} rows"),
    }
}

#[cfg(test)]
mod tests;
