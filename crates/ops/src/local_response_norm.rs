//! `local_response_norm`.

use tapegrad_tape::Var;

/// Divides each element by `(k + alpha * mean of the squares of size neighboring channels) ^ beta`
/// (`torch.nn.functional.local_response_norm`). `x` is `[N, C, ...]`; channels beyond the ends count as zeros.
///
/// # Panics
/// If there are fewer than three dimensions, `size` is zero, or the elements are not floating point.
///
/// ```
/// use tapegrad_tape::{DType, Tensor, Var};
/// let x = Var::from(Tensor::ones_with(&[1, 3, 1], DType::F64));
/// let y = tapegrad_ops::local_response_norm_with(&x, 3, 3.0, 1.0, 0.0);
/// assert_eq!(y.to_vec::<f64>(), [0.5, 1.0 / 3.0, 0.5]);
/// ```
#[track_caller]
pub fn local_response_norm(x: &Var, size: usize) -> Var {
    local_response_norm_with(x, size, 1e-4, 0.75, 1.0)
}

/// [`local_response_norm`] with other constants.
///
/// # Panics
/// Same as [`local_response_norm`].
#[track_caller]
pub fn local_response_norm_with(x: &Var, size: usize, alpha: f64, beta: f64, k: f64) -> Var {
    assert!(
        x.ndim() >= 3,
        "local_response_norm: expected 3D or higher dimensionality input (got {} dimensions: {:?})",
        x.ndim(),
        x.shape()
    );
    assert!(size > 0, "local_response_norm: size must be at least 1, got 0");
    assert!(
        x.dtype().is_float(),
        "local_response_norm: not defined for {}; it takes floating-point types",
        x.dtype()
    );
    if x.numel() == 0 {
        return x.clone();
    }
    let channels = x.shape()[1];
    // `pad` counts from the last dimension.
    let mut pad = vec![0; 2 * (x.ndim() - 1)];
    let last = pad.len() - 2;
    // Beyond the channels there are only zeros.
    let (before, after) = ((size / 2).min(channels), ((size - 1) / 2).min(channels));
    (pad[last], pad[last + 1]) = (before as isize, after as isize);
    let squares = (x * x).pad(&pad);
    let windows = (0..before + after + 1).map(|i| squares.narrow(1, i, channels));
    let sum = windows.reduce(|a, b| a + b).expect("at least one channel");
    x / (sum * (alpha / size as f64) + k).pow(beta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn gradients() {
        for (shape, size) in [(&[2, 5, 3][..], 3), (&[1, 2, 2, 2], 4), (&[1, 3, 1], 1)] {
            check_gradients(
                |x| local_response_norm_with(&x[0], size, 0.7, 0.75, 1.0),
                &[parameter(shape, 1)],
            );
        }
    }

    #[test]
    #[should_panic(
        expected = "local_response_norm: expected 3D or higher dimensionality input (got 2 dimensions"
    )]
    fn too_few_dimensions() {
        local_response_norm(&parameter(&[2, 2], 1), 2);
    }
}
