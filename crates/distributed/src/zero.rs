//! `ZeroRedundancyOptimizer`: optimizer states divided among ranks.

use crate::error::Result;
use crate::replica::Replica;
use crate::transport::{Call, Channel, chunk};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use tapegrad_nn::StateDict;
use tapegrad_nn::optim::{Optimizer, OptimizerStateError};
use tapegrad_tape::kernels::update::sums_of_squares;
use tapegrad_tape::{Tensor, Var};

/// An optimizer of which each rank keeps the states of its share of the elements (ZeRO stage 1, Rajbhandari et al. 2020;
/// `torch.distributed.optim.ZeroRedundancyOptimizer`): with `N` ranks, an `N`-th of the memory. Each rank updates its share, and
/// the ranks exchange the updated parameters.
///
/// The weights have the bits of the undivided optimizer, whose rule must treat every element by itself: SGD, Adam, AdamW and most
/// others, but not Muon or LBFGS. Its saved state is that of the undivided one, so it can be resumed with any number of ranks, or
/// without; all ranks must ask for it. Those that evaluate other weights than they train, as schedule-free ones, switch those of
/// the whole model, on all ranks together.
///
/// ```
/// use tapegrad_distributed::{Communicator, DistributedDataParallel, ZeroRedundancyOptimizer};
/// use tapegrad_nn::{Forward, Linear, Module, optim::{AdamW, Optimizer}};
/// use tapegrad_tape::Var;
/// let model = DistributedDataParallel::new(Linear::new(2, 1), &Communicator::single()).unwrap();
/// let mut optimizer = ZeroRedundancyOptimizer::new(model.replica(), |shares| AdamW::new(shares, 0.1)).reduce_scatter(true);
/// model.forward(&Var::from_vec(vec![1f32, 2.0], &[1, 2])).square().mean_all().backward();
/// optimizer.step();
/// ```
pub struct ZeroRedundancyOptimizer<O> {
    replica: Arc<Replica>,
    optimizer: O,
    params: Vec<Var>,
    pieces: Vec<Piece>,
    reduce_scatter: bool,
}

/// Elements of a parameter that are in this rank's share.
struct Piece {
    param: usize,
    range: Range<usize>,
    bucket: usize,
    /// Where they begin in the bucket.
    from: usize,
    var: Var,
}

impl<O: Optimizer> ZeroRedundancyOptimizer<O> {
    /// Divides the elements of the replica's parameters; `make` gets this rank's share as lists of elements.
    ///
    /// # Panics
    /// If a rank has no element at all.
    #[track_caller]
    pub fn new(replica: &Arc<Replica>, make: impl FnOnce(Vec<Var>) -> O) -> ZeroRedundancyOptimizer<O> {
        let comm = replica.communicator();
        let (params, buckets) = replica.fix_buckets();
        let mut pieces = Vec::new();
        for (bucket, members) in buckets.iter().enumerate() {
            let total = members.iter().map(|&i| params[i].numel()).sum();
            let own = chunk(total, comm.size(), comm.rank());
            let mut from = 0;
            for &param in members {
                let n = params[param].numel();
                let (start, end) = (own.start.max(from), own.end.min(from + n));
                if start < end {
                    let range = start - from..end - from;
                    let var =
                        Var::parameter(flat(&params[param].tensor()).narrow(0, range.start, range.len()));
                    pieces.push(Piece { param, range, bucket, from: start, var });
                }
                from += n;
            }
        }
        assert!(
            !pieces.is_empty(),
            "ZeroRedundancyOptimizer: rank {} of {} has no share of the parameters",
            comm.rank(),
            comm.size()
        );
        let optimizer = make(pieces.iter().map(|p| p.var.clone()).collect());
        ZeroRedundancyOptimizer { replica: replica.clone(), optimizer, params, pieces, reduce_scatter: false }
    }

    /// Whether each rank gets the sums of the gradients of its share alone, which saves a third of the communication. The
    /// parameters then have no gradients of their own after the backward pass: clip them by
    /// [`clip_grad_norm_`](Self::clip_grad_norm_) of this optimizer. A trainer needs them.
    #[must_use]
    pub fn reduce_scatter(mut self, reduce_scatter: bool) -> Self {
        self.reduce_scatter = reduce_scatter;
        self.replica.keep_shares(reduce_scatter);
        self
    }

    /// The optimizer of this rank's share.
    pub fn inner(&mut self) -> &mut O {
        &mut self.optimizer
    }

    /// The bytes of the states that this rank keeps.
    pub fn state_bytes(&self) -> usize {
        let state = self.optimizer.state_dict();
        state.iter().filter(|(key, _)| key.starts_with("state.")).map(|(_, t)| t.bytes()).sum()
    }

    /// Waits for the gradients and gives each piece its own.
    fn collect(&mut self) -> Result<()> {
        self.replica.synchronize()?;
        for p in &self.pieces {
            if p.var.grad().is_some() {
                continue;
            }
            let grad = match self.replica.share(p.bucket) {
                Some(sum) => Some(flat(&sum).narrow(0, p.from, p.range.len())),
                None => self.params[p.param]
                    .grad()
                    .map(|g| flat(&g.tensor()).narrow(0, p.range.start, p.range.len())),
            };
            p.var.set_grad(grad.map(Var::from));
        }
        Ok(())
    }

    /// Scales the gradients of all ranks' shares together so that their norm is at most `max_norm`; returns the norm before.
    /// Its last bits depend on the number of ranks.
    ///
    /// # Errors
    /// If a rank has failed.
    pub fn clip_grad_norm_(&mut self, max_norm: f64) -> Result<f64> {
        self.collect()?;
        let own: Vec<Tensor> = self.pieces.iter().filter_map(|p| p.var.grad()).map(|g| g.tensor()).collect();
        let own: f64 = sums_of_squares(&own).iter().sum();
        let all = self.replica.communicator().all_gather_numbers(&[own])?;
        let norm = all.iter().map(|n| n[0]).sum::<f64>().sqrt();
        let scale = max_norm / (norm + 1e-6);
        if scale < 1.0 || scale.is_nan() {
            for p in &self.pieces {
                let scaled = p.var.grad().map(|g| g * scale);
                p.var.set_grad(scaled);
            }
        }
        Ok(norm)
    }

    /// Steps, and exchanges the shares.
    ///
    /// # Errors
    /// If a rank has failed.
    pub fn try_step(&mut self) -> Result<()> {
        self.try_step_scaled(1.0)
    }

    fn try_step_scaled(&mut self, factor: f64) -> Result<()> {
        self.collect()?;
        self.update(|optimizer| optimizer.step_scaled(factor))?;
        self.pieces.iter().for_each(|p| p.var.zero_grad());
        Ok(())
    }

    /// Lets the optimizer change the values of this rank's share, and exchanges the shares.
    fn update(&mut self, change: impl FnOnce(&mut O)) -> Result<()> {
        for p in &self.pieces {
            let now = flat(&self.params[p.param].tensor()).narrow(0, p.range.start, p.range.len());
            p.var.set_value(now);
        }
        change(&mut self.optimizer);
        let comm = self.replica.communicator();
        let (_, buckets) = self.replica.fix_buckets();
        let mut waiting = Vec::new();
        for (bucket, members) in buckets.iter().enumerate() {
            let total: usize = members.iter().map(|&i| self.params[i].numel()).sum();
            let mut all = Tensor::zeros_with(&[total], self.params[members[0]].dtype());
            tapegrad_tape::dispatch!(float: all.dtype(), "step", T => {
                let memory = all.data_mut::<T>();
                for p in self.pieces.iter().filter(|p| p.bucket == bucket) {
                    let value = p.var.tensor().contiguous();
                    memory[p.from..p.from + p.range.len()].copy_from_slice(value.as_slice::<T>().expect("contiguous"));
                }
            });
            waiting.push((members, comm.start(Channel::Gather, Call::AllGather, all)?));
        }
        for (members, pending) in waiting {
            let all = pending.wait()?;
            let mut from = 0;
            for &i in members {
                let p = &self.params[i];
                p.set_value(all.narrow(0, from, p.numel()).reshape(p.shape()));
                from += p.numel();
            }
        }
        Ok(())
    }
}

fn flat(t: &Tensor) -> Tensor {
    t.contiguous().reshape(&[t.numel()])
}

impl<O: Optimizer> Optimizer for ZeroRedundancyOptimizer<O> {
    /// # Panics
    /// If a rank has failed.
    #[track_caller]
    fn step(&mut self) {
        self.step_scaled(1.0);
    }
    #[track_caller]
    fn step_scaled(&mut self, factor: f64) {
        if let Err(e) = self.try_step_scaled(factor) {
            panic!("{e}");
        }
    }
    fn parameters(&self) -> Vec<Var> {
        self.params.clone()
    }
    fn num_groups(&self) -> usize {
        self.optimizer.num_groups()
    }
    fn lr(&self, group: usize) -> f64 {
        self.optimizer.lr(group)
    }
    fn set_lr(&mut self, group: usize, lr: f64) {
        self.optimizer.set_lr(group, lr);
    }
    fn momentum(&self, group: usize) -> Option<f64> {
        self.optimizer.momentum(group)
    }
    fn set_momentum(&mut self, group: usize, momentum: f64) {
        self.optimizer.set_momentum(group, momentum);
    }

    /// Sets the parameters of the whole model. All ranks must call it, if [`switches`](Optimizer::switches) says that it
    /// changes them.
    ///
    /// # Panics
    /// If a rank has failed.
    #[track_caller]
    fn set_training(&mut self, training: bool) {
        if self.optimizer.switches()
            && let Err(e) = self.update(|optimizer| optimizer.set_training(training))
        {
            panic!("{e}");
        }
    }
    fn switches(&self) -> bool {
        self.optimizer.switches()
    }

    /// The state of the undivided optimizer. All ranks must call it.
    ///
    /// # Panics
    /// If a rank has failed.
    #[track_caller]
    fn state_dict(&self) -> StateDict {
        let own = self.optimizer.state_dict();
        let mut shares = StateDict::new();
        let mut all = StateDict::new();
        for (key, t) in own.iter() {
            match key.strip_prefix("state.0.").and_then(|rest| rest.split_once('.')) {
                Some((number, name)) => {
                    let piece = &self.pieces[number.parse::<usize>().expect("a number")];
                    let Range { start, end } = piece.range;
                    shares.insert(format!("{}.{start}.{}.{name}", piece.param, end - start), t.clone());
                }
                None if key == "group.0.params" => all.insert(key, Tensor::scalar(self.params.len() as i64)),
                None => all.insert(key, t.clone()),
            }
        }
        let bytes = shares.to_safetensors().unwrap_or_else(|e| panic!("state_dict: {e}"));
        let gathered = self
            .replica
            .communicator()
            .all_gather_bytes(&bytes)
            .unwrap_or_else(|e| panic!("state_dict: {e}"));
        let mut found: BTreeMap<(usize, String), BTreeMap<usize, Tensor>> = BTreeMap::new();
        // What belongs to a parameter as a whole, such as the count of its steps, is the same in all of its pieces.
        let mut whole: BTreeSet<String> = BTreeSet::from(["step".into()]);
        for bytes in gathered {
            let part = StateDict::from_safetensors(&bytes).unwrap_or_else(|e| panic!("state_dict: {e}"));
            for (key, t) in part.iter() {
                let fields: Vec<&str> = key.splitn(4, '.').collect();
                let number = |i: usize| fields[i].parse::<usize>().expect("a number");
                let name = fields[3].to_string();
                // Of a piece of one element nothing can be told, but there are others.
                if t.numel() != number(2) {
                    whole.insert(name.clone());
                }
                found.entry((number(0), name)).or_default().insert(number(1), t.clone());
            }
        }
        for ((param, name), parts) in found {
            let parts: Vec<Var> = parts.into_values().map(Var::from).collect();
            let value = if whole.contains(&name) {
                parts[0].tensor()
            } else {
                tapegrad_tape::cat(&parts, 0).tensor().reshape(self.params[param].shape())
            };
            all.insert(format!("state.0.{param}.{name}"), value);
        }
        all
    }

    fn load_state_dict(&mut self, state: &StateDict) -> std::result::Result<(), OptimizerStateError> {
        let mut own = StateDict::new();
        for (key, t) in state.iter() {
            match key.strip_prefix("state.0.").and_then(|rest| rest.split_once('.')) {
                None if key == "group.0.params" => {
                    let fits = t.numel() == 1 && t.item::<i64>() == self.params.len() as i64;
                    let count = if fits { self.pieces.len() as i64 } else { -1 };
                    own.insert(key, Tensor::scalar(count));
                }
                None => own.insert(key, t.clone()),
                Some((number, name)) => {
                    let param = number.parse::<usize>().unwrap_or(usize::MAX);
                    for (i, p) in self.pieces.iter().enumerate().filter(|(_, p)| p.param == param) {
                        let divided = name != "step" && t.shape() == self.params[param].shape();
                        let part =
                            if divided { flat(t).narrow(0, p.range.start, p.range.len()) } else { t.clone() };
                        own.insert(format!("state.0.{i}.{name}"), part);
                    }
                }
            }
        }
        self.optimizer.load_state_dict(&own)
    }
}
