//! ResNet-18, ResNet-34 and ResNet-50.

use crate::{BatchNorm2d, Conv2d, Forward, Linear, Sequential, observe};
use tapegrad_ops::MaxPoolOptions;
use tapegrad_tape::Var;

crate::module! {
    /// Two 3x3 convolutions and a shortcut.
    pub struct BasicBlock {
        conv1: Conv2d,
        bn1: BatchNorm2d,
        conv2: Conv2d,
        bn2: BatchNorm2d,
        downsample: Option<Sequential>,
    }
}

/// A 1x1 convolution with batch norm where a block changes the shape.
fn shortcut(channels: usize, planes: usize, stride: usize) -> Option<Sequential> {
    (stride != 1 || channels != planes).then(|| {
        Sequential::new()
            .add(Conv2d::new(channels, planes, 1).stride(stride).bias(false))
            .add(BatchNorm2d::new(planes))
    })
}

impl BasicBlock {
    /// From `channels` to `planes` channels, the first convolution with this stride.
    pub fn new(channels: usize, planes: usize, stride: usize) -> BasicBlock {
        let conv = |from, stride| Conv2d::new(from, planes, 3).stride(stride).padding(1).bias(false);
        BasicBlock {
            conv1: conv(channels, stride),
            bn1: BatchNorm2d::new(planes),
            conv2: conv(planes, 1),
            bn2: BatchNorm2d::new(planes),
            downsample: shortcut(channels, planes, stride),
        }
    }
}

impl Forward for BasicBlock {
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            let identity = self.downsample.as_ref().map_or_else(|| x.clone(), |d| d.forward(x));
            let y = self.bn1.relu(&self.conv1.forward(x), None);
            self.bn2.relu(&self.conv2.forward(&y), Some(&identity))
        })
    }
}

crate::module! {
    /// A 3x3 convolution between two 1x1 convolutions, of which the last has four times as many channels, and a shortcut.
    pub struct Bottleneck {
        conv1: Conv2d,
        bn1: BatchNorm2d,
        conv2: Conv2d,
        bn2: BatchNorm2d,
        conv3: Conv2d,
        bn3: BatchNorm2d,
        downsample: Option<Sequential>,
    }
}

impl Bottleneck {
    /// How many times as many channels the output has as the 3x3 convolution.
    const EXPANSION: usize = 4;

    /// From `channels` to `4 * planes` channels, the 3x3 convolution with this stride.
    pub fn new(channels: usize, planes: usize, stride: usize) -> Bottleneck {
        let out = planes * Bottleneck::EXPANSION;
        Bottleneck {
            conv1: Conv2d::new(channels, planes, 1).bias(false),
            bn1: BatchNorm2d::new(planes),
            conv2: Conv2d::new(planes, planes, 3).stride(stride).padding(1).bias(false),
            bn2: BatchNorm2d::new(planes),
            conv3: Conv2d::new(planes, out, 1).bias(false),
            bn3: BatchNorm2d::new(out),
            downsample: shortcut(channels, out, stride),
        }
    }
}

impl Forward for Bottleneck {
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            let identity = self.downsample.as_ref().map_or_else(|| x.clone(), |d| d.forward(x));
            let y = self.bn1.relu(&self.conv1.forward(x), None);
            let y = self.bn2.relu(&self.conv2.forward(&y), None);
            self.bn3.relu(&self.conv3.forward(&y), Some(&identity))
        })
    }
}

crate::module! {
    /// ResNet (He et al. 2016, "Deep residual learning for image recognition"); the state-dict keys are
    /// those of torchvision.
    ///
    /// ```
    /// use tapegrad_nn::{Module, models::ResNet};
    /// assert_eq!(ResNet::resnet18(10).num_parameters(), 11_173_962);
    /// assert_eq!(ResNet::resnet50(1000).num_parameters(), 25_557_032);
    /// ```
    pub struct ResNet {
        conv1: Conv2d,
        bn1: BatchNorm2d,
        layer1: Sequential,
        layer2: Sequential,
        layer3: Sequential,
        layer4: Sequential,
        /// The classifier.
        pub fc: Linear,
        stem_pool: bool,
    }
}

impl ResNet {
    /// Eighteen layers with a 3x3 stem, for images `[3, 32, 32]`.
    pub fn resnet18(classes: usize) -> ResNet {
        ResNet::new([2, 2, 2, 2], false, classes)
    }

    /// Thirty-four layers with a 3x3 stem, for images `[3, 32, 32]`.
    pub fn resnet34(classes: usize) -> ResNet {
        ResNet::new([3, 4, 6, 3], false, classes)
    }

    /// Fifty layers with bottlenecks, for images of 224x224 (`torchvision.models.resnet50`).
    pub fn resnet50(classes: usize) -> ResNet {
        ResNet::bottlenecks([3, 4, 6, 3], true, classes)
    }

    /// With this many basic blocks in each of four stages; `imagenet_stem` is a 7x7 convolution of stride 2 and a max
    /// pooling, for images of 224x224.
    pub fn new(blocks: [usize; 4], imagenet_stem: bool, classes: usize) -> ResNet {
        ResNet::build(blocks, imagenet_stem, classes, 1, |layer, channels, planes, stride| {
            layer.push(BasicBlock::new(channels, planes, stride));
        })
    }

    /// With this many bottlenecks in each of four stages; the stem as in [`ResNet::new`].
    pub fn bottlenecks(blocks: [usize; 4], imagenet_stem: bool, classes: usize) -> ResNet {
        ResNet::build(
            blocks,
            imagenet_stem,
            classes,
            Bottleneck::EXPANSION,
            |layer, channels, planes, stride| {
                layer.push(Bottleneck::new(channels, planes, stride));
            },
        )
    }

    /// `push(layer, channels, planes, stride)` appends a block, whose output has `expansion * planes` channels.
    fn build(
        blocks: [usize; 4],
        imagenet_stem: bool,
        classes: usize,
        expansion: usize,
        push: impl Fn(&mut Sequential, usize, usize, usize),
    ) -> ResNet {
        let mut channels = 64;
        let mut stage = |count: usize, planes: usize, stride: usize| {
            let mut layer = Sequential::new();
            for i in 0..count {
                push(&mut layer, channels, planes, if i == 0 { stride } else { 1 });
                channels = planes * expansion;
            }
            layer
        };
        let conv1 = match imagenet_stem {
            true => Conv2d::new(3, 64, 7).stride(2).padding(3),
            false => Conv2d::new(3, 64, 3).padding(1),
        };
        ResNet {
            conv1: conv1.bias(false),
            bn1: BatchNorm2d::new(64),
            layer1: stage(blocks[0], 64, 1),
            layer2: stage(blocks[1], 128, 2),
            layer3: stage(blocks[2], 256, 2),
            layer4: stage(blocks[3], 512, 2),
            fc: Linear::new(512 * expansion, classes),
            stem_pool: imagenet_stem,
        }
    }
}

impl Forward for ResNet {
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            let mut x = self.bn1.relu(&self.conv1.forward(x), None);
            if self.stem_pool {
                x = tapegrad_ops::max_pool2d(&x, MaxPoolOptions::new(3).stride(2).padding(1));
            }
            for layer in [&self.layer1, &self.layer2, &self.layer3, &self.layer4] {
                x = layer.forward(&x);
            }
            self.fc.forward(&tapegrad_ops::adaptive_avg_pool2d(&x, 1).flatten(1))
        })
    }
}
