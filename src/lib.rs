//! Define-by-run automatic differentiation for the CPU, with an API that mirrors PyTorch.

pub use datasets;
pub use nn;
pub use ops;
pub use tape;
