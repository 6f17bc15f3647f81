//! Mixup.

use tapegrad_tape::{Generator, Tensor};

use super::beta::beta;
use super::{Mix, mix_with_next};

/// Averages each image with the next of its batch, and their labels in the same way (Zhang et al., 2018), as `v2.MixUp`.
///
/// The fraction of the image itself comes from the Beta(alpha, alpha) distribution, independently for each image.
/// Shuffle the data, so that the next image is a random one.
///
/// ```
/// use tapegrad_datasets::{ImageLoader, synthetic, transforms::Mixup};
/// let loader = ImageLoader::new(synthetic::digits(32, 0)).batch_size(16).shuffle(true).mix(Mixup::new(0.2));
/// assert_eq!(loader.iter().next().unwrap().targets.unwrap().shape(), [16, 10]);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Mixup {
    alpha: f64,
}

impl Mixup {
    /// With the parameter of the Beta distribution: near 0 mixes little, 1 makes all fractions equally likely.
    ///
    /// # Panics
    /// If `alpha` is not positive.
    #[track_caller]
    pub fn new(alpha: f64) -> Self {
        assert!(alpha > 0.0, "Mixup: alpha {alpha} must be positive");
        Mixup { alpha }
    }
}

impl Mix for Mixup {
    fn mix(
        &self,
        images: &mut Tensor,
        labels: &[i64],
        classes: usize,
        seed: u64,
        epoch: u64,
        indices: &[usize],
    ) -> Tensor {
        mix_with_next("Mixup", images, labels, classes, |i, own, other| {
            let mut rng = Generator::stream(seed, "mixup", [epoch, indices[i] as u64]);
            let share = beta(&mut rng, self.alpha, self.alpha) as f32;
            for (a, b) in own.iter_mut().zip(other) {
                *a = share * *a + (1.0 - share) * b;
            }
            share
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapegrad_tape::DType;

    #[test]
    fn images_and_labels_share_alike() {
        // Each image is constant and equal to its class, so its mixture is the expected class.
        let mut images = Tensor::from_vec((0..4).flat_map(|i| [i as f32; 3]).collect(), &[4, 1, 1, 3]);
        let targets = Mixup::new(1.0).mix(&mut images, &[0, 1, 2, 3], 4, 0, 0, &[5, 6, 7, 8]);
        assert_eq!(targets.dtype(), DType::F32);
        for (image, target) in images.to_vec::<f32>().chunks(3).zip(targets.to_vec::<f32>().chunks(4)) {
            let expected: f32 = target.iter().enumerate().map(|(class, p)| class as f32 * p).sum();
            assert!((image[0] - expected).abs() < 1e-6 && image[0] == image[2]);
            assert_eq!(target.iter().filter(|&&p| p > 0.0).count(), 2);
        }
    }
}
