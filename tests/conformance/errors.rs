//! The suite of calls that PyTorch refuses.

use serde_json::Value as Json;

use super::attempt::{Caught, attempt};
use super::call::Call;
use super::data::Store;
use super::dispatch;
use super::report::Verdict;

/// A sample passes when the call is refused with a message that names the operation, or when Rust's types do not
/// allow to write it.
pub fn run(function: &str, sample: &Json, store: &Store) -> Result<Verdict, String> {
    let call = Call::of_function(function, sample, store)?;
    Ok(match attempt(|| dispatch::run(&call)) {
        Ok(None) => Verdict::Missing,
        Ok(Some(_)) => {
            let theirs = sample.get("message").and_then(Json::as_str).unwrap_or("");
            Verdict::Failed(format!("accepted, but PyTorch refuses it: {theirs}"))
        }
        Err(Caught::Unwritable(reason)) => Verdict::RefusedByCompiler(reason),
        Err(Caught::Panic { message, place }) => {
            let name = if call.op() == "__getitem__" { "index" } else { call.op() };
            if message.contains(name) {
                Verdict::Passed
            } else {
                Verdict::Failed(format!("refused at {place} without the name {name}: {message}"))
            }
        }
    })
}
