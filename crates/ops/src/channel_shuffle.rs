//! `channel_shuffle`.

use tapegrad_tape::Var;
use tapegrad_tape::shape::numel_for;

/// The channels of `[N, C, ...]` interleaved: those of `groups` groups in turns (`torch.nn.functional.channel_shuffle`;
/// Zhang et al. 2018, "ShuffleNet").
///
/// # Panics
/// If there are fewer than three dimensions, or the channels cannot be divided by `groups`.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[1, 4, 1]);
/// assert_eq!(tapegrad_ops::channel_shuffle(&x, 2).to_vec::<f32>(), [1.0, 3.0, 2.0, 4.0]);
/// ```
#[track_caller]
pub fn channel_shuffle(x: &Var, groups: usize) -> Var {
    let shape = x.shape();
    assert!(
        shape.len() > 2,
        "channel_shuffle: expects input with > 2 dims, but got input with sizes {shape:?}"
    );
    assert!(groups > 0, "channel_shuffle: number of groups to divide channels in must be positive, got 0");
    let c = shape[1];
    assert!(
        c.is_multiple_of(groups),
        "channel_shuffle: number of channels must be divisible by groups, got {c} channels and {groups} groups"
    );
    numel_for("channel_shuffle", &[&shape[..1], &[groups, c / groups], &shape[2..]].concat());
    let apart = x.unflatten(1, &[groups as isize, (c / groups) as isize]);
    apart.transpose(1, 2).flatten((1, 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};

    #[test]
    fn the_inverse_has_the_other_number_of_groups() {
        let x = parameter(&[2, 6, 2, 3], 1);
        assert_close(&channel_shuffle(&channel_shuffle(&x, 2), 3), &x, 0.0);
        check_gradients(|v| channel_shuffle(&v[0], 3), &[x]);
    }

    #[test]
    #[should_panic(
        expected = "channel_shuffle: number of channels must be divisible by groups, got 6 channels and 4 groups"
    )]
    fn channels_that_do_not_divide() {
        channel_shuffle(&parameter(&[1, 6, 2], 1), 4);
    }
}
