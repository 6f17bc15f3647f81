//! Modules, optimizers, checkpoints, a training loop and models, built on the tape.
#![forbid(unsafe_code)]

mod activation;
mod attention;
mod checkpoint;
mod conv;
mod dropout;
mod embedding;
mod embedding_bag;
mod fields;
mod files;
mod hooks;
pub mod init;
mod key_values;
mod linear;
mod local_response;
mod loss;
pub mod lr_scheduler;
pub mod models;
mod module;
mod norm;
pub mod optim;
mod padding;
#[cfg(feature = "plots")]
pub mod plots;
mod pool;
pub mod recurrent;
mod sequential;

mod state_dict;
mod summary;
pub mod train;
mod transformer;
mod upsample;
pub mod utils;

pub use activation::*;
pub use attention::*;
pub use checkpoint::Checkpoint;
pub use conv::*;
pub use dropout::*;
pub use embedding::Embedding;
pub use embedding_bag::EmbeddingBag;
pub use fields::{Buffer, Field, Item, Module, Training, print_module};
pub use files::{FileError, LoadOptions, RunFolder, StoredType, TensorFile, write_atomically};
pub use hooks::{Hooks, ModuleHook};
pub use key_values::KeyValues;
pub use linear::*;
pub use local_response::LocalResponseNorm;
pub use loss::*;
pub use module::Forward;
pub use norm::*;
pub use padding::*;
pub use pool::*;
pub use recurrent::{GRU, GRUCell, LSTM, LSTMCell, RNN, RNNCell};
pub use sequential::Sequential;
pub use state_dict::{IncompatibleKeys, Mismatch, StateDict, StateDictError};
pub use summary::{Summary, SummaryRow, observe, summarize, with_forward_hook};
pub use transformer::*;
pub use upsample::Upsample;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
