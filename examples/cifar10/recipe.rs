//! How each model is trained: the defaults of `--model NAME`.

use clap::ValueEnum;
use tapegrad::datasets::transforms::{AlternatingFlip, CutMix, Cutout, HorizontalFlip, Mixup, RandomCrop};
use tapegrad::datasets::{Dataset, ImageDataset, ImageLoader, Whitening};
use tapegrad::nn::lr_scheduler::{CosineAnnealingLR, LambdaLR, MultiStepLR, Schedule};
use tapegrad::nn::models::{LeNet5, MlpOptions, ResNet, SpeedNet, ThreeLayerConvNet, Vgg, mlp_with};
use tapegrad::nn::optim::{Adam, AdamW, AdamWOptions, Optimizer, SGD, SGDOptions};
use tapegrad::nn::train::{Trainer, predict, predict_mirrored, predict_shifted};
use tapegrad::nn::{Flatten, Forward};
use tapegrad::ops::CrossEntropyOptions;
use tapegrad::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Model {
    /// Fully connected, with batch norm and dropout
    Fc,
    /// One convolution and two linear layers
    Cnn3,
    /// LeNet-5 with ReLU and max pooling
    Lenet,
    Vgg11,
    Resnet18,
    /// A small network made to train fast, after airbench
    Resnet9,
}

impl Model {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|v| v.get_name().to_string()).unwrap_or_default()
    }

    /// The initialized network, for images `[3, 32, 32]`.
    pub(crate) fn build(self, classes: usize) -> Network {
        let module: Box<dyn Forward> = match self {
            Model::Fc => {
                let options = MlpOptions::new().batch_norm(true).dropout(0.2);
                Box::new(nn::sequential![Flatten::new(), mlp_with(&[3072, 1024, 512, classes], options)])
            }
            Model::Cnn3 => Box::new(ThreeLayerConvNet::new(classes)),
            Model::Lenet => Box::new(LeNet5::cifar(classes)),
            Model::Vgg11 => Box::new(Vgg::vgg11(classes)),
            Model::Resnet18 => Box::new(ResNet::resnet18(classes)),
            Model::Resnet9 => return Network::Speed(Box::new(SpeedNet::new(classes))),
        };
        Network::Other(module)
    }

    pub(crate) fn recipe(self) -> Recipe {
        let standard = Recipe {
            epochs: 20,
            batch_size: 128,
            method: Method::Sgd,
            lr: 0.1,
            momentum: 0.9,
            weight_decay: 5e-4,
            schedule: Plan::OneCycle,
            last: 0.0,
            augment: vec![Augment::Crop, Augment::Flip],
            label_smoothing: 0.1,
            tta: Tta::None,
        };
        match self {
            Model::Fc => Recipe { method: Method::Adamw, lr: 2e-3, weight_decay: 0.01, ..standard },
            Model::Cnn3 | Model::Lenet => Recipe {
                batch_size: 50,
                method: Method::Adamw,
                lr: 1.5e-3,
                weight_decay: 0.01,
                label_smoothing: 0.0,
                ..standard
            },
            Model::Vgg11 => standard,
            Model::Resnet18 => Recipe {
                lr: 0.15,
                augment: vec![Augment::AlternatingFlip, Augment::Crop],
                tta: Tta::Mirror,
                ..standard
            },
            Model::Resnet9 => Recipe {
                epochs: 10,
                batch_size: 1024,
                // Airbench's 11.5 and 0.0153, which it states for a thousand steps of plain SGD.
                lr: 11.5 / (1.0 + 1.0 / (1.0 - 0.85)),
                momentum: 0.85,
                weight_decay: 0.0153 / 11.5,
                last: 0.07,
                augment: vec![Augment::AlternatingFlip, Augment::Translate],
                label_smoothing: 0.2,
                tta: Tta::MirrorTranslate,
                ..standard
            },
        }
    }
}

/// A model; the fast one has its own training procedure.
pub(crate) enum Network {
    Speed(Box<SpeedNet>),
    Other(Box<dyn Forward>),
}

impl Network {
    pub(crate) fn module(&self) -> &dyn Forward {
        match self {
            Network::Speed(net) => &**net,
            Network::Other(module) => &**module,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    Sgd,
    Adam,
    Adamw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plan {
    /// Linear warmup for the first quarter, then linear decay to almost zero
    OneCycle,
    /// Cosine decay
    Cosine,
    /// A tenth after half of the steps, a hundredth after three quarters
    Step,
    Constant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Augment {
    None,
    /// Mirror at random
    Flip,
    /// Mirror every other epoch, from a random first one
    AlternatingFlip,
    /// Pad with four pixels of zeros, then crop at random
    Crop,
    /// Translate by up to two pixels, with reflected borders
    Translate,
    /// Zero a square of eight pixels
    Cutout,
    /// Mix pairs of images and their labels
    Mixup,
    /// Paste a part of another image, and mix the labels
    Cutmix,
}

/// Test-time augmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tta {
    /// The image only
    None,
    /// Also mirrored
    Mirror,
    /// Also mirrored, and translated by a pixel
    MirrorTranslate,
}

impl Tta {
    /// The class scores, averaged over the augmented copies.
    pub(crate) fn scores(self, model: &dyn Forward, x: &Var) -> Var {
        match self {
            Tta::None => predict(model, x),
            Tta::Mirror => predict_mirrored(model, x),
            Tta::MirrorTranslate => predict_shifted(model, x),
        }
    }
}

/// All training settings.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub epochs: u64,
    pub batch_size: usize,
    pub method: Method,
    pub lr: f64,
    pub momentum: f64,
    pub weight_decay: f64,
    pub schedule: Plan,
    /// The last learning rate of the cycle, as a fraction of the highest.
    pub last: f64,
    pub augment: Vec<Augment>,
    pub label_smoothing: f64,
    pub tta: Tta,
}

impl Recipe {
    /// The loader with augmentation.
    pub(crate) fn augmented(&self, mut loader: ImageLoader) -> ImageLoader {
        for augment in &self.augment {
            loader = match augment {
                Augment::None => loader,
                Augment::Flip => loader.transform(HorizontalFlip::new(0.5)),
                Augment::AlternatingFlip => loader.transform(AlternatingFlip),
                Augment::Crop => loader.transform(RandomCrop::zero(4)),
                Augment::Translate => loader.transform(RandomCrop::reflect(2)),
                Augment::Cutout => loader.transform(Cutout::new(8)),
                Augment::Mixup => loader.mix(Mixup::new(0.2)),
                Augment::Cutmix => loader.mix(CutMix::new(1.0)),
            };
        }
        loader
    }

    /// The learning rate at each step, as a fraction of the highest.
    fn plan(&self, steps: u64) -> Box<dyn Schedule> {
        let triangle = |first: f64, peak: f64, last: f64| {
            let top = (peak * steps as f64).floor().max(1.0);
            Box::new(LambdaLR::new(move |step| {
                let step = step.min(steps) as f64;
                match step < top {
                    true => first + (1.0 - first) * step / top,
                    false => 1.0 + (last - 1.0) * (step - top) / (steps as f64 - top).max(1.0),
                }
            }))
        };
        match self.schedule {
            Plan::OneCycle => triangle(0.2, 0.23, self.last),
            Plan::Cosine => Box::new(CosineAnnealingLR::new(steps.max(1))),
            Plan::Step => Box::new(MultiStepLR::new(vec![steps / 2, steps * 3 / 4]).gamma(0.1)),
            Plan::Constant => Box::new(LambdaLR::new(|_| 1.0)),
        }
    }

    /// The optimizer: weight decay applies to weights, not to biases and normalization scales.
    fn optimizer(&self, model: &dyn Forward) -> Box<dyn Optimizer> {
        let (weights, vectors): (Vec<_>, Vec<_>) = model.parameters().into_iter().partition(|p| p.ndim() > 1);
        let (lr, weight_decay) = (self.lr, self.weight_decay);
        match self.method {
            Method::Sgd => {
                let options = SGDOptions::new().lr(lr).momentum(self.momentum).nesterov(true);
                let decaying = SGD::with_options(weights, options.clone().weight_decay(weight_decay));
                Box::new(decaying.group(vectors, options))
            }
            Method::Adam => Box::new(Adam::new(model.parameters(), lr)),
            Method::Adamw => {
                let options = AdamWOptions::new().lr(lr).weight_decay(0.0);
                let decaying = AdamW::with_options(weights, options.clone().weight_decay(weight_decay));
                Box::new(decaying.group(vectors, options))
            }
        }
    }

    /// A trainer for this many steps in all. `train` provides the whitening filters of the fast network's first layer.
    pub(crate) fn trainer<'a>(&self, network: &'a Network, train: &ImageDataset, steps: u64) -> Trainer<'a> {
        let smoothing = CrossEntropyOptions::new().label_smoothing(self.label_smoothing);
        let loss = move |y: &Var, t: &Var| ops::cross_entropy_with(y, t, smoothing.clone());
        let Network::Speed(net) = network else {
            let model = network.module();
            return Trainer::new(model, self.optimizer(model)).loss(loss).schedule_steps(self.plan(steps));
        };
        let first = ImageLoader::new(train.clone().take(5000)).batch_size(train.len().min(5000));
        let images = first.iter().next().expect("at least one image").images;
        net.set_whitening(Whitening::of(&images, 2).filters(5e-4));
        let (norms, others) = net.parameter_groups();
        let (lr, weight_decay) = (self.lr, self.weight_decay);
        let options =
            SGDOptions::new().lr(lr).momentum(self.momentum).weight_decay(weight_decay).nesterov(true);
        // The biases of normalization have 64 times the learning rate, and the same weight decay per step as the others.
        let fast = options.clone().lr(64.0 * lr).weight_decay(weight_decay / 64.0);
        let bias = net.whitening_bias().clone();
        let trained_until = steps * 3 / 10;
        Trainer::new(&**net, SGD::with_options(others, options).group(norms, fast))
            .loss(loss)
            .schedule_steps(self.plan(steps))
            .lookahead(5, move |step| 0.95f64.powi(5) * (step as f64 / steps as f64).powi(3))
            .before_step(move |step| bias.set_requires_grad(step < trained_until))
    }
}
