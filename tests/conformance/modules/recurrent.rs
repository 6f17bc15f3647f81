//! Recurrent networks and their cells.

use tapegrad::nn::recurrent::Nonlinearity;
use tapegrad::nn::{
    DecoderMasks, FeedForwardActivation, GRU, GRUCell, LSTM, LSTMCell, MultiheadAttention, RNN, RNNCell,
    Transformer, TransformerDecoderLayer, TransformerEncoderLayer, TransformerMasks, TransformerOptions,
};
use tapegrad::tape;

use super::super::call::Call;
use super::super::outcome::Outcome;
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
        "MultiheadAttention" => {
            let embed_dim = c.size("embed_dim");
            let module = MultiheadAttention::new(embed_dim, c.size("num_heads"))
                .dims(c.size_or("kdim", embed_dim), c.size_or("vdim", embed_dim))
                .dropout(c.float_or("dropout", 0.0))
                .bias(c.bool_or("bias", true))
                .add_bias_kv(c.bool_or("add_bias_kv", false))
                .add_zero_attn(c.bool_or("add_zero_attn", false))
                .batch_first(c.bool_or("batch_first", false));
            with(module, attention)
        }
        "Transformer" => transformer(c),
        "TransformerDecoderLayer" => {
            let module = TransformerDecoderLayer::new(c.size("d_model"), c.size("nhead"))
                .dim_feedforward(c.size_or("dim_feedforward", 2048))
                .dropout(c.float_or("dropout", 0.1))
                .activation(activation(c))
                .layer_norm_eps(c.float_or("layer_norm_eps", 1e-5))
                .batch_first(c.bool_or("batch_first", false))
                .norm_first(c.bool_or("norm_first", false))
                .bias(c.bool_or("bias", true));
            with(module, |m, call| {
                let list = decoder_masks(call);
                m.forward_with(&call.var("tgt"), &call.var("memory"), masks(&list)).into()
            })
        }
        "TransformerEncoderLayer" => {
            let module = TransformerEncoderLayer::new(c.size("d_model"), c.size("nhead"))
                .dim_feedforward(c.size_or("dim_feedforward", 2048))
                .dropout(c.float_or("dropout", 0.1))
                .activation(activation(c))
                .layer_norm_eps(c.float_or("layer_norm_eps", 1e-5))
                .batch_first(c.bool_or("batch_first", false))
                .norm_first(c.bool_or("norm_first", false))
                .bias(c.bool_or("bias", true));
            with(module, |m, call| {
                // A hint that the mask is causal; the mask itself says so.
                call.bool_or("is_causal", false);
                let masks = [call.var_opt("src_mask"), call.var_opt("src_key_padding_mask")];
                m.forward_with(&call.var("src"), masks[0].as_ref(), masks[1].as_ref()).into()
            })
        }
        _ => None,
    }
}

fn attention(m: &MultiheadAttention, call: &Call) -> Outcome {
    call.bool_or("is_causal", false);
    let [q, k, v] = ["query", "key", "value"].map(|name| call.var(name));
    let masks = [call.var_opt("key_padding_mask"), call.var_opt("attn_mask")];
    let (padding, mask) = (masks[0].as_ref(), masks[1].as_ref());
    let (y, weights) = match call.bool_or("average_attn_weights", true) {
        true => m.attend_with(&q, &k, &v, padding, mask),
        false => m.attend_heads(&q, &k, &v, padding, mask),
    };
    let weights = call.bool_or("need_weights", true).then_some(weights);
    (y, weights).into()
}

/// The two states of an LSTM.
fn state(call: &Call) -> Option<(tape::Var, tape::Var)> {
    let list = call.vars_opt("hx")?;
    match &list[..] {
        [h, c] => Some((h.clone(), c.clone())),
        _ => call.unwritable("hx", format!("{} tensors where two are expected", list.len())),
    }
}

fn activation(c: &Call) -> FeedForwardActivation {
    let activations = [("relu", FeedForwardActivation::ReLU), ("gelu", FeedForwardActivation::GELU)];
    c.choice("activation", "relu", &activations)
}

fn decoder_masks(call: &Call) -> [Option<tape::Var>; 4] {
    // Hints that masks are causal; the masks themselves say so.
    call.bool_opt("tgt_is_causal");
    call.bool_opt("memory_is_causal");
    ["tgt_mask", "memory_mask", "tgt_key_padding_mask", "memory_key_padding_mask"]
        .map(|name| call.var_opt(name))
}

fn masks(list: &[Option<tape::Var>; 4]) -> DecoderMasks<'_> {
    DecoderMasks {
        tgt_mask: list[0].as_ref(),
        memory_mask: list[1].as_ref(),
        tgt_key_padding_mask: list[2].as_ref(),
        memory_key_padding_mask: list[3].as_ref(),
    }
}

fn transformer(c: &Call) -> Built {
    let options = TransformerOptions {
        d_model: c.size_or("d_model", 512),
        nhead: c.size_or("nhead", 8),
        num_encoder_layers: c.size_or("num_encoder_layers", 6),
        num_decoder_layers: c.size_or("num_decoder_layers", 6),
        dim_feedforward: c.size_or("dim_feedforward", 2048),
        dropout: c.float_or("dropout", 0.1),
        activation: activation(c),
        layer_norm_eps: c.float_or("layer_norm_eps", 1e-5),
        batch_first: c.bool_or("batch_first", false),
        norm_first: c.bool_or("norm_first", false),
        bias: c.bool_or("bias", true),
    };
    with(Transformer::new(options), |m, call| {
        call.bool_opt("src_is_causal");
        let list = decoder_masks(call);
        let [mask, padding] = ["src_mask", "src_key_padding_mask"].map(|name| call.var_opt(name));
        let masks = TransformerMasks {
            src_mask: mask.as_ref(),
            src_key_padding_mask: padding.as_ref(),
            decoder: masks(&list),
        };
        m.forward_with(&call.var("src"), &call.var("tgt"), masks).into()
    })
}
