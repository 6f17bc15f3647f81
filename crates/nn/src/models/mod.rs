//! Well-known networks, with PyTorch's state-dict keys.

mod convnext;
mod dcgan;
mod gpt;
mod gpt2;
mod lenet;
mod mlp;
mod mobilenet;
mod resnet;
mod speed_net;
mod three_layer;
mod unet;
mod vgg;
mod vision_transformer;

pub use crate::KeyValues;
pub use convnext::{ConvNeXt, ConvNeXtBlock};
pub use dcgan::{DcganDiscriminator, DcganGenerator};
pub use gpt::{Gpt, GptBlock, GptConfig};
pub use lenet::LeNet5;
pub use mlp::{MlpOptions, mlp, mlp_with};
pub use mobilenet::{InvertedResidual, MobileNetV2};
pub use resnet::{BasicBlock, Bottleneck, ResNet};
pub use speed_net::{SpeedBlock, SpeedNet};
pub use three_layer::ThreeLayerConvNet;
pub use unet::UNet;
pub use vgg::Vgg;
pub use vision_transformer::{VisionTransformer, VitBlock, VitConfig};
