//! `SyncBatchNorm`.

use crate::communicator::Communicator;
use tapegrad_nn::{Buffer, Field, Forward, Training, module, observe};
use tapegrad_tape::{DType, Tensor, Var, record};

/// The ranks whose batches are normalized together.
struct Ranks(Communicator);

impl Field for Ranks {}

module! {
    /// Batch normalization of `[N, C, ...]` with the mean and variance over the samples of all ranks
    /// (`torch.nn.SyncBatchNorm`): small batches on many ranks are normalized like one large batch.
    ///
    /// Every rank must run it as often as the others, so it needs as many virtual shards as ranks; statistics, and with them
    /// the last bits, then depend on the number of samples in all, not on that of the ranks.
    ///
    /// ```
    /// use tapegrad_distributed::{Communicator, SyncBatchNorm};
    /// use tapegrad_nn::Forward;
    /// use tapegrad_tape::{Tensor, Var};
    /// let norm = SyncBatchNorm::new(3, &Communicator::single());
    /// let y = norm.forward(&Var::from(Tensor::ones(&[2, 3, 4, 4])));
    /// assert_eq!(y.to_vec::<f32>()[0], 0.0);
    /// ```
    pub struct SyncBatchNorm {
        /// `[num_features]`, initially ones.
        pub weight: Var,
        /// `[num_features]`, initially zeros.
        pub bias: Var,
        /// The running mean.
        pub running_mean: Buffer,
        /// The running variance.
        pub running_var: Buffer,
        /// The number of batches in the running statistics.
        pub num_batches_tracked: Buffer,
        num_features: usize,
        eps: f64,
        momentum: f64,
        training: Training,
        ranks: Ranks,
    }
}

impl SyncBatchNorm {
    /// A module for this many channels, with PyTorch's defaults for the other options.
    pub fn new(num_features: usize, comm: &Communicator) -> SyncBatchNorm {
        let shape = [num_features];
        SyncBatchNorm {
            weight: Var::parameter(Tensor::ones_with(&shape, DType::F32)),
            bias: Var::parameter(Tensor::zeros_with(&shape, DType::F32)),
            running_mean: Buffer::new(Tensor::zeros_with(&shape, DType::F32)),
            running_var: Buffer::new(Tensor::ones_with(&shape, DType::F32)),
            num_batches_tracked: Buffer::new(Tensor::scalar(0i64)),
            num_features,
            eps: 1e-5,
            momentum: 0.1,
            training: Training::default(),
            ranks: Ranks(comm.clone()),
        }
    }

    /// This module with another value added to the variance for numerical stability.
    pub fn eps(mut self, eps: f64) -> SyncBatchNorm {
        self.eps = eps;
        self
    }

    /// This module with another momentum of the running statistics.
    pub fn momentum(mut self, momentum: f64) -> SyncBatchNorm {
        self.momentum = momentum;
        self
    }

    /// Mean and variance over all ranks, and the number of values of a channel.
    fn statistics(&self, x: &Var, dims: &[isize]) -> (Var, Var, f64) {
        let comm = &self.ranks.0;
        let own = (x.numel() / self.num_features) as f64;
        let count = sum_over_ranks(comm, &Var::from_vec(vec![own as f32], &[1])).item();
        let mean = sum_over_ranks(comm, &x.sum_keepdim(dims)) / count;
        let variance = sum_over_ranks(comm, &(x - &mean).square().sum_keepdim(dims)) / count;
        (mean, variance, count)
    }
}

impl Forward for SyncBatchNorm {
    /// # Panics
    /// If the input is not `[N, C, ...]` with as many channels, or a rank has failed.
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        assert!(
            x.ndim() >= 2 && x.shape()[1] == self.num_features,
            "SyncBatchNorm: the input is [N, {}, ...], got shape {:?}",
            self.num_features,
            x.shape()
        );
        observe(self, x, |x| {
            let dims: Vec<isize> = (0..x.ndim() as isize).filter(|&d| d != 1).collect();
            let shape: Vec<usize> =
                (0..x.ndim()).map(|d| if d == 1 { self.num_features } else { 1 }).collect();
            let (mean, variance) = if self.training.get() {
                let (mean, variance, count) = self.statistics(x, &dims);
                let follow = |buffer: &Buffer, new: Var| {
                    let new = new.detach().reshape(&[self.num_features]);
                    let old = buffer.detach() * (1.0 - self.momentum);
                    buffer.set_value((old + new * self.momentum).tensor());
                };
                follow(&self.running_mean, mean.clone());
                follow(&self.running_var, &variance * (count / (count - 1.0).max(1.0)));
                self.num_batches_tracked.update(|n| *n = Tensor::scalar(n.item::<i64>() + 1));
                (mean, variance)
            } else {
                (self.running_mean.detach().reshape(&shape), self.running_var.detach().reshape(&shape))
            };
            let scale = self.weight.reshape(&shape) / (variance + self.eps).sqrt();
            (x - &mean) * scale + self.bias.reshape(&shape)
        })
    }
}

/// The sum over the ranks, with the sum of the ranks' gradients as its gradient.
///
/// # Panics
/// If a rank has failed.
#[track_caller]
fn sum_over_ranks(comm: &Communicator, x: &Var) -> Var {
    let total = comm.inner_sum(&x.tensor()).unwrap_or_else(|e| panic!("SyncBatchNorm: {e}"));
    let comm = comm.clone();
    record("sum_over_ranks", [x], total, move |c| [Some(sum_over_ranks(&comm, c.grad()))])
}
