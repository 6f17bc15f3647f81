//! Losses (`torch.nn.functional`).

mod binary_cross_entropy;
mod cosine_embedding_loss;
mod cross_entropy;
mod ctc_loss;
mod gaussian_nll_loss;
mod kl_div;
mod linear_cross_entropy;
mod margin;
mod multi_margin_loss;
mod multilabel;
mod nll_loss;
mod pointwise;
mod poisson_nll_loss;
mod triplet_margin_loss;

pub use binary_cross_entropy::{
    BceWithLogitsOptions, binary_cross_entropy, binary_cross_entropy_with, binary_cross_entropy_with_logits,
    binary_cross_entropy_with_logits_with,
};
pub use cosine_embedding_loss::{cosine_embedding_loss, cosine_embedding_loss_with};
pub use cross_entropy::{CrossEntropyOptions, cross_entropy, cross_entropy_with};
pub use ctc_loss::{CtcOptions, ctc_loss, ctc_loss_with};
pub use gaussian_nll_loss::{GaussianNllOptions, gaussian_nll_loss, gaussian_nll_loss_with};
pub use kl_div::{KlDivReduction, kl_div, kl_div_with};
pub use linear_cross_entropy::{linear_cross_entropy, linear_cross_entropy_with};
pub use margin::{
    hinge_embedding_loss, hinge_embedding_loss_with, hinge_loss, hinge_loss_with, margin_ranking_loss,
    margin_ranking_loss_with, soft_margin_loss, soft_margin_loss_with,
};
pub use multi_margin_loss::{MultiMarginOptions, multi_margin_loss, multi_margin_loss_with};
pub use multilabel::{
    multilabel_margin_loss, multilabel_margin_loss_with, multilabel_soft_margin_loss,
    multilabel_soft_margin_loss_with,
};
pub use nll_loss::{NllLossOptions, nll_loss, nll_loss_with};
pub use pointwise::{
    huber_loss, huber_loss_with, l1_loss, l1_loss_with, mse_loss, mse_loss_with, smooth_l1_loss,
    smooth_l1_loss_with,
};
pub use poisson_nll_loss::{PoissonNllOptions, poisson_nll_loss, poisson_nll_loss_with};
pub use triplet_margin_loss::{
    TripletMarginOptions, triplet_margin_loss, triplet_margin_loss_with, triplet_margin_with_distance_loss,
    triplet_margin_with_distance_loss_with,
};

use crate::autocast::in_f32;
use tapegrad_tape::Var;

/// How the losses of single elements are reduced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// They are returned as they are.
    None,
    /// Their mean, the default.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

impl Reduction {
    /// Reduces the losses of single elements.
    pub(crate) fn apply(self, losses: Var) -> Var {
        match self {
            Reduction::None => losses,
            Reduction::Mean => losses.sum_all() / losses.numel() as f64,
            Reduction::Sum => losses.sum_all(),
        }
    }
}

/// `input - target`, refused under the loss's name where the shapes differ. PyTorch broadcasts them with a warning that
/// the result is likely wrong: `[4, 1]` and `[4]` would give 16 differences, 12 of them between unrelated elements.
#[track_caller]
fn difference(op: &str, input: &Var, target: &Var) -> Var {
    check_same(op, input, target);
    &*in_f32(input) - &*in_f32(target)
}

/// Refuses a target whose shape is not the input's.
#[track_caller]
fn check_same(op: &str, input: &Var, target: &Var) {
    if input.shape() != target.shape() {
        refuse(op, input, target);
    }
}

#[cold]
#[track_caller]
fn refuse(op: &str, input: &Var, target: &Var) -> ! {
    let advice = match tapegrad_tape::shape::broadcast(input.shape(), target.shape()) {
        _ if input.numel() == target.numel() => {
            format!("reshape one, as target.reshape(&{:?})", input.shape())
        }
        Some(both) => format!("to broadcast on purpose, expand both to {both:?} first"),
        None => "they do not broadcast either".to_string(),
    };
    panic!(
        "{op}: a target of shape {:?} for an input of shape {:?}; they have to be the same ({advice})",
        target.shape(),
        input.shape()
    );
}

/// What the tests of several losses share: every reduction, gradients of the first two orders.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn derivatives() {
        let (x, t) = (parameter(&[3, 4], 1), parameter(&[3, 4], 2));
        for r in [Reduction::None, Reduction::Mean, Reduction::Sum] {
            let both = [x.clone(), t.clone()];
            check_gradients(|v| mse_loss_with(&v[0], &v[1], r), &both);
            check_gradients(|v| l1_loss_with(&v[0], &v[1], r), &both);
            check_gradients(|v| smooth_l1_loss_with(&v[0], &v[1], 0.4, r), &both);
            check_gradients(|v| huber_loss_with(&v[0], &v[1], 0.4, r), &both);
            check_gradients(|v| soft_margin_loss_with(&v[0], &v[1], r), &both);
            check_gradients(|v| hinge_loss_with(&v[0], &v[1], r), &both);
            check_gradients(|v| binary_cross_entropy_with(&v[0].sigmoid(), &v[1].sigmoid(), None, r), &both);
            check_gradients(
                |v| {
                    binary_cross_entropy_with_logits_with(
                        &v[0],
                        &v[1],
                        BceWithLogitsOptions::new().reduction(r),
                    )
                },
                &both,
            );
            check_gradients(|v| margin_ranking_loss_with(&v[0], &v[1], &Var::from(1.0), 0.3, r), &both[..]);
        }
        for r in [KlDivReduction::None, KlDivReduction::Mean, KlDivReduction::Sum, KlDivReduction::BatchMean]
        {
            check_gradients(|v| kl_div_with(&v[0], &v[1], r, true), &[x.clone(), t.clone()]);
            check_gradients(|v| kl_div_with(&v[0], &v[1].sigmoid(), r, false), &[x.clone(), t.clone()]);
        }
    }

    #[test]
    fn a_target_of_another_shape_is_refused() {
        let (column, row) = (parameter(&[4, 1], 1), parameter(&[4], 2));
        let losses: [(&str, fn(&Var, &Var)); 9] = [
            ("hinge_loss", |x, t| drop(hinge_loss(x, t))),
            ("soft_margin_loss", |x, t| drop(soft_margin_loss(x, t))),
            ("kl_div", |x, t| drop(kl_div(x, t))),
            ("mse_loss", |x, t| drop(mse_loss(x, t))),
            ("l1_loss", |x, t| drop(l1_loss(x, t))),
            ("smooth_l1_loss", |x, t| drop(smooth_l1_loss(x, t))),
            ("huber_loss", |x, t| drop(huber_loss(x, t))),
            ("binary_cross_entropy", |x, t| drop(binary_cross_entropy(x, t))),
            ("binary_cross_entropy_with_logits", |x, t| {
                drop(binary_cross_entropy_with_logits(x, t));
            }),
        ];
        for (name, loss) in losses {
            let error = std::panic::catch_unwind(|| loss(&column, &row)).unwrap_err();
            let text = error.downcast::<String>().expect("a message");
            assert!(text.starts_with(&format!("{name}: ")), "{text}");
            assert!(text.contains("[4, 1]") && text.contains("[4]"), "{text}");
        }
        let loss = || mse_loss(&column, &parameter(&[1], 2));
        let error = std::panic::catch_unwind(loss).unwrap_err();
        assert!(error.downcast::<String>().expect("a message").contains("expand both to [4, 1] first"));
    }

    #[test]
    fn extreme_values_stay_finite() {
        let x = Var::from_vec(vec![1000f32, -1000.0], &[2]);
        let t = Var::from_vec(vec![0f32, 1.0], &[2]);
        let loss = binary_cross_entropy_with_logits(&x, &t);
        assert_eq!(loss.item(), 1000.0);
        let p = Var::from_vec(vec![0f32, 1.0], &[2]);
        assert_eq!(binary_cross_entropy(&p, &Var::from_vec(vec![1f32, 0.0], &[2])).item(), 100.0);
    }

    #[test]
    fn examples_computed_by_hand() {
        let x = Var::from_vec(vec![1.0f64, -2.0], &[2]);
        let t = Var::from_vec(vec![0.5f64, 1.0], &[2]);
        assert_eq!(mse_loss_with(&x, &t, Reduction::Sum).item(), 9.25);
        assert_eq!(l1_loss(&x, &t).item(), 1.75);
        assert_eq!(smooth_l1_loss_with(&x, &t, 1.0, Reduction::Sum).item(), 0.125 + 2.5);
        assert_eq!(huber_loss_with(&x, &t, 2.0, Reduction::Sum).item(), 0.125 + 4.0);
        let sign = Var::from_vec(vec![1.0f64, -1.0], &[2]);
        assert_eq!(hinge_loss_with(&x, &sign, Reduction::Sum).item(), 0.0);
        assert_eq!(hinge_embedding_loss_with(&x, &sign, 1.0, Reduction::None).to_vec::<f64>(), [1.0, 3.0]);
        assert_eq!(margin_ranking_loss_with(&x, &t, &sign, 0.0, Reduction::None).to_vec::<f64>(), [0.0, 0.0]);
    }
}
