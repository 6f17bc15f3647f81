//! Modules, optimizers, checkpoints, a training loop and models, built on the tape.
#![forbid(unsafe_code)]

pub mod lr_scheduler;
mod module;
pub mod optim;
mod sequential;
mod state_dict;
mod summary;

pub use module::{Buffer, Field, Fields, Item, Module, Training};
pub use sequential::Sequential;
pub use state_dict::{IncompatibleKeys, Mismatch, StateDict, StateDictError};
pub use summary::{Summary, SummaryRow, observe, with_forward_hook};
