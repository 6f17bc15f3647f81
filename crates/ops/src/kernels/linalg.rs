//! Factorizations of matrices in F64 by the crate `nalgebra`. LU and Cholesky are blocked, so that most of their work is
//! matrix products.

use super::gemm::{Bias, Finish, View, matmul};
use nalgebra::{Cholesky, DMatrix, DVector, LU, QR, SVD, SymmetricEigen};
use tapegrad_tape::Float;

/// The columns that are factorized at once.
const PANEL: usize = 16;
/// The largest triangle that is solved by substitution.
const TRIANGLE: usize = 32;

/// `C - A B` in place of `C`.
const SUBTRACT: Finish<f64> = Finish { alpha: -1.0, beta: 1.0, bias: Bias::None };

/// The LU decomposition of an `n` x `n` matrix with its rows in another order.
pub(crate) struct Factors {
    /// `U`, and below its diagonal `L`, whose diagonal of ones is left out.
    pub(crate) lu: Vec<f64>,
    /// Which row of the matrix each row is.
    pub(crate) order: Vec<usize>,
    /// The sign of that permutation.
    pub(crate) sign: f64,
}

impl Factors {
    /// Factorizes a row-major matrix with partial pivoting.
    pub(crate) fn new(a: &[f64], n: usize) -> Factors {
        let mut f = Factors { lu: a.to_vec(), order: (0..n).collect(), sign: 1.0 };
        for start in (0..n).step_by(PANEL) {
            f.eliminate(start, PANEL.min(n - start), n);
        }
        f
    }

    /// Factorizes the columns `start .. start + width` and updates those after them.
    fn eliminate(&mut self, start: usize, width: usize, n: usize) {
        let a = &mut self.lu;
        let panel = LU::new(DMatrix::from_fn(n - start, width, |r, c| a[(start + r) * n + start + c]));
        let mut rows = DVector::from_iterator(n - start, 0..n - start);
        panel.p().permute_rows(&mut rows);
        self.sign *= panel.p().determinant::<f64>();
        let (old, old_order) = (a[start * n..].to_vec(), self.order[start..].to_vec());
        for (r, &from) in rows.iter().enumerate() {
            let row = &mut a[(start + r) * n..][..n];
            row.copy_from_slice(&old[from * n..][..n]);
            row[start..start + width]
                .iter_mut()
                .zip(panel.lu_internal().row(r).iter())
                .for_each(|(x, &v)| *x = v);
            self.order[start + r] = old_order[from];
        }
        let next = start + width;
        if next == n {
            return;
        }
        let corner: Vec<f64> =
            (0..width).flat_map(|r| a[(start + r) * n + start..][..width].to_vec()).collect();
        let left: Vec<f64> = (next..n).flat_map(|r| a[r * n + start..][..width].to_vec()).collect();
        let (above, below) = a.split_at_mut(next * n);
        let right = &mut above[start * n + next..];
        solve_triangular(View::rows(&corner, width), width, Side::LOWER_UNIT, right, n - next, n);
        let size = [n - next, n - next, width];
        matmul(size, View::rows(&left, width), View::rows(right, n), &mut below[next..], n, SUBTRACT);
    }

    /// Solves `A X = B` for `b` of `k` columns, or the system of the transposed matrix.
    pub(crate) fn solve(&self, b: &[f64], k: usize, transposed: bool, x: &mut [f64]) {
        let n = self.order.len();
        let lu = View::rows(&self.lu, n);
        if transposed {
            let mut y = b.to_vec();
            solve_triangular(lu.transposed(), n, Side { upper: false, unit: false }, &mut y, k, k);
            solve_triangular(lu.transposed(), n, Side { upper: true, unit: true }, &mut y, k, k);
            for (row, &to) in y.chunks_exact(k).zip(&self.order) {
                x[to * k..][..k].copy_from_slice(row);
            }
        } else {
            for (row, &from) in x.chunks_exact_mut(k).zip(&self.order) {
                row.copy_from_slice(&b[from * k..][..k]);
            }
            solve_triangular(lu, n, Side::LOWER_UNIT, x, k, k);
            solve_triangular(lu, n, Side { upper: true, unit: false }, x, k, k);
        }
    }

    /// The diagonal of `U`.
    pub(crate) fn diagonal(&self) -> impl Iterator<Item = f64> {
        let n = self.order.len();
        (0..n).map(move |i| self.lu[i * n + i])
    }
}

/// Which triangle of a matrix is read, and whether its diagonal counts as ones.
#[derive(Clone, Copy)]
pub(crate) struct Side {
    pub(crate) upper: bool,
    pub(crate) unit: bool,
}

impl Side {
    const LOWER_UNIT: Side = Side { upper: false, unit: true };
}

/// Solves `A X = B` in place of `b`, whose `n` rows of `k` columns are `stride` apart, for a triangular `A`.
pub(crate) fn solve_triangular(a: View<f64>, n: usize, side: Side, b: &mut [f64], k: usize, stride: usize) {
    if n == 0 || k == 0 {
        return;
    }
    if n <= TRIANGLE {
        return substitute(a, n, side, b, k, stride);
    }
    let half = n / 2;
    let part = |row: usize, column: usize| View { data: &a.data[row * a.row + column * a.column..], ..a };
    let (top, bottom) = b.split_at_mut(half * stride);
    if side.upper {
        solve_triangular(part(half, half), n - half, side, bottom, k, stride);
        let bottom = View { data: &*bottom, row: stride, column: 1 };
        matmul([half, k, n - half], part(0, half), bottom, top, stride, SUBTRACT);
        solve_triangular(a, half, side, top, k, stride);
    } else {
        solve_triangular(a, half, side, top, k, stride);
        let top = View { data: &*top, row: stride, column: 1 };
        matmul([n - half, k, half], part(half, 0), top, bottom, stride, SUBTRACT);
        solve_triangular(part(half, half), n - half, side, bottom, k, stride);
    }
}

fn substitute(a: View<f64>, n: usize, side: Side, b: &mut [f64], k: usize, stride: usize) {
    let at = |i: usize, j: usize| a.data[i * a.row + j * a.column];
    for step in 0..n {
        let i = if side.upper { n - 1 - step } else { step };
        let (before, rest) = b.split_at_mut(i * stride);
        let (row, after) = rest.split_at_mut(stride.min(rest.len()));
        let row = &mut row[..k];
        let solved = if side.upper { i + 1..n } else { 0..i };
        for j in solved {
            let known =
                if side.upper { &after[(j - i - 1) * stride..][..k] } else { &before[j * stride..][..k] };
            subtract(row, known, at(i, j));
        }
        if !side.unit {
            let d = at(i, i);
            row.iter_mut().for_each(|x| *x /= d);
        }
    }
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn subtract<T: Float>(y: &mut [T], x: &[T], factor: T) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = *y - x * factor;
        }
    }
}

/// `L` with `L L^T = A` in place of `A`, of which the lower triangle is read; false if `A` is not positive definite.
pub(crate) fn cholesky(a: &mut [f64], n: usize) -> bool {
    for start in (0..n).step_by(TRIANGLE) {
        let width = TRIANGLE.min(n - start);
        let next = start + width;
        let corner = DMatrix::from_fn(width, width, |r, c| a[(start + r) * n + start + c]);
        let Some(corner) = Cholesky::new(corner) else { return false };
        let corner = corner.unpack();
        for r in 0..width {
            let row = &mut a[(start + r) * n..][..n];
            row[next..].fill(0.0);
            row[start..next].iter_mut().zip(corner.row(r).iter()).for_each(|(x, &v)| *x = v);
        }
        let rows = n - next;
        if rows == 0 {
            break;
        }
        // L21^T, from L11 L21^T = A21^T.
        let mut left: Vec<f64> = (0..width)
            .flat_map(|c| (next..n).map(move |r| (r, c)))
            .map(|(r, c)| a[r * n + start + c])
            .collect();
        let lower = View { data: corner.as_slice(), row: 1, column: width };
        solve_triangular(lower, width, Side { upper: false, unit: false }, &mut left, rows, rows);
        for r in 0..rows {
            for c in 0..width {
                a[(next + r) * n + start + c] = left[c * rows + r];
            }
        }
        let left = View::rows(&left, rows);
        matmul([rows, rows, width], left.transposed(), left, &mut a[next * n + next..], n, SUBTRACT);
    }
    true
}

/// The tolerance of the iterations below, relative to the largest element.
const EPSILON: f64 = 5.0 * f64::EPSILON;

/// Eigenvalues, the smallest first, and the eigenvectors as columns of `vectors`; false if they cannot be found.
pub(crate) fn eigh(a: &[f64], n: usize, values: &mut [f64], vectors: &mut [f64]) -> bool {
    if n == 0 {
        return true;
    }
    if a.iter().any(|x| !x.is_finite()) {
        return false;
    }
    let Some(e) = SymmetricEigen::try_new(DMatrix::from_row_slice(n, n, a), EPSILON, 100 * n + 1000) else {
        return false;
    };
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| e.eigenvalues[i].total_cmp(&e.eigenvalues[j]));
    for (c, &from) in order.iter().enumerate() {
        values[c] = e.eigenvalues[from];
        for r in 0..n {
            vectors[r * n + c] = e.eigenvectors[(r, from)];
        }
    }
    true
}

/// `A = U diag(S) V^T` with the `k` largest singular values, `k` the smaller size; false if they cannot be found.
pub(crate) fn svd(a: &[f64], [m, n]: [usize; 2], u: &mut [f64], s: &mut [f64], vh: &mut [f64]) -> bool {
    let k = m.min(n);
    if k == 0 {
        return true;
    }
    if a.iter().any(|x| !x.is_finite()) {
        return false;
    }
    let vectors = !u.is_empty();
    let a = DMatrix::from_row_slice(m, n, a);
    let Some(svd) = SVD::try_new(a, vectors, vectors, EPSILON, 100 * k + 1000) else { return false };
    s.copy_from_slice(svd.singular_values.as_slice());
    if let (Some(left), Some(right)) = (svd.u, svd.v_t) {
        copy_rows(&left, u);
        copy_rows(&right, vh);
    }
    true
}

/// `A = Q R` with `k` columns and rows, `k` the smaller size, and a diagonal of `R` that is not negative.
pub(crate) fn qr(a: &[f64], [m, n]: [usize; 2], q: &mut [f64], r: &mut [f64]) {
    let qr = QR::new(DMatrix::from_row_slice(m, n, a));
    copy_rows(&qr.q(), q);
    copy_rows(&qr.r(), r);
}

fn copy_rows(from: &DMatrix<f64>, to: &mut [f64]) {
    let columns = from.ncols();
    for (i, x) in to.iter_mut().enumerate() {
        *x = from[(i / columns, i % columns)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    fn product(a: &[f64], b: &[f64], [m, n, k]: [usize; 3]) -> Vec<f64> {
        let at = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
        (0..m * n).map(|i| at(i / n, i % n)).collect()
    }

    #[track_caller]
    fn assert_near(a: &[f64], b: &[f64]) {
        let worst = a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
        assert!(a.len() == b.len() && worst < 1e-10, "off by {worst}");
    }

    #[test]
    fn solutions_of_every_size() {
        for n in [1, 2, 15, 16, 17, 40, 100] {
            let (a, b) = (numbers(n * n, 1), numbers(n * 3, 2));
            let f = Factors::new(&a, n);
            let mut x = vec![0.0; n * 3];
            f.solve(&b, 3, false, &mut x);
            assert_near(&product(&a, &x, [n, 3, n]), &b);
            f.solve(&b, 3, true, &mut x);
            let t: Vec<f64> = (0..n * n).map(|i| a[i % n * n + i / n]).collect();
            assert_near(&product(&t, &x, [n, 3, n]), &b);
        }
    }

    #[test]
    fn positive_definite_matrices_of_every_size() {
        for n in [1, 2, 31, 32, 33, 70] {
            let a = numbers(n * n, 3);
            let t: Vec<f64> = (0..n * n).map(|i| a[i % n * n + i / n]).collect();
            let mut square = product(&a, &t, [n, n, n]);
            (0..n).for_each(|i| square[i * n + i] += 1.0);
            let mut l = square.clone();
            assert!(cholesky(&mut l, n));
            assert!((0..n * n).all(|i| i % n <= i / n || l[i] == 0.0));
            let t: Vec<f64> = (0..n * n).map(|i| l[i % n * n + i / n]).collect();
            assert_near(&product(&l, &t, [n, n, n]), &square);
        }
        assert!(!cholesky(&mut [1.0, 2.0, 2.0, 1.0], 2));
    }

    #[test]
    fn singular_values_of_every_rank() {
        for ([m, n], rank) in [
            ([6, 4], 4),
            ([4, 6], 2),
            ([9, 9], 1),
            ([20, 20], 7),
            ([5, 5], 0),
            ([3, 3], 2),
            ([2, 2], 1),
            ([1, 4], 1),
        ] {
            let a = product(&numbers(m * rank, 4), &numbers(rank * n, 5), [m, n, rank]);
            let k = m.min(n);
            let (mut u, mut s, mut vh) = (vec![0.0; m * k], vec![0.0; k], vec![0.0; k * n]);
            assert!(svd(&a, [m, n], &mut u, &mut s, &mut vh));
            let scaled: Vec<f64> = u.iter().enumerate().map(|(i, x)| x * s[i % k]).collect();
            assert_near(&product(&scaled, &vh, [m, n, k]), &a);
            assert!(s.windows(2).all(|w| w[0] >= w[1]) && s[rank..].iter().all(|&x| x < 1e-12), "{s:?}");
            let t: Vec<f64> = (0..k * m).map(|i| u[i % m * k + i / m]).collect();
            let identity: Vec<f64> = (0..k * k).map(|i| f64::from(u8::from(i / k == i % k))).collect();
            assert_near(&product(&t, &u, [k, k, m]), &identity);
        }
    }
}
