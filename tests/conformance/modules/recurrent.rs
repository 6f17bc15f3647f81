//! Recurrent networks and their cells.

use nn::recurrent::Nonlinearity;
use nn::{GRU, GRUCell, LSTM, LSTMCell, RNN, RNNCell};

use super::super::call::{Call, Outcome};
use super::{Built, with};

fn nonlinearity(c: &Call) -> Nonlinearity {
    c.choice("nonlinearity", "tanh", &[("tanh", Nonlinearity::Tanh), ("relu", Nonlinearity::ReLU)])
}

macro_rules! network {
    ($c:ident, $module:ident) => {
        $module::new($c.size("input_size"), $c.size("hidden_size"))
            .num_layers($c.size_or("num_layers", 1))
            .bias($c.bool_or("bias", true))
            .batch_first($c.bool_or("batch_first", false))
            .dropout($c.float_or("dropout", 0.0))
            .bidirectional($c.bool_or("bidirectional", false))
    };
}

macro_rules! cell {
    ($c:ident, $module:ident) => {
        $module::new($c.size("input_size"), $c.size("hidden_size")).bias($c.bool_or("bias", true))
    };
}

/// Builds the module if it is one of these.
pub fn build(c: &Call) -> Built {
    match c.op() {
        "RNN" => with(network!(c, RNN).nonlinearity(nonlinearity(c)), |m, call| {
            m.forward_with_state(&call.var("input"), call.var_opt("hx").as_ref()).into()
        }),
        "GRU" => with(network!(c, GRU), |m, call| {
            m.forward_with_state(&call.var("input"), call.var_opt("hx").as_ref()).into()
        }),
        "LSTM" => with(network!(c, LSTM).proj_size(c.size_or("proj_size", 0)), |m, call| {
            let (y, (h, c)) =
                m.forward_with_state(&call.var("input"), state(call).as_ref().map(|(h, c)| (h, c)));
            (y, h, c).into()
        }),
        "RNNCell" => with(cell!(c, RNNCell).nonlinearity(nonlinearity(c)), |m, call| {
            m.forward(&call.var("input"), call.var_opt("hx").as_ref()).into()
        }),
        "GRUCell" => with(cell!(c, GRUCell), |m, call| {
            m.forward(&call.var("input"), call.var_opt("hx").as_ref()).into()
        }),
        "LSTMCell" => with(cell!(c, LSTMCell), |m, call| -> Outcome {
            m.forward(&call.var("input"), state(call).as_ref().map(|(h, c)| (h, c))).into()
        }),
        _ => None,
    }
}

/// The two states of an LSTM.
fn state(call: &Call) -> Option<(tape::Var, tape::Var)> {
    let list = call.vars_opt("hx")?;
    match &list[..] {
        [h, c] => Some((h.clone(), c.clone())),
        _ => call.unwritable("hx", format!("{} tensors where two are expected", list.len())),
    }
}
