//! `linalg.lstsq`.

use super::pinv::pinv_named;
use super::{PinvOptions, batch, matrix_rank_with, matrix_size, mm, svdvals};
use crate::product::check_types;
use tapegrad_tape::shape::broadcast_for;
use tapegrad_tape::{DType, Tensor, Var, no_grad};

/// Which of LAPACK's functions PyTorch would call. The solution is the same; what is returned with it differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// For matrices of full rank: no rank, no singular values.
    Gels,
    /// The default: the rank, but no residuals.
    #[default]
    Gelsy,
    /// All results.
    Gelsd,
    /// All results.
    Gelss,
}

/// The results of [`lstsq`].
pub struct LeastSquares {
    /// The `X` with the smallest `|A X - B|`, and of several the smallest.
    pub solution: Var,
    /// The squared norms of the columns of `A X - B`; empty unless there are more rows than columns, every matrix has
    /// full rank, and the driver computes them.
    pub residuals: Var,
    /// The ranks of the matrices, as I64; empty for [`Driver::Gels`].
    pub rank: Var,
    /// The singular values of the matrices; empty for [`Driver::Gels`] and [`Driver::Gelsy`].
    pub singular_values: Var,
}

/// The least-squares solution of `A X = B` for matrices `[..., m, n]` (`torch.linalg.lstsq`).
///
/// `b` is `[..., m, k]`, or one vector for each matrix. Singular values up to `rcond` times the largest count as zero; by
/// default that is the larger size times the type's epsilon. Solutions are computed by the pseudo-inverse.
///
/// # Panics
/// If the shapes do not fit, or there are elements that are not finite.
///
/// ```
/// use tapegrad_ops::linalg::{Driver, lstsq_with};
/// use tapegrad_tape::Var;
/// // The line through (0, 1), (1, 3), (2, 5): 1 + 2 x.
/// let a = Var::from_vec(vec![1f64, 0.0, 1.0, 1.0, 1.0, 2.0], &[3, 2]);
/// let b = Var::from_vec(vec![1f64, 3.0, 5.0], &[3, 1]);
/// let line = lstsq_with(&a, &b, None, Driver::Gelsd).solution.to_vec::<f64>();
/// assert!((line[0] - 1.0).abs() < 1e-12 && (line[1] - 2.0).abs() < 1e-12);
/// ```
#[track_caller]
pub fn lstsq(a: &Var, b: &Var) -> LeastSquares {
    lstsq_with(a, b, None, Driver::Gelsy)
}

/// [`lstsq`] with another tolerance and driver.
///
/// # Panics
/// Same as [`lstsq`].
#[track_caller]
pub fn lstsq_with(a: &Var, b: &Var, rcond: impl Into<Option<f64>>, driver: Driver) -> LeastSquares {
    let op = "linalg.lstsq";
    let [m, n] = matrix_size(op, a);
    check_types(op, a.dtype(), b.dtype());
    let vectors = b.ndim() + 1 == a.ndim();
    assert!(
        vectors || b.ndim() >= 2,
        "{op}: b must have at least one dimension less than A, but the shapes are {:?} and {:?}",
        a.shape(),
        b.shape()
    );
    let columns = if vectors { b.unsqueeze(-1) } else { b.clone() };
    assert!(
        columns.size(-2) == m,
        "{op}: A and b must have the same number of rows, but the shapes are {:?} and {:?}",
        a.shape(),
        b.shape()
    );
    let all = broadcast_for(op, batch(a.shape()), batch(columns.shape()));
    let a = &a.expand_to(&[&all[..], &[m, n]].concat());
    let options = PinvOptions { rtol: rcond.into().map(Into::into), ..Default::default() };
    let x = mm(&pinv_named(op, a, &options), &columns);
    let none = |dtype: DType| Var::from(Tensor::zeros_with(&[0], dtype));
    let by_svd = matches!(driver, Driver::Gelsd | Driver::Gelss);
    let rank = no_grad(|| matrix_rank_with(a, options));
    let full = driver == Driver::Gels || rank.eq(n as i64).all(()).item() == 1.0;
    let residuals = if m > n && full && driver != Driver::Gelsy {
        (mm(a, &x) - &columns).square().sum(-2)
    } else {
        // Nothing, as a function of both.
        let nothing = |v: &Var| v.flatten(()).narrow(0, 0isize, 0);
        nothing(a) + nothing(&columns)
    };
    LeastSquares {
        solution: if vectors { x.squeeze(-1) } else { x },
        residuals,
        rank: if driver == Driver::Gels { none(DType::I64) } else { rank },
        singular_values: if by_svd { no_grad(|| svdvals(a)) } else { none(a.dtype()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn solutions_residuals_and_gradients() {
        for (a, b) in [(&[4, 2][..], &[4, 3][..]), (&[2, 3, 3], &[2, 3, 1]), (&[2, 4], &[2])] {
            let both = [parameter(a, 1), parameter(b, 2)];
            check_gradients(|v| lstsq_with(&v[0], &v[1], None, Driver::Gelsd).solution, &both);
            if a == [4, 2] {
                check_gradients(|v| lstsq_with(&v[0], &v[1], None, Driver::Gels).residuals, &both);
            }
        }
    }

    #[test]
    fn what_each_driver_returns() {
        let (a, b) = (parameter(&[5, 4, 2], 1), parameter(&[5, 4, 3], 2));
        for (driver, sizes) in [
            (Driver::Gels, [15, 0, 0]),
            (Driver::Gelsy, [0, 5, 0]),
            (Driver::Gelsd, [15, 5, 10]),
            (Driver::Gelss, [15, 5, 10]),
        ] {
            let found = lstsq_with(&a, &b, None, driver);
            let got = [&found.residuals, &found.rank, &found.singular_values].map(Var::numel);
            assert_eq!(got, sizes, "{driver:?}");
        }
    }
}
