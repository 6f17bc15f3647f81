//! Batches from streams: data that has no index, such as lines of a file that is too large for memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tapegrad_tape::Generator;

use crate::collate::{Collate, IntoVars};
use crate::error::{DataError, Result};

type Stream<S> = Box<dyn Iterator<Item = Result<S>> + Send>;

/// Iterates over a stream of samples in batches, as `torch.utils.data.DataLoader` over an `IterableDataset`.
///
/// Each `for ... in &loader` is one epoch: the function is called with its number, from 0, and returns the samples.
///
/// ```
/// use tapegrad_datasets::StreamLoader;
/// let loader = StreamLoader::new(|epoch| (0..5).map(move |i| Ok((i as f32, epoch as i64)))).batch_size(2);
/// let sums: Vec<f64> = loader.into_iter().map(|(x, _)| x.sum_all().item()).collect();
/// assert_eq!(sums, [1.0, 5.0, 4.0]);
/// ```
///
/// An error of the stream ends the epoch: [`try_iter`](Self::try_iter) returns it, the other iterators panic with it.
pub struct StreamLoader<S, B> {
    stream: Arc<dyn Fn(u64) -> Stream<S> + Send + Sync>,
    collate: Arc<dyn Fn(Vec<S>) -> std::result::Result<B, String> + Send + Sync>,
    batch_size: usize,
    drop_last: bool,
    shuffle: Option<(usize, u64)>,
    epoch: AtomicU64,
}

impl<S: Collate + Send + 'static> StreamLoader<S, S::Batch> {
    /// Batches of one sample; the other methods change this.
    pub fn new<I: Iterator<Item = Result<S>> + Send + 'static>(
        stream: impl Fn(u64) -> I + Send + Sync + 'static,
    ) -> Self {
        StreamLoader::collate_with(stream, S::collate)
    }
}

impl<S: Send + 'static, B> StreamLoader<S, B> {
    /// As [`new`](Self::new), with a function that makes the batch. Its error is a sentence.
    pub fn collate_with<I: Iterator<Item = Result<S>> + Send + 'static>(
        stream: impl Fn(u64) -> I + Send + Sync + 'static,
        collate: impl Fn(Vec<S>) -> std::result::Result<B, String> + Send + Sync + 'static,
    ) -> Self {
        StreamLoader {
            stream: Arc::new(move |epoch| Box::new(stream(epoch))),
            collate: Arc::new(collate),
            batch_size: 1,
            drop_last: false,
            shuffle: None,
            epoch: AtomicU64::new(0),
        }
    }

    /// The number of samples in a batch.
    ///
    /// # Panics
    /// If it is zero.
    #[track_caller]
    #[must_use]
    pub fn batch_size(mut self, batch_size: usize) -> Self {
        assert!(batch_size > 0, "StreamLoader: batch_size must be at least 1");
        self.batch_size = batch_size;
        self
    }

    /// Whether an incomplete last batch is dropped.
    #[must_use]
    pub fn drop_last(mut self, drop_last: bool) -> Self {
        self.drop_last = drop_last;
        self
    }

    /// Draws each sample at random from the next `buffer` ones. The order depends on the seed and the epoch.
    ///
    /// # Panics
    /// If the buffer has no place.
    #[track_caller]
    #[must_use]
    pub fn shuffle(mut self, buffer: usize, seed: u64) -> Self {
        assert!(buffer > 0, "StreamLoader: the buffer must hold at least 1 sample");
        self.shuffle = Some((buffer, seed));
        self
    }

    /// The batches of the next epoch, with an error as the last one where the stream fails.
    pub fn try_iter(&self) -> StreamBatches<S, B> {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed);
        let shuffle = self.shuffle.map(|(size, seed)| (size, Generator::stream(seed, "stream", [epoch, 0])));
        StreamBatches {
            stream: Some((self.stream)(epoch)),
            collate: self.collate.clone(),
            batch_size: self.batch_size,
            drop_last: self.drop_last,
            shuffle,
            buffer: Vec::new(),
        }
    }

    /// The batches of the next epoch.
    ///
    /// # Panics
    /// In `next`, if the stream fails or samples do not fit together.
    pub fn iter(&self) -> impl Iterator<Item = B> + use<S, B> {
        self.try_iter().map(|batch| batch.unwrap_or_else(|error| panic!("{error}")))
    }
}

impl<S: Send + 'static, B: IntoVars + 'static> IntoIterator for &StreamLoader<S, B> {
    type Item = B::Vars;
    type IntoIter = Box<dyn Iterator<Item = B::Vars>>;
    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter().map(IntoVars::into_vars))
    }
}

/// The batches of one epoch; made by [`StreamLoader::try_iter`].
pub struct StreamBatches<S, B> {
    /// Taken once it has ended or failed.
    stream: Option<Stream<S>>,
    collate: Arc<dyn Fn(Vec<S>) -> std::result::Result<B, String> + Send + Sync>,
    batch_size: usize,
    drop_last: bool,
    shuffle: Option<(usize, Generator)>,
    buffer: Vec<S>,
}

impl<S, B> StreamBatches<S, B> {
    fn sample(&mut self) -> Option<Result<S>> {
        let next = |stream: &mut Option<Stream<S>>| {
            let sample = stream.as_mut()?.next();
            if sample.is_none() {
                *stream = None;
            }
            sample
        };
        let Some((size, rng)) = &mut self.shuffle else { return next(&mut self.stream) };
        while self.buffer.len() < *size {
            match next(&mut self.stream) {
                Some(Ok(sample)) => self.buffer.push(sample),
                Some(Err(e)) => return Some(Err(e)),
                None => break,
            }
        }
        if self.buffer.is_empty() {
            return None;
        }
        let place = rng.below(self.buffer.len());
        Some(Ok(self.buffer.swap_remove(place)))
    }

    fn end(&mut self) {
        self.stream = None;
        self.buffer.clear();
    }
}

impl<S, B> Iterator for StreamBatches<S, B> {
    type Item = Result<B>;

    fn next(&mut self) -> Option<Result<B>> {
        let mut samples = Vec::new();
        while samples.len() < self.batch_size {
            match self.sample() {
                Some(Ok(sample)) => samples.push(sample),
                Some(Err(e)) => {
                    self.end();
                    return Some(Err(e));
                }
                None => break,
            }
        }
        if samples.is_empty() || (self.drop_last && samples.len() < self.batch_size) {
            self.end();
            return None;
        }
        let batch = (self.collate)(samples).map_err(|reason| DataError::Batch { reason });
        if batch.is_err() {
            self.end();
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: i64) -> StreamLoader<i64, tapegrad_tape::Tensor> {
        StreamLoader::new(move |_| (0..n).map(Ok))
    }

    fn values(loader: &StreamLoader<i64, tapegrad_tape::Tensor>) -> Vec<Vec<i64>> {
        loader.iter().map(|b| b.to_vec()).collect()
    }

    #[test]
    fn batches_of_a_stream() {
        assert_eq!(values(&numbers(5).batch_size(2)), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(values(&numbers(5).batch_size(2).drop_last(true)), [[0, 1], [2, 3]]);
        assert!(values(&numbers(0)).is_empty());
    }

    #[test]
    fn a_buffer_shuffles_by_seed_and_epoch() {
        let loader = || numbers(50).batch_size(50).shuffle(10, 3);
        let first = loader();
        let epochs = [values(&first), values(&first)];
        assert_ne!(epochs[0], epochs[1]);
        assert_eq!(values(&loader()), epochs[0]);
        let mut all = epochs[0][0].clone();
        assert!(all[0] < 10, "a sample comes from the next ten");
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn an_error_ends_the_epoch_and_not_the_next_one() {
        let loader = StreamLoader::new(|epoch| {
            (0..6i64).map(move |i| if (epoch, i) == (0, 3) { Err(DataError::other("line 3")) } else { Ok(i) })
        })
        .batch_size(2);
        let mut batches = loader.try_iter();
        assert_eq!(batches.next().unwrap().unwrap().to_vec::<i64>(), [0, 1]);
        assert_eq!(batches.next().unwrap().unwrap_err().to_string(), "line 3");
        assert!(batches.next().is_none());
        assert_eq!(loader.try_iter().count(), 3);
    }
}
