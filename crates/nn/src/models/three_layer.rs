//! The three-layer convnet.

use crate::{Conv2d, Forward, Linear, observe};
use tapegrad_tape::Var;

crate::module! {
    /// 7x7 convolution, ReLU, 2x2 max pooling, a hidden layer and a linear one, for images `[3, 32, 32]`.
    pub struct ThreeLayerConvNet {
        conv1: Conv2d,
        fc1: Linear,
        fc2: Linear,
    }
}

impl ThreeLayerConvNet {
    /// With 32 filters and 500 hidden units, for this number of classes.
    pub fn new(classes: usize) -> ThreeLayerConvNet {
        ThreeLayerConvNet::with_sizes(32, 500, classes)
    }

    /// With this many filters and hidden units.
    pub fn with_sizes(filters: usize, hidden: usize, classes: usize) -> ThreeLayerConvNet {
        ThreeLayerConvNet {
            conv1: Conv2d::new(3, filters, 7).padding(3),
            fc1: Linear::new(filters * 16 * 16, hidden),
            fc2: Linear::new(hidden, classes),
        }
    }
}

impl Forward for ThreeLayerConvNet {
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            // The ReLU of a maximum is the maximum of the ReLUs, so compute it on a quarter of the elements.
            let x = tapegrad_ops::relu_(tapegrad_ops::max_pool2d(&self.conv1.forward(x), 2));
            self.fc2.forward(&tapegrad_ops::relu_(self.fc1.forward(&x.flatten(1))))
        })
    }
}
