//! Well-known networks, with PyTorch's state-dict keys.

mod gpt;
mod lenet;
mod mlp;
mod mobilenet;
mod resnet;
mod speed_net;
mod three_layer;
mod vgg;

pub use gpt::{Gpt, GptBlock, GptConfig, KeyValues};
pub use lenet::LeNet5;
pub use mlp::{MlpOptions, mlp, mlp_with};
pub use mobilenet::{InvertedResidual, MobileNetV2};
pub use resnet::{BasicBlock, Bottleneck, ResNet};
pub use speed_net::{SpeedBlock, SpeedNet};
pub use three_layer::ThreeLayerConvNet;
pub use vgg::Vgg;
