//! What a loader reads from: the [`Dataset`] trait, images in memory, subsets.

use std::sync::Arc;

use tapegrad_tape::Generator;
use tapegrad_tape::shape::checked_numel;

/// Labeled images, accessible by index, as `torch.utils.data.Dataset`.
///
/// An image is `channels * height * width` values in `f32`, in channel-first order.
pub trait Dataset: Send + Sync {
    /// The number of samples.
    fn len(&self) -> usize;

    /// `[channels, height, width]`, the same for all samples.
    fn image_shape(&self) -> [usize; 3];

    /// Writes sample `index` into `image` (of the length that [`image_shape`](Self::image_shape) gives) and returns
    /// its label.
    fn read(&self, index: usize, image: &mut [f32]) -> i64;

    /// The names of the classes; their number is the number of classes.
    fn classes(&self) -> &[String];

    /// True if there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sample `index` as pixels and label.
    fn get(&self, index: usize) -> (Vec<f32>, i64) {
        let mut image = vec![0.0; self.image_shape().iter().product()];
        let label = self.read(index, &mut image);
        (image, label)
    }
}

impl<D: Dataset + ?Sized> Dataset for Arc<D> {
    fn len(&self) -> usize {
        (**self).len()
    }
    fn image_shape(&self) -> [usize; 3] {
        (**self).image_shape()
    }
    fn read(&self, index: usize, image: &mut [f32]) -> i64 {
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

/// Labeled images in memory, one byte a pixel; `read` gives them between 0 and 1, or normalized.
///
/// A clone shares the pixels.
///
/// ```
/// use tapegrad_datasets::{Dataset, ImageDataset};
/// let classes = vec!["dark".to_string(), "light".to_string()];
/// let set = ImageDataset::new(vec![0, 51, 255, 204], [2, 1, 1, 2], vec![0, 1], classes);
/// assert_eq!(set.get(1), (vec![1.0, 0.8], 1));
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
    fn len(&self) -> usize {
        self.shape[0]
    }

    fn image_shape(&self) -> [usize; 3] {
        let [_, channels, height, width] = self.shape;
        [channels, height, width]
    }

    fn read(&self, index: usize, image: &mut [f32]) -> i64 {
        for (x, &p) in image.iter_mut().zip(self.image(index)) {
            *x = f32::from(p) / 255.0;
        }
        if let Some(normalization) = &self.normalization {
            normalization.apply(image);
        }
        self.labels[index]
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }
}

/// Some samples of a data set, as `torch.utils.data.Subset`.
#[derive(Clone)]
pub struct Subset {
    dataset: Arc<dyn Dataset>,
    indices: Arc<[usize]>,
}

impl Subset {
    /// The samples with these indices, in this order.
    ///
    /// # Panics
    /// If an index is not below the data set's length.
    #[track_caller]
    pub fn new(dataset: Arc<dyn Dataset>, indices: Vec<usize>) -> Self {
        if let Some(index) = indices.iter().find(|&&i| i >= dataset.len()) {
            panic!("Subset: index {index} of a data set with {} samples", dataset.len());
        }
        Subset { dataset, indices: indices.into() }
    }

    /// The index of each sample in the whole data set.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }
    fn image_shape(&self) -> [usize; 3] {
        self.dataset.image_shape()
    }
    fn read(&self, index: usize, image: &mut [f32]) -> i64 {
        self.dataset.read(self.indices[index], image)
    }
    fn classes(&self) -> &[String] {
        self.dataset.classes()
    }
}

/// Splits a data set at random into parts of the given lengths, as `torch.utils.data.random_split`.
///
/// The same seed gives the same parts. Samples beyond the sum of the lengths are left out.
///
/// # Panics
/// If the lengths add up to more than the number of samples.
///
/// ```
/// use tapegrad_datasets::{Dataset, random_split, synthetic};
/// let digits = std::sync::Arc::new(synthetic::digits(100, 0));
/// let [train, validation] = random_split(digits, [90, 10], 42);
/// assert_eq!((train.len(), validation.len()), (90, 10));
/// ```
#[track_caller]
pub fn random_split<const N: usize>(
    dataset: Arc<dyn Dataset>,
    lengths: [usize; N],
    seed: u64,
) -> [Subset; N] {
    let sum = lengths.iter().fold(0, |sum: usize, &n| sum.saturating_add(n));
    assert!(
        sum <= dataset.len(),
        "random_split: lengths {lengths:?} of a data set with {} samples",
        dataset.len()
    );
    let mut order: Vec<usize> = (0..dataset.len()).collect();
    Generator::stream(seed, "split", [0, 0]).shuffle(&mut order);
    let mut start = 0;
    lengths.map(|length| {
        start += length;
        Subset::new(dataset.clone(), order[start - length..start].to_vec())
    })
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
        let images: Vec<_> = (0..50).map(|i| normalized.get(i).0).collect();
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
    fn splits_are_disjoint_and_repeat() {
        let whole: Arc<dyn Dataset> = Arc::new(set(100));
        let [a, b] = random_split(whole.clone(), [70, 20], 5);
        let [c, _] = random_split(whole.clone(), [70, 20], 5);
        assert_eq!(a.indices(), c.indices());
        let [other, _] = random_split(whole.clone(), [70, 20], 6);
        assert_ne!(a.indices(), other.indices());
        let mut all: Vec<_> = a.indices().iter().chain(b.indices()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 90);
        assert_eq!(a.get(3), whole.get(a.indices()[3]));
    }

    #[test]
    #[should_panic(expected = "random_split: lengths [99, 2] of a data set with 100 samples")]
    fn too_long_a_split_panics() {
        random_split(Arc::new(set(100)), [99, 2], 0);
    }

    #[test]
    #[should_panic(expected = "random_split: lengths [18446744073709551615, 2] of a data set")]
    fn lengths_do_not_wrap() {
        random_split(Arc::new(set(100)), [usize::MAX, 2], 0);
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
