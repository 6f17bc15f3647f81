//! `linalg.matrix_exp`.

use super::{identity, mm, solve, square_size};
use tapegrad_tape::Var;

/// The coefficients of the Padé approximant of degree 13.
const PADE: [f64; 14] = [
    64764752532480000.0,
    32382376266240000.0,
    7771770303897600.0,
    1187353796428800.0,
    129060195264000.0,
    10559470521600.0,
    670442572800.0,
    33522128640.0,
    1323241920.0,
    40840800.0,
    960960.0,
    16380.0,
    182.0,
    1.0,
];

/// Up to this norm the approximant is exact to the last digits of F64.
const LARGEST: f64 = 5.371920351148152;

/// The exponential of square matrices, `1 + A + A^2 / 2 + ...` (`torch.linalg.matrix_exp`), by a Padé approximant after
/// scaling, and squaring (Higham 2005, "The scaling and squaring method for the matrix exponential revisited").
///
/// # Panics
/// If the matrices are not square, or have elements that are not finite.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![0f64, 1.0, 0.0, 0.0], &[2, 2]);
/// assert_eq!(tapegrad_ops::linalg::matrix_exp(&a).to_vec::<f64>(), [1.0, 1.0, 0.0, 1.0]);
/// ```
#[track_caller]
pub fn matrix_exp(a: &Var) -> Var {
    let op = "linalg.matrix_exp";
    let n = square_size(op, a);
    if a.numel() == 0 {
        return a.clone();
    }
    let norm = a.detach().abs().sum(-2).max_all().item();
    assert!(norm.is_finite(), "{op}: the input has elements that are not finite, or a norm that overflows");
    let squarings = if norm > LARGEST { (norm / LARGEST).log2().ceil() as i32 } else { 0 };
    let a = a * 0.5f64.powi(squarings);
    let one = identity(n, a.dtype());
    let a2 = mm(&a, &a);
    let a4 = mm(&a2, &a2);
    let a6 = mm(&a2, &a4);
    let powers = [&one, &a2, &a4, &a6];
    // Every other coefficient from the given one on.
    let sum = |first: usize| {
        let terms = powers.iter().enumerate().map(|(i, p)| *p * PADE[first + 2 * i]);
        terms.reduce(|a, b| a + b).expect("four terms")
    };
    let high = |first: usize| {
        let terms = powers[1..].iter().enumerate().map(|(i, p)| *p * PADE[first + 2 * i]);
        mm(&a6, &terms.reduce(|a, b| a + b).expect("three terms"))
    };
    let odd = mm(&a, &(high(9) + sum(1)));
    let even = high(8) + sum(0);
    let mut y = solve(&(&even - &odd), &(&even + &odd));
    for _ in 0..squarings {
        y = mm(&y, &y);
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};

    #[test]
    fn values_and_gradients() {
        // A rotation by 20.
        let a = Var::from_vec(vec![0f64, -20.0, 20.0, 0.0], &[2, 2]);
        let (s, c) = 20f64.sin_cos();
        assert_close(&matrix_exp(&a), &Var::from_vec(vec![c, -s, s, c], &[2, 2]), 1e-12);
        check_gradients(|v| matrix_exp(&v[0]), &[parameter(&[2, 3, 3], 1)]);
        check_gradients(|v| matrix_exp(&(&v[0] * 8.0)) * 1e-3, &[parameter(&[2, 2], 1)]);
    }
}
