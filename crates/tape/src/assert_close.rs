//! `assert_close`.

use crate::dtype::DType;
use crate::var::Var;

/// Panics unless two variables have the same shape and type and elements that are close
/// (`torch.testing.assert_close`): `|actual - expected| <= atol + rtol * |expected|`, with PyTorch's tolerances for the
/// type (F32: 1.3e-6 and 1e-5, F64: 1e-7 both, integers are equal). NaN is not close to anything.
///
/// # Panics
/// With the worst element and how many differ.
///
/// ```
/// use tapegrad_tape::{Var, assert_close};
/// assert_close(&(Var::from(0.1) + 0.2), &Var::from(0.3));
/// ```
#[track_caller]
pub fn assert_close(actual: &Var, expected: &Var) {
    let (rtol, atol) = match expected.dtype() {
        DType::F64 => (1e-7, 1e-7),
        DType::F32 => (1.3e-6, 1e-5),
        DType::F16 => (1e-3, 1e-5),
        DType::BF16 => (1.6e-2, 1e-5),
        _ => (0.0, 0.0),
    };
    assert_close_with(actual, expected, rtol, atol, false);
}

/// [`assert_close`] with other tolerances, and NaN close to NaN if `equal_nan`.
///
/// # Panics
/// Same as [`assert_close`].
#[track_caller]
pub fn assert_close_with(actual: &Var, expected: &Var, rtol: f64, atol: f64, equal_nan: bool) {
    assert!(
        actual.shape() == expected.shape(),
        "assert_close: the shapes differ: {:?}, expected {:?}",
        actual.shape(),
        expected.shape()
    );
    assert!(
        actual.dtype() == expected.dtype(),
        "assert_close: the types differ: {}, expected {}",
        actual.dtype(),
        expected.dtype()
    );
    let (a, b) = (actual.to_vec::<f64>(), expected.to_vec::<f64>());
    let close = |a: f64, b: f64| {
        a == b || (a - b).abs() <= atol + rtol * b.abs() || (equal_nan && a.is_nan() && b.is_nan())
    };
    let wrong: Vec<usize> = (0..a.len()).filter(|&i| !close(a[i], b[i])).collect();
    // A NaN counts as farthest.
    let distance = |i: usize| Some((a[i] - b[i]).abs()).filter(|d| !d.is_nan()).unwrap_or(f64::INFINITY);
    if let Some(&worst) = wrong.iter().max_by(|&&i, &&j| distance(i).total_cmp(&distance(j))) {
        panic!(
            "assert_close: {} of {} elements differ; the worst, {} at {:?}, should be {} (rtol {rtol}, atol {atol})",
            wrong.len(),
            a.len(),
            a[worst],
            position(worst, actual.shape()),
            b[worst]
        );
    }
}

/// The index in each dimension of an element in row-major order.
fn position(mut element: usize, shape: &[usize]) -> Vec<usize> {
    let mut index: Vec<usize> = Vec::with_capacity(shape.len());
    for &n in shape.iter().rev() {
        index.push(element % n);
        element /= n;
    }
    index.reverse();
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(
        expected = "assert_close: 2 of 4 elements differ; the worst, NaN at [1, 0], should be 3 (rtol"
    )]
    fn the_worst_element() {
        let expected = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], (2, 2));
        assert_close(&Var::from_vec(vec![1f32, 2.1, f32::NAN, 4.0], (2, 2)), &expected);
    }

    #[test]
    #[should_panic(expected = "the shapes differ: [1], expected []")]
    fn shapes() {
        assert_close(&Var::from_vec(vec![1f32], 1), &Var::from(1.0).cast(DType::F32));
    }

    #[test]
    fn infinities_and_nan() {
        let x = Var::from_vec(vec![f64::INFINITY, f64::NAN], 2);
        assert_close_with(&x, &x, 0.0, 0.0, true);
    }
}
