//! Dropout as modules.

use crate::fields::Training;
use crate::module::Forward;
use crate::summary::observe;
use tapegrad_tape::Var;

macro_rules! dropouts {
    ($($(#[$meta:meta])* $name:ident, $function:ident;)*) => {$(
        crate::module! {
            $(#[$meta])*
            pub struct $name {
                p: f64,
                training: Training,
            }
        }

        impl $name {
            /// A module that drops with probability `p`.
            ///
            /// # Panics
            /// If `p` is not in `[0, 1]`.
            #[track_caller]
            pub fn new(p: f64) -> $name {
                assert!((0.0..=1.0).contains(&p), "{}: the probability must be in [0, 1], got {p}", stringify!($name));
                $name { p, training: Training::default() }
            }
        }

        impl Forward for $name {
            #[track_caller]
            fn forward(&self, x: &Var) -> Var {
                observe(self, x, |x| tapegrad_ops::$function(x, self.p, self.training.get()))
            }
        }
    )*};
}

dropouts! {
    /// While training, zeroes elements at random and scales up the others
    /// (`torch.nn.Dropout`).
    ///
    /// ```
    /// use tapegrad_nn::{Dropout, Module, Forward};
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::ones_with(&[1000], DType::F32));
    /// let dropout = Dropout::new(0.5);
    /// assert!(dropout.forward(&x).to_vec::<f32>().contains(&0.0));
    /// dropout.eval();
    /// assert!(!dropout.forward(&x).to_vec::<f32>().contains(&0.0));
    /// ```
    Dropout, dropout_with;
    /// While training, zeroes channels at random in `[N, C, L]` (`torch.nn.Dropout1d`).
    Dropout1d, dropout1d_with;
    /// While training, zeroes channels at random in `[N, C, H, W]` (`torch.nn.Dropout2d`).
    Dropout2d, dropout2d_with;
}
