//! DCGAN.

use crate::init::{normal_, zeros_};
use crate::{
    BatchNorm2d, Conv2d, ConvTranspose2d, Forward, LeakyReLU, Module, ReLU, Sequential, Sigmoid, Tanh,
};
use crate::{observe, sequential};
use tapegrad_tape::Var;

/// The initial values of the paper: weights normal with a standard deviation of 0.02, around one for batch norm.
fn initialize(model: &impl Module) {
    model.apply(&mut |module| {
        let mean = if module.is::<BatchNorm2d>() { 1.0 } else { 0.0 };
        for (name, p) in module.own_parameters() {
            if name == "weight" { normal_(&p, mean, 0.02) } else { zeros_(&p) }
        }
    });
}

crate::module! {
    /// The generator of DCGAN (Radford et al. 2016, "Unsupervised Representation Learning with Deep Convolutional Generative
    /// Adversarial Networks"), with the keys of PyTorch's tutorial: images `[N, channels, 64, 64]` between -1 and 1 for noise
    /// `[N, latent, 1, 1]`.
    ///
    /// ```
    /// use tapegrad_nn::{Forward, Module, models::DcganGenerator};
    /// use tapegrad_tape::Var;
    /// assert_eq!(DcganGenerator::new(100, 64, 3).num_parameters(), 3_576_704);
    /// let small = DcganGenerator::new(10, 2, 3);
    /// assert_eq!(small.forward(&Var::ones((2, 10, 1, 1))).shape(), [2, 3, 64, 64]);
    /// ```
    pub struct DcganGenerator {
        main: Sequential,
    }
}

impl DcganGenerator {
    /// For noise of this size, with `width` channels in the last hidden layer (the tutorial has `nz` of 100 and `ngf` of 64),
    /// and images of this many channels.
    pub fn new(latent: usize, width: usize, channels: usize) -> DcganGenerator {
        let mut main = Sequential::new();
        let mut from = latent;
        for (i, factor) in [8, 4, 2, 1].into_iter().enumerate() {
            let to = factor * width;
            let conv = ConvTranspose2d::new(from, to, 4).bias(false);
            main = main
                .add(if i == 0 { conv } else { conv.stride(2).padding(1) })
                .add(BatchNorm2d::new(to))
                .add(ReLU::new());
            from = to;
        }
        let last = ConvTranspose2d::new(from, channels, 4).stride(2).padding(1).bias(false);
        let model = DcganGenerator { main: main.add(last).add(Tanh::new()) };
        initialize(&model);
        model
    }
}

impl Forward for DcganGenerator {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| self.main.forward(x))
    }
}

crate::module! {
    /// The discriminator of DCGAN, with the keys of PyTorch's tutorial: the probabilities `[N, 1, 1, 1]` that images
    /// `[N, channels, 64, 64]` are real.
    ///
    /// ```
    /// use tapegrad_nn::{Forward, Module, models::DcganDiscriminator};
    /// use tapegrad_tape::Var;
    /// assert_eq!(DcganDiscriminator::new(3, 64).num_parameters(), 2_765_568);
    /// let small = DcganDiscriminator::new(3, 2);
    /// assert_eq!(small.forward(&Var::ones((2, 3, 64, 64))).shape(), [2, 1, 1, 1]);
    /// ```
    pub struct DcganDiscriminator {
        main: Sequential,
    }
}

impl DcganDiscriminator {
    /// For images of this many channels, with `width` channels in the first hidden layer (the tutorial has `ndf` of 64).
    pub fn new(channels: usize, width: usize) -> DcganDiscriminator {
        let conv = |from, to| Conv2d::new(from, to, 4).bias(false);
        let leaky = || LeakyReLU::new().negative_slope(0.2);
        let mut main = sequential![conv(channels, width).stride(2).padding(1), leaky()];
        for factor in [1, 2, 4] {
            let [from, to] = [factor * width, 2 * factor * width];
            main = main.add(conv(from, to).stride(2).padding(1)).add(BatchNorm2d::new(to)).add(leaky());
        }
        let model = DcganDiscriminator { main: main.add(conv(8 * width, 1)).add(Sigmoid::new()) };
        initialize(&model);
        model
    }
}

impl Forward for DcganDiscriminator {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| self.main.forward(x))
    }
}
