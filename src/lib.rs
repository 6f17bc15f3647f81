//! Define-by-run automatic differentiation for the CPU, with an API that mirrors PyTorch.
//!
//! The library is four crates, re-exported here: [`tape`] (tensors, variables, the tape), [`ops`]
//! (differentiable kernels, as `torch.nn.functional`), [`nn`] (modules, optimizers, models) and [`datasets`].
//!
//! ```
//! use tapegrad::prelude::*;
//!
//! manual_seed(0);
//! let model = nn::Sequential::new().add(nn::Linear::new(2, 16)).add(nn::Tanh::new()).add(nn::Linear::new(16, 1));
//! let mut optimizer = nn::optim::Adam::new(model.parameters(), 0.05);
//! let x = Var::from_vec(vec![0f32, 0., 0., 1., 1., 0., 1., 1.], (4, 2));
//! let y = Var::from_vec(vec![0f32, 1., 1., 0.], (4, 1));
//! for _ in 0..200 {
//!     optimizer.zero_grad();
//!     let loss = ops::mse_loss(&model.forward(&x), &y);
//!     loss.backward();
//!     optimizer.step();
//! }
//! assert!(ops::mse_loss(&model.forward(&x), &y).item() < 0.01);
//! ```

#![forbid(unsafe_code)]

#[cfg(doctest)]
mod guide;
mod source;

pub use source::source;
pub use tapegrad_datasets as datasets;
#[cfg(feature = "mpi")]
pub use tapegrad_distributed as distributed;
pub use tapegrad_nn as nn;
pub use tapegrad_ops as ops;
pub use tapegrad_ops::distributions;
pub use tapegrad_tape as tape;

/// The common imports: `use tapegrad::prelude::*`.
pub mod prelude {
    pub use crate::{datasets, nn, ops, tape};
    pub use tapegrad_nn::optim::Optimizer;
    pub use tapegrad_nn::{Forward, Hooks, Module};
    pub use tapegrad_ops::VarOps;
    pub use tapegrad_tape::{
        DType, Generator, MemoryFormat, Scalar, Tensor, Var, grad, grad_with, manual_seed, no_grad, s,
        set_num_threads, set_profiling, trace, with_default_generator,
    };
}
