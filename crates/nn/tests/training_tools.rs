//! Schedules, averages, optimizers, parametrizations and pruning against the values of PyTorch that
//! `tools/training_tools.py` writes.

#[path = "training_tools/average.rs"]
mod average;
#[path = "training_tools/optimizers.rs"]
mod optimizers;
#[path = "training_tools/parametrizations.rs"]
mod parametrizations;
#[path = "training_tools/prune.rs"]
mod prune;
#[path = "training_tools/schedules.rs"]
mod schedules;

use tapegrad_nn::StateDict;
use tapegrad_tape::Tensor;

fn samples(part: &str) -> StateDict {
    let bytes = include_bytes!("samples/training_tools.safetensors");
    let part = StateDict::from_safetensors(bytes).unwrap().part(part);
    assert!(!part.is_empty());
    part
}

#[track_caller]
fn get<'a>(state: &'a StateDict, key: &str) -> &'a Tensor {
    state.get(key).unwrap_or_else(|| panic!("no {key}"))
}

/// Compares to within the rounding errors of F64.
#[track_caller]
fn close(got: &Tensor, want: &Tensor, what: &str) {
    assert_eq!(got.shape(), want.shape(), "{what}");
    for (i, (a, b)) in got.to_vec::<f64>().into_iter().zip(want.to_vec::<f64>()).enumerate() {
        assert!((a - b).abs() <= 1e-11 * (1.0 + b.abs()), "{what}: element {i} is {a}, should be {b}");
    }
}
