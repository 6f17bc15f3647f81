//! `linalg.matrix_power`.

use super::inv::inv_named;
use super::{identity, mm, square_size};
use tapegrad_tape::{Int, Var};

/// The `n`-th power of square matrices, of the inverse for a negative `n`, by repeated squaring
/// (`torch.linalg.matrix_power`).
///
/// # Panics
/// If the matrices are not square, or `n` is negative and they are singular.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![1f64, 1.0, 0.0, 1.0], &[2, 2]);
/// assert_eq!(tapegrad_ops::linalg::matrix_power(&a, 5).to_vec::<f64>(), [1.0, 5.0, 0.0, 1.0]);
/// ```
#[track_caller]
pub fn matrix_power(a: &Var, n: impl Int) -> Var {
    let n = n.to_i64();
    let op = "linalg.matrix_power";
    let size = square_size(op, a);
    if n == 0 {
        // With a gradient of zeros.
        return a * 0.0 + identity(size, a.dtype());
    }
    let mut square = if n < 0 { inv_named(op, a) } else { a.clone() };
    let mut left = n.unsigned_abs();
    let mut power: Option<Var> = None;
    loop {
        if left & 1 == 1 {
            power = Some(power.map_or_else(|| square.clone(), |p| mm(&p, &square)));
        }
        left >>= 1;
        match power {
            Some(power) if left == 0 => return power,
            _ => square = mm(&square, &square),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};

    #[test]
    fn powers_and_gradients() {
        let a = parameter(&[2, 3, 3], 1);
        for n in [1, 2, 3, 6, -1, -3] {
            check_gradients(|v| matrix_power(&v[0], n), std::slice::from_ref(&a));
        }
        assert_close(
            &mm(&matrix_power(&a, -3), &matrix_power(&a, 3)),
            &identity(3, a.dtype()).expand(&[2, 3, 3]),
            1e-9,
        );
        assert_close(&matrix_power(&a, 0), &identity(3, a.dtype()).expand(&[2, 3, 3]), 0.0);
    }
}
