//! Modules, optimizers, checkpoints, a training loop and models, built on the tape.
#![forbid(unsafe_code)]
