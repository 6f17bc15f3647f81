//! Batches of images, transformed on the way.

use std::sync::{Arc, Mutex, PoisonError};

use tapegrad_tape::{DType, Tensor, Var};

use super::workers::lock;
use super::{Loader, Prepare};
use crate::collate::IntoVars;
use crate::dataset::Dataset;
use crate::error::Result;
use crate::images::Images;
use crate::parallel;
use crate::transforms::{Mix, Pipeline, Transform};

/// The input of a training step: images, their labels, and their indices.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The images, `f32 [N, channels, height, width]`.
    pub images: Tensor,
    /// The class of each image, `i64 [N]`.
    pub labels: Tensor,
    /// After mixup or cutmix, the probability of each class, `f32 [N, classes]`: which cross-entropy takes instead of
    /// labels.
    pub targets: Option<Tensor>,
    /// The index of each image in its data set.
    pub indices: Vec<usize>,
}

impl Batch {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// True if there is no image.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }
}

impl IntoVars for Batch {
    /// The images, and their probabilities where they were mixed, otherwise their labels.
    type Vars = (Var, Var);
    fn into_vars(self) -> (Var, Var) {
        (Var::from(self.images), Var::from(self.targets.unwrap_or(self.labels)))
    }
}

/// Images that are transformed and perhaps mixed.
#[derive(Clone)]
pub struct Augmented {
    dataset: Arc<dyn Images>,
    pipeline: Pipeline,
    mix: Option<Arc<dyn Mix>>,
}

/// A loader of labeled images, which it transforms; see [`Loader`] for its other options.
///
/// The images are read straight into the batch and transformed there.
///
/// ```
/// use tapegrad_datasets::{ImageLoader, synthetic, transforms::RandomCrop};
/// let loader = ImageLoader::new(synthetic::digits(100, 0))
///     .batch_size(32)
///     .shuffle(true)
///     .seed(1)
///     .workers(1)
///     .transform(RandomCrop::reflect(2));
/// for (images, labels) in &loader {
///     assert_eq!(images.shape(), [labels.numel(), 1, 28, 28]);
/// }
/// // With the indices of the images, as tensors:
/// for batch in loader.iter() {
///     assert_eq!(batch.indices.len(), batch.len());
/// }
/// assert_eq!(loader.len(), 4);
/// assert_eq!(loader.state().epoch, 2);
/// ```
pub type ImageLoader = Loader<Augmented>;

impl Loader<Augmented> {
    /// Batches of one image in order, without workers; the other methods change these defaults.
    pub fn new(images: impl Images + 'static) -> Self {
        Loader::of(Augmented { dataset: Arc::new(images), pipeline: Pipeline::new(0), mix: None })
    }

    /// Adds a transform; they are applied to each image in the order in which they were added.
    #[must_use]
    pub fn transform(mut self, transform: impl Transform + 'static) -> Self {
        let recipe = Arc::make_mut(&mut self.recipe);
        recipe.pipeline = recipe.pipeline.clone().with(transform);
        self
    }

    /// Mixes the images of a batch after all transforms, with [`Mixup`](crate::transforms::Mixup) or
    /// [`CutMix`](crate::transforms::CutMix).
    #[must_use]
    pub fn mix(mut self, mix: impl Mix + 'static) -> Self {
        Arc::make_mut(&mut self.recipe).mix = Some(Arc::new(mix));
        self
    }

    /// What it reads from.
    pub fn dataset(&self) -> &dyn Images {
        &*self.recipe.dataset
    }
}

impl Prepare for Augmented {
    type Batch = Batch;

    fn len(&self) -> usize {
        Dataset::len(&self.dataset)
    }

    fn batch(&self, indices: Vec<usize>, seed: u64, epoch: u64) -> Result<Batch> {
        let [channels, height, width] = self.dataset.image_shape();
        let shape = [indices.len(), channels, height, width];
        let mut images = Tensor::uninit(&shape, DType::F32);
        let labels: Vec<Mutex<Result<i64>>> = indices.iter().map(|_| Mutex::new(Ok(0))).collect();
        let size = channels * height * width;
        parallel::for_each_chunk(images.data_mut::<f32>(), size, (1 << 14) / size.max(1), |i, pixels| {
            let label = self.dataset.read(indices[i], pixels);
            if label.is_ok() {
                self.pipeline.apply_to(pixels, [channels, height, width], seed, epoch, indices[i]);
            }
            *lock(&labels[i]) = label;
        });
        let labels = labels.into_iter().zip(&indices).map(|(label, &index)| {
            label.into_inner().unwrap_or_else(PoisonError::into_inner).map_err(|e| e.of_sample(index))
        });
        let labels: Vec<i64> = labels.collect::<Result<_>>()?;
        let targets = self.mix.as_ref().map(|mix| {
            let classes = self.dataset.classes().len();
            mix.mix(&mut images, &labels, classes, seed, epoch, &indices)
        });
        Ok(Batch { images, labels: Tensor::from_vec(labels, &[indices.len()]), targets, indices })
    }
}
