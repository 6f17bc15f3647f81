//! Batches from a data set: their order, the worker threads, and prefetching.

mod augmented;
mod batches;
mod workers;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use augmented::{Augmented, Batch, ImageLoader};
pub use batches::{Batches, TryBatches, Vars};

use crate::collate::Collate;
use crate::dataset::{Dataset, samples};
use crate::error::{DataError, Result};
use crate::sampler::{RandomSampler, Sampler, SequentialSampler};
use workers::{WorkerPool, lock};

/// How a [`Loader`] makes a batch from indices. [`Collated`] does it for any data set, [`Augmented`] for images.
pub trait Prepare: Send + Sync + 'static {
    /// A batch.
    type Batch: Send + 'static;

    /// The number of samples.
    fn len(&self) -> usize;

    /// True if there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The batch of these samples. It must depend on nothing but the arguments.
    ///
    /// # Errors
    /// If a sample cannot be read, or the samples do not fit together.
    fn batch(&self, indices: Vec<usize>, seed: u64, epoch: u64) -> Result<Self::Batch>;
}

/// The samples of any data set, collated.
pub struct Collated<D, B> {
    dataset: Arc<D>,
    batch: Arc<dyn Fn(&D, &[usize]) -> Result<B> + Send + Sync>,
}

impl<D: Dataset + 'static, B: Send + 'static> Prepare for Collated<D, B> {
    type Batch = B;
    fn len(&self) -> usize {
        self.dataset.len()
    }
    fn batch(&self, indices: Vec<usize>, _seed: u64, _epoch: u64) -> Result<B> {
        (self.batch)(&self.dataset, &indices)
    }
}

/// A loader of the samples of a [`Dataset`], as `torch.utils.data.DataLoader`; see [`Loader`] for its options and
/// [`ImageLoader`] for images that are transformed.
///
/// ```
/// use tapegrad_datasets::{DataLoader, TensorDataset};
/// use tapegrad_tape::{DType, Tensor};
/// let data = TensorDataset::new((Tensor::ones_with(&[10, 3], DType::F32), Tensor::arange(0, 10)));
/// let loader = DataLoader::new(data).batch_size(4).shuffle(true).seed(1);
/// for (x, y) in &loader {
///     assert_eq!(x.shape(), [y.numel(), 3]);
/// }
/// assert_eq!((loader.len(), loader.state().epoch), (3, 1));
/// ```
pub type DataLoader<D, B = <<D as Dataset>::Sample as Collate>::Batch> = Loader<Collated<D, B>>;

impl<D: Dataset + 'static> Loader<Collated<D, <D::Sample as Collate>::Batch>>
where
    D::Sample: Collate,
{
    /// Batches of one sample in order, without workers; the other methods change these defaults.
    pub fn new(dataset: D) -> Self {
        Loader::of(Collated {
            dataset: Arc::new(dataset),
            batch: Arc::new(|d: &D, indices| d.batch(indices)),
        })
    }
}

impl<D: Dataset + 'static, B: Send + 'static> Loader<Collated<D, B>> {
    /// As [`DataLoader::new`](Loader::new), with a function that makes the batch (`collate_fn`). Its error is a sentence.
    ///
    /// ```
    /// use tapegrad_datasets::{DataLoader, TensorDataset, pad_sequence};
    /// use tapegrad_tape::Tensor;
    /// let words = TensorDataset::new(Tensor::arange(0, 4));
    /// let loader = DataLoader::collate_with(words, |samples| {
    ///     let sequences: Vec<Tensor> = samples.iter().map(|n| Tensor::arange(0, n.item::<i64>())).collect();
    ///     pad_sequence(&sequences, -1.0)
    /// });
    /// assert_eq!(loader.batch_size(4).iter().next().unwrap().shape(), [4, 3]);
    /// ```
    pub fn collate_with(
        dataset: D,
        collate: impl Fn(Vec<D::Sample>) -> std::result::Result<B, String> + Send + Sync + 'static,
    ) -> Self {
        let batch = move |d: &D, indices: &[usize]| {
            collate(samples(d, indices)?).map_err(|reason| DataError::Batch { reason })
        };
        Loader::of(Collated { dataset: Arc::new(dataset), batch: Arc::new(batch) })
    }

    /// What it reads from.
    pub fn dataset(&self) -> &D {
        &self.recipe.dataset
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

/// Iterates over samples in batches.
///
/// Each `for ... in &loader` is one epoch. The batches depend on the seed, the epoch and the data, never on the number
/// of workers. With workers, background threads prepare the next batches while training uses this one.
///
/// A sample that cannot be read ends its epoch: [`try_iter`](Self::try_iter) returns the error, the other iterators panic
/// with it. The next iteration is the next epoch.
pub struct Loader<R> {
    recipe: Arc<R>,
    batch_size: usize,
    shuffle: bool,
    sampler: Option<Arc<dyn Sampler>>,
    seed: u64,
    drop_last: bool,
    ranks: Ranks,
    workers: usize,
    prefetch: usize,
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

impl<R: Prepare> Loader<R> {
    /// Batches that are made by `recipe`: one sample each, in order, without workers.
    pub fn of(recipe: R) -> Self {
        Loader {
            recipe: Arc::new(recipe),
            batch_size: 1,
            shuffle: false,
            sampler: None,
            seed: 0,
            drop_last: false,
            ranks: Ranks { rank: 0, size: 1 },
            workers: 0,
            prefetch: 2,
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

    /// The seed of the order and of everything else that is random.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Whether an incomplete last batch is dropped.
    #[must_use]
    pub fn drop_last(mut self, drop_last: bool) -> Self {
        self.drop_last = drop_last;
        self
    }

    /// The part of each batch that process `rank` of `size` takes: a block of its samples, which are those of the batch that one
    /// process would have. So batches depend on the seed, the epoch and the rank alone, `batch_size` is that of all
    /// processes, and so are [`len`](Self::len) and [`state`](Self::state): a state can be restored with another number of
    /// processes. In a last batch with fewer samples than processes, the last ranks have none.
    ///
    /// ```
    /// use tapegrad_datasets::{DataLoader, TensorDataset};
    /// use tapegrad_tape::Tensor;
    /// let part = |rank, size| {
    ///     let loader = DataLoader::new(TensorDataset::new(Tensor::arange(0, 10)));
    ///     let loader = loader.batch_size(4).shuffle(true).seed(1).distributed(rank, size);
    ///     loader.iter().map(|batch| batch.to_vec::<i64>()).collect::<Vec<_>>()
    /// };
    /// let both = part(0, 2).into_iter().zip(part(1, 2)).map(|(a, b)| [a, b].concat());
    /// assert_eq!(both.collect::<Vec<_>>(), part(0, 1));
    /// ```
    ///
    /// # Panics
    /// If `rank` is not below `size`.
    #[track_caller]
    #[must_use]
    pub fn distributed(mut self, rank: usize, size: usize) -> Self {
        assert!(rank < size, "DataLoader: rank {rank} of {size} processes");
        self.ranks = Ranks { rank, size };
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

    /// The number of batches in an epoch.
    pub fn len(&self) -> usize {
        let samples = self.recipe.len();
        self.batches(self.sampler.as_ref().map_or(samples, |s| s.count(samples)))
    }

    fn batches(&self, samples: usize) -> usize {
        match self.drop_last {
            true => samples / self.batch_size,
            false => samples.div_ceil(self.batch_size),
        }
    }

    /// The number of samples in the smallest batch of an epoch.
    pub fn smallest_batch(&self) -> usize {
        let samples = self.recipe.len();
        let samples = self.sampler.as_ref().map_or(samples, |s| s.count(samples));
        let batch = match samples % self.batch_size {
            0 => samples.min(self.batch_size),
            rest if self.drop_last && samples > rest => self.batch_size,
            rest => rest,
        };
        self.ranks.block(batch).len()
    }

    /// True if an epoch has no batch.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its position: the epoch, and the number of its batches that were returned.
    pub fn state(&self) -> LoaderState {
        let progress = lock(&self.progress);
        LoaderState {
            epoch: progress.epoch,
            position: progress.position as u64,
            seed: self.seed,
            samples: self.recipe.len() as u64,
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
    ///
    /// # Panics
    /// In `next`, if a sample cannot be read; see [`try_iter`](Self::try_iter).
    pub fn iter(&self) -> Batches<R> {
        Batches(self.try_iter())
    }

    /// As [`iter`](Self::iter), with an error where a sample cannot be read. It is the last item of the epoch.
    pub fn try_iter(&self) -> TryBatches<R> {
        let mut progress = lock(&self.progress);
        if !std::mem::take(&mut progress.restored) && progress.position > 0 {
            progress.epoch += 1;
            progress.position = 0;
        }
        let (epoch, position) = (progress.epoch, progress.position);
        drop(progress);
        let samples = self.recipe.len();
        let order = match (&self.sampler, self.shuffle) {
            (Some(sampler), _) => sampler.order(samples, epoch),
            (None, true) => RandomSampler::new(self.seed).order(samples, epoch),
            (None, false) => SequentialSampler.order(samples, epoch),
        };
        // Batches without a sample of this process are at the end, if there are any.
        let empty = |number: &usize| {
            let from = (number * self.batch_size).min(order.len());
            self.ranks.block((order.len() - from).min(self.batch_size)).is_empty()
        };
        let all = self.batches(order.len());
        let end = all - (0..all).rev().take_while(empty).count();
        let position = position.min(end);
        let plan = Arc::new(Plan {
            recipe: self.recipe.clone(),
            seed: self.seed,
            epoch,
            order,
            batch_size: self.batch_size,
            ranks: self.ranks,
        });
        let pool = (self.workers > 0 && position < end)
            .then(|| WorkerPool::start(&plan, position..end, self.workers, self.workers * self.prefetch))
            .filter(|pool| !pool.is_empty());
        let (progress, waited) = (self.progress.clone(), self.waited.clone());
        TryBatches { plan, pool, position, end, progress, waited }
    }
}

/// Everything that determines the batches of an epoch.
struct Plan<R> {
    recipe: Arc<R>,
    seed: u64,
    epoch: u64,
    order: Vec<usize>,
    batch_size: usize,
    ranks: Ranks,
}

/// One process among several.
#[derive(Clone, Copy)]
struct Ranks {
    rank: usize,
    size: usize,
}

impl Ranks {
    /// Its samples of a batch of `n`.
    fn block(self, n: usize) -> std::ops::Range<usize> {
        (self.rank * n).div_ceil(self.size)..((self.rank + 1) * n).div_ceil(self.size)
    }
}

impl<R: Prepare> Plan<R> {
    fn batch(&self, number: usize) -> Result<R::Batch> {
        let from = number * self.batch_size;
        let all = &self.order[from..self.order.len().min(from + self.batch_size)];
        let own = all[self.ranks.block(all.len())].to_vec();
        self.recipe.batch(own, self.seed, self.epoch)
    }
}

#[cfg(test)]
mod tests;
