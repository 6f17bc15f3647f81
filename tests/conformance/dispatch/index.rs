//! Indexing, gathering, scattering.

use super::super::call::{Call, Outcome};

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    let _ = call;
    None
}
