//! Dropout.
//!
//! Whether an element is dropped is a hash of a key, drawn once per call, and the element's index in memory. So it can
//! be computed in any order, on any number of threads, and again in the backward pass: no mask is saved.

use crate::autocast::through_f32;
use crate::kernels::dropout::drop_out;
use tapegrad_tape::{MemoryFormat, RecordOptions, Tensor, Var, record_with, with_default_generator};

/// In training, zeroes each element with probability `p` and divides the others by `1 - p`
/// (`torch.nn.functional.dropout`). Otherwise, and for `p = 0`, returns the input itself.
///
/// Draws one key from the thread's default generator: the same seed drops the same elements, on any number of threads.
///
/// # Panics
/// If `p` is not in `[0, 1]`.
///
/// ```
/// use tapegrad_tape::{Tensor, Var, DType};
/// tapegrad_tape::manual_seed(1);
/// let x = Var::from(Tensor::ones_with(&[1000], DType::F32));
/// let y = tapegrad_ops::dropout(&x).to_vec::<f32>();
/// assert!(y.iter().all(|&v| v == 0.0 || v == 2.0));
/// assert!(tapegrad_ops::dropout_with(&x, 0.5, false).to_vec::<f32>().iter().all(|&v| v == 1.0));
/// ```
#[track_caller]
pub fn dropout(x: &Var) -> Var {
    dropout_with(x, 0.5, true)
}

/// [`dropout`] with another probability, and for a model that may not be in training.
///
/// # Panics
/// Same as [`dropout`].
#[track_caller]
pub fn dropout_with(x: &Var, p: f64, training: bool) -> Var {
    if !active("dropout", p, training) {
        return x.clone();
    }
    let key = with_default_generator(|g| g.next_u64());
    let t = x.tensor();
    let last = t.is_contiguous_in(MemoryFormat::ChannelsLast) && !t.is_contiguous();
    let format = if last { MemoryFormat::ChannelsLast } else { MemoryFormat::Contiguous };
    through_f32([x], |[x]| dropped(x, p, key, format))
}

/// Dropout by a key that was drawn before, by the indices of contiguous elements.
#[track_caller]
pub(crate) fn dropped_by(x: &Var, p: f64, key: u64) -> Var {
    through_f32([x], |[x]| dropped(x, p, key, MemoryFormat::Contiguous))
}

/// Dropout is linear, and its own adjoint.
#[track_caller]
fn dropped(x: &Var, p: f64, key: u64, format: MemoryFormat) -> Var {
    let t = x.tensor().to_format(format);
    let mut out = Tensor::uninit_format(x.shape(), x.dtype(), format);
    // With a probability of one everything is zero, and nothing is divided by zero.
    let scale = if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 };
    tapegrad_tape::dispatch!(float: x.dtype(), "dropout", T => {
        let data = &t.data::<T>()[..t.numel()];
        drop_out(out.data_mut::<T>(), data, p, scale as T, key)
    });
    let linear = |t: &Var| dropped(t, p, key, format);
    record_with("dropout", [x], out, RecordOptions::new().linear(&linear), move |c| {
        [Some(dropped(c.grad(), p, key, format))]
    })
}

#[track_caller]
fn active(op: &str, p: f64, training: bool) -> bool {
    assert!((0.0..=1.0).contains(&p), "{op}: the probability has to be in [0, 1], got {p}");
    training && p > 0.0
}

/// In training, zeroes whole channels: dimension 1 of `[N, C, L]`, dimension 0 of `[C, L]`
/// (`torch.nn.functional.dropout1d`).
///
/// # Panics
/// If `p` is not in `[0, 1]`, or the input has neither two nor three dimensions.
///
/// ```
/// use tapegrad_tape::{Tensor, Var, DType};
/// let x = Var::from(Tensor::ones_with(&[4, 3, 2], DType::F32));
/// let y = tapegrad_ops::dropout1d(&x).to_vec::<f32>();
/// assert!(y.chunks(2).all(|channel| channel[0] == channel[1]));
/// ```
#[track_caller]
pub fn dropout1d(x: &Var) -> Var {
    dropout1d_with(x, 0.5, true)
}

/// [`dropout1d`] with another probability, and for a model that may not be in training.
///
/// # Panics
/// Same as [`dropout1d`].
#[track_caller]
pub fn dropout1d_with(x: &Var, p: f64, training: bool) -> Var {
    assert!(
        matches!(x.ndim(), 2 | 3),
        "dropout1d: the input has to be [N, C, L] or [C, L], got {:?}",
        x.shape()
    );
    of_channels("dropout1d", x, x.ndim() - 1, p, training)
}

/// In training, zeroes whole channels: the first two dimensions of `[N, C, H, W]` tell them apart
/// (`torch.nn.functional.dropout2d`). As in PyTorch, three dimensions are taken as `[N, C, L]`.
///
/// # Panics
/// If `p` is not in `[0, 1]`, or the input has neither three nor four dimensions.
///
/// ```
/// use tapegrad_tape::{Tensor, Var, DType};
/// let x = Var::from(Tensor::ones_with(&[4, 3, 2, 2], DType::F32));
/// let y = tapegrad_ops::dropout2d(&x).to_vec::<f32>();
/// assert!(y.chunks(4).all(|channel| channel.iter().all(|&v| v == channel[0])));
/// ```
#[track_caller]
pub fn dropout2d(x: &Var) -> Var {
    dropout2d_with(x, 0.5, true)
}

/// [`dropout2d`] with another probability, and for a model that may not be in training.
///
/// # Panics
/// Same as [`dropout2d`].
#[track_caller]
pub fn dropout2d_with(x: &Var, p: f64, training: bool) -> Var {
    assert!(
        matches!(x.ndim(), 3 | 4),
        "dropout2d: the input has to be [N, C, H, W] or [N, C, L], got {:?}",
        x.shape()
    );
    of_channels("dropout2d", x, 2, p, training)
}

/// Drops or keeps whole slices of the leading dimensions.
#[track_caller]
fn of_channels(op: &str, x: &Var, leading: usize, p: f64, training: bool) -> Var {
    if !active(op, p, training) {
        return x.clone();
    }
    let mut shape = x.shape().to_vec();
    shape[leading..].fill(1);
    let ones = Var::from(Tensor::ones_with(&shape, x.dtype()));
    x * &dropout_with(&ones, p, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, numbers, parameter};
    use tapegrad_tape::DType;

    #[test]
    fn derivatives_and_layouts() {
        let x = parameter(&[2, 3, 4, 2], 1);
        let y = |format| dropped(&Var::from(x.tensor().to_format(format)), 0.3, 7, format);
        assert_eq!(y(MemoryFormat::ChannelsLast).shape(), x.shape());
        for format in [MemoryFormat::Contiguous, MemoryFormat::ChannelsLast] {
            check_gradients(|v| dropped(&v[0], 0.3, 7, format), std::slice::from_ref(&x));
        }
    }

    #[test]
    fn the_backward_pass_makes_the_same_choice() {
        let x = Var::parameter(Tensor::from_vec(numbers(1000, 1), &[1000]).cast(DType::F32));
        let y = dropout_with(&x, 0.4, true);
        y.sum_all().backward();
        let kept: Vec<bool> = y.to_vec::<f32>().iter().map(|v| *v != 0.0).collect();
        assert_eq!(x.grad().unwrap().to_vec::<f32>().iter().map(|g| *g != 0.0).collect::<Vec<_>>(), kept);
    }

    #[test]
    fn the_share_is_right_and_seeds_repeat() {
        let x = Var::from(Tensor::ones_with(&[100_003], DType::F32));
        let draw = |seed| {
            tapegrad_tape::manual_seed(seed);
            dropout_with(&x, 0.3, true).to_vec::<f32>()
        };
        let zeros = draw(5).iter().filter(|v| **v == 0.0).count() as f64 / 100_003.0;
        assert!((zeros - 0.3).abs() < 0.006, "{zeros}");
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
        assert!(dropout_with(&x, 1.0, true).to_vec::<f32>().iter().all(|v| *v == 0.0));
    }

    #[test]
    #[should_panic(expected = "dropout: the probability has to be in [0, 1], got 1.5")]
    fn an_impossible_probability() {
        dropout_with(&Var::from(1.0), 1.5, true);
    }
}
