//! MobileNetV2.

use crate::fields::Item;
use crate::{BatchNorm2d, Conv2d, Dropout, Forward, Linear, Module, Sequential, observe};
use tapegrad_tape::Var;

/// A convolution, batch norm and ReLU6.
struct ConvNorm {
    conv: Conv2d,
    norm: BatchNorm2d,
}

impl ConvNorm {
    /// The size is kept for stride 1.
    fn new([from, to]: [usize; 2], kernel: usize, stride: usize, groups: usize) -> ConvNorm {
        let conv =
            Conv2d::new(from, to, kernel).stride(stride).padding(kernel / 2).groups(groups).bias(false);
        ConvNorm { conv, norm: BatchNorm2d::new(to) }
    }
}

impl Module for ConvNorm {
    fn visit_fields<'a>(&'a self, f: &mut dyn FnMut(&str, Item<'a>)) {
        f("0", Item::Module(&self.conv));
        f("1", Item::Module(&self.norm));
    }
    fn class(&self) -> &'static str {
        "ConvNorm"
    }
}

impl Forward for ConvNorm {
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| self.norm.relu6(&self.conv.forward(x)))
    }
}

crate::module! {
    /// A depthwise 3x3 convolution between two 1x1 convolutions, of which the first widens and the second narrows, and a
    /// shortcut where the shape stays.
    pub struct InvertedResidual {
        conv: Sequential,
        shortcut: bool,
    }
}

impl InvertedResidual {
    /// From `from` to `to` channels, the depthwise convolution with this stride and `expansion` times as many channels as
    /// the input.
    pub fn new(from: usize, to: usize, stride: usize, expansion: usize) -> InvertedResidual {
        let wide = from * expansion;
        let mut conv = Sequential::new();
        if expansion != 1 {
            conv.push(ConvNorm::new([from, wide], 1, 1, 1));
        }
        let conv = conv
            .add(ConvNorm::new([wide, wide], 3, stride, wide))
            .add(Conv2d::new(wide, to, 1).bias(false))
            .add(BatchNorm2d::new(to));
        InvertedResidual { conv, shortcut: stride == 1 && from == to }
    }
}

impl Forward for InvertedResidual {
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            let y = self.conv.forward(x);
            if self.shortcut { x + y } else { y }
        })
    }
}

crate::module! {
    /// MobileNetV2 for images of 224x224 (Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear
    /// Bottlenecks"); the state-dict keys are those of torchvision.
    ///
    /// ```
    /// use tapegrad_nn::{Module, models::MobileNetV2};
    /// let net = MobileNetV2::new(1000);
    /// assert_eq!(net.num_parameters(), 3_504_872);
    /// assert_eq!(net.named_parameters()[3].0, "features.1.conv.0.0.weight");
    /// ```
    pub struct MobileNetV2 {
        features: Sequential,
        classifier: Sequential,
    }
}

/// Expansion, channels, number of blocks, and stride of the first of them.
const STAGES: [[usize; 4]; 7] = [
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
];

impl MobileNetV2 {
    /// For this number of classes.
    pub fn new(classes: usize) -> MobileNetV2 {
        let mut features = Sequential::new().add(ConvNorm::new([3, 32], 3, 2, 1));
        let mut channels = 32;
        for [expansion, to, count, stride] in STAGES {
            for i in 0..count {
                let stride = if i == 0 { stride } else { 1 };
                features.push(InvertedResidual::new(channels, to, stride, expansion));
                channels = to;
            }
        }
        features.push(ConvNorm::new([channels, 1280], 1, 1, 1));
        let classifier = Sequential::new().add(Dropout::new(0.2)).add(Linear::new(1280, classes));
        MobileNetV2 { features, classifier }
    }
}

impl Forward for MobileNetV2 {
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            let x = tapegrad_ops::adaptive_avg_pool2d(&self.features.forward(x), [Some(1), Some(1)]);
            self.classifier.forward(&x.flatten(1))
        })
    }
}
