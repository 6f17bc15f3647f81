//! Comparison of tensors and values with those of a sample.

use tapegrad::tape::{DType, Tensor};

/// `|a - b| <= atol + rtol * |b|`, with NaN equal to NaN.
#[derive(Clone, Copy)]
pub struct Tolerance {
    /// Relative part.
    pub rtol: f64,
    /// Absolute part.
    pub atol: f64,
}

/// How the two tensors differ, or `None` if they agree in shape, dtype and values.
pub fn difference(what: &str, got: &Tensor, want: &Tensor, tolerance: Tolerance) -> Option<String> {
    if got.shape() != want.shape() {
        return Some(format!("{what}: shape {:?}, should be {:?}", got.shape(), want.shape()));
    }
    if got.dtype() != want.dtype() {
        return Some(format!("{what}: dtype {:?}, should be {:?}", got.dtype(), want.dtype()));
    }
    if !matches!(got.dtype(), DType::F64 | DType::F32 | DType::F16 | DType::BF16) {
        return exact(what, &got.to_vec::<i64>(), &want.to_vec::<i64>(), got.shape());
    }
    let (got_values, want_values) = (got.to_vec::<f64>(), want.to_vec::<f64>());
    let mut wrong = 0;
    let mut worst = (0, -1.0);
    for (i, (&a, &b)) in got_values.iter().zip(&want_values).enumerate() {
        if a == b || (a.is_nan() && b.is_nan()) {
            continue;
        }
        let off = (a - b).abs();
        let within = off <= tolerance.atol + tolerance.rtol * b.abs() && b.is_finite();
        if !within {
            wrong += 1;
            let weight = if off.is_finite() { off } else { f64::INFINITY };
            if weight > worst.1 {
                worst = (i, weight);
            }
        }
    }
    if wrong == 0 {
        return None;
    }
    let (a, b) = (got_values[worst.0], want_values[worst.0]);
    let allowed = tolerance.atol + tolerance.rtol * b.abs();
    Some(format!(
        "{what}: {wrong} of {} differ, worst at {:?}: {a:?}, should be {b:?} (off by {:.2e}, allowed {allowed:.2e})",
        got_values.len(),
        position(worst.0, got.shape()),
        (a - b).abs(),
    ))
}

fn exact(what: &str, got: &[i64], want: &[i64], shape: &[usize]) -> Option<String> {
    let wrong = got.iter().zip(want).filter(|(a, b)| a != b).count();
    let first = got.iter().zip(want).position(|(a, b)| a != b)?;
    Some(format!(
        "{what}: {wrong} of {} differ, first at {:?}: {}, should be {}",
        got.len(),
        position(first, shape),
        got[first],
        want[first]
    ))
}

fn position(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut at = vec![0; shape.len()];
    for d in (0..shape.len()).rev() {
        at[d] = flat % shape[d];
        flat /= shape[d];
    }
    at
}

/// Whether every element is zero.
pub fn is_zero(t: &Tensor) -> bool {
    t.to_vec::<f64>().iter().all(|&x| x == 0.0)
}
