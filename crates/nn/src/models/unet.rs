//! U-Net.

use crate::{
    BatchNorm2d, Conv2d, ConvTranspose2d, Forward, MaxPool2d, ReLU, Sequential, observe, sequential,
};
use tapegrad_tape::{Var, cat};

crate::module! {
    /// Two 3x3 convolutions that keep the size, each with batch norm and ReLU.
    struct DoubleConv {
        double_conv: Sequential,
    }
}

impl DoubleConv {
    fn new(from: usize, to: usize) -> DoubleConv {
        let conv = |from| Conv2d::new(from, to, 3).padding(1).bias(false);
        DoubleConv {
            double_conv: sequential![
                conv(from),
                BatchNorm2d::new(to),
                ReLU::new(),
                conv(to),
                BatchNorm2d::new(to),
                ReLU::new()
            ],
        }
    }
}

impl Forward for DoubleConv {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| self.double_conv.forward(x))
    }
}

crate::module! {
    /// Halves the size and doubles the channels.
    struct Down {
        maxpool_conv: Sequential,
    }
}

impl Forward for Down {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| self.maxpool_conv.forward(x))
    }
}

crate::module! {
    /// Doubles the size, halves the channels, and joins the features of the way down.
    struct Up {
        up: ConvTranspose2d,
        conv: DoubleConv,
    }
}

impl Up {
    /// The output for features `x` and those of twice the size; where the size was odd, a border of zeros is added.
    #[track_caller]
    fn join(&self, x: &Var, skip: &Var) -> Var {
        observe(self, x, |x| {
            let mut x = self.up.forward(x);
            let missing = |dim: isize| skip.size(dim) as isize - x.size(dim) as isize;
            let [h, w] = [missing(2), missing(3)];
            if h != 0 || w != 0 {
                x = x.pad(&[w / 2, w - w / 2, h / 2, h - h / 2]);
            }
            self.conv.forward(&cat(&[skip, &x], 1))
        })
    }
}

crate::module! {
    /// U-Net, which classifies each pixel (Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Image
    /// Segmentation"), with padded convolutions and batch norm, so that the output has the size of the input. State-dict keys
    /// are those of the widely used PyTorch program of that name: `inc`, `down1`, ..., `up1`, ..., `outc`.
    ///
    /// ```
    /// use tapegrad_nn::{Forward, Module, models::UNet};
    /// use tapegrad_tape::Var;
    /// let net = UNet::new(3, 2);
    /// assert_eq!(net.num_parameters(), 31_037_698);
    /// let small = UNet::with_sizes(1, 2, 4, 3);
    /// assert_eq!(small.forward(&Var::ones((1, 1, 24, 32))).shape(), [1, 2, 24, 32]);
    /// assert_eq!(small.state_dict().keys().next(), Some("inc.double_conv.0.weight"));
    /// ```
    pub struct UNet {
        inc: DoubleConv,
        down: Ways<Down>,
        up: Ways<Up>,
        outc: Out,
    }
}

crate::module! {
    /// The 1x1 convolution to the classes.
    struct Out {
        conv: Conv2d,
    }
}

/// The levels of one way, whose names are numbered from one: `down1`, `down2`, ...
struct Ways<M>(Vec<M>);

impl<M: crate::Module> crate::Field for Ways<M> {
    fn visit<'a>(&'a self, name: &str, f: &mut dyn FnMut(&str, crate::Item<'a>)) {
        for (i, level) in self.0.iter().enumerate() {
            f(&format!("{name}{}", i + 1), crate::Item::Module(level));
        }
    }
}

impl UNet {
    /// With 64 channels at the full size, and four levels below: sizes that are multiples of 16 need no padding.
    pub fn new(channels: usize, classes: usize) -> UNet {
        UNet::with_sizes(channels, classes, 64, 4)
    }

    /// With `width` channels at the full size, and `depth` levels below.
    pub fn with_sizes(channels: usize, classes: usize, width: usize, depth: usize) -> UNet {
        let at = |level: usize| width << level;
        UNet {
            inc: DoubleConv::new(channels, width),
            down: Ways(
                (0..depth)
                    .map(|i| Down {
                        maxpool_conv: sequential![MaxPool2d::new(2), DoubleConv::new(at(i), at(i + 1))],
                    })
                    .collect(),
            ),
            up: Ways(
                (0..depth)
                    .rev()
                    .map(|i| Up {
                        up: ConvTranspose2d::new(at(i + 1), at(i), 2).stride(2),
                        conv: DoubleConv::new(at(i + 1), at(i)),
                    })
                    .collect(),
            ),
            outc: Out { conv: Conv2d::new(width, classes, 1) },
        }
    }
}

impl Forward for UNet {
    /// The logits `[N, classes, H, W]` for images `[N, channels, H, W]`.
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            let mut levels = vec![self.inc.forward(x)];
            for down in &self.down.0 {
                levels.push(down.forward(&levels[levels.len() - 1]));
            }
            let mut x = levels.pop().expect("at least the full size");
            for (up, skip) in self.up.0.iter().zip(levels.iter().rev()) {
                x = up.join(&x, skip);
            }
            self.outc.conv.forward(&x)
        })
    }
}
