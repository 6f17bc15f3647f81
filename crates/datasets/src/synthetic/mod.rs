//! Synthetic images: digits like MNIST's, and colored shapes in the format of CIFAR-10.
//!
//! They let every program run without files. An image depends on the seed and its index only, so each can be
//! drawn without the others, and a data set is drawn on all cores with the same result.

mod digits;
mod pen;
mod shapes;

use crate::images::ImageDataset;
use crate::parallel::for_each_chunk;

/// The index of the first test image, beyond any training set.
pub const TEST_START: u64 = 1 << 32;

/// The class names of [`shapes`].
pub const SHAPE_CLASSES: [&str; 10] =
    ["circle", "ring", "square", "triangle", "star", "cross", "heart", "crescent", "arrow", "hourglass"];

/// Draws `n` digits of 28x28 gray pixels: strokes under random affine and elastic distortion, with noise.
///
/// ```
/// use tapegrad_datasets::{Dataset, synthetic};
/// let set = synthetic::digits(50, 0);
/// assert_eq!((set.len(), set.image_shape()), (50, [1, 28, 28]));
/// ```
pub fn digits(n: usize, seed: u64) -> ImageDataset {
    digits_from(0, n, seed)
}

/// As [`digits`], with the indices `start, start + 1, ...`; [`TEST_START`] starts a set that overlaps no training set.
pub fn digits_from(start: u64, n: usize, seed: u64) -> ImageDataset {
    let classes = (0..10).map(|d| d.to_string()).collect();
    collect(n, [1, 28, 28], classes, |i, image| digit(seed, start + i as u64, image))
}

/// Draws the digit with this seed and index into `image` (784 bytes) and returns its label.
///
/// # Panics
/// If `image` has another length.
#[track_caller]
pub fn digit(seed: u64, index: u64, image: &mut [u8]) -> i64 {
    assert_eq!(image.len(), 784, "digit: an image of {} bytes, expected 28 * 28 = 784", image.len());
    digits::draw(seed, index, image)
}

/// Draws `n` colored shapes of 32x32 RGB pixels, in the classes of [`SHAPE_CLASSES`].
///
/// Color, size, position and orientation are independent of the class.
///
/// ```
/// use tapegrad_datasets::{Dataset, synthetic};
/// let set = synthetic::shapes(20, 0);
/// assert_eq!((set.len(), set.image_shape()), (20, [3, 32, 32]));
/// ```
pub fn shapes(n: usize, seed: u64) -> ImageDataset {
    shapes_from(0, n, seed)
}

/// As [`shapes`], with the indices `start, start + 1, ...`; [`TEST_START`] starts a set that overlaps no training set.
pub fn shapes_from(start: u64, n: usize, seed: u64) -> ImageDataset {
    let classes = SHAPE_CLASSES.map(String::from).to_vec();
    collect(n, [3, 32, 32], classes, |i, image| shape(seed, start + i as u64, image))
}

/// Draws the shape with this seed and index into `image` (3072 bytes, red before green before blue) and returns its
/// label.
///
/// # Panics
/// If `image` has another length.
#[track_caller]
pub fn shape(seed: u64, index: u64, image: &mut [u8]) -> i64 {
    assert_eq!(image.len(), 3072, "shape: an image of {} bytes, expected 3 * 32 * 32 = 3072", image.len());
    shapes::draw(seed, index, image)
}

fn collect(
    n: usize,
    [channels, height, width]: [usize; 3],
    classes: Vec<String>,
    draw: impl Fn(usize, &mut [u8]) -> i64 + Sync,
) -> ImageDataset {
    // One extra byte after each image returns its label from the parallel loop.
    let size = channels * height * width;
    let mut drawn = vec![0; n * (size + 1)];
    for_each_chunk(&mut drawn, size + 1, 16, |i, image| {
        let (pixels, label) = image.split_at_mut(size);
        label[0] = draw(i, pixels) as u8;
    });
    let mut pixels = Vec::with_capacity(n * size);
    let mut labels = Vec::with_capacity(n);
    for image in drawn.chunks_exact(size + 1) {
        pixels.extend_from_slice(&image[..size]);
        labels.push(image[size].into());
    }
    ImageDataset::new(pixels, [n, channels, height, width], labels, classes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_image_can_be_drawn_alone() {
        let set = digits_from(7, 40, 3);
        let mut image = [0; 784];
        let label = digit(3, 7 + 23, &mut image);
        assert_eq!((set.image(23), set.labels()[23]), (&image[..], label));
        let set = shapes_from(100, 20, 3);
        let mut image = [0; 3072];
        let label = shape(3, 119, &mut image);
        assert_eq!((set.image(19), set.labels()[19]), (&image[..], label));
    }

    #[test]
    fn seeds_and_indices_differ() {
        let (a, b) = (digits(2, 0), digits(2, 1));
        assert_ne!(a.image(0), a.image(1));
        assert_ne!(a.image(0), b.image(0));
        assert_ne!(digits_from(TEST_START, 1, 0).image(0), a.image(0));
    }

    #[test]
    fn every_class_appears_with_ink_in_the_middle() {
        for (set, area) in [(digits(500, 0), 784), (shapes(500, 0), 1024)] {
            let mut counts = [0; 10];
            set.labels().iter().for_each(|&l| counts[l as usize] += 1);
            // 500 draws in ten classes: fewer than 25 or more than 80 is beyond four standard deviations.
            assert!(counts.iter().all(|c| (25..80).contains(c)), "{counts:?}");
            for i in 0..500 {
                let image = &set.image(i)[..area];
                let (low, high) = (image.iter().min().unwrap(), image.iter().max().unwrap());
                assert!(area == 1024 || high - low > 100, "image {i} is nearly blank");
            }
        }
    }
}
