//! CutMix.

use tapegrad_tape::{Generator, Tensor};

use super::beta::beta;
use super::{Mix, batch_shape, mix_with_next};

/// Pastes a rectangle of the next image of the batch into each, and mixes the labels by area (Yun et al., 2019), as
/// `v2.CutMix`.
///
/// The area comes from the Beta(alpha, alpha) distribution, independently for each image; the part beyond the edge is
/// clipped, and the labels follow the remaining area. Shuffle the data, so that the next image is a random one.
///
/// ```
/// use tapegrad_datasets::{ImageLoader, synthetic, transforms::CutMix};
/// let loader = ImageLoader::new(synthetic::shapes(32, 0)).batch_size(16).shuffle(true).mix(CutMix::new(1.0));
/// assert_eq!(loader.iter().next().unwrap().targets.unwrap().shape(), [16, 10]);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct CutMix {
    alpha: f64,
}

impl CutMix {
    /// With the parameter of the Beta distribution: 1 makes all areas equally likely.
    ///
    /// # Panics
    /// If `alpha` is not positive.
    #[track_caller]
    pub fn new(alpha: f64) -> Self {
        assert!(alpha > 0.0, "CutMix: alpha {alpha} must be positive");
        CutMix { alpha }
    }
}

impl Mix for CutMix {
    fn mix(
        &self,
        images: &mut Tensor,
        labels: &[i64],
        classes: usize,
        seed: u64,
        epoch: u64,
        indices: &[usize],
    ) -> Tensor {
        let [_, height, width] = batch_shape("CutMix", images, indices.len());
        mix_with_next("CutMix", images, labels, classes, |i, own, other| {
            let mut rng = Generator::stream(seed, "cutmix", [epoch, indices[i] as u64]);
            let side = (1.0 - beta(&mut rng, self.alpha, self.alpha)).sqrt();
            let mut range = |size: usize| {
                let (center, half) = (rng.below(size) as isize, (0.5 * side * size as f64) as isize);
                (center - half).max(0) as usize..(center + half).min(size as isize) as usize
            };
            let (rows, columns) = (range(height), range(width));
            for (a, b) in own.chunks_exact_mut(height * width).zip(other.chunks_exact(height * width)) {
                for row in rows.clone() {
                    let line = row * width;
                    a[line..][columns.clone()].copy_from_slice(&b[line..][columns.clone()]);
                }
            }
            1.0 - (rows.len() * columns.len()) as f32 / (height * width) as f32
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_the_area() {
        let pixels = (0..6).flat_map(|i| [i as f32; 2 * 64]).collect();
        let mut images = Tensor::from_vec(pixels, &[6, 2, 8, 8]);
        let labels = [0, 1, 2, 3, 4, 5];
        let targets = CutMix::new(1.0).mix(&mut images, &labels, 6, 3, 0, &labels.map(|l| l as usize));
        let mut mixed = 0;
        for (i, (image, target)) in
            images.to_vec::<f32>().chunks(128).zip(targets.to_vec::<f32>().chunks(6)).enumerate()
        {
            let other = (i + 1) % 6;
            let pasted = image[..64].iter().filter(|&&x| x == other as f32).count();
            assert_eq!(image[..64], image[64..]);
            assert_eq!(target[other], pasted as f32 / 64.0);
            assert_eq!(target[i], 1.0 - pasted as f32 / 64.0);
            mixed += usize::from(pasted > 0);
        }
        assert!(mixed >= 3, "{mixed}");
    }
}
