//! `Upsample`.

use crate::module::Forward;
use crate::summary::observe;
use tapegrad_ops::InterpolateOptions;
use tapegrad_tape::Var;

impl crate::Field for InterpolateOptions {}

crate::module! {
    /// Another size of the spatial dimensions (`torch.nn.Upsample`).
    ///
    /// ```
    /// use tapegrad_nn::{Forward, Upsample};
    /// use tapegrad_ops::{InterpolateMode, InterpolateOptions};
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let up = Upsample::new(InterpolateOptions::scale_factor([2.0]).mode(InterpolateMode::Bilinear));
    /// assert_eq!(up.forward(&Var::from(Tensor::ones_with(&[1, 3, 4, 5], DType::F32))).shape(), [1, 3, 8, 10]);
    /// ```
    pub struct Upsample {
        options: InterpolateOptions,
    }
}

impl Upsample {
    /// By size or factor, with a mode: the options of [`tapegrad_ops::interpolate`].
    pub fn new(options: InterpolateOptions) -> Upsample {
        Upsample { options }
    }
}

impl Forward for Upsample {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| tapegrad_ops::interpolate(x, self.options.clone()))
    }
}
