//! Transforms of the images of a batch.
//!
//! A [`Transform`] changes one image in place; a [`Pipeline`] applies several to all images of a batch, in parallel. A
//! [`Mix`] blends the images of a batch with each other. All random choices come from the seed, the epoch and the
//! image's index, so that neither threads nor batch sizes change them.
//!
//! The transforms follow torchvision in name and meaning. They work on floating-point values, before or after
//! normalization: zero is black before it and the mean after it.

mod beta;
mod color_jitter;
mod crop;
mod cutmix;
mod cutout;
mod flip;
mod mixup;
mod normalize;
mod random_erasing;
mod translate;

use std::sync::Arc;

use tapegrad_tape::shape::numel_for;
use tapegrad_tape::{DType, Generator, Tensor};

use crate::parallel::for_each_chunk;

pub use color_jitter::ColorJitter;
pub use crop::{Padding, RandomCrop};
pub use cutmix::CutMix;
pub use cutout::Cutout;
pub use flip::{AlternatingFlip, HorizontalFlip};
pub use mixup::Mixup;
pub use normalize::Normalize;
pub use random_erasing::RandomErasing;
pub use translate::RandomTranslate;

/// One image that a transform changes in place: its values and their shape.
#[derive(Debug)]
pub struct Image<'a> {
    /// `channels * height * width` values, in channel-first order.
    pub pixels: &'a mut [f32],
    /// The number of channels.
    pub channels: usize,
    /// The number of rows.
    pub height: usize,
    /// The number of columns.
    pub width: usize,
    /// The seed of the pipeline.
    pub seed: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// The image's index in its data set.
    pub index: usize,
}

impl Image<'_> {
    /// The channels, one after the other.
    pub fn planes(&mut self) -> std::slice::ChunksExactMut<'_, f32> {
        self.pixels.chunks_exact_mut(self.height * self.width)
    }

    /// Sets a rectangle to one value in all channels; parts outside the image are ignored.
    fn fill(&mut self, rows: std::ops::Range<isize>, columns: std::ops::Range<isize>, value: f32) {
        let within = |range: std::ops::Range<isize>, size: usize| {
            let clamp = |v: isize| v.clamp(0, size as isize) as usize;
            clamp(range.start)..clamp(range.end)
        };
        let (rows, columns, width) = (within(rows, self.height), within(columns, self.width), self.width);
        for plane in self.planes() {
            for row in rows.clone() {
                plane[row * width..][columns.clone()].fill(value);
            }
        }
    }
}

/// A transform of one image that keeps its shape.
pub trait Transform: Send + Sync {
    /// Changes the image in place. All random choices come from `rng`, this image's own stream;
    /// `tapegrad_tape::rand::RngExt` provides `random_range`, `random_bool` and the like.
    fn apply(&self, image: &mut Image<'_>, rng: &mut Generator);
}

/// A blend of the images of a batch, such as [`Mixup`] and [`CutMix`].
pub trait Mix: Send + Sync {
    /// Changes `images` (`f32 [N, C, H, W]`) in place and returns the probabilities of the classes, `f32 [N, classes]`.
    ///
    /// `indices` are the images' indices in their data set: random choices depend on them, the seed and the epoch.
    fn mix(
        &self,
        images: &mut Tensor,
        labels: &[i64],
        classes: usize,
        seed: u64,
        epoch: u64,
        indices: &[usize],
    ) -> Tensor;
}

/// Transforms, applied one after the other to each image of a batch.
///
/// ```
/// use tapegrad_datasets::transforms::{HorizontalFlip, Normalize, Pipeline, RandomCrop};
/// use tapegrad_tape::{DType, Tensor};
/// let pipeline =
///     Pipeline::new(0).with(RandomCrop::zero(4)).with(HorizontalFlip::new(0.5)).with(Normalize::new(&[0.5], &[0.2]));
/// let mut images = Tensor::full_with(&[8, 1, 28, 28], 0.5, DType::F32);
/// pipeline.apply(&mut images, 0, &[0, 1, 2, 3, 4, 5, 6, 7]);
/// assert_eq!(images.shape(), [8, 1, 28, 28]);
/// ```
#[derive(Clone)]
pub struct Pipeline {
    seed: u64,
    steps: Vec<Arc<dyn Transform>>,
}

impl Pipeline {
    /// An empty pipeline.
    pub fn new(seed: u64) -> Self {
        Pipeline { seed, steps: Vec::new() }
    }

    /// Adds a transform at the end.
    #[must_use]
    pub fn with(mut self, transform: impl Transform + 'static) -> Self {
        self.steps.push(Arc::new(transform));
        self
    }

    /// Transforms a batch `f32 [N, C, H, W]` in place, in parallel; `indices` are the images' indices in their data set.
    ///
    /// # Panics
    /// If the batch has another type or rank, or there is not one index for each image.
    #[track_caller]
    pub fn apply(&self, images: &mut Tensor, epoch: u64, indices: &[usize]) {
        let shape = batch_shape("Pipeline::apply", images, indices.len());
        *images = images.contiguous();
        let size = shape.iter().product::<usize>();
        for_each_chunk(images.make_mut::<f32>(), size, (1 << 14) / size.max(1), |i, pixels| {
            self.apply_to(pixels, shape, self.seed, epoch, indices[i]);
        });
    }

    /// Transforms one image, by this seed.
    pub(crate) fn apply_to(
        &self,
        pixels: &mut [f32],
        [channels, height, width]: [usize; 3],
        seed: u64,
        epoch: u64,
        index: usize,
    ) {
        if self.steps.is_empty() {
            return;
        }
        let mut rng = Generator::stream(seed, "augment", [epoch, index as u64]);
        let mut image = Image { pixels, channels, height, width, seed, epoch, index };
        for step in &self.steps {
            step.apply(&mut image, &mut rng);
        }
    }
}

/// `[C, H, W]` of a batch of `n` images.
#[track_caller]
fn batch_shape(what: &str, images: &Tensor, n: usize) -> [usize; 3] {
    match *images.shape() {
        [count, channels, height, width] if images.dtype() == DType::F32 => {
            assert_eq!(count, n, "{what}: {count} images but {n} indices");
            [channels, height, width]
        }
        ref shape => panic!("{what}: images {:?} {shape:?}; expected f32 [N, C, H, W]", images.dtype()),
    }
}

/// Blends each image of a batch with the next one (the last with the first), as `v2.MixUp` and `v2.CutMix` do.
///
/// `blend(i, own, other)` changes one image and returns the weight of its own label.
fn mix_with_next(
    what: &str,
    images: &mut Tensor,
    labels: &[i64],
    classes: usize,
    blend: impl Fn(usize, &mut [f32], &[f32]) -> f32 + Sync,
) -> Tensor {
    let n = labels.len();
    if let Some(label) = labels.iter().find(|&&l| !(0..classes as i64).contains(&l)) {
        panic!("{what}: label {label} is not one of {classes} classes");
    }
    numel_for(what, &[n, classes]);
    let size = batch_shape(what, images, n).iter().product::<usize>();
    let mut mixed = Tensor::uninit(images.shape(), DType::F32);
    let mut targets = Tensor::zeros_with(&[n, classes], DType::F32);
    let shares: Vec<_> = (0..n).map(|_| std::sync::Mutex::new(1.0)).collect();
    let before = images.contiguous();
    let before = before.as_slice::<f32>().expect("contiguous");
    for_each_chunk(mixed.data_mut::<f32>(), size, (1 << 14) / size.max(1), |i, pixels| {
        pixels.copy_from_slice(&before[i * size..][..size]);
        let next = (i + 1) % n;
        let share = blend(i, pixels, &before[next * size..][..size]);
        *shares[i].lock().expect("no panic while it is held") = share;
    });
    let out = targets.data_mut::<f32>();
    for (i, share) in shares.into_iter().enumerate() {
        let share = share.into_inner().expect("no panic while it was held");
        out[i * classes + labels[i] as usize] += share;
        out[i * classes + labels[(i + 1) % n] as usize] += 1.0 - share;
    }
    *images = mixed;
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies one transform to one image and returns it.
    pub(super) fn once(transform: &dyn Transform, shape: [usize; 3], pixels: &[f32], seed: u64) -> Vec<f32> {
        let mut pixels = pixels.to_vec();
        let [channels, height, width] = shape;
        let mut image = Image { pixels: &mut pixels, channels, height, width, seed, epoch: 0, index: 0 };
        transform.apply(&mut image, &mut Generator::stream(seed, "test", [0, 0]));
        pixels
    }

    #[test]
    fn order_of_the_batch_changes_nothing() {
        let pipeline = Pipeline::new(3)
            .with(ColorJitter::new(0.4, 0.4, 0.4, 0.1))
            .with(RandomCrop::reflect(4))
            .with(HorizontalFlip::new(0.5))
            .with(RandomErasing::default())
            .with(Normalize::new(&[0.5, 0.4, 0.3], &[0.2, 0.3, 0.4]));
        let pixels: Vec<f32> = (0..6 * 300).map(|i| (i * 7919 % 256) as f32 / 255.0).collect();
        let mut batch = Tensor::from_vec(pixels.clone(), &[6, 3, 10, 10]);
        pipeline.apply(&mut batch, 5, &[10, 11, 12, 13, 14, 15]);
        let all = batch.to_vec::<f32>();
        for i in [4, 0, 5] {
            let mut one = Tensor::from_slice(&pixels[i * 300..][..300], &[1, 3, 10, 10]);
            pipeline.apply(&mut one, 5, &[10 + i]);
            assert_eq!(one.to_vec::<f32>(), all[i * 300..][..300]);
            pipeline.apply(&mut one, 6, &[10 + i]);
            assert_ne!(one.to_vec::<f32>(), all[i * 300..][..300]);
        }
    }

    #[test]
    #[should_panic(expected = "Pipeline::apply: 2 images but 1 indices")]
    fn one_index_for_each_image() {
        Pipeline::new(0).apply(&mut Tensor::zeros_with(&[2, 1, 3, 3], DType::F32), 0, &[0]);
    }
}
