//! Modules, optimizers, checkpoints, a training loop and models, built on the tape.
#![forbid(unsafe_code)]

mod conv;
mod files;
pub mod init;
mod linear;
pub mod lr_scheduler;
mod module;
pub mod optim;
mod pool;
mod sequential;
mod state_dict;
mod summary;

pub use conv::*;
pub use files::FileError;
pub use linear::*;
pub use module::{Buffer, Field, Fields, Item, Module, Training};
pub use pool::*;
pub use sequential::Sequential;
pub use state_dict::{IncompatibleKeys, Mismatch, StateDict, StateDictError};
pub use summary::{Summary, SummaryRow, observe, with_forward_hook};
