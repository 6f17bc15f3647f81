//! Fully connected networks.

use crate::{BatchNorm1d, Dropout, Linear, ReLU, Sequential};

/// What is inserted between the layers of [`mlp_with`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MlpOptions {
    /// Batch norm before each activation.
    pub batch_norm: bool,
    /// The dropout probability of hidden units; zero for no dropout.
    pub dropout: f64,
}

impl MlpOptions {
    tapegrad_tape::setters! { batch_norm: bool, dropout: f64 }
}

/// Linear layers of the given sizes with ReLU between them.
///
/// ```
/// use tapegrad_nn::{Module, models::mlp};
/// let net = mlp(&[784, 256, 128, 10]);
/// assert_eq!(net.num_parameters(), 235_146);
/// assert_eq!(net.named_parameters()[2].0, "2.weight");
/// ```
///
/// # Panics
/// If fewer than two sizes are given.
#[track_caller]
pub fn mlp(sizes: &[usize]) -> Sequential {
    mlp_with(sizes, MlpOptions::default())
}

/// As [`mlp`], with batch norm and dropout.
///
/// # Panics
/// If fewer than two sizes are given, or the probability is not within 0 and 1.
#[track_caller]
pub fn mlp_with(sizes: &[usize], options: MlpOptions) -> Sequential {
    assert!(sizes.len() >= 2, "mlp: needs at least the sizes of the input and the output, got {sizes:?}");
    let mut net = Sequential::new();
    for (i, pair) in sizes.windows(2).enumerate() {
        net.push(Linear::new(pair[0], pair[1]));
        if i + 2 < sizes.len() {
            if options.batch_norm {
                net.push(BatchNorm1d::new(pair[1]));
            }
            net.push(ReLU::new());
            if options.dropout > 0.0 {
                net.push(Dropout::new(options.dropout));
            }
        }
    }
    net
}
