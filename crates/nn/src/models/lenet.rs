//! LeNet-5.

use crate::{Conv2d, Forward, Linear, observe};
use tapegrad_tape::Var;

crate::module! {
    /// LeNet-5 for images of 28x28 gray pixels, with ReLU and max pooling (LeCun et al. 1998, "Gradient-based
    /// learning applied to document recognition").
    ///
    /// ```
    /// use tapegrad_nn::{Module, models::LeNet5};
    /// assert_eq!(LeNet5::new(10).num_parameters(), 61_706);
    /// ```
    pub struct LeNet5 {
        conv1: Conv2d,
        conv2: Conv2d,
        fc1: Linear,
        fc2: Linear,
        fc3: Linear,
    }
}

impl LeNet5 {
    /// For this number of classes.
    pub fn new(classes: usize) -> LeNet5 {
        LeNet5::with_first(Conv2d::new(1, 6, 5).padding(2), classes)
    }

    /// For color images of 32x32 pixels, which need no padding.
    pub fn cifar(classes: usize) -> LeNet5 {
        LeNet5::with_first(Conv2d::new(3, 6, 5), classes)
    }

    fn with_first(conv1: Conv2d, classes: usize) -> LeNet5 {
        LeNet5 {
            conv1,
            conv2: Conv2d::new(6, 16, 5),
            fc1: Linear::new(400, 120),
            fc2: Linear::new(120, 84),
            fc3: Linear::new(84, classes),
        }
    }
}

impl Forward for LeNet5 {
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            // The ReLU of a maximum is the maximum of the ReLUs, so compute it on a quarter of the elements.
            let x = tapegrad_ops::relu_(tapegrad_ops::max_pool2d(&self.conv1.forward(x), 2));
            let x = tapegrad_ops::relu_(tapegrad_ops::max_pool2d(&self.conv2.forward(&x), 2));
            let x = tapegrad_ops::relu_(self.fc1.forward(&x.flatten(1)));
            self.fc3.forward(&tapegrad_ops::relu_(self.fc2.forward(&x)))
        })
    }
}
