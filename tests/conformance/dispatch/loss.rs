//! Losses and distances.

use tapegrad::ops;
use tapegrad::ops::{
    BceWithLogitsOptions, CrossEntropyOptions, KlDivReduction, MultiMarginOptions, NllLossOptions, Reduction,
};

use super::super::call::{Call, Outcome};

fn reduction(call: &Call) -> Reduction {
    // Superseded by `reduction`; samples pass them as None.
    call.bool_opt("size_average");
    call.bool_opt("reduce");
    let variants = [("none", Reduction::None), ("mean", Reduction::Mean), ("sum", Reduction::Sum)];
    call.choice("reduction", "mean", &variants)
}

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    let name = call.function.strip_prefix("torch.nn.functional.")?;
    let x = || call.var("input");
    let t = || call.var("target");
    let (x1, x2) = (|| call.var("input1"), || call.var("input2"));
    let weight = || call.var_opt("weight");
    let margin = |default| call.float_or("margin", default);
    let r = || reduction(call);
    let y = match name {
        "mse_loss" => ops::mse_loss_with(&x(), &t(), r()),
        "l1_loss" => ops::l1_loss_with(&x(), &t(), r()),
        "smooth_l1_loss" => ops::smooth_l1_loss(&x(), &t(), call.float_or("beta", 1.0), r()),
        "huber_loss" => ops::huber_loss(&x(), &t(), call.float_or("delta", 1.0), r()),
        "binary_cross_entropy" => ops::binary_cross_entropy(&x(), &t(), weight().as_ref(), r()),
        "binary_cross_entropy_with_logits" => {
            let pos_weight = call.var_opt("pos_weight");
            let options = BceWithLogitsOptions { reduction: r(), weight: weight(), pos_weight };
            ops::binary_cross_entropy_with_logits_with(&x(), &t(), options)
        }
        "kl_div" => {
            let variants = [
                ("none", KlDivReduction::None),
                ("mean", KlDivReduction::Mean),
                ("sum", KlDivReduction::Sum),
                ("batchmean", KlDivReduction::BatchMean),
            ];
            let reduction = call.choice("reduction", "mean", &variants);
            ops::kl_div(&x(), &t(), reduction, call.bool_or("log_target", false))
        }
        "soft_margin_loss" => ops::soft_margin_loss_with(&x(), &t(), r()),
        "hinge_embedding_loss" => ops::hinge_embedding_loss(&x(), &t(), margin(1.0), r()),
        "margin_ranking_loss" => ops::margin_ranking_loss(&x1(), &x2(), &t(), margin(0.0), r()),
        "cosine_embedding_loss" => ops::cosine_embedding_loss(&x1(), &x2(), &t(), margin(0.0), r()),
        "multi_margin_loss" => {
            let p = call.int_or("p", 1) as u32;
            let options = MultiMarginOptions { reduction: r(), p, margin: margin(1.0), weight: weight() };
            ops::multi_margin_loss_with(&x(), &t(), options)
        }
        "nll_loss" => {
            let ignore_index = call.int_or("ignore_index", -100);
            ops::nll_loss_with(&x(), &t(), NllLossOptions { reduction: r(), weight: weight(), ignore_index })
        }
        "cross_entropy" => {
            let options = CrossEntropyOptions {
                reduction: r(),
                weight: weight(),
                ignore_index: call.int_or("ignore_index", -100),
                label_smoothing: call.float_or("label_smoothing", 0.0),
            };
            ops::cross_entropy_with(&x(), &t(), options)
        }
        _ => return None,
    };
    Some(y.into())
}
