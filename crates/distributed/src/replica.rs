//! `Replica`: one rank's copy of a model.

use crate::agree;
use crate::communicator::Communicator;
use crate::error::Result;
use crate::options::DdpOptions;
use crate::reducer::{Param, Reducer, SyncStats};
use crate::shards::{Shard, TreeSum};
use crate::sum::{Reduce, scale};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tapegrad_nn::Module;
use tapegrad_nn::optim::clip_grad_norm_;
use tapegrad_tape::{
    DType, Generator, HookHandle, Tensor, Var, default_generator_state, set_default_generator_state,
    with_default_generator,
};

/// The parameters and buffers of one rank's copy of a model, and what keeps them equal to those of the other ranks. A
/// [`DistributedDataParallel`](crate::DistributedDataParallel) is a model with one; a trainer takes one alone.
///
/// ```
/// use tapegrad_distributed::{Communicator, DdpOptions, Replica};
/// use tapegrad_nn::{Forward, Linear, Module};
/// use tapegrad_tape::Var;
/// let model = Linear::new(2, 1);
/// let replica = Replica::new(&model, &Communicator::single(), DdpOptions::new()).unwrap();
/// let x = Var::from_vec(vec![1f32; 32], &[16, 2]);
/// // Each of the virtual shards is a part of this rank's samples.
/// let mean = replica.backward(16, |part| {
///     model.forward(&x.narrow(0, part.start, part.len())).square().mean_all()
/// });
/// assert!(mean.unwrap() >= 0.0 && model.weight.grad().is_some());
/// ```
pub struct Replica {
    comm: Communicator,
    options: DdpOptions,
    shards: usize,
    buffers: Vec<Var>,
    reducer: Arc<Mutex<Reducer>>,
    hooks: Vec<HookHandle>,
}

fn lock(reducer: &Mutex<Reducer>) -> MutexGuard<'_, Reducer> {
    reducer.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Replica {
    /// Gives the model the parameters and buffers of rank 0's. Its parameters that require a gradient are those that are
    /// kept equal.
    ///
    /// # Errors
    /// If the ranks' models, options or versions differ, or the virtual shards cannot be divided among the ranks: it says
    /// which ranks differ, in what.
    pub fn new<M: Module + ?Sized>(model: &M, comm: &Communicator, options: DdpOptions) -> Result<Replica> {
        let named = model.named_parameters();
        let buffers = model.named_buffers();
        let buffers: Vec<(String, Var)> = buffers.into_iter().map(|(name, b)| (name, (*b).clone())).collect();
        agree::on_model(comm, &options, &named, &buffers)?;
        let shards = options.shards_of(comm.size()).map_err(|e| comm.error("DistributedDataParallel", e))?;
        let buffers: Vec<Var> = buffers.into_iter().map(|(_, b)| b).collect();
        for v in named.iter().map(|(_, p)| p).chain(&buffers) {
            v.set_value(comm.broadcast(v.tensor(), 0)?);
        }
        let params: Vec<Param> = (named.into_iter())
            .filter(|(_, p)| p.requires_grad())
            .map(|(name, var)| Param { name, var })
            .collect();
        let vars: Vec<Var> = params.iter().map(|p| p.var.clone()).collect();
        let reducer = Arc::new(Mutex::new(Reducer::new(comm, &options, params)));
        let hooks = vars.iter().enumerate().map(|(i, p)| {
            // The reducer holds the parameters, which hold the hooks: a strong reference would be a cycle.
            let weak = Arc::downgrade(&reducer);
            p.register_post_accumulate_grad_hook(move |p| {
                if let Some(reducer) = weak.upgrade() {
                    lock(&reducer).hook(i, p);
                }
            })
        });
        let hooks = hooks.collect();
        Ok(Replica { comm: comm.clone(), options, shards, buffers, reducer, hooks })
    }

    /// The ranks that have the copies.
    pub fn communicator(&self) -> &Communicator {
        &self.comm
    }

    /// The number of virtual shards of all ranks together.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// The number of buckets in which gradients are sent.
    pub fn buckets(&self) -> usize {
        lock(&self.reducer).buckets()
    }

    /// How much of the communication was hidden behind the backward pass.
    pub fn stats(&self) -> SyncStats {
        lock(&self.reducer).stats
    }

    /// Backward passes within `f` add to this rank's gradients only; the next one outside sends them all
    /// (`DistributedDataParallel.no_sync`).
    pub fn no_sync<R>(&self, f: impl FnOnce() -> R) -> R {
        let before = std::mem::replace(&mut lock(&self.reducer).syncing, false);
        let result = f();
        lock(&self.reducer).syncing = before;
        result
    }

    /// Waits for the sums that the last backward pass has started: the gradients are then the means over all ranks. Without a
    /// backward pass since the last time it does nothing.
    ///
    /// # Errors
    /// If a rank has failed, or parameters have no gradient: see [`DdpOptions::find_unused_parameters`].
    pub fn synchronize(&self) -> Result<()> {
        let mut reducer = lock(&self.reducer);
        if !reducer.is_begun() {
            return Ok(());
        }
        reducer.finish(&[]).map(drop)
    }

    /// [`synchronize`](Self::synchronize), then scales all gradients together so that their norm is at most `max_norm`;
    /// returns the norm before. It is the same on all ranks.
    ///
    /// # Errors
    /// As [`synchronize`](Self::synchronize).
    pub fn clip_grad_norm_(&self, max_norm: f64) -> Result<f64> {
        self.synchronize()?;
        let params: Vec<Var> = lock(&self.reducer).params.iter().map(|p| p.var.clone()).collect();
        Ok(clip_grad_norm_(&params, max_norm))
    }

    /// Gives all ranks the buffers of rank 0, such as running means.
    ///
    /// # Errors
    /// If a rank has failed.
    pub fn broadcast_buffers(&self) -> Result<()> {
        if self.comm.size() > 1 {
            for b in &self.buffers {
                b.set_value(self.comm.broadcast(b.tensor(), 0)?);
            }
        }
        Ok(())
    }

    /// One backward pass for each virtual shard of this rank: `loss` gets a range of the rank's `samples` and returns their
    /// mean loss. The gradients are then those of the mean over the samples of all ranks, and so is the loss that is returned.
    ///
    /// If the options are deterministic and each rank has its block of the batch, as loaders with
    /// [`distributed`](https://docs.rs/tapegrad-datasets) give it, weights have the same bits for every number of ranks. Buffers become the
    /// means over the shards, and random numbers depend on the shard alone.
    ///
    /// # Errors
    /// If a rank has failed, or parameters have no gradient.
    pub fn backward(&self, samples: usize, mut loss: impl FnMut(Range<usize>) -> Var) -> Result<f64> {
        let all = self.comm.all_gather_numbers(&[samples as f64])?;
        let all: Vec<usize> = all.iter().map(|n| n[0] as usize).collect();
        let total: usize = all.iter().sum();
        if total == 0 {
            return Err(self.comm.error("backward", "no rank has a sample"));
        }
        let own = Own::of(&all, self.comm.rank(), self.shards);
        let mut sums = Vec::new();
        let numbers = self.backward_shards(1.0, &mut |shard| {
            let part = own.range(shard);
            let (mut sum, n) = (0.0, part.len());
            if n > 0 {
                let loss = loss(part);
                sum = loss.item() * n as f64;
                (loss * (n as f64 / total as f64)).backward();
            }
            sums.push(sum);
            vec![sum]
        })?;
        Ok(numbers.iter().map(|n| n[0]).sum::<f64>() / total as f64)
    }

    /// Calls `pass` for each virtual shard of this rank, within which backward passes add to the shard's gradients, and waits
    /// for the sums over all shards of all ranks, which are multiplied by `factor`. Returns what `pass` has returned for all
    /// shards, in their order: as many numbers for each.
    ///
    /// # Errors
    /// If a rank has failed, or parameters have no gradient.
    pub fn backward_shards(
        &self,
        factor: f64,
        pass: &mut dyn FnMut(Shard) -> Vec<f64>,
    ) -> Result<Vec<Vec<f64>>> {
        let each = self.shards / self.comm.size();
        let start: Vec<Tensor> = self.buffers.iter().map(Var::tensor).collect();
        let mut sums = vec![TreeSum::default(); self.buffers.len()];
        let mut last: Vec<Option<Tensor>> = Vec::new();
        let mut numbers = Vec::new();
        let random = (self.shards > 1)
            .then(|| (with_default_generator(Generator::next_u64), default_generator_state()));
        for number in 0..each {
            let shard = Shard { index: self.comm.rank() * each + number, count: self.shards };
            if let Some((seed, _)) = random {
                let stream = Generator::stream(seed, "shard", [shard.index as u64, 0]);
                set_default_generator_state(stream.state());
            }
            self.buffers.iter().zip(&start).for_each(|(b, t)| b.set_value(t.clone()));
            let mut reducer = lock(&self.reducer);
            (reducer.shard, reducer.factor) = ((number, each), factor);
            drop(reducer);
            numbers.extend(pass(shard));
            lock(&self.reducer).end_shard();
            last = (self.buffers.iter().zip(&mut sums).zip(last.into_iter().chain(std::iter::repeat(None))))
                .map(|((b, sum), before)| {
                    let value = b.tensor().contiguous();
                    match b.dtype().is_float() {
                        true => sum.push(number, each, Some(value)),
                        // A number of batches: what the shard that has counted says.
                        false => Some(before.map_or(value.clone(), |t| largest(t, value))),
                    }
                })
                .collect();
        }
        if let Some((_, state)) = random {
            set_default_generator_state(state);
        }
        self.join_buffers(last)?;
        let all = lock(&self.reducer).finish(&numbers)?;
        let width = numbers.len() / each;
        Ok(all.iter().flat_map(|n| n.chunks(width.max(1)).map(<[f64]>::to_vec)).collect())
    }

    /// Sets the buffers to their means over the shards; those of integers to the largest.
    fn join_buffers(&self, values: Vec<Option<Tensor>>) -> Result<()> {
        let mut waiting = Vec::new();
        for (b, value) in self.buffers.iter().zip(values) {
            let Some(value) = value else { continue };
            let how = if b.dtype().is_float() { Reduce::Sum } else { Reduce::Max };
            if matches!(b.dtype(), DType::F32 | DType::F64 | DType::I64) {
                waiting.push((b, self.comm.start_all_reduce(value, how)?));
            }
        }
        for (b, pending) in waiting {
            let mut t = pending.wait()?;
            if b.dtype().is_float() {
                scale(&mut t, 1.0 / self.shards as f64);
            }
            b.set_value(t);
        }
        Ok(())
    }

    /// The parameters, and the buckets that they are in, which stay so from now on.
    pub(crate) fn fix_buckets(&self) -> (Vec<Var>, Vec<Vec<usize>>) {
        lock(&self.reducer).fix_buckets()
    }

    /// Whether each rank keeps the sums of its share alone.
    pub(crate) fn keep_shares(&self, keep: bool) {
        lock(&self.reducer).keep_shares = keep;
    }

    /// The memory of a bucket, of which this rank's share is summed, since the last step.
    pub(crate) fn share(&self, bucket: usize) -> Option<Tensor> {
        lock(&self.reducer).shares.get(bucket).cloned()
    }

    pub(crate) fn options(&self) -> &DdpOptions {
        &self.options
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.hooks.drain(..).for_each(HookHandle::remove);
    }
}

fn largest(a: Tensor, b: Tensor) -> Tensor {
    let values = a.to_vec::<i64>().into_iter().zip(b.to_vec::<i64>()).map(|(x, y)| x.max(y));
    Tensor::from_vec(values.collect::<Vec<i64>>(), a.shape()).cast(a.dtype())
}

/// Which of its samples a rank's shards have.
pub(crate) struct Own {
    offset: usize,
    samples: usize,
    /// The samples of all ranks, if each has its block of the batch.
    total: Option<usize>,
    first: usize,
    each: usize,
}

impl Own {
    pub(crate) fn of(all: &[usize], rank: usize, shards: usize) -> Own {
        let total: usize = all.iter().sum();
        let each = shards / all.len();
        let block = |r: usize| Shard { index: r, count: all.len() }.samples(total).len();
        let in_blocks = all.iter().enumerate().all(|(r, &n)| n == block(r));
        Own {
            offset: all[..rank].iter().sum(),
            samples: all[rank],
            total: in_blocks.then_some(total),
            first: rank * each,
            each,
        }
    }

    pub(crate) fn range(&self, shard: Shard) -> Range<usize> {
        match self.total {
            Some(total) => {
                let range = shard.samples(total);
                range.start - self.offset..range.end - self.offset
            }
            None => Shard { index: shard.index - self.first, count: self.each }.samples(self.samples),
        }
    }
}
