//! Losses and distances.

use tapegrad::ops;
use tapegrad::ops::{
    BceWithLogitsOptions, CrossEntropyOptions, CtcOptions, GaussianNllOptions, KlDivReduction,
    MultiMarginOptions, NllLossOptions, PoissonNllOptions, Reduction, TripletMarginOptions,
};
use tapegrad::tape::Var;

use super::super::call::Call;
use super::super::outcome::Outcome;

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
        "smooth_l1_loss" => ops::smooth_l1_loss_with(&x(), &t(), call.float_or("beta", 1.0), r()),
        "huber_loss" => ops::huber_loss_with(&x(), &t(), call.float_or("delta", 1.0), r()),
        "binary_cross_entropy" => ops::binary_cross_entropy_with(&x(), &t(), weight().as_ref(), r()),
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
            ops::kl_div_with(&x(), &t(), reduction, call.bool_or("log_target", false))
        }
        "soft_margin_loss" => ops::soft_margin_loss_with(&x(), &t(), r()),
        "hinge_embedding_loss" => ops::hinge_embedding_loss_with(&x(), &t(), margin(1.0), r()),
        "margin_ranking_loss" => ops::margin_ranking_loss_with(&x1(), &x2(), &t(), margin(0.0), r()),
        "cosine_embedding_loss" => ops::cosine_embedding_loss_with(&x1(), &x2(), &t(), margin(0.0), r()),
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
        _ => return more(call, name),
    };
    Some(y.into())
}

fn more(call: &Call, name: &str) -> Option<Outcome> {
    let (x, t) = (|| call.var("input"), || call.var("target"));
    let r = || reduction(call);
    let triplet = || ["anchor", "positive", "negative"].map(|name| call.var(name));
    let y = match name {
        "gaussian_nll_loss" => {
            let full = call.bool_or("full", false);
            let options = GaussianNllOptions { full, eps: call.float_or("eps", 1e-6), reduction: r() };
            ops::gaussian_nll_loss_with(&x(), &t(), call.operand("var"), options)
        }
        "poisson_nll_loss" => {
            let options = PoissonNllOptions {
                log_input: call.bool_or("log_input", true),
                full: call.bool_or("full", false),
                eps: call.float_or("eps", 1e-8),
                reduction: r(),
            };
            ops::poisson_nll_loss_with(&x(), &t(), options)
        }
        "multilabel_margin_loss" => ops::multilabel_margin_loss_with(&x(), &t(), r()),
        "multilabel_soft_margin_loss" => {
            ops::multilabel_soft_margin_loss_with(&x(), &t(), call.var_opt("weight").as_ref(), r())
        }
        "triplet_margin_loss" => {
            let [a, p, n] = triplet();
            let options = TripletMarginOptions {
                margin: call.float_or("margin", 1.0),
                p: call.float_or("p", 2.0),
                eps: call.float_or("eps", 1e-6),
                swap: call.bool_or("swap", false),
                reduction: r(),
            };
            ops::triplet_margin_loss_with(&a, &p, &n, options)
        }
        "triplet_margin_with_distance_loss" => {
            let [a, p, n] = triplet();
            let distance = match call.text_or("distance_function", "pairwise_distance").as_str() {
                "pairwise_distance" => |a: &Var, b: &Var| ops::pairwise_distance(a, b),
                "cosine_similarity" => |a: &Var, b: &Var| ops::cosine_similarity(a, b),
                other => call.unwritable("distance_function", format!("{other} is a function of Python")),
            };
            let (margin, swap) = (call.float_or("margin", 1.0), call.bool_or("swap", false));
            ops::triplet_margin_with_distance_loss_with(&a, &p, &n, distance, margin, swap, r())
        }
        "ctc_loss" => {
            let options = CtcOptions {
                blank: call.size_or("blank", 0),
                reduction: r(),
                zero_infinity: call.bool_or("zero_infinity", false),
            };
            let (inputs, targets) = (call.lengths("input_lengths"), call.lengths("target_lengths"));
            ops::ctc_loss_with(&call.var("log_probs"), &call.var("targets"), &inputs, &targets, options)
        }
        _ => return None,
    };
    Some(y.into())
}
