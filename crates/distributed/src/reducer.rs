//! The gradients of one step on their way to their sums.

use crate::buckets::layout;
use crate::communicator::{Communicator, Pending, contiguous, own};
use crate::engine::{Sum, Target};
use crate::error::Result;
use crate::options::DdpOptions;
use crate::shards::TreeSum;
use crate::sum::{Reduce, scale};
use std::time::{Duration, Instant};
use tapegrad_tape::{DType, Tensor, Var, dispatch};

/// A parameter of the model.
pub(crate) struct Param {
    pub(crate) name: String,
    pub(crate) var: Var,
}

/// How much of the communication went on during the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SyncStats {
    /// The number of steps.
    pub steps: u64,
    /// The time from the start of the first sum of a step to the end of the last.
    pub communicating: Duration,
    /// The part of it that the step waited for, after its backward pass.
    pub waiting: Duration,
    /// The bytes of gradients that were copied to be sent together with others.
    pub copied_bytes: u64,
    /// The bytes of gradients in all.
    pub gradient_bytes: u64,
}

/// What the hooks of the parameters share.
pub(crate) struct Reducer {
    comm: Communicator,
    options: DdpOptions,
    pub(crate) params: Vec<Param>,
    buckets: Vec<Vec<usize>>,
    bucket_of: Vec<usize>,
    /// Whether the buckets follow the order in which gradients became ready.
    ordered: bool,
    /// False within `no_sync`.
    pub(crate) syncing: bool,
    /// The number of this rank's shard, and of all its shards.
    pub(crate) shard: (usize, usize),
    /// The sums of this step are multiplied by it.
    pub(crate) factor: f64,
    step: Step,
    /// The memory of each bucket of several gradients, from the last step.
    memory: Vec<Option<Tensor>>,
    pub(crate) stats: SyncStats,
    /// Whether each rank gets the sums of its share of each bucket alone.
    pub(crate) keep_shares: bool,
    /// Those sums, by bucket.
    pub(crate) shares: Vec<Tensor>,
}

/// What a step has so far.
#[derive(Default)]
struct Step {
    sums: Vec<TreeSum>,
    /// Whether the parameter had its gradient of this shard.
    seen: Vec<bool>,
    /// Whether it had one in any shard.
    used: Vec<bool>,
    held: Vec<Option<Tensor>>,
    finished: Vec<bool>,
    order: Vec<usize>,
    missing: Vec<usize>,
    launched: usize,
    pending: Vec<Pending>,
    begin: Option<Instant>,
    error: Option<String>,
}

impl Reducer {
    pub(crate) fn new(comm: &Communicator, options: &DdpOptions, params: Vec<Param>) -> Reducer {
        let mut reducer = Reducer {
            comm: comm.clone(),
            options: options.clone(),
            params,
            buckets: Vec::new(),
            bucket_of: Vec::new(),
            ordered: false,
            syncing: true,
            shard: (0, 1),
            factor: 1.0,
            step: Step::default(),
            memory: Vec::new(),
            stats: SyncStats::default(),
            keep_shares: false,
            shares: Vec::new(),
        };
        // Gradients become ready roughly in this order; the first step shows the true one.
        let order: Vec<usize> = (0..reducer.params.len()).rev().collect();
        reducer.divide(&order);
        reducer
    }

    /// Divides the parameters into buckets, in this order.
    fn divide(&mut self, order: &[usize]) {
        let sizes: Vec<(usize, DType)> = self.params.iter().map(|p| (p.var.numel(), p.var.dtype())).collect();
        self.buckets = layout(order, &sizes, self.options.first_bucket_bytes, self.options.bucket_bytes);
        self.bucket_of = vec![0; self.params.len()];
        for (b, bucket) in self.buckets.iter().enumerate() {
            bucket.iter().for_each(|&i| self.bucket_of[i] = b);
        }
        self.memory = vec![None; self.buckets.len()];
        self.reset();
    }

    fn reset(&mut self) {
        let n = self.params.len();
        self.step = Step {
            sums: vec![TreeSum::default(); n],
            seen: vec![false; n],
            used: vec![false; n],
            held: vec![None; n],
            finished: vec![false; n],
            missing: self.buckets.iter().map(Vec::len).collect(),
            ..Step::default()
        };
        self.shard = (0, 1);
        self.factor = 1.0 / self.comm.size() as f64;
    }

    /// The gradient of a parameter is complete for this backward pass.
    pub(crate) fn hook(&mut self, i: usize, var: &Var) {
        if !self.syncing {
            return;
        }
        if self.step.seen[i] {
            let name = &self.params[i].name;
            self.step.error.get_or_insert_with(|| {
                format!("the parameter {name} has a second gradient: all backward passes of a step but the last belong into no_sync")
            });
            return;
        }
        if self.in_place() {
            if var.grad().is_some() {
                self.stay(i, true);
            }
        } else if let Some(g) = var.take_grad() {
            self.arrive(i, Some(contiguous(g.into_tensor())));
        }
    }

    /// Whether gradients are the sums already: one rank with one shard has nothing to add.
    fn in_place(&self) -> bool {
        self.comm.size() == 1 && self.shard.1 == 1 && !self.keep_shares
    }

    /// A gradient that is a sum already stays where it is.
    fn stay(&mut self, i: usize, used: bool) {
        self.step.seen[i] = true;
        self.step.used[i] = used;
        self.step.order.push(i);
        let p = &self.params[i].var;
        self.stats.gradient_bytes += (p.numel() * p.dtype().size()) as u64;
    }

    fn arrive(&mut self, i: usize, g: Option<Tensor>) {
        let (number, count) = self.shard;
        let step = &mut self.step;
        step.seen[i] = true;
        step.used[i] |= g.is_some();
        let sum = step.sums[i].push(number, count, g);
        if number + 1 < count {
            return;
        }
        step.held[i] = sum;
        step.finished[i] = true;
        step.order.push(i);
        let bucket = self.bucket_of[i];
        step.missing[bucket] -= 1;
        // In the order of the buckets: the ranks' calls are matched by it.
        while self.step.launched < self.buckets.len() && self.step.missing[self.step.launched] == 0 {
            let next = self.step.launched;
            self.step.launched += 1;
            if let Err(e) = self.launch(next) {
                self.step.error.get_or_insert_with(|| e.to_string());
            }
        }
        if let Err(e) = self.comm.progress() {
            self.step.error.get_or_insert_with(|| e.to_string());
        }
    }

    /// Starts the sum of a bucket.
    fn launch(&mut self, bucket: usize) -> Result<()> {
        self.step.begin.get_or_insert_with(Instant::now);
        let members = &self.buckets[bucket];
        let numel = |i: usize| self.params[i].var.numel();
        let dtype = self.params[members[0]].var.dtype();
        let bytes = members.iter().map(|&i| numel(i)).sum::<usize>() * dtype.size();
        self.stats.gradient_bytes += bytes as u64;
        let buffer = match members[..] {
            [one] => self.step.held[one]
                .take()
                .unwrap_or_else(|| Tensor::zeros_with(self.params[one].var.shape(), dtype)),
            _ => {
                self.stats.copied_bytes += bytes as u64;
                let total = members.iter().map(|&i| numel(i)).sum::<usize>();
                let memory = self.memory[bucket].take();
                let mut flat = memory.unwrap_or_else(|| Tensor::uninit(&[total], dtype));
                dispatch!(float: dtype, "gradients", T => {
                    let mut rest = flat.make_mut::<T>();
                    for &i in members {
                        let (own, after) = rest.split_at_mut(numel(i));
                        match self.step.held[i].take() {
                            Some(g) => own.copy_from_slice(g.as_slice::<T>().expect("contiguous")),
                            None => own.fill(0.0),
                        }
                        rest = after;
                    }
                });
                flat
            }
        };
        // The sum is written where its terms are: not into memory that others read.
        let buffer = own(buffer);
        let target = if self.keep_shares { Target::Own } else { Target::All };
        // In a fixed order also where none is asked for: MPI's own sum takes longer.
        let sum = Sum { how: Reduce::Sum, target, factor: self.factor };
        self.step.pending.push(self.comm.start_sum(buffer, sum)?);
        Ok(())
    }

    /// Ends a shard: what no hook has brought has the gradient that was accumulated before, or none.
    pub(crate) fn end_shard(&mut self) {
        for i in 0..self.params.len() {
            if self.step.seen[i] {
                continue;
            }
            if self.in_place() {
                self.stay(i, self.params[i].var.grad().is_some());
            } else {
                let g = self.params[i].var.take_grad();
                self.arrive(i, g.map(|g| contiguous(g.into_tensor())));
            }
        }
        if self.shard.0 + 1 < self.shard.1 {
            self.step.seen.fill(false);
        }
    }

    /// Whether a backward pass has run since the last step.
    pub(crate) fn is_begun(&self) -> bool {
        self.step.seen.contains(&true) || !self.step.order.is_empty()
    }

    /// Waits for all sums and makes them the gradients. Returns the numbers of all ranks.
    pub(crate) fn finish(&mut self, numbers: &[f64]) -> Result<Vec<Vec<f64>>> {
        self.end_shard();
        let comm = self.comm.clone();
        let error = self.step.error.take();
        let unused = (self.params.iter().zip(&self.step.used))
            .filter(|(p, used)| !**used && p.var.requires_grad())
            .count();
        // A rank without a sample has no gradients at all.
        let idle = !self.step.used.contains(&true);
        let flags = [!idle && unused > 0, error.is_some(), idle].map(|x| f64::from(u8::from(x)));
        let own = [&flags, numbers].concat();
        if let Some(reason) = error {
            // The other ranks are told, so that they do not wait.
            let _ = comm.all_gather_numbers(&own);
            self.reset();
            return Err(comm.error("backward", reason));
        }
        let all = comm.all_gather_numbers(&own)?;
        if let Some(rank) = all.iter().position(|n| n[1] != 0.0) {
            return Err(comm.error("backward", format!("rank {rank} has failed")));
        }
        if self.in_place() && self.factor != 1.0 {
            self.scale_all();
        }
        let start = Instant::now();
        let pending = std::mem::take(&mut self.step.pending);
        self.shares.clear();
        for (bucket, pending) in pending.into_iter().enumerate() {
            let sum = pending.wait()?;
            if self.keep_shares {
                self.shares.push(sum);
            } else {
                self.hand_out(bucket, sum);
            }
        }
        if let Some(begin) = self.step.begin {
            self.stats.waiting += start.elapsed();
            self.stats.communicating += begin.elapsed();
        }
        self.stats.steps += 1;
        let found = if all.iter().any(|n| n[0] != 0.0) { self.drop_unused() } else { Ok(()) };
        if all.iter().all(|n| n[2] != 0.0) {
            self.params.iter().for_each(|p| p.var.zero_grad());
        }
        let order = std::mem::take(&mut self.step.order);
        self.reset();
        found?;
        if !self.ordered {
            self.ordered = true;
            self.follow(&order)?;
        }
        Ok(all.into_iter().map(|n| n[flags.len()..].to_vec()).collect())
    }

    /// Multiplies the gradients that have stayed in place.
    fn scale_all(&self) {
        for p in &self.params {
            if let Some(g) = p.var.take_grad() {
                let mut g = contiguous(g.into_tensor());
                scale(&mut g, self.factor);
                p.var.set_grad(Some(Var::from(g)));
            }
        }
    }

    /// Sets the gradients: parts of the memory of their bucket.
    fn hand_out(&mut self, bucket: usize, sum: Tensor) {
        let members = &self.buckets[bucket];
        if let [one] = members[..] {
            let var = &self.params[one].var;
            if var.requires_grad() {
                var.set_grad(Some(Var::from(sum.reshape(var.shape()))));
            }
            return;
        }
        let mut from = 0;
        for &i in members {
            let var = &self.params[i].var;
            let part = sum.narrow(0, from, var.numel()).reshape(var.shape());
            // Frozen since: its zeros are no gradient.
            if var.requires_grad() {
                var.set_grad(Some(Var::from(part)));
            }
            from += var.numel();
        }
        self.memory[bucket] = Some(sum);
    }

    /// What no rank has used has no gradient; or an error lists what was not used.
    fn drop_unused(&mut self) -> Result<()> {
        let used: Vec<u8> = self.step.used.iter().map(|&used| u8::from(used)).collect();
        let all = self.comm.all_gather(&Tensor::from_slice(&used, &[used.len()]))?.to_vec::<u8>();
        let active = |u: &[u8]| u.contains(&1);
        let ranks_without = |i: usize| -> Vec<usize> {
            let without = |(_, u): &(usize, &[u8])| active(u) && u[i] == 0;
            all.chunks(used.len()).enumerate().filter(without).map(|(r, _)| r).collect()
        };
        let active_ranks = all.chunks(used.len()).filter(|u| active(u)).count();
        let mut list = Vec::new();
        for (i, p) in self.params.iter().enumerate() {
            let without = ranks_without(i);
            if without.len() == active_ranks {
                p.var.zero_grad();
            }
            if !without.is_empty() && p.var.requires_grad() {
                list.push(format!("{} (ranks {without:?})", p.name));
            }
        }
        if self.options.find_unused_parameters {
            return Ok(());
        }
        let reason = format!(
            "no gradient has reached these parameters: {}; freeze them, or set find_unused_parameters",
            list.join(", ")
        );
        Err(self.comm.error("backward", reason))
    }

    /// Divides the buckets anew, in the order in which gradients became ready on rank 0.
    fn follow(&mut self, order: &[usize]) -> Result<()> {
        let order: Vec<i64> = order.iter().map(|&i| i as i64).collect();
        let order = self.comm.broadcast(Tensor::from_slice(&order, &[order.len()]), 0)?.to_vec::<i64>();
        let order: Vec<usize> = order.into_iter().map(|i| i as usize).collect();
        // Gradients of this step live in the memory of the old buckets, which they keep.
        self.divide(&order);
        Ok(())
    }

    /// The parameters, and the buckets that they are in, which stay so from now on.
    pub(crate) fn fix_buckets(&mut self) -> (Vec<Var>, Vec<Vec<usize>>) {
        self.ordered = true;
        (self.params.iter().map(|p| p.var.clone()).collect(), self.buckets.clone())
    }

    /// The number of buckets.
    pub(crate) fn buckets(&self) -> usize {
        self.buckets.len()
    }
}
