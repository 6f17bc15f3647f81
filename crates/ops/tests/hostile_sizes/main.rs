//! Sizes, strides, offsets, counts and indices of every kind, up to the largest numbers there are: a right result or a
//! message, and never memory outside a tensor.

mod draw;
mod ops_calls;
mod samples;
mod tape_calls;

use std::panic::{AssertUnwindSafe, catch_unwind};
use tapegrad_tape::Var;

/// Numbers from zero on.
fn x(shape: &[usize]) -> Var {
    let n = shape.iter().product::<usize>();
    Var::from_vec((0..n).map(|i| i as f32).collect(), shape)
}

/// What a function says when it panics.
fn panic_of<R>(f: impl FnOnce() -> R) -> Option<String> {
    let payload = catch_unwind(AssertUnwindSafe(f)).err()?;
    let text = payload.downcast_ref::<String>().cloned();
    Some(text.or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default())
}
