//! `Linear`, `Bilinear`, `Identity`, `Flatten`, `Unflatten`.

use crate::init::{Draws, default_bound};
use crate::module::Forward;
use crate::summary::{observe, observe_output};
use tapegrad_tape::{Int, Var};

crate::module! {
    /// `x W^T + b` along the last dimension (`torch.nn.Linear`).
    ///
    /// ```
    /// use tapegrad_nn::{Linear, Forward};
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let layer = Linear::new(784, 256);
    /// assert_eq!(layer.forward(&Var::from(Tensor::zeros_with(&[8, 784], DType::F32))).shape(), [8, 256]);
    /// assert!(Linear::new(4, 2).bias(false).bias.is_none());
    /// ```
    pub struct Linear {
        /// `[out_features, in_features]`
        pub weight: Var,
        /// `[out_features]`
        pub bias: Option<Var>,
        drawn: Draws,
    }
}

impl Linear {
    /// A layer with a bias. Both are drawn uniformly within `1 / sqrt(in_features)`.
    pub fn new(in_features: usize, out_features: usize) -> Linear {
        let mut drawn = Draws::here();
        let (weight, bias) =
            drawn.layer(&[out_features, in_features], Some(out_features), default_bound(in_features));
        Linear { weight, bias, drawn }
    }

    /// This layer with or without a bias, as if it had been made so: the next layer draws the numbers that follow.
    pub fn bias(mut self, bias: bool) -> Linear {
        if bias != self.bias.is_some() {
            let (n, bound) = (self.weight.shape()[0], default_bound(self.weight.shape()[1]));
            self.bias = self.drawn.bias(bias.then_some(n), bound);
        }
        self
    }
}

impl Forward for Linear {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| tapegrad_ops::linear(x, &self.weight, self.bias.as_ref()))
    }
}

crate::module! {
    /// Returns its input (`torch.nn.Identity`).
    #[derive(Default)]
    pub struct Identity {
        // For an address of its own, by which its hooks find it.
        place: u8,
    }
}

impl Identity {
    /// The module.
    pub fn new() -> Identity {
        Identity { place: 0 }
    }
}

impl Forward for Identity {
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| x.clone())
    }
}

crate::module! {
    /// Merges dimensions into one, by default all but the first (`torch.nn.Flatten`).
    ///
    /// ```
    /// use tapegrad_nn::{Flatten, Forward};
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let x = Var::from(Tensor::zeros_with(&[8, 3, 4, 4], DType::F32));
    /// assert_eq!(Flatten::new().forward(&x).shape(), [8, 48]);
    /// ```
    pub struct Flatten {
        start: isize,
        end: isize,
    }
}

impl Flatten {
    /// Keeps the first dimension.
    pub fn new() -> Flatten {
        Flatten::dims(1, -1)
    }

    /// Merges the dimensions from `start` to `end`, both inclusive.
    pub fn dims(start: impl Int, end: impl Int) -> Flatten {
        Flatten { start: start.to_isize(), end: end.to_isize() }
    }
}

impl Default for Flatten {
    fn default() -> Flatten {
        Flatten::new()
    }
}

impl Forward for Flatten {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| x.flatten((self.start, self.end)))
    }
}

crate::module! {
    /// `x1 A x2 + b` with one matrix for each output (`torch.nn.Bilinear`).
    ///
    /// ```
    /// use tapegrad_nn::Bilinear;
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let (x1, x2) = (Tensor::ones_with(&[8, 2], DType::F32), Tensor::ones_with(&[8, 3], DType::F32));
    /// assert_eq!(Bilinear::new(2, 3, 4).forward(&Var::from(x1), &Var::from(x2)).shape(), [8, 4]);
    /// ```
    pub struct Bilinear {
        /// `[out_features, in1_features, in2_features]`
        pub weight: Var,
        /// `[out_features]`
        pub bias: Option<Var>,
        drawn: Draws,
    }
}

impl Bilinear {
    /// A layer with a bias. All values are drawn uniformly within `1 / sqrt(in1_features)`.
    ///
    /// # Panics
    /// If `in1_features` is zero.
    #[track_caller]
    pub fn new(in1_features: usize, in2_features: usize, out_features: usize) -> Bilinear {
        assert!(in1_features > 0, "Bilinear: in1_features must be greater than zero");
        let mut drawn = Draws::here();
        let shape = [out_features, in1_features, in2_features];
        let (weight, bias) = drawn.layer(&shape, Some(out_features), default_bound(in1_features));
        Bilinear { weight, bias, drawn }
    }

    /// This layer with or without a bias, as if it had been made so: the next layer draws the numbers that follow.
    pub fn bias(mut self, bias: bool) -> Bilinear {
        if bias != self.bias.is_some() {
            let (n, bound) = (self.weight.shape()[0], default_bound(self.weight.shape()[1]));
            self.bias = self.drawn.bias(bias.then_some(n), bound);
        }
        self
    }

    /// The output for `[..., in1_features]` and `[..., in2_features]`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn forward(&self, x1: &Var, x2: &Var) -> Var {
        let y = tapegrad_ops::bilinear(x1, x2, &self.weight, self.bias.as_ref());
        observe_output(self, x1, y)
    }
}
