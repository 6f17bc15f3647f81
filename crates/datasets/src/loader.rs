//! Batches from a data set: their order, the worker threads, and prefetching.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tapegrad_tape::{DType, Tensor};

use crate::dataset::Dataset;
use crate::error::{DataError, Result};
use crate::parallel;
use crate::sampler::{RandomSampler, Sampler, SequentialSampler};
use crate::transforms::{Mix, Pipeline, Transform};

/// The input of a training step: images, their labels, and their indices.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The images, `f32 [N, channels, height, width]`.
    pub images: Tensor,
    /// The class of each image, `i64 [N]`.
    pub labels: Tensor,
    /// After mixup or cutmix, the probability of each class, `f32 [N, classes]`: which cross-entropy takes instead of
    /// `labels`.
    pub targets: Option<Tensor>,
    /// The index of each image in the data set.
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

/// The position of a loader; saved in a checkpoint, it lets training resume with exactly the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderState {
    /// The epoch, counted from 0.
    pub epoch: u64,
    /// The number of batches of the epoch that were returned.
    pub position: u64,
    seed: u64,
    samples: u64,
    batch_size: u64,
}

impl LoaderState {
    /// The state as integers, for a file.
    pub fn to_array(self) -> [u64; 5] {
        [self.epoch, self.position, self.seed, self.samples, self.batch_size]
    }

    /// The state from the integers of [`to_array`](Self::to_array).
    pub fn from_array([epoch, position, seed, samples, batch_size]: [u64; 5]) -> Self {
        LoaderState { epoch, position, seed, samples, batch_size }
    }
}

/// Iterates over a data set in batches, as `torch.utils.data.DataLoader`.
///
/// Each `for batch in &loader` is one epoch. The batches depend on the seed, the epoch and the data, never on the number
/// of workers. With workers, background threads prepare the next batches while training uses this one.
///
/// ```
/// use tapegrad_datasets::{DataLoader, synthetic, transforms::RandomCrop};
/// let loader = DataLoader::new(synthetic::digits(100, 0))
///     .batch_size(32)
///     .shuffle(true)
///     .seed(1)
///     .workers(1)
///     .transform(RandomCrop::reflect(2));
/// for batch in &loader {
///     assert_eq!(batch.images.shape()[1..], [1, 28, 28]);
///     assert_eq!(batch.labels.shape(), [batch.len()]);
/// }
/// assert_eq!(loader.len(), 4);
/// assert_eq!(loader.state().epoch, 1);
/// ```
pub struct DataLoader {
    dataset: Arc<dyn Dataset>,
    batch_size: usize,
    shuffle: bool,
    sampler: Option<Arc<dyn Sampler>>,
    seed: u64,
    drop_last: bool,
    workers: usize,
    prefetch: usize,
    pipeline: Pipeline,
    mix: Option<Arc<dyn Mix>>,
    progress: Arc<Mutex<Progress>>,
    waited: Arc<AtomicU64>,
}

#[derive(Default)]
struct Progress {
    epoch: u64,
    position: usize,
    /// The position was restored: the next iteration continues from it rather than starting a new epoch.
    restored: bool,
}

impl DataLoader {
    /// Batches of one sample in order, without workers; the other methods change these defaults.
    pub fn new(dataset: impl Dataset + 'static) -> Self {
        DataLoader {
            dataset: Arc::new(dataset),
            batch_size: 1,
            shuffle: false,
            sampler: None,
            seed: 0,
            drop_last: false,
            workers: 0,
            prefetch: 2,
            pipeline: Pipeline::new(0),
            mix: None,
            progress: Arc::default(),
            waited: Arc::default(),
        }
    }

    /// The number of samples in a batch.
    ///
    /// # Panics
    /// If it is zero.
    #[track_caller]
    #[must_use]
    pub fn batch_size(mut self, batch_size: usize) -> Self {
        assert!(batch_size > 0, "DataLoader: batch_size must be at least 1");
        self.batch_size = batch_size;
        self
    }

    /// Whether each epoch visits the samples in a new random order.
    #[must_use]
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.shuffle = shuffle;
        self
    }

    /// A custom order, instead of [`shuffle`](Self::shuffle).
    #[must_use]
    pub fn sampler(mut self, sampler: impl Sampler + 'static) -> Self {
        self.sampler = Some(Arc::new(sampler));
        self
    }

    /// The seed of the order and of all transforms.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self.pipeline.set_seed(seed);
        self
    }

    /// Whether an incomplete last batch is dropped.
    #[must_use]
    pub fn drop_last(mut self, drop_last: bool) -> Self {
        self.drop_last = drop_last;
        self
    }

    /// The number of background threads. With 0, batches are prepared when they are asked for, on rayon's workers.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// The number of batches that each worker may prefetch; 2 by default.
    ///
    /// # Panics
    /// If it is zero.
    #[track_caller]
    #[must_use]
    pub fn prefetch(mut self, prefetch: usize) -> Self {
        assert!(prefetch > 0, "DataLoader: prefetch must be at least 1");
        self.prefetch = prefetch;
        self
    }

    /// Adds a transform; they are applied to each image in the order in which they were added.
    #[must_use]
    pub fn transform(mut self, transform: impl Transform + 'static) -> Self {
        self.pipeline = self.pipeline.with(transform);
        self
    }

    /// Mixes the images of a batch after all transforms, with [`Mixup`](crate::transforms::Mixup) or
    /// [`CutMix`](crate::transforms::CutMix).
    #[must_use]
    pub fn mix(mut self, mix: impl Mix + 'static) -> Self {
        self.mix = Some(Arc::new(mix));
        self
    }

    /// The number of batches in an epoch.
    pub fn len(&self) -> usize {
        match self.drop_last {
            true => self.dataset.len() / self.batch_size,
            false => self.dataset.len().div_ceil(self.batch_size),
        }
    }

    /// True if an epoch has no batch.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it reads from.
    pub fn dataset(&self) -> &dyn Dataset {
        &*self.dataset
    }

    /// Its position: the epoch, and the number of its batches that were returned.
    pub fn state(&self) -> LoaderState {
        let progress = lock(&self.progress);
        LoaderState {
            epoch: progress.epoch,
            position: progress.position as u64,
            seed: self.seed,
            samples: self.dataset.len() as u64,
            batch_size: self.batch_size as u64,
        }
    }

    /// Restores a saved state: the next iteration returns the batches that would have followed it.
    ///
    /// # Errors
    /// If the state was saved by a loader with another seed, batch size or number of samples.
    pub fn restore(&self, state: LoaderState) -> Result<()> {
        let own = self.state();
        for (what, saved, here) in [
            ("seed", state.seed, own.seed),
            ("samples", state.samples, own.samples),
            ("batch_size", state.batch_size, own.batch_size),
        ] {
            if saved != here {
                return Err(DataError::LoaderState { what, found: saved, expected: here.to_string() });
            }
        }
        if state.position > self.len() as u64 {
            let expected = format!("at most {}", self.len());
            return Err(DataError::LoaderState { what: "position", found: state.position, expected });
        }
        *lock(&self.progress) =
            Progress { epoch: state.epoch, position: state.position as usize, restored: true };
        Ok(())
    }

    /// The total time that iterations have spent waiting for a batch, since the loader was made.
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }

    /// The batches of one epoch: the first, the next, or after [`restore`](Self::restore) the rest of the restored one.
    ///
    /// An epoch that was left early is not resumed.
    pub fn iter(&self) -> Batches {
        let mut progress = lock(&self.progress);
        if !std::mem::take(&mut progress.restored) && progress.position > 0 {
            progress.epoch += 1;
            progress.position = 0;
        }
        let (epoch, position) = (progress.epoch, progress.position);
        drop(progress);
        let order = match (&self.sampler, self.shuffle) {
            (Some(sampler), _) => sampler.order(self.dataset.len(), epoch),
            (None, true) => RandomSampler::new(self.seed).order(self.dataset.len(), epoch),
            (None, false) => SequentialSampler.order(self.dataset.len(), epoch),
        };
        let end = match self.drop_last {
            true => order.len() / self.batch_size,
            false => order.len().div_ceil(self.batch_size),
        };
        let recipe = Arc::new(Recipe {
            dataset: self.dataset.clone(),
            pipeline: self.pipeline.clone(),
            mix: self.mix.clone(),
            seed: self.seed,
            epoch,
            order,
            batch_size: self.batch_size,
        });
        let pool = (self.workers > 0 && position < end)
            .then(|| WorkerPool::start(&recipe, position..end, self.workers, self.workers * self.prefetch))
            .filter(|pool| !pool.threads.is_empty());
        let (progress, waited) = (self.progress.clone(), self.waited.clone());
        Batches { recipe, pool, position, end, progress, waited }
    }
}

impl IntoIterator for &DataLoader {
    type Item = Batch;
    type IntoIter = Batches;
    fn into_iter(self) -> Batches {
        self.iter()
    }
}

/// The batches of one epoch; made by [`DataLoader::iter`].
pub struct Batches {
    recipe: Arc<Recipe>,
    pool: Option<WorkerPool>,
    position: usize,
    end: usize,
    progress: Arc<Mutex<Progress>>,
    waited: Arc<AtomicU64>,
}

impl Iterator for Batches {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        if self.position >= self.end {
            let mut progress = lock(&self.progress);
            if progress.epoch == self.recipe.epoch {
                *progress = Progress { epoch: self.recipe.epoch + 1, ..Progress::default() };
            }
            return None;
        }
        let start = Instant::now();
        let batch = match &self.pool {
            Some(pool) => pool.take(self.position).unwrap_or_else(|panic| {
                self.end = self.position;
                resume_unwind(panic)
            }),
            None => self.recipe.batch(self.position),
        };
        self.waited.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        self.position += 1;
        lock(&self.progress).position = self.position;
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.position, Some(self.end - self.position))
    }
}

impl ExactSizeIterator for Batches {}

/// Everything that determines the batches of an epoch.
struct Recipe {
    dataset: Arc<dyn Dataset>,
    pipeline: Pipeline,
    mix: Option<Arc<dyn Mix>>,
    seed: u64,
    epoch: u64,
    order: Vec<usize>,
    batch_size: usize,
}

impl Recipe {
    fn batch(&self, number: usize) -> Batch {
        let from = number * self.batch_size;
        let indices = self.order[from..self.order.len().min(from + self.batch_size)].to_vec();
        let [channels, height, width] = self.dataset.image_shape();
        let shape = [indices.len(), channels, height, width];
        let mut images = Tensor::uninit(&shape, DType::F32);
        let labels: Vec<Mutex<i64>> = indices.iter().map(|_| Mutex::new(0)).collect();
        let size = channels * height * width;
        parallel::for_each_chunk(images.data_mut::<f32>(), size, (1 << 14) / size.max(1), |i, pixels| {
            *lock(&labels[i]) = self.dataset.read(indices[i], pixels);
            self.pipeline.apply_to(pixels, self.dataset.image_shape(), self.epoch, indices[i]);
        });
        let labels: Vec<i64> =
            labels.into_iter().map(|l| l.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
        let targets = self.mix.as_ref().map(|mix| {
            let classes = self.dataset.classes().len();
            mix.mix(&mut images, &labels, classes, self.seed, self.epoch, &indices)
        });
        Batch { images, labels: Tensor::from_vec(labels, &[indices.len()]), targets, indices }
    }
}

type Prepared = std::result::Result<Batch, Box<dyn Any + Send>>;

/// Background threads and their finished batches.
struct WorkerPool {
    queue: Arc<WorkQueue>,
    threads: Vec<JoinHandle<()>>,
}

struct WorkQueue {
    state: Mutex<QueueState>,
    /// A batch is ready.
    ready: Condvar,
    /// A batch was taken, so there is room for another; or the workers should stop.
    room: Condvar,
    window: usize,
}

struct QueueState {
    ready: BTreeMap<usize, Prepared>,
    /// The next batch that no worker has taken.
    next: usize,
    /// The next batch for the consumer.
    wanted: usize,
    end: usize,
    stop: bool,
}

impl WorkerPool {
    fn start(recipe: &Arc<Recipe>, batches: std::ops::Range<usize>, workers: usize, window: usize) -> Self {
        let (next, end) = (batches.start, batches.end);
        let state = QueueState { ready: BTreeMap::new(), next, wanted: next, end, stop: false };
        let queue = Arc::new(WorkQueue {
            state: Mutex::new(state),
            ready: Condvar::new(),
            room: Condvar::new(),
            window,
        });
        // If the system refuses threads, there are fewer, or none.
        let threads = (0..workers.min(batches.len()))
            .map_while(|i| {
                let (queue, recipe) = (queue.clone(), recipe.clone());
                std::thread::Builder::new()
                    .name(format!("loader-{i}"))
                    .spawn(move || queue.work(&recipe))
                    .ok()
            })
            .collect();
        WorkerPool { queue, threads }
    }

    fn take(&self, number: usize) -> Prepared {
        let mut state = lock(&self.queue.state);
        loop {
            if let Some(batch) = state.ready.remove(&number) {
                state.wanted = number + 1;
                drop(state);
                self.queue.room.notify_all();
                return batch;
            }
            state = self.queue.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        lock(&self.queue.state).stop = true;
        self.queue.room.notify_all();
        for thread in self.threads.drain(..) {
            // A worker's panic has been passed on with its batch.
            let _ = thread.join();
        }
    }
}

impl WorkQueue {
    fn work(&self, recipe: &Recipe) {
        parallel::work_alone();
        while let Some(number) = self.claim() {
            let batch = catch_unwind(AssertUnwindSafe(|| recipe.batch(number)));
            lock(&self.state).ready.insert(number, batch);
            self.ready.notify_all();
        }
    }

    fn claim(&self) -> Option<usize> {
        let mut state = lock(&self.state);
        loop {
            if state.stop || state.next >= state.end {
                return None;
            }
            if state.next < state.wanted + self.window {
                state.next += 1;
                return Some(state.next - 1);
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
