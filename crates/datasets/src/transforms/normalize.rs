//! Normalization.

use super::{Image, Transform};
use crate::images::Normalization;
use tapegrad_tape::Generator;

/// `(x - mean) / std` for each channel, as `v2.Normalize`.
///
/// ```
/// use tapegrad_datasets::transforms::Normalize;
/// let cifar = Normalize::new(&[0.4914, 0.4822, 0.4465], &[0.2470, 0.2435, 0.2616]);
/// ```
#[derive(Debug, Clone)]
pub struct Normalize(Normalization);

impl Normalize {
    /// With these means and standard deviations.
    ///
    /// # Panics
    /// If their lengths differ, or a standard deviation is not positive.
    #[track_caller]
    pub fn new(mean: &[f32], std: &[f32]) -> Self {
        Normalize(Normalization::new(mean, std))
    }
}

impl From<Normalization> for Normalize {
    fn from(normalization: Normalization) -> Self {
        Normalize(normalization)
    }
}

impl Transform for Normalize {
    fn apply(&self, image: &mut Image<'_>, _: &mut Generator) {
        assert_eq!(
            self.0.mean.len(),
            image.channels,
            "Normalize: {} means for an image with {} channels",
            self.0.mean.len(),
            image.channels
        );
        self.0.apply(image.pixels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transforms::tests::once;

    #[test]
    fn each_channel_by_its_own() {
        let out = once(&Normalize::new(&[0.5, 1.0], &[0.5, 2.0]), [2, 1, 2], &[0.0, 1.0, 5.0, 1.0], 0);
        assert_eq!(out, [-1.0, 1.0, 2.0, 0.0]);
    }
}
