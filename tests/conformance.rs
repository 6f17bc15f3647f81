//! Tapegrad compared with PyTorch's own test samples.
//!
//! ```text
//! python tools/conformance DATA
//! TAPEGRAD_CONFORMANCE=DATA cargo test --release --test conformance
//! ```
//!
//! Several directories are given as in `PATH`: `TAPEGRAD_CONFORMANCE=DATA:MORE`; the counts of each are told.
//!
//! The directory holds the samples with which PyTorch tests itself, as JSON and safetensors, with the outputs,
//! gradients and second derivatives that PyTorch computes. Each sample is dispatched by the function's name and the
//! arguments' names; see `conformance/dispatch`. More settings:
//!
//! - `TAPEGRAD_CONFORMANCE_ONLY=conv|pool`: only files whose `suite/name` contains one of these; `^` and `$` anchor.
//! - `TAPEGRAD_CONFORMANCE_VERBOSE=1`: every failure, not the first five of each file.
//! - `TAPEGRAD_CONFORMANCE_POISON=1`: overwrite the leaves between forward and backward; gradients must not change.
//! - `TAPEGRAD_CONFORMANCE_DOC=1`: write `docs/conformance.md`.
// The runner is one program: `pub` in its modules means visible to the other modules.
#![allow(unreachable_pub)]

#[path = "conformance/mod.rs"]
mod conformance;

fn main() -> std::process::ExitCode {
    conformance::main()
}
