//! VGG.

use crate::{BatchNorm2d, Conv2d, Forward, Linear, MaxPool2d, ReLU, Sequential, observe};
use tapegrad_tape::Var;

crate::module! {
    /// VGG for images `[3, 32, 32]`: 3x3 convolutions and one linear classifier (Simonyan and Zisserman 2015, "Very
    /// deep convolutional networks for large-scale image recognition").
    ///
    /// ```
    /// use tapegrad_nn::{Module, models::Vgg};
    /// assert_eq!(Vgg::vgg11(10).num_parameters(), 9_231_114);
    /// ```
    pub struct Vgg {
        features: Sequential,
        classifier: Linear,
    }
}

/// A width is a convolution, zero a pooling.
const VGG11: &[usize] = &[64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0];
const VGG13: &[usize] = &[64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0];
const VGG16: &[usize] = &[64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0];

impl Vgg {
    /// Eleven layers with batch norm, for this number of classes.
    pub fn vgg11(classes: usize) -> Vgg {
        Vgg::new(VGG11, true, classes)
    }

    /// Thirteen layers with batch norm.
    pub fn vgg13(classes: usize) -> Vgg {
        Vgg::new(VGG13, true, classes)
    }

    /// Sixteen layers with batch norm.
    pub fn vgg16(classes: usize) -> Vgg {
        Vgg::new(VGG16, true, classes)
    }

    /// From a list of widths, where zero stands for a 2x2 max pooling, with or without batch norm.
    pub fn new(layers: &[usize], batch_norm: bool, classes: usize) -> Vgg {
        let mut features = Sequential::new();
        let mut channels = 3;
        for &width in layers {
            if width == 0 {
                features.push(MaxPool2d::new(2));
                continue;
            }
            features.push(Conv2d::new(channels, width, 3).padding(1));
            if batch_norm {
                features.push(BatchNorm2d::new(width));
            }
            features.push(ReLU::new());
            channels = width;
        }
        Vgg { features, classifier: Linear::new(channels, classes) }
    }
}

impl Forward for Vgg {
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| self.classifier.forward(&self.features.forward(x).flatten(1)))
    }
}
