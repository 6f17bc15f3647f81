//! Values that a formula gives, here and in `tools/curves.py`, and the files of expected results.

use serde_json::Value as Json;
use tapegrad::prelude::*;

/// Element `i` of a tensor is a hash of `i` and `salt`, uniformly distributed between `-bound` and `bound`.
pub(crate) fn fill(shape: &[usize], salt: u64, bound: f64) -> Tensor {
    let values = (0..tape::shape::numel(shape) as u64).map(|i| {
        let mut u = (i.wrapping_mul(2654435761).wrapping_add(salt * 40503 + 12345)) & 0xFFFF_FFFF;
        u ^= u >> 16;
        u = (u * 2246822519) & 0xFFFF_FFFF;
        u ^= u >> 13;
        (u as f64 / 2f64.powi(32) * 2.0 - 1.0) * bound
    });
    Tensor::from_vec(values.collect::<Vec<f64>>(), shape)
}

/// The file of this name in the directory that `TAPEGRAD_REFERENCE` names; without it, a message.
pub(crate) fn reference(file: &str) -> Option<Json> {
    let Ok(folder) = std::env::var("TAPEGRAD_REFERENCE") else {
        println!("skipped: TAPEGRAD_REFERENCE does not name the directory of {file}");
        return None;
    };
    let path = std::path::Path::new(&folder).join(file);
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Some(serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

pub(crate) fn numbers(v: &Json) -> Vec<f64> {
    v.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}
