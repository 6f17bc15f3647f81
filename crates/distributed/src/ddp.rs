//! `DistributedDataParallel`.

use crate::communicator::Communicator;
use crate::error::Result;
use crate::options::DdpOptions;
use crate::replica::Replica;
use std::ops::Deref;
use std::sync::Arc;
use tapegrad_nn::optim::{Optimizer, OptimizerStateError};
use tapegrad_nn::{Forward, Item, Module, StateDict};
use tapegrad_tape::Var;

/// A model of which every rank has a copy that it trains on its own samples
/// (`torch.nn.parallel.DistributedDataParallel`). Gradients are summed over the ranks while `backward` runs: as soon as those
/// of a bucket are ready. An optimizer made by [`optimizer`](Self::optimizer) waits for them in its step.
///
/// ```
/// use tapegrad_distributed::{Communicator, DistributedDataParallel};
/// use tapegrad_nn::{Forward, Linear, Module, optim::{Optimizer, SGD}};
/// use tapegrad_tape::Var;
/// let comm = Communicator::world().unwrap();
/// let model = DistributedDataParallel::new(Linear::new(2, 1), &comm).unwrap();
/// let mut optimizer = model.optimizer(SGD::new(model.parameters(), 0.1));
/// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
/// optimizer.zero_grad();
/// model.forward(&x).square().mean_all().backward();
/// optimizer.step();
/// // The same names as without: checkpoints are exchangeable.
/// assert_eq!(model.named_parameters()[0].0, "weight");
/// ```
///
/// [`backward`](Replica::backward) divides the batch into virtual shards, for the same bits with any number of ranks.
pub struct DistributedDataParallel<M: Module> {
    model: M,
    replica: Arc<Replica>,
}

impl<M: Module> DistributedDataParallel<M> {
    /// The model with the parameters and buffers of rank 0's.
    ///
    /// # Errors
    /// As [`Replica::new`].
    pub fn new(model: M, comm: &Communicator) -> Result<DistributedDataParallel<M>> {
        DistributedDataParallel::with_options(model, comm, DdpOptions::new())
    }

    /// [`new`](Self::new) with options.
    ///
    /// # Errors
    /// As [`Replica::new`].
    pub fn with_options(
        model: M,
        comm: &Communicator,
        options: DdpOptions,
    ) -> Result<DistributedDataParallel<M>> {
        let replica = Arc::new(Replica::new(&model, comm, options)?);
        Ok(DistributedDataParallel { model, replica })
    }

    /// The model.
    pub fn module(&self) -> &M {
        &self.model
    }

    /// What keeps this model equal to those of the other ranks.
    pub fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// An optimizer whose step waits for the gradients of all ranks.
    ///
    /// # Panics
    /// In `step`, with the error of [`Replica::synchronize`].
    pub fn optimizer<O: Optimizer>(&self, optimizer: O) -> Synchronized<O> {
        Synchronized { optimizer, replica: self.replica.clone() }
    }
}

impl<M: Module> Deref for DistributedDataParallel<M> {
    type Target = Replica;
    fn deref(&self) -> &Replica {
        &self.replica
    }
}

impl<M: Module> Module for DistributedDataParallel<M> {
    fn visit_fields<'a>(&'a self, f: &mut dyn FnMut(&str, Item<'a>)) {
        self.model.visit_fields(f);
    }
    fn class(&self) -> &'static str {
        self.model.class()
    }
    fn address(&self) -> *const () {
        self.model.address()
    }
    fn type_of(&self) -> std::any::TypeId {
        self.model.type_of()
    }
}

impl<M: Forward> Forward for DistributedDataParallel<M> {
    /// # Panics
    /// In training, if the buffers of rank 0 cannot be received.
    fn forward(&self, x: &Var) -> Var {
        if self.is_training() && tapegrad_tape::is_grad_enabled() && self.replica.options().broadcast_buffers
        {
            self.replica.broadcast_buffers().unwrap_or_else(|e| panic!("{e}"));
        }
        self.model.forward(x)
    }
}

/// An optimizer that waits for the gradients of all ranks; made by [`DistributedDataParallel::optimizer`].
pub struct Synchronized<O> {
    optimizer: O,
    replica: Arc<Replica>,
}

impl<O> Synchronized<O> {
    /// The optimizer.
    pub fn inner(&mut self) -> &mut O {
        &mut self.optimizer
    }
}

impl<O: Optimizer> Optimizer for Synchronized<O> {
    /// # Panics
    /// If a rank has failed, or parameters have no gradient.
    #[track_caller]
    fn step(&mut self) {
        self.step_scaled(1.0);
    }
    #[track_caller]
    fn step_scaled(&mut self, factor: f64) {
        if let Err(e) = self.replica.synchronize() {
            panic!("{e}");
        }
        self.optimizer.step_scaled(factor);
    }
    fn parameters(&self) -> Vec<Var> {
        self.optimizer.parameters()
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
    fn set_training(&mut self, training: bool) {
        self.optimizer.set_training(training);
    }
    fn switches(&self) -> bool {
        self.optimizer.switches()
    }
    fn state_dict(&self) -> StateDict {
        self.optimizer.state_dict()
    }
    fn load_state_dict(&mut self, state: &StateDict) -> std::result::Result<(), OptimizerStateError> {
        self.optimizer.load_state_dict(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ZeroRedundancyOptimizer;
    use tapegrad_nn::Linear;
    use tapegrad_nn::optim::SGD;

    #[test]
    fn one_rank_leaves_gradients_where_they_are() {
        let model = DistributedDataParallel::new(Linear::new(2, 1), &Communicator::single()).unwrap();
        let backward = || model.forward(&Var::from_vec(vec![1f32, 2.0], &[1, 2])).sum_all().backward();
        let weight = &model.module().weight;
        let address = || weight.grad().unwrap().tensor().as_slice::<f32>().unwrap().as_ptr();
        model.no_sync(backward);
        backward();
        let before = address();
        model.synchronize().unwrap();
        assert_eq!(address(), before);
        assert_eq!(weight.grad().unwrap().to_vec::<f32>(), [2.0, 4.0]);
        assert_eq!((model.stats().copied_bytes, model.stats().gradient_bytes), (0, 12));
        // A factor is applied to them all the same.
        model.parameters().iter().for_each(Var::zero_grad);
        let options = DdpOptions::new().deterministic(false);
        let model =
            DistributedDataParallel::with_options(Linear::new(2, 1), &Communicator::single(), options)
                .unwrap();
        let x = Var::from_vec(vec![1f32, 2.0], &[1, 2]);
        let pass = &mut |_| {
            model.module().forward(&x).sum_all().backward();
            vec![]
        };
        model.backward_shards(0.5, pass).unwrap();
        assert_eq!(model.module().weight.grad().unwrap().to_vec::<f32>(), [0.5, 1.0]);
    }

    /// Gradients are taken by the hooks, and are there after the ranks have been waited for: not before a factor applies.
    #[test]
    fn a_factor_scales_the_gradients_of_all_ranks() {
        let stepped = |make: &dyn Fn(&DistributedDataParallel<Linear>) -> Box<dyn Optimizer>, factor: f64| {
            let model = Linear::new(2, 1);
            model.weight.set_value(tapegrad_tape::Tensor::ones((1, 2)));
            let model = DistributedDataParallel::new(model, &Communicator::single()).unwrap();
            let mut optimizer = make(&model);
            model.forward(&Var::from_vec(vec![1f32, 2.0], &[1, 2])).sum_all().backward();
            optimizer.step_scaled(factor);
            model.parameters()[0].to_vec::<f32>()
        };
        let plain = |m: &DistributedDataParallel<Linear>| -> Box<dyn Optimizer> {
            Box::new(m.optimizer(SGD::new(m.parameters(), 0.5)))
        };
        let divided = |m: &DistributedDataParallel<Linear>| -> Box<dyn Optimizer> {
            Box::new(ZeroRedundancyOptimizer::new(m.replica(), |shares| SGD::new(shares, 0.5)))
        };
        for make in [&plain as &dyn Fn(&_) -> _, &divided] {
            assert_eq!(stepped(make, 1.0), [0.5, 0.0]);
            assert_eq!(stepped(make, 0.5), [0.75, 0.5]);
        }
    }
}
