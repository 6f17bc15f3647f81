//! Losses.

use tapegrad::nn::*;
use tapegrad::ops::{KlDivReduction, Reduction};

use super::super::call::Call;
use super::{Built, with};

/// A loss of an input and a target, with the options that its constructor names.
macro_rules! loss {
    ($c:ident, $loss:ident, ($($input:ident),*) $(, $option:ident: $value:expr)*) => {{
        let loss = $loss::new()$(.$option($value))*;
        with(loss, |l, call| l.forward($(&call.var(stringify!($input))),*).into())
    }};
}

/// The same with tensors that may be missing.
macro_rules! weighted {
    ($c:ident, $loss:ident, [$($weight:ident),*] $(, $option:ident: $value:expr)*) => {{
        let mut loss = $loss::new()$(.$option($value))*;
        $(if let Some(w) = $c.var_opt(stringify!($weight)) {
            loss = loss.$weight(w.tensor());
        })*
        with(loss, |l, call| l.forward(&call.var("input"), &call.var("target")).into())
    }};
}

/// Builds the module if it is one of these.
pub fn build(c: &Call) -> Built {
    let reduction = || {
        let variants = [("none", Reduction::None), ("mean", Reduction::Mean), ("sum", Reduction::Sum)];
        c.choice("reduction", "mean", &variants)
    };
    let margin = |default: f64| c.float_or("margin", default);
    match c.op() {
        "MSELoss" => loss!(c, MSELoss, (input, target), reduction: reduction()),
        "L1Loss" => loss!(c, L1Loss, (input, target), reduction: reduction()),
        "SmoothL1Loss" => {
            loss!(c, SmoothL1Loss, (input, target), reduction: reduction(), beta: c.float_or("beta", 1.0))
        }
        "HuberLoss" => {
            loss!(c, HuberLoss, (input, target), reduction: reduction(), delta: c.float_or("delta", 1.0))
        }
        "SoftMarginLoss" => loss!(c, SoftMarginLoss, (input, target), reduction: reduction()),
        "HingeEmbeddingLoss" => {
            loss!(c, HingeEmbeddingLoss, (input, target), reduction: reduction(), margin: margin(1.0))
        }
        "MarginRankingLoss" => {
            loss!(c, MarginRankingLoss, (input1, input2, target), reduction: reduction(), margin: margin(0.0))
        }
        "CosineEmbeddingLoss" => {
            loss!(c, CosineEmbeddingLoss, (input1, input2, target), reduction: reduction(), margin: margin(0.0))
        }
        "KLDivLoss" => {
            let variants = [
                ("none", KlDivReduction::None),
                ("mean", KlDivReduction::Mean),
                ("sum", KlDivReduction::Sum),
                ("batchmean", KlDivReduction::BatchMean),
            ];
            let reduction = c.choice("reduction", "mean", &variants);
            loss!(c, KLDivLoss, (input, target), reduction: reduction, log_target: c.bool_or("log_target", false))
        }
        "CrossEntropyLoss" => weighted!(
            c, CrossEntropyLoss, [weight], reduction: reduction(), ignore_index: c.int_or("ignore_index", -100),
            label_smoothing: c.float_or("label_smoothing", 0.0)
        ),
        "NLLLoss" => weighted!(
            c, NLLLoss, [weight], reduction: reduction(), ignore_index: c.int_or("ignore_index", -100)
        ),
        "BCELoss" => weighted!(c, BCELoss, [weight], reduction: reduction()),
        "BCEWithLogitsLoss" => weighted!(c, BCEWithLogitsLoss, [weight, pos_weight], reduction: reduction()),
        "GaussianNLLLoss" => loss!(
            c, GaussianNLLLoss, (input, target, var), reduction: reduction(), full: c.bool_or("full", false),
            eps: c.float_or("eps", 1e-6)
        ),
        "PoissonNLLLoss" => {
            let loss = PoissonNLLLoss::new()
                .log_input(c.bool_or("log_input", true))
                .full(c.bool_or("full", false))
                .eps(c.float_or("eps", 1e-8))
                .reduction(reduction());
            // Its argument has the option's name.
            with(loss, |l, call| l.forward(&call.var("log_input"), &call.var("target")).into())
        }
        "MultiLabelMarginLoss" => loss!(c, MultiLabelMarginLoss, (input, target), reduction: reduction()),
        "MultiLabelSoftMarginLoss" => {
            weighted!(c, MultiLabelSoftMarginLoss, [weight], reduction: reduction())
        }
        "TripletMarginLoss" => loss!(
            c, TripletMarginLoss, (anchor, positive, negative), reduction: reduction(), margin: margin(1.0),
            p: c.float_or("p", 2.0), eps: c.float_or("eps", 1e-6), swap: c.bool_or("swap", false)
        ),
        "CTCLoss" => {
            let loss = CTCLoss::new()
                .blank(c.size_or("blank", 0))
                .reduction(reduction())
                .zero_infinity(c.bool_or("zero_infinity", false));
            with(loss, |l, call| {
                let (inputs, targets) = (call.lengths("input_lengths"), call.lengths("target_lengths"));
                l.forward(&call.var("log_probs"), &call.var("targets"), &inputs, &targets).into()
            })
        }
        "MultiMarginLoss" => weighted!(
            c, MultiMarginLoss, [weight], reduction: reduction(), p: c.size_or("p", 1) as u32, margin: margin(1.0)
        ),
        _ => None,
    }
}
