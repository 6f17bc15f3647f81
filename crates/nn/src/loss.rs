//! Losses as modules: their options in one place, their weights in the state dict as in PyTorch.

use crate::fields::{Buffer, Field};
use tapegrad_ops::{KlDivReduction, Reduction};
use tapegrad_tape::{IntList, Tensor, Var};

impl Field for Reduction {}
impl Field for KlDivReduction {}

/// One loss per row: its weights (buffers, absent at the start), its options with their defaults, its inputs, and
/// the operation.
macro_rules! losses {
    ($(
        $(#[$meta:meta])*
        $name:ident [$($weight:ident),*] { $($option:ident: $ty:ty = $default:expr),* }
        |$s:ident, $($input:ident),*| $f:expr;
    )*) => {$(
        crate::module! {
            $(#[$meta])*
            pub struct $name {
                $($weight: Option<Buffer>,)*
                $($option: $ty,)*
            }
        }

        impl $name {
            /// The loss with PyTorch's default options: the mean over the elements.
            #[allow(clippy::new_without_default)]
            pub fn new() -> $name {
                $name { $($weight: None,)* $($option: $default,)* }
            }

            $(
                #[doc = concat!("This loss with a `", stringify!($weight), "`, which is saved with it.")]
                pub fn $weight(mut self, $weight: Tensor) -> $name {
                    self.$weight = Some(Buffer::new($weight));
                    self
                }
            )*

            $(
                #[doc = concat!("This loss with the option `", stringify!($option), "`.")]
                pub fn $option(mut self, $option: $ty) -> $name {
                    self.$option = $option;
                    self
                }
            )*

            /// The loss.
            ///
            /// # Panics
            /// If the shapes do not fit.
            #[track_caller]
            pub fn forward(&self, $($input: &Var),*) -> Var {
                let $s = self;
                $f
            }
        }
    )*};
}

fn var(weight: &Option<Buffer>) -> Option<Var> {
    weight.as_ref().map(|b| b.detach())
}

losses! {
    /// The squared difference (`torch.nn.MSELoss`).
    ///
    /// ```
    /// use tapegrad_nn::MSELoss;
    /// use tapegrad_tape::Var;
    /// let (x, y) = (Var::from_vec(vec![1f32, 2.0], &[2]), Var::from_vec(vec![1f32, 4.0], &[2]));
    /// assert_eq!(MSELoss::new().forward(&x, &y).item(), 2.0);
    /// ```
    MSELoss [] { reduction: Reduction = Reduction::Mean }
    |s, input, target| tapegrad_ops::mse_loss_with(input, target, s.reduction);

    /// The absolute difference (`torch.nn.L1Loss`).
    L1Loss [] { reduction: Reduction = Reduction::Mean }
    |s, input, target| tapegrad_ops::l1_loss_with(input, target, s.reduction);

    /// The absolute difference, squared near zero (`torch.nn.SmoothL1Loss`).
    SmoothL1Loss [] { reduction: Reduction = Reduction::Mean, beta: f64 = 1.0 }
    |s, input, target| tapegrad_ops::smooth_l1_loss_with(input, target, s.beta, s.reduction);

    /// The squared difference, absolute far from zero (`torch.nn.HuberLoss`).
    HuberLoss [] { reduction: Reduction = Reduction::Mean, delta: f64 = 1.0 }
    |s, input, target| tapegrad_ops::huber_loss_with(input, target, s.delta, s.reduction);

    /// Cross-entropy of logits with class numbers or probabilities (`torch.nn.CrossEntropyLoss`).
    ///
    /// ```
    /// use tapegrad_nn::CrossEntropyLoss;
    /// use tapegrad_tape::Var;
    /// let logits = Var::from_vec(vec![0f32; 20], &[2, 10]);
    /// let loss = CrossEntropyLoss::new().label_smoothing(0.1).forward(&logits, &Var::from_vec(vec![3i64, 7], &[2]));
    /// assert!((loss.item() - 10f64.ln()).abs() < 1e-6);
    /// ```
    CrossEntropyLoss [weight] {
        ignore_index: i64 = -100, reduction: Reduction = Reduction::Mean, label_smoothing: f64 = 0.0
    }
    |s, input, target| tapegrad_ops::cross_entropy_with(input, target, tapegrad_ops::CrossEntropyOptions {
        weight: var(&s.weight),
        ignore_index: s.ignore_index,
        reduction: s.reduction,
        label_smoothing: s.label_smoothing,
    });

    /// The negative log-likelihood of class numbers (`torch.nn.NLLLoss`).
    NLLLoss [weight] { ignore_index: i64 = -100, reduction: Reduction = Reduction::Mean }
    |s, input, target| tapegrad_ops::nll_loss_with(input, target, tapegrad_ops::NllLossOptions {
        weight: var(&s.weight),
        ignore_index: s.ignore_index,
        reduction: s.reduction,
    });

    /// Cross-entropy of probabilities for two classes (`torch.nn.BCELoss`).
    BCELoss [weight] { reduction: Reduction = Reduction::Mean }
    |s, input, target| tapegrad_ops::binary_cross_entropy_with(input, target, var(&s.weight).as_ref(), s.reduction);

    /// Cross-entropy of logits for two classes (`torch.nn.BCEWithLogitsLoss`).
    BCEWithLogitsLoss [weight, pos_weight] { reduction: Reduction = Reduction::Mean }
    |s, input, target| tapegrad_ops::binary_cross_entropy_with_logits_with(input, target, tapegrad_ops::BceWithLogitsOptions {
        weight: var(&s.weight),
        pos_weight: var(&s.pos_weight),
        reduction: s.reduction,
    });

    /// The Kullback-Leibler divergence of log-probabilities from probabilities (`torch.nn.KLDivLoss`).
    KLDivLoss [] { reduction: KlDivReduction = KlDivReduction::Mean, log_target: bool = false }
    |s, input, target| tapegrad_ops::kl_div_with(input, target, s.reduction, s.log_target);

    /// The margin between the right class and the others: the loss of a support vector machine
    /// (`torch.nn.MultiMarginLoss`).
    MultiMarginLoss [weight] { p: u32 = 1, margin: f64 = 1.0, reduction: Reduction = Reduction::Mean }
    |s, input, target| tapegrad_ops::multi_margin_loss_with(input, target, tapegrad_ops::MultiMarginOptions {
        p: s.p,
        margin: s.margin,
        weight: var(&s.weight),
        reduction: s.reduction,
    });

    /// The logistic loss of targets 1 and -1 (`torch.nn.SoftMarginLoss`).
    SoftMarginLoss [] { reduction: Reduction = Reduction::Mean }
    |s, input, target| tapegrad_ops::soft_margin_loss_with(input, target, s.reduction);

    /// A distance for target 1, or how far it falls short of a margin for target -1 (`torch.nn.HingeEmbeddingLoss`).
    HingeEmbeddingLoss [] { margin: f64 = 1.0, reduction: Reduction = Reduction::Mean }
    |s, input, target| tapegrad_ops::hinge_embedding_loss_with(input, target, s.margin, s.reduction);

    /// Which of two inputs should rank higher, for targets 1 and -1 (`torch.nn.MarginRankingLoss`).
    MarginRankingLoss [] { margin: f64 = 0.0, reduction: Reduction = Reduction::Mean }
    |s, input1, input2, target| tapegrad_ops::margin_ranking_loss_with(input1, input2, target, s.margin, s.reduction);

    /// Whether two vectors should point the same way, for targets 1 and -1 (`torch.nn.CosineEmbeddingLoss`).
    CosineEmbeddingLoss [] { margin: f64 = 0.0, reduction: Reduction = Reduction::Mean }
    |s, input1, input2, target| tapegrad_ops::cosine_embedding_loss_with(input1, input2, target, s.margin, s.reduction);

    /// The negative log-likelihood of targets under normal distributions (`torch.nn.GaussianNLLLoss`).
    GaussianNLLLoss [] { full: bool = false, eps: f64 = 1e-6, reduction: Reduction = Reduction::Mean }
    |s, input, target, var| tapegrad_ops::gaussian_nll_loss_with(input, target, var, tapegrad_ops::GaussianNllOptions {
        full: s.full,
        eps: s.eps,
        reduction: s.reduction,
    });

    /// The negative log-likelihood of counts under Poisson distributions (`torch.nn.PoissonNLLLoss`).
    PoissonNLLLoss [] {
        log_input: bool = true, full: bool = false, eps: f64 = 1e-8, reduction: Reduction = Reduction::Mean
    }
    |s, input, target| tapegrad_ops::poisson_nll_loss_with(input, target, tapegrad_ops::PoissonNllOptions {
        log_input: s.log_input,
        full: s.full,
        eps: s.eps,
        reduction: s.reduction,
    });

    /// The margin between the classes of a sample and the others (`torch.nn.MultiLabelMarginLoss`).
    MultiLabelMarginLoss [] { reduction: Reduction = Reduction::Mean }
    |s, input, target| tapegrad_ops::multilabel_margin_loss_with(input, target, s.reduction);

    /// The binary cross-entropy of each class, averaged (`torch.nn.MultiLabelSoftMarginLoss`).
    MultiLabelSoftMarginLoss [weight] { reduction: Reduction = Reduction::Mean }
    |s, input, target| tapegrad_ops::multilabel_soft_margin_loss_with(input, target, var(&s.weight).as_ref(), s.reduction);

    /// Whether a positive is nearer to an anchor than a negative, by a margin (`torch.nn.TripletMarginLoss`).
    TripletMarginLoss [] {
        margin: f64 = 1.0, p: f64 = 2.0, eps: f64 = 1e-6, swap: bool = false, reduction: Reduction = Reduction::Mean
    }
    |s, anchor, positive, negative| tapegrad_ops::triplet_margin_loss_with(anchor, positive, negative, tapegrad_ops::TripletMarginOptions {
        margin: s.margin,
        p: s.p,
        eps: s.eps,
        swap: s.swap,
        reduction: s.reduction,
    });
}

crate::module! {
    /// The connectionist temporal classification loss (`torch.nn.CTCLoss`).
    ///
    /// ```
    /// use tapegrad_nn::CTCLoss;
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let log_probs = Var::from(Tensor::full_with(&[2, 1, 2], -std::f64::consts::LN_2, DType::F64));
    /// let target = Var::from_vec(vec![1i64], &[1, 1]);
    /// // Three of four paths spell it.
    /// assert!((CTCLoss::new().forward(&log_probs, &target, &[2], &[1]).item() + 0.75f64.ln()).abs() < 1e-12);
    /// ```
    pub struct CTCLoss {
        blank: usize,
        reduction: Reduction,
        zero_infinity: bool,
    }
}

impl CTCLoss {
    /// The loss with PyTorch's default options: blanks are class 0, and the mean is taken.
    #[allow(clippy::new_without_default)]
    pub fn new() -> CTCLoss {
        CTCLoss { blank: 0, reduction: Reduction::Mean, zero_infinity: false }
    }

    /// This loss with another blank.
    pub fn blank(mut self, blank: usize) -> CTCLoss {
        self.blank = blank;
        self
    }

    /// This loss with another reduction.
    pub fn reduction(mut self, reduction: Reduction) -> CTCLoss {
        self.reduction = reduction;
        self
    }

    /// This loss with zeros for infinite losses, or not.
    pub fn zero_infinity(mut self, zero_infinity: bool) -> CTCLoss {
        self.zero_infinity = zero_infinity;
        self
    }

    /// The loss; arguments as of [`tapegrad_ops::ctc_loss`].
    ///
    /// # Panics
    /// If the shapes or lengths do not fit.
    #[track_caller]
    pub fn forward(
        &self,
        log_probs: &Var,
        targets: &Var,
        input_lengths: impl IntList,
        target_lengths: impl IntList,
    ) -> Var {
        let CTCLoss { blank, reduction, zero_infinity } = *self;
        let options = tapegrad_ops::CtcOptions { blank, reduction, zero_infinity };
        tapegrad_ops::ctc_loss_with(log_probs, targets, input_lengths, target_lengths, options)
    }
}
