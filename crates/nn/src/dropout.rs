//! Dropout as modules.

use crate::fields::Training;
use crate::module::Forward;
use crate::summary::observe;
use tapegrad_tape::{Tensor, Var};

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

crate::module! {
    /// While training, zeroes whole samples at random and scales up the others: the blocks of a residual network are left
    /// out for some samples (Huang et al. 2016, "Deep Networks with Stochastic Depth"; `torchvision.ops.StochasticDepth` with
    /// `mode="row"`).
    ///
    /// ```
    /// use tapegrad_nn::{Forward, StochasticDepth};
    /// use tapegrad_tape::Var;
    /// let y = StochasticDepth::new(0.5).forward(&Var::ones((4, 3, 2, 2))).to_vec::<f32>();
    /// assert!(y.chunks(12).all(|sample| sample.iter().all(|&v| v == sample[0])));
    /// ```
    pub struct StochasticDepth {
        p: f64,
        training: Training,
    }
}

impl StochasticDepth {
    /// A module that drops a sample with probability `p`.
    ///
    /// # Panics
    /// If `p` is not in `[0, 1]`.
    #[track_caller]
    pub fn new(p: f64) -> StochasticDepth {
        assert!((0.0..=1.0).contains(&p), "StochasticDepth: the probability must be in [0, 1], got {p}");
        StochasticDepth { p, training: Training::default() }
    }
}

impl Forward for StochasticDepth {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            if !self.training.get() || self.p == 0.0 {
                return x.clone();
            }
            let mut shape = x.shape().to_vec();
            shape.iter_mut().skip(1).for_each(|n| *n = 1);
            x * tapegrad_ops::dropout_with(&Var::from(Tensor::ones_with(&shape, x.dtype())), self.p, true)
        })
    }
}
