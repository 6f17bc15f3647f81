//! Linear algebra (`torch.linalg`), behind the feature `linalg`.
//!
//! Matrices are the last two dimensions; those before them are a batch. Factorizations are computed in F64 by the crate
//! `nalgebra`, for F32 as well, products by this crate's kernels. Derivatives are written in differentiable operations,
//! so those of higher order follow. The formulas are those of Giles 2008 ("Collected matrix derivative results for
//! forward and reverse mode algorithmic differentiation") where an operation names no other source.
//!
//! ```
//! use tapegrad_ops::linalg;
//! use tapegrad_tape::Var;
//! let a = Var::from_vec(vec![2f64, 1.0, 1.0, 3.0], &[2, 2]);
//! assert!((linalg::det(&a).item() - 5.0).abs() < 1e-12);
//! ```

mod cholesky;
mod cond;
mod det;
mod eigh;
mod inv;
mod lstsq;
mod matrix_exp;
mod matrix_power;
mod matrix_rank;
mod multi_dot;
mod norm;
mod pinv;
mod qr;
mod solve;
mod solve_triangular;
mod svd;
mod vecdot;

pub use crate::cross::{linalg_cross as cross, linalg_cross_with as cross_with};
pub use cholesky::{cholesky, cholesky_solve, cholesky_solve_with, cholesky_with};
pub use cond::{cond, cond_with};
pub use det::{det, logdet, slogdet};
pub use eigh::{Uplo, eigh, eigh_with, eigvalsh, eigvalsh_with};
pub use inv::inv;
pub use lstsq::{Driver, LeastSquares, lstsq, lstsq_with};
pub use matrix_exp::matrix_exp;
pub use matrix_power::matrix_power;
pub use matrix_rank::{matrix_rank, matrix_rank_with};
pub use multi_dot::multi_dot;
pub use norm::{NormOrd, matrix_norm, matrix_norm_with, norm, norm_with};
pub use pinv::{PinvOptions, pinv, pinv_with};
pub use qr::{QrMode, qr, qr_with};
pub use solve::{solve, solve_with};
pub use solve_triangular::{TriangularOptions, solve_triangular};
pub use svd::{svd, svd_with, svdvals};
pub use vecdot::{vecdot, vecdot_with};

use crate::product::product;
use std::sync::atomic::{AtomicUsize, Ordering};
use tapegrad_tape::kernels::list::list_for;
use tapegrad_tape::kernels::parallel::parallel_chunks;
use tapegrad_tape::shape::numel_for;
use tapegrad_tape::{DType, Tensor, Var};

/// Rows and columns of the matrices, checked to be of a type that can be factorized.
#[track_caller]
fn matrix_size(op: &str, a: &Var) -> [usize; 2] {
    assert!(
        a.ndim() >= 2,
        "{op}: the input tensor A must have at least 2 dimensions, but got shape {:?}",
        a.shape()
    );
    assert!(
        matches!(a.dtype(), DType::F32 | DType::F64),
        "{op}: expected a tensor of float32 or float64, but got {}",
        a.dtype()
    );
    [a.size(-2), a.size(-1)]
}

/// The size of matrices that have to be square.
#[track_caller]
fn square_size(op: &str, a: &Var) -> usize {
    let [m, n] = matrix_size(op, a);
    assert!(
        m == n,
        "{op}: A must be batches of square matrices, but they are {m} by {n} (shape {:?})",
        a.shape()
    );
    n
}

/// The dimensions before the last two.
fn batch(a: &[usize]) -> &[usize] {
    &a[..a.len() - 2]
}

/// The batch's shape and then other dimensions.
fn with_batch(a: &Var, last: &[usize]) -> Vec<usize> {
    [batch(a.shape()), last].concat()
}

/// Results of `len` numbers for each matrix of `a`, and the number of the first matrix for which `f` returned false.
#[track_caller]
fn each_matrix(
    op: &str,
    a: &Tensor,
    len: usize,
    f: impl Fn(&[f64], &mut [f64]) -> bool + Sync,
) -> Result<Vec<f64>, usize> {
    let count: usize = batch(a.shape()).iter().product();
    let a = a.cast(DType::F64).contiguous();
    let data = a.as_slice::<f64>().expect("contiguous");
    let each = data.len().checked_div(count).unwrap_or(0);
    let mut out = list_for(op, numel_for(op, &[count, len]), |_| 0.0);
    let failed = AtomicUsize::new(usize::MAX);
    parallel_chunks(&mut out, len, |i, out| {
        if !f(&data[i * each..][..each], out) {
            failed.fetch_min(i, Ordering::Relaxed);
        }
    });
    match failed.into_inner() {
        usize::MAX => Ok(out),
        first => Err(first),
    }
}

/// " for batch element 3" where there is a batch.
fn element(a: &Var, number: usize) -> String {
    if a.ndim() > 2 { format!(" (batch element {number})") } else { String::new() }
}

/// Consecutive parts of each row of `rows`, as tensors of these shapes in the type and with the batch of `a`.
fn split_rows<const N: usize>(a: &Var, rows: &[f64], shapes: [&[usize]; N]) -> [Tensor; N] {
    let len: usize = shapes.iter().map(|s| s.iter().product::<usize>()).sum();
    let mut start = 0;
    shapes.map(|shape| {
        let size: usize = shape.iter().product();
        let part: Vec<f64> =
            rows.chunks(len.max(1)).flat_map(|row| &row[start..start + size]).copied().collect();
        start += size;
        Tensor::from_vec(part, &with_batch(a, shape)).cast(a.dtype())
    })
}

/// The matrices transposed.
fn t(a: &Var) -> Var {
    a.transpose(-2, -1)
}

/// `A B`
#[track_caller]
fn mm(a: &Var, b: &Var) -> Var {
    product("matmul", a, false, b, false)
}

/// `A^T B`
#[track_caller]
fn tmm(a: &Var, b: &Var) -> Var {
    product("matmul", a, true, b, false)
}

/// `A B^T`
#[track_caller]
fn mmt(a: &Var, b: &Var) -> Var {
    product("matmul", a, false, b, true)
}

/// Ones on the diagonal.
fn identity(n: usize, dtype: DType) -> Var {
    let data = (0..n * n).map(|i| f64::from(u8::from(i / n == i % n))).collect();
    Var::from(Tensor::from_vec(data, &[n, n]).cast(dtype))
}

/// Vectors as the diagonals of matrices.
fn diagonal(v: &Var) -> Var {
    v.unsqueeze(-1).mul(identity(v.size(-1), v.dtype()))
}
