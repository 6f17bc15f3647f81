//! A network that trains fast.

use crate::init::dirac_;
use crate::{BatchNorm2d, Conv2d, Forward, Linear, MaxPool2d, Module, observe};
use tapegrad_tape::{Tensor, Var};

crate::module! {
    /// Two 3x3 convolutions, the first with max pooling, each with batch norm and GELU.
    pub struct SpeedBlock {
        conv1: Conv2d,
        norm1: BatchNorm2d,
        conv2: Conv2d,
        norm2: BatchNorm2d,
        pool: MaxPool2d,
    }
}

impl SpeedBlock {
    /// From `channels` to `width` channels. The convolutions are initialized as the identity.
    pub fn new(channels: usize, width: usize) -> SpeedBlock {
        let conv = |from: usize| {
            let conv = Conv2d::new(from, width, 3).padding(1).bias(false);
            // The first filters are the identity, the others keep their random values.
            let first = from.min(width);
            let passing = Var::buffer(Tensor::zeros_with(&[first, from, 3, 3], tapegrad_tape::DType::F32));
            dirac_(&passing);
            let rest = conv.weight.detach().narrow(0, first, width - first);
            conv.weight.set_value(tapegrad_tape::cat(&[passing.detach(), rest], 0).tensor());
            conv
        };
        let norm = || {
            let norm = BatchNorm2d::new(width).momentum(0.4).eps(1e-12);
            norm.weight.as_ref().expect("affine").set_requires_grad(false);
            norm
        };
        SpeedBlock {
            conv1: conv(channels),
            norm1: norm(),
            conv2: conv(width),
            norm2: norm(),
            pool: MaxPool2d::new(2),
        }
    }
}

fn gelu(x: Var) -> Var {
    tapegrad_ops::gelu(&x)
}

impl Forward for SpeedBlock {
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            let x = self.pool.forward_owned(self.conv1.forward(x));
            let x = gelu(self.norm1.forward_owned(x));
            gelu(self.norm2.forward_owned(self.conv2.forward_owned(x)))
        })
    }
}

crate::module! {
    /// A small residual-free network for images `[3, 32, 32]` that reaches ResNet's accuracy in ten epochs, after
    /// airbench (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU"): a first layer that whitens small
    /// patches and is not trained, convolutions initialized as the identity, and a scaled-down output.
    ///
    /// ```
    /// use tapegrad_nn::{Forward, models::SpeedNet};
    /// use tapegrad_tape::{DType, Tensor, Var};
    /// let net = SpeedNet::new(10);
    /// assert_eq!(net.forward(&Var::from(Tensor::zeros_with(&[2, 3, 32, 32], DType::F32))).shape(), [2, 10]);
    /// ```
    pub struct SpeedNet {
        whiten: Conv2d,
        block1: SpeedBlock,
        block2: SpeedBlock,
        block3: SpeedBlock,
        pool: MaxPool2d,
        head: Linear,
        scale: f64,
    }
}

impl SpeedNet {
    /// With 64, 256 and 256 channels, for this number of classes.
    pub fn new(classes: usize) -> SpeedNet {
        SpeedNet::with_widths([64, 256, 256], classes)
    }

    /// With other numbers of channels.
    pub fn with_widths(widths: [usize; 3], classes: usize) -> SpeedNet {
        let whiten = Conv2d::new(3, 24, 2);
        whiten.weight.set_requires_grad(false);
        crate::init::zeros_(whiten.bias.as_ref().expect("has a bias"));
        SpeedNet {
            whiten,
            block1: SpeedBlock::new(24, widths[0]),
            block2: SpeedBlock::new(widths[0], widths[1]),
            block3: SpeedBlock::new(widths[1], widths[2]),
            pool: MaxPool2d::new(3),
            head: Linear::new(widths[2], classes).bias(false),
            scale: 1.0 / 9.0,
        }
    }

    /// Sets the first layer's filters `[24, 3, 2, 2]`: the whitened directions of the training images' 2x2 patches,
    /// each with both signs.
    ///
    /// # Panics
    /// If the filters have another shape.
    #[track_caller]
    pub fn set_whitening(&self, filters: Tensor) {
        self.whiten.weight.set_value(filters);
    }

    /// The bias of the whitening layer, which is trained for the first epochs only.
    pub fn whitening_bias(&self) -> &Var {
        self.whiten.bias.as_ref().expect("has a bias")
    }

    /// The parameters that are trained: biases of normalization, which take a much larger learning rate, and the
    /// others.
    pub fn parameter_groups(&self) -> (Vec<Var>, Vec<Var>) {
        let trained = self.named_parameters().into_iter().filter(|(_, p)| p.requires_grad());
        let (norms, others): (Vec<_>, Vec<_>) = trained.partition(|(name, _)| name.contains("norm"));
        let values = |list: Vec<(String, Var)>| list.into_iter().map(|(_, p)| p).collect();
        (values(norms), values(others))
    }
}

impl Forward for SpeedNet {
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            let mut x = gelu(self.whiten.forward(x));
            for block in [&self.block1, &self.block2, &self.block3] {
                x = block.forward_owned(x);
            }
            let x = self.pool.forward_owned(x).flatten(1);
            self.head.forward(&x) * self.scale
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapegrad_tape::{DType, Generator};

    #[test]
    fn convolutions_begin_by_passing_their_input_on() {
        let block = SpeedBlock::new(4, 6);
        let x = Var::from(Generator::manual_seed(1).normal(&[2, 4, 5, 5], 0.0, 1.0));
        assert_eq!(block.conv1.forward(&x).narrow(1, 0, 4).to_vec::<f32>(), x.to_vec::<f32>());
    }

    #[test]
    fn groups_are_what_is_trained() {
        let net = SpeedNet::with_widths([4, 6, 8], 3);
        let (norms, others) = net.parameter_groups();
        assert!(norms.len() == 6 && norms.iter().all(|p| p.ndim() == 1));
        // The whitening bias, six convolutions and the head.
        assert_eq!(others.len(), 8);
        let x = Var::from(Generator::manual_seed(2).normal(&[2, 3, 32, 32], 0.0, 1.0));
        net.forward(&x).sum_all().backward();
        for (name, p) in net.named_parameters() {
            assert_eq!(p.grad().is_some(), p.requires_grad(), "{name}");
        }
    }

    #[test]
    #[should_panic(expected = "conv2d")]
    fn gray_images_do_not_fit() {
        SpeedNet::new(10).forward(&Var::from(Tensor::zeros_with(&[1, 1, 32, 32], DType::F32)));
    }
}
