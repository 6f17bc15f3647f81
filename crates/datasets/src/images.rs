//! Labeled images: the [`Images`] trait, and images in memory.

use std::sync::Arc;

use tapegrad_tape::Tensor;
use tapegrad_tape::shape::checked_numel;

use crate::dataset::Dataset;
use crate::error::Result;

/// A data set of labeled images of one size. Its sample is the pair of an image `f32 [channels, height, width]` and its
/// label; an [`ImageLoader`](crate::ImageLoader) reads the images straight into a batch and transforms them there.
pub trait Images: Dataset<Sample = (Tensor, i64)> {
    /// `[channels, height, width]`, the same for all samples.
    fn image_shape(&self) -> [usize; 3];

    /// Writes sample `index` into `image` (of the length that [`image_shape`](Self::image_shape) gives, in channel-first
    /// order) and returns its label.
    ///
    /// # Errors
    /// If the sample cannot be read.
    fn read(&self, index: usize, image: &mut [f32]) -> Result<i64>;

    /// The names of the classes; their number is the number of classes.
    fn classes(&self) -> &[String];
}

/// What [`Dataset::get`] returns for a data set of images.
///
/// # Errors
/// If the sample cannot be read.
pub fn image_sample<D: Images + ?Sized>(images: &D, index: usize) -> Result<(Tensor, i64)> {
    let mut image = Tensor::zeros_with(&images.image_shape(), tapegrad_tape::DType::F32);
    let label = images.read(index, image.data_mut::<f32>())?;
    Ok((image, label))
}

impl<D: Images + ?Sized> Images for Arc<D> {
    fn image_shape(&self) -> [usize; 3] {
        (**self).image_shape()
    }
    fn read(&self, index: usize, image: &mut [f32]) -> Result<i64> {
        (**self).read(index, image)
    }
    fn classes(&self) -> &[String] {
        (**self).classes()
    }
}

/// Mean and standard deviation of each channel, for pixels between 0 and 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalization {
    /// The mean of each channel.
    pub mean: Vec<f32>,
    /// The standard deviation of each channel.
    pub std: Vec<f32>,
}

impl Normalization {
    /// `(x - mean) / std` with the values given for each channel.
    ///
    /// # Panics
    /// If the lengths differ, or a standard deviation is not positive.
    #[track_caller]
    pub fn new(mean: &[f32], std: &[f32]) -> Self {
        assert!(
            mean.len() == std.len() && !mean.is_empty(),
            "Normalization: {} means and {} standard deviations; each channel needs one of each",
            mean.len(),
            std.len()
        );
        assert!(std.iter().all(|&s| s > 0.0), "Normalization: standard deviations {std:?} must be positive");
        Normalization { mean: mean.to_vec(), std: std.to_vec() }
    }

    /// The values commonly used for MNIST: mean 0.1307, standard deviation 0.3081.
    pub fn mnist() -> Self {
        Normalization::new(&[0.1307], &[0.3081])
    }

    /// The values of CIFAR-10's training set.
    pub fn cifar10() -> Self {
        Normalization::new(&[0.4914, 0.4822, 0.4465], &[0.2470, 0.2435, 0.2616])
    }

    /// Applies it to one image, channel after channel.
    pub(crate) fn apply(&self, image: &mut [f32]) {
        let area = image.len() / self.mean.len();
        for (channel, (&mean, &std)) in image.chunks_exact_mut(area).zip(self.mean.iter().zip(&self.std)) {
            channel.iter_mut().for_each(|x| *x = (*x - mean) / std);
        }
    }
}

/// Labeled images in memory, one byte a pixel; they are read as values between 0 and 1, or normalized.
///
/// A clone shares the pixels.
///
/// ```
/// use tapegrad_datasets::{Dataset, ImageDataset};
/// let classes = vec!["dark".to_string(), "light".to_string()];
/// let set = ImageDataset::new(vec![0, 51, 255, 204], [2, 1, 1, 2], vec![0, 1], classes);
/// let (image, label) = set.get(1)?;
/// assert_eq!((image.to_vec::<f32>(), label), (vec![1.0, 0.8], 1));
/// # Ok::<(), tapegrad_datasets::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ImageDataset {
    pixels: Arc<Vec<u8>>,
    shape: [usize; 4],
    labels: Arc<Vec<i64>>,
    classes: Arc<Vec<String>>,
    normalization: Option<Normalization>,
}

impl ImageDataset {
    /// Images `[N, channels, height, width]` with a label each.
    ///
    /// # Panics
    /// If the sizes are inconsistent, a dimension is zero, or a label has no class.
    #[track_caller]
    pub fn new(pixels: Vec<u8>, shape: [usize; 4], labels: Vec<i64>, classes: Vec<String>) -> Self {
        assert!(
            checked_numel(&shape) == Some(pixels.len()),
            "ImageDataset: {} pixels for shape {shape:?}",
            pixels.len()
        );
        assert!(shape[1..].iter().all(|&d| d > 0), "ImageDataset: shape {shape:?} has an empty dimension");
        assert_eq!(labels.len(), shape[0], "ImageDataset: {} labels for {} images", labels.len(), shape[0]);
        if let Some(label) = labels.iter().find(|&&l| l < 0 || l >= classes.len() as i64) {
            panic!("ImageDataset: label {label} with {} classes", classes.len());
        }
        ImageDataset {
            pixels: Arc::new(pixels),
            shape,
            labels: Arc::new(labels),
            classes: Arc::new(classes),
            normalization: None,
        }
    }

    /// `[N, channels, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// All pixels, image after image, channel after channel.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The pixels of one image.
    ///
    /// # Panics
    /// If `index` is not below the number of images.
    #[track_caller]
    pub fn image(&self, index: usize) -> &[u8] {
        assert!(index < self.shape[0], "image: index {index} with {} images", self.shape[0]);
        let size = self.shape[1..].iter().product::<usize>();
        &self.pixels[index * size..][..size]
    }

    /// The label of each image.
    pub fn labels(&self) -> &[i64] {
        &self.labels
    }

    /// The same images, read as `(x - mean) / std`.
    ///
    /// # Panics
    /// If there is not one mean for each channel.
    #[track_caller]
    #[must_use]
    pub fn with_normalization(mut self, normalization: Normalization) -> Self {
        assert_eq!(
            normalization.mean.len(),
            self.shape[1],
            "with_normalization: {} means for {} channels",
            normalization.mean.len(),
            self.shape[1]
        );
        self.normalization = Some(normalization);
        self
    }

    /// The same images under other class names.
    ///
    /// # Panics
    /// If a label has no name.
    #[track_caller]
    #[must_use]
    pub fn with_classes(mut self, classes: &[&str]) -> Self {
        let most = self.labels.iter().max().map_or(0, |&l| l + 1);
        assert!(classes.len() as i64 >= most, "with_classes: {} names for {most} classes", classes.len());
        self.classes = Arc::new(classes.iter().map(|&c| c.into()).collect());
        self
    }

    /// The first `n` images, or all if there are fewer.
    #[must_use]
    pub fn take(mut self, n: usize) -> Self {
        if n < self.shape[0] {
            let size = self.shape[1..].iter().product::<usize>();
            self.pixels = Arc::new(self.pixels[..n * size].to_vec());
            self.labels = Arc::new(self.labels[..n].to_vec());
            self.shape[0] = n;
        }
        self
    }

    /// The names of the classes.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// `[channels, height, width]`.
    pub fn image_shape(&self) -> [usize; 3] {
        let [_, channels, height, width] = self.shape;
        [channels, height, width]
    }

    /// How the images are normalized when they are read, if at all.
    pub fn normalization(&self) -> Option<&Normalization> {
        self.normalization.as_ref()
    }

    /// The mean and standard deviation of each channel over all images (for pixels between 0 and 1).
    ///
    /// Exact: sums of integers. A constant channel gets the standard deviation 1.
    pub fn statistics(&self) -> Normalization {
        let [n, channels, height, width] = self.shape;
        let mut counts = vec![[0u64; 256]; channels];
        for image in self.pixels.chunks_exact(channels * height * width) {
            for (count, plane) in counts.iter_mut().zip(image.chunks_exact(height * width)) {
                plane.iter().for_each(|&p| count[p as usize] += 1);
            }
        }
        let total = (n * height * width).max(1) as f64;
        let moments = counts.iter().map(|count| {
            let sum: u64 = count.iter().zip(0u64..).map(|(c, p)| c * p).sum();
            let squares: u64 = count.iter().zip(0u64..).map(|(c, p)| c * p * p).sum();
            let mean = sum as f64 / total;
            let variance = (squares as f64 / total - mean * mean).max(0.0);
            let std = if variance > 0.0 { variance.sqrt() / 255.0 } else { 1.0 };
            ((mean / 255.0) as f32, std as f32)
        });
        let (mean, std): (Vec<f32>, Vec<f32>) = moments.unzip();
        Normalization { mean, std }
    }
}

impl Dataset for ImageDataset {
    type Sample = (Tensor, i64);

    fn len(&self) -> usize {
        self.shape[0]
    }

    fn get(&self, index: usize) -> Result<(Tensor, i64)> {
        image_sample(self, index)
    }
}

impl Images for ImageDataset {
    fn image_shape(&self) -> [usize; 3] {
        self.image_shape()
    }

    fn read(&self, index: usize, image: &mut [f32]) -> Result<i64> {
        for (x, &p) in image.iter_mut().zip(self.image(index)) {
            *x = f32::from(p) / 255.0;
        }
        if let Some(normalization) = &self.normalization {
            normalization.apply(image);
        }
        Ok(self.labels[index])
    }

    fn classes(&self) -> &[String] {
        self.classes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(n: usize) -> ImageDataset {
        let pixels = (0..n * 6).map(|i| (i * 37 % 256) as u8).collect();
        let classes = ["a", "b", "c"].map(String::from).to_vec();
        ImageDataset::new(pixels, [n, 2, 1, 3], (0..n).map(|i| (i % 3) as i64).collect(), classes)
    }

    #[test]
    fn statistics_agree_with_the_normalized_pixels() {
        let plain = set(50);
        let statistics = plain.statistics();
        let normalized = plain.with_normalization(statistics);
        let images: Vec<_> = (0..50).map(|i| normalized.get(i).unwrap().0.to_vec::<f32>()).collect();
        for channel in 0..2 {
            let values: Vec<f64> =
                images.iter().flat_map(|i| &i[channel * 3..channel * 3 + 3]).map(|&x| x.into()).collect();
            let mean = values.iter().sum::<f64>() / 150.0;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 150.0;
            assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "{mean} {variance}");
        }
        assert_eq!(
            ImageDataset::new(vec![7; 4], [1, 1, 2, 2], vec![0], vec!["x".into()]).statistics().std,
            [1.0]
        );
    }

    #[test]
    #[should_panic(expected = "ImageDataset: 0 pixels for shape [2, 9223372036854775808, 1, 1]")]
    fn sizes_do_not_wrap() {
        ImageDataset::new(vec![], [2, 1 << 63, 1, 1], vec![0, 0], vec!["x".into()]);
    }

    #[test]
    #[should_panic(expected = "label 3 with 1 classes")]
    fn labels_need_a_class() {
        ImageDataset::new(vec![1], [1, 1, 1, 1], vec![3], vec!["x".into()]);
    }
}
