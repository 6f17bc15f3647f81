//! Recurrent networks and their cells.

mod cells;
mod networks;

pub use cells::{GRUCell, LSTMCell, RNNCell};
pub use networks::{GRU, LSTM, RNN};

use crate::fields::Field;
use crate::init::uniform_parameter;
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

/// What a cell computes in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rnn(Nonlinearity),
    Lstm,
    Gru,
}

impl Field for Kind {}

impl Kind {
    /// How many blocks of `hidden_size` rows a weight has.
    fn blocks(self) -> usize {
        match self {
            Kind::Rnn(_) => 1,
            Kind::Lstm => 4,
            Kind::Gru => 3,
        }
    }

    /// One step, from the input's contribution `[N, blocks * hidden]`, the state's contribution of the same shape,
    /// and the state: the new hidden state, and the new cell state where there is one.
    fn step(self, input: &Var, state: &Var, h: &Var, c: Option<&Var>) -> (Var, Option<Var>) {
        match self {
            Kind::Rnn(Nonlinearity::Tanh) => ((input + state).tanh(), None),
            Kind::Rnn(Nonlinearity::ReLU) => (tapegrad_ops::relu_(input + state), None),
            Kind::Lstm => {
                let gates = (input + state).chunk(4, -1);
                let c = gates[1].sigmoid() * c.expect("an LSTM has a cell state")
                    + gates[0].sigmoid() * gates[2].tanh();
                (gates[3].sigmoid() * c.tanh(), Some(c))
            }
            Kind::Gru => {
                let (x, s) = (input.chunk(3, -1), state.chunk(3, -1));
                let reset = (&x[0] + &s[0]).sigmoid();
                let update = (&x[1] + &s[1]).sigmoid();
                let new = (&x[2] + reset * &s[2]).tanh();
                (&new + update * (h - &new), None)
            }
        }
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
    fn new(kind: Kind, input: usize, hidden: usize, projection: Option<usize>, bias: bool) -> Weights {
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
