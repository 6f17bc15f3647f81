//! Recurrent networks and their cells.

mod cells;
mod networks;

pub use cells::{GRUCell, LSTMCell, RNNCell};
pub use networks::{GRU, LSTM, RNN};

use crate::fields::Field;
use crate::init::uniform_parameter;
use tapegrad_ops::RecurrentCell;
use tapegrad_tape::Var;

/// The function of a plain recurrent cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonlinearity {
    /// The hyperbolic tangent.
    Tanh,
    /// The rectifier.
    ReLU,
}

impl Field for Nonlinearity {}

impl Field for RecurrentCell {}

/// The plain cell with this function.
fn plain(nonlinearity: Nonlinearity) -> RecurrentCell {
    match nonlinearity {
        Nonlinearity::Tanh => RecurrentCell::RnnTanh,
        Nonlinearity::ReLU => RecurrentCell::RnnRelu,
    }
}

/// The weights of one cell: `[blocks * hidden, in]`, `[blocks * hidden, state]`, biases, and the projection of an
/// LSTM's output.
struct Weights {
    ih: Var,
    hh: Var,
    bias: Option<(Var, Var)>,
    hr: Option<Var>,
}

impl Weights {
    /// All values are drawn uniformly within `1 / sqrt(hidden)`.
    fn new(
        kind: RecurrentCell,
        input: usize,
        hidden: usize,
        projection: Option<usize>,
        bias: bool,
    ) -> Weights {
        let bound = crate::init::default_bound(hidden);
        let rows = kind.blocks() * hidden;
        let state = projection.unwrap_or(hidden);
        let draw = |shape: &[usize]| uniform_parameter(shape, bound);
        Weights {
            ih: draw(&[rows, input]),
            hh: draw(&[rows, state]),
            bias: bias.then(|| (draw(&[rows]), draw(&[rows]))),
            hr: projection.map(|p| draw(&[p, hidden])),
        }
    }

    fn biases(&self) -> (Option<&Var>, Option<&Var>) {
        self.bias.as_ref().map_or((None, None), |(ih, hh)| (Some(ih), Some(hh)))
    }
}
