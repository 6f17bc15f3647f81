//! The iterators over the batches of an epoch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::workers::{WorkerPool, lock};
use super::{Loader, Plan, Prepare, Progress};
use crate::collate::IntoVars;
use crate::error::Result;

impl<R: Prepare> IntoIterator for &Loader<R>
where
    R::Batch: IntoVars,
{
    type Item = <R::Batch as IntoVars>::Vars;
    type IntoIter = Vars<R>;
    fn into_iter(self) -> Vars<R> {
        Vars(self.iter())
    }
}

/// The batches of one epoch, or an error at the end; made by [`Loader::try_iter`].
pub struct TryBatches<R: Prepare> {
    pub(super) plan: Arc<Plan<R>>,
    pub(super) pool: Option<WorkerPool<R>>,
    pub(super) position: usize,
    pub(super) end: usize,
    pub(super) progress: Arc<Mutex<Progress>>,
    pub(super) waited: Arc<AtomicU64>,
}

impl<R: Prepare> Iterator for TryBatches<R> {
    type Item = Result<R::Batch>;

    fn next(&mut self) -> Option<Result<R::Batch>> {
        if self.position >= self.end {
            let mut progress = lock(&self.progress);
            if progress.epoch == self.plan.epoch {
                *progress = Progress { epoch: self.plan.epoch + 1, ..Progress::default() };
            }
            return None;
        }
        let start = Instant::now();
        let batch = match &self.pool {
            Some(pool) => pool.take(self.position).unwrap_or_else(|panic| {
                self.fail();
                std::panic::resume_unwind(panic)
            }),
            None => self.plan.batch(self.position),
        };
        self.waited.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        match &batch {
            Ok(_) => {
                self.position += 1;
                lock(&self.progress).position = self.position;
            }
            Err(_) => self.fail(),
        }
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.position, Some(self.end - self.position))
    }
}

impl<R: Prepare> TryBatches<R> {
    /// Ends the epoch. Its workers are not waited for: they may be busy with slow samples.
    fn fail(&mut self) {
        self.end = self.position;
        if let Some(pool) = self.pool.take() {
            pool.abandon();
        }
    }
}

impl<R: Prepare> ExactSizeIterator for TryBatches<R> {}

/// The batches of one epoch; made by [`Loader::iter`].
pub struct Batches<R: Prepare>(pub(super) TryBatches<R>);

impl<R: Prepare> Iterator for Batches<R> {
    type Item = R::Batch;

    fn next(&mut self) -> Option<R::Batch> {
        Some(self.0.next()?.unwrap_or_else(|error| panic!("{error}")))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<R: Prepare> ExactSizeIterator for Batches<R> {}

/// The batches of one epoch as variables; made by `for ... in &loader`.
pub struct Vars<R: Prepare>(Batches<R>);

impl<R: Prepare> Iterator for Vars<R>
where
    R::Batch: IntoVars,
{
    type Item = <R::Batch as IntoVars>::Vars;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(IntoVars::into_vars)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<R: Prepare> ExactSizeIterator for Vars<R> where R::Batch: IntoVars {}
