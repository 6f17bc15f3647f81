//! Vision transformers.

use crate::fields::Item;
use crate::init::{calculate_fan_in_and_fan_out, normal_, trunc_normal_, xavier_uniform_, zeros_};
use crate::{Conv2d, Dropout, Forward, GELU, LayerNorm, Linear, Module, MultiheadAttention, Sequential};
use crate::{observe, sequential};
use tapegrad_tape::{DType, Tensor, Var, cat};

/// The sizes of a [`VisionTransformer`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VitConfig {
    /// Height and width of the images.
    pub image_size: usize,
    /// Height and width of the patches that an image is divided into.
    pub patch_size: usize,
    /// Encoder blocks.
    pub num_layers: usize,
    /// Attention heads of each block.
    pub num_heads: usize,
    /// The size of the vectors, a multiple of the heads.
    pub hidden_dim: usize,
    /// The units between the linear layers of a block.
    pub mlp_dim: usize,
    /// The probability of dropout.
    pub dropout: f64,
}

impl VitConfig {
    /// ViT-B/16: 12 layers, 12 heads, 768 wide, for images of 224x224.
    pub fn b_16() -> VitConfig {
        VitConfig {
            image_size: 224,
            patch_size: 16,
            num_layers: 12,
            num_heads: 12,
            hidden_dim: 768,
            mlp_dim: 3072,
            dropout: 0.0,
        }
    }

    /// 6 layers, 3 heads, 192 wide, patches of 4x4, for images of 32x32.
    pub fn tiny() -> VitConfig {
        VitConfig {
            image_size: 32,
            patch_size: 4,
            num_layers: 6,
            num_heads: 3,
            hidden_dim: 192,
            mlp_dim: 768,
            dropout: 0.0,
        }
    }
}

crate::module! {
    /// A block of a [`VisionTransformer`]: attention and two linear layers, each behind a normalization and beside a
    /// residual.
    pub struct VitBlock {
        ln_1: LayerNorm,
        self_attention: MultiheadAttention,
        dropout: Dropout,
        ln_2: LayerNorm,
        mlp: Sequential,
    }
}

fn layer_norm(size: usize) -> LayerNorm {
    LayerNorm::new(&[size]).eps(1e-6)
}

impl VitBlock {
    #[track_caller]
    fn new(config: &VitConfig) -> VitBlock {
        let VitConfig { hidden_dim, num_heads, mlp_dim, dropout, .. } = *config;
        let linear = |from, to| {
            let layer = Linear::new(from, to);
            xavier_uniform_(&layer.weight);
            layer.bias.iter().for_each(|bias| normal_(bias, 0.0, 1e-6));
            layer
        };
        VitBlock {
            ln_1: layer_norm(hidden_dim),
            self_attention: MultiheadAttention::new(hidden_dim, num_heads).dropout(dropout).batch_first(true),
            dropout: Dropout::new(dropout),
            ln_2: layer_norm(hidden_dim),
            mlp: sequential![
                linear(hidden_dim, mlp_dim),
                GELU::new(),
                Dropout::new(dropout),
                linear(mlp_dim, hidden_dim),
                Dropout::new(dropout),
            ],
        }
    }
}

impl Forward for VitBlock {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            let x = x + self.dropout.forward(&self.self_attention.forward(&self.ln_1.forward(x)));
            &x + self.mlp.forward(&self.ln_2.forward(&x))
        })
    }
}

/// The blocks, whose names torchvision numbers itself.
struct Blocks(Vec<VitBlock>);

impl Module for Blocks {
    fn visit_fields<'a>(&'a self, f: &mut dyn FnMut(&str, Item<'a>)) {
        for (i, block) in self.0.iter().enumerate() {
            f(&format!("encoder_layer_{i}"), Item::Module(block));
        }
    }
    fn class(&self) -> &'static str {
        "Blocks"
    }
}

crate::module! {
    /// The position embedding, the blocks and a normalization.
    struct Encoder {
        pos_embedding: Var,
        dropout: Dropout,
        layers: Blocks,
        ln: LayerNorm,
    }
}

impl Forward for Encoder {
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            let mut x = self.dropout.forward(&(x + &self.pos_embedding));
            self.layers.0.iter().for_each(|block| x = block.forward(&x));
            self.ln.forward(&x)
        })
    }
}

crate::module! {
    /// The linear layer for the classes, under torchvision's name.
    struct Heads {
        head: Linear,
    }
}

crate::module! {
    /// A transformer over the patches of an image (Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words: Transformers
    /// for Image Recognition at Scale"); the state-dict keys are those of `torchvision.models.VisionTransformer`.
    ///
    /// ```
    /// use tapegrad_nn::{Forward, Module, models::VisionTransformer};
    /// use tapegrad_tape::Var;
    /// let net = VisionTransformer::vit_tiny(10);
    /// assert_eq!(net.forward(&Var::ones((2, 3, 32, 32))).shape(), [2, 10]);
    /// assert_eq!(net.named_parameters()[3].0, "encoder.pos_embedding");
    /// ```
    pub struct VisionTransformer {
        class_token: Var,
        conv_proj: Conv2d,
        encoder: Encoder,
        heads: Heads,
        image_size: usize,
    }
}

impl VisionTransformer {
    /// ViT-B/16 for images of 224x224 (`torchvision.models.vit_b_16`).
    pub fn vit_b_16(classes: usize) -> VisionTransformer {
        VisionTransformer::new(VitConfig::b_16(), classes)
    }

    /// A small one for images of 32x32: [`VitConfig::tiny`].
    pub fn vit_tiny(classes: usize) -> VisionTransformer {
        VisionTransformer::new(VitConfig::tiny(), classes)
    }

    /// A model of these sizes, with torchvision's initial values: its first logits are zeros.
    ///
    /// # Panics
    /// If the images cannot be divided into patches, or the vectors into heads.
    #[track_caller]
    pub fn new(config: VitConfig, classes: usize) -> VisionTransformer {
        let VitConfig { image_size, patch_size, num_layers, hidden_dim, dropout, .. } = config;
        assert!(
            patch_size > 0 && image_size.is_multiple_of(patch_size),
            "VisionTransformer: images of {image_size}x{image_size} cannot be divided into patches of \
             {patch_size}x{patch_size}"
        );
        let conv_proj = Conv2d::new(3, hidden_dim, patch_size).stride(patch_size);
        let std = (1.0 / calculate_fan_in_and_fan_out(conv_proj.weight.shape()).0 as f64).sqrt();
        trunc_normal_(&conv_proj.weight, 0.0, std);
        conv_proj.bias.iter().for_each(zeros_);
        let parameter = |steps| Var::parameter(Tensor::zeros_with(&[1, steps, hidden_dim], DType::F32));
        let pos_embedding = parameter((image_size / patch_size).pow(2) + 1);
        normal_(&pos_embedding, 0.0, 0.02);
        let head = Linear::new(hidden_dim, classes);
        [Some(&head.weight), head.bias.as_ref()].into_iter().flatten().for_each(zeros_);
        VisionTransformer {
            class_token: parameter(1),
            conv_proj,
            encoder: Encoder {
                pos_embedding,
                dropout: Dropout::new(dropout),
                layers: Blocks((0..num_layers).map(|_| VitBlock::new(&config)).collect()),
                ln: layer_norm(hidden_dim),
            },
            heads: Heads { head },
            image_size,
        }
    }
}

impl Forward for VisionTransformer {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        let size = self.image_size;
        assert!(
            matches!(*x.shape(), [_, 3, h, w] if h == size && w == size),
            "VisionTransformer: expects images [N, 3, {size}, {size}], got {:?}",
            x.shape()
        );
        observe(self, x, |x| {
            let x = self.conv_proj.forward(x).flatten(2).transpose(1, 2);
            let token = self.class_token.expand((x.shape()[0], -1, -1));
            let x = self.encoder.forward(&cat(&[&token, &x], 1));
            self.heads.head.forward(&x.select(1, 0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "expects images [N, 3, 32, 32], got [2, 3, 28, 28]")]
    fn images_of_another_size() {
        VisionTransformer::vit_tiny(10).forward(&Var::ones((2, 3, 28, 28)));
    }

    #[test]
    #[should_panic(expected = "images of 30x30 cannot be divided into patches of 4x4")]
    fn patches_that_do_not_fit() {
        VisionTransformer::new(VitConfig { image_size: 30, ..VitConfig::tiny() }, 10);
    }
}
