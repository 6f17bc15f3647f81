//! Helpers for the tests of this crate.

use tapegrad_tape::{GradCheck, Tensor, Var, gradcheck, gradgradcheck_with};

/// Pseudorandom numbers between -1 and 1; the same for the same seed.
pub(crate) fn numbers(len: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect()
}

/// A parameter in F64 of such numbers.
pub(crate) fn parameter(shape: &[usize], seed: u64) -> Var {
    Var::parameter(Tensor::from_vec(numbers(shape.iter().product(), seed), shape))
}

/// First and second derivatives against finite differences.
#[track_caller]
pub(crate) fn check_gradients(f: impl Fn(&[Var]) -> Var, inputs: &[Var]) {
    let loose = GradCheck { atol: 1e-4, ..GradCheck::default() };
    if let Err(e) = gradcheck(&f, inputs) {
        panic!("{e}");
    }
    if let Err(e) = gradgradcheck_with(&f, inputs, loose) {
        panic!("second derivative: {e}");
    }
}

/// The same values up to a relative tolerance.
#[track_caller]
pub(crate) fn assert_close(a: &Var, b: &Var, tolerance: f64) {
    assert_eq!(a.shape(), b.shape());
    for (i, (x, y)) in a.to_vec::<f64>().iter().zip(b.to_vec::<f64>()).enumerate() {
        let near = (x - y).abs() <= tolerance * (1.0 + y.abs()) || (x.is_nan() && y.is_nan());
        assert!(near, "element {i}: {x} and {y}");
    }
}
