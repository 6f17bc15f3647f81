//! Tools that change how the tensors of a model are made (`torch.nn.utils`): parametrizations and pruning.

mod level;
pub mod parametrizations;
pub mod parametrize;
pub mod prune;
