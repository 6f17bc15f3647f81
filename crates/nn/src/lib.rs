//! Modules, optimizers, checkpoints, a training loop and models, built on the tape.
#![forbid(unsafe_code)]

mod module;
mod sequential;
mod state_dict;
mod summary;

pub use module::{Buffer, Field, Fields, Item, Module, Training};
pub use sequential::Sequential;
pub use state_dict::{IncompatibleKeys, Mismatch, StateDict, StateDictError};
pub use summary::{Summary, SummaryRow, observe, with_forward_hook};
