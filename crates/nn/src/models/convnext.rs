//! ConvNeXt.

use crate::fields::Item;
use crate::init::{trunc_normal_, zeros_};
use crate::{Conv2d, Flatten, Forward, GELU, LayerNorm, Linear, Module, Sequential, StochasticDepth};
use crate::{observe, sequential};
use tapegrad_tape::{DType, Tensor, Var};

crate::module! {
    /// Permutes dimensions (`torchvision.ops.Permute`).
    struct Permute {
        dims: [isize; 4],
    }
}

impl Permute {
    /// From `[N, C, H, W]` to `[N, H, W, C]`.
    fn channels_last() -> Permute {
        Permute { dims: [0, 2, 3, 1] }
    }

    /// From `[N, H, W, C]` to `[N, C, H, W]`.
    fn channels_first() -> Permute {
        Permute { dims: [0, 3, 1, 2] }
    }
}

impl Forward for Permute {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| x.permute(&self.dims))
    }
}

fn layer_norm(channels: usize) -> LayerNorm {
    LayerNorm::new(&[channels]).eps(1e-6)
}

/// Layer norm over the channels of `[N, C, H, W]`, with the names of a [`LayerNorm`].
struct ChannelNorm(LayerNorm);

impl ChannelNorm {
    fn new(channels: usize) -> ChannelNorm {
        ChannelNorm(layer_norm(channels))
    }
}

impl Module for ChannelNorm {
    fn visit_fields<'a>(&'a self, f: &mut dyn FnMut(&str, Item<'a>)) {
        self.0.visit_fields(f);
    }
    fn class(&self) -> &'static str {
        "ChannelNorm"
    }
}

impl Forward for ChannelNorm {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            let normalized = self.0.forward(&Permute::channels_last().forward(x));
            Permute::channels_first().forward(&normalized)
        })
    }
}

crate::module! {
    /// A depthwise 7x7 convolution, a normalization and two linear layers over the channels, scaled, beside a residual.
    pub struct ConvNeXtBlock {
        layer_scale: Var,
        block: Sequential,
        stochastic_depth: StochasticDepth,
    }
}

impl ConvNeXtBlock {
    /// A block of this many channels, whose output is scaled by `layer_scale` at first and left out with the probability
    /// `p`.
    ///
    /// # Panics
    /// If `p` is not in `[0, 1]`.
    #[track_caller]
    pub fn new(channels: usize, layer_scale: f64, p: f64) -> ConvNeXtBlock {
        ConvNeXtBlock {
            layer_scale: Var::parameter(Tensor::full_with(&[channels, 1, 1], layer_scale, DType::F32)),
            block: sequential![
                Conv2d::new(channels, channels, 7).padding(3).groups(channels),
                Permute::channels_last(),
                layer_norm(channels),
                Linear::new(channels, 4 * channels),
                GELU::new(),
                Linear::new(4 * channels, channels),
                Permute::channels_first(),
            ],
            stochastic_depth: StochasticDepth::new(p),
        }
    }
}

impl Forward for ConvNeXtBlock {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| x + self.stochastic_depth.forward(&(&self.layer_scale * self.block.forward(x))))
    }
}

crate::module! {
    /// ConvNeXt (Liu et al. 2022, "A ConvNet for the 2020s"); the state-dict keys are those of
    /// `torchvision.models.ConvNeXt`.
    ///
    /// ```
    /// use tapegrad_nn::{Forward, Module, models::ConvNeXt};
    /// use tapegrad_tape::Var;
    /// let net = ConvNeXt::new(&[(8, 1), (12, 2)], 0.1, 5);
    /// assert_eq!(net.forward(&Var::ones((2, 3, 32, 32))).shape(), [2, 5]);
    /// assert_eq!(net.named_parameters()[4].0, "features.1.0.layer_scale");
    /// ```
    pub struct ConvNeXt {
        features: Sequential,
        classifier: Sequential,
    }
}

impl ConvNeXt {
    /// The smallest of the paper, for images of 224x224 (`torchvision.models.convnext_tiny`).
    pub fn convnext_tiny(classes: usize) -> ConvNeXt {
        ConvNeXt::new(&[(96, 3), (192, 3), (384, 9), (768, 3)], 0.1, classes)
    }

    /// A model with stages of these channels and numbers of blocks. In training, blocks are left out of single samples: the
    /// last with the probability `stochastic_depth_prob`, the others less, in proportion to their depth.
    ///
    /// # Panics
    /// If there is no stage, or the probability is not in `[0, 1]`.
    #[track_caller]
    pub fn new(stages: &[(usize, usize)], stochastic_depth_prob: f64, classes: usize) -> ConvNeXt {
        let (Some(&(first, _)), Some(&(last, _))) = (stages.first(), stages.last()) else {
            panic!("ConvNeXt: needs at least one stage")
        };
        let total = stages.iter().map(|&(_, blocks)| blocks).sum::<usize>();
        let mut features =
            sequential![sequential![Conv2d::new(3, first, 4).stride(4), ChannelNorm::new(first)]];
        let mut done = 0;
        for (i, &(channels, blocks)) in stages.iter().enumerate() {
            if i > 0 {
                let from = stages[i - 1].0;
                features.push(sequential![ChannelNorm::new(from), Conv2d::new(from, channels, 2).stride(2)]);
            }
            let mut stage = Sequential::new();
            for _ in 0..blocks {
                let depth = done as f64 / (total.max(2) - 1) as f64;
                stage.push(ConvNeXtBlock::new(channels, 1e-6, stochastic_depth_prob * depth));
                done += 1;
            }
            features.push(stage);
        }
        let classifier = sequential![ChannelNorm::new(last), Flatten::new(), Linear::new(last, classes)];
        let model = ConvNeXt { features, classifier };
        model.apply(&mut |module| {
            if module.is::<Conv2d>() || module.is::<Linear>() {
                for (name, p) in module.own_parameters() {
                    if name == "weight" { trunc_normal_(&p, 0.0, 0.02) } else { zeros_(&p) }
                }
            }
        });
        model
    }
}

impl Forward for ConvNeXt {
    #[track_caller]
    fn forward(&self, x: &Var) -> Var {
        observe(self, x, |x| {
            let x = tapegrad_ops::adaptive_avg_pool2d(&self.features.forward(x), [Some(1), Some(1)]);
            self.classifier.forward(&x)
        })
    }
}
