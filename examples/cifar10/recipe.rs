//! How each model is trained: what `--model NAME` alone stands for.

use clap::ValueEnum;
use tapegrad::datasets::transforms::{AlternatingFlip, CutMix, Cutout, HorizontalFlip, Mixup, RandomCrop};
use tapegrad::datasets::{DataLoader, Dataset, ImageDataset, Whitening};
use tapegrad::nn::lr_scheduler::{CosineAnnealingLR, LambdaLR, MultiStepLR, Schedule};
use tapegrad::nn::models::{LeNet5, MlpOptions, ResNet, SpeedNet, ThreeLayerConvNet, Vgg, mlp_with};
use tapegrad::nn::optim::{Adam, AdamW, AdamWOptions, Optimizer, SGD, SGDOptions};
use tapegrad::nn::train::{Trainer, predict, predict_mirrored, predict_shifted};
use tapegrad::nn::{Flatten, Module, Sequential};
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

    /// The network with its first weights, for images `[3, 32, 32]`.
    pub(crate) fn build(self, classes: usize) -> Network {
        let module: Box<dyn Module> = match self {
            Model::Fc => {
                let options = MlpOptions { batch_norm: true, dropout: 0.2 };
                Box::new(
                    Sequential::new()
                        .add(Flatten::new())
                        .add(mlp_with(&[3 * 32 * 32, 1024, 512, classes], options)),
                )
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
            views: Views::One,
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
                views: Views::Mirrored,
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
                views: Views::Shifted,
                ..standard
            },
        }
    }
}

/// A model; the fast one has a training of its own.
pub(crate) enum Network {
    Speed(Box<SpeedNet>),
    Other(Box<dyn Module>),
}

impl Network {
    pub(crate) fn module(&self) -> &dyn Module {
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
    /// Up for the first quarter, then down to nearly nothing, in straight lines
    OneCycle,
    /// Down along a cosine
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
    /// Four pixels of zeros around, then cut out at random
    Crop,
    /// Move by up to two pixels, the border reflected
    Translate,
    /// Blot out a square of eight pixels
    Cutout,
    /// Mix pairs of images and their labels
    Mixup,
    /// Put a part of another image in, and mix the labels
    Cutmix,
}

/// What an image is looked at as, when it is classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Views {
    /// As it is
    One,
    /// Also mirrored
    Mirrored,
    /// Also mirrored, and moved by a pixel
    Shifted,
}

impl Views {
    /// The scores of the classes, averaged over the views.
    pub(crate) fn scores(self, model: &dyn Module, x: &Var) -> Var {
        match self {
            Views::One => predict(model, x),
            Views::Mirrored => predict_mirrored(model, x),
            Views::Shifted => predict_shifted(model, x),
        }
    }
}

/// Everything that is chosen in training.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub epochs: u64,
    pub batch_size: usize,
    pub method: Method,
    pub lr: f64,
    pub momentum: f64,
    pub weight_decay: f64,
    pub schedule: Plan,
    /// The last learning rate of the cycle, as a share of the highest.
    pub last: f64,
    pub augment: Vec<Augment>,
    pub label_smoothing: f64,
    pub views: Views,
}

impl Recipe {
    /// The loader with the images changed at random.
    pub(crate) fn augmented(&self, mut loader: DataLoader) -> DataLoader {
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

    /// The learning rate at each step, as a share of the highest.
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

    /// The optimizer: weights decay, biases and the scales of normalization do not.
    fn optimizer(&self, model: &dyn Module) -> Box<dyn Optimizer> {
        let (weights, vectors): (Vec<Var>, Vec<Var>) =
            model.parameters().into_iter().partition(|p| p.ndim() > 1);
        let (lr, weight_decay) = (self.lr, self.weight_decay);
        match self.method {
            Method::Sgd => {
                let options =
                    SGDOptions { lr, momentum: self.momentum, nesterov: true, ..Default::default() };
                let decaying = SGD::with_options(weights, SGDOptions { weight_decay, ..options });
                Box::new(decaying.group(vectors, options))
            }
            Method::Adam => Box::new(Adam::new(model.parameters(), lr)),
            Method::Adamw => {
                let options = AdamWOptions { lr, weight_decay: 0.0, ..Default::default() };
                let decaying = AdamW::with_options(weights, AdamWOptions { weight_decay, ..options });
                Box::new(decaying.group(vectors, options))
            }
        }
    }

    /// A trainer for this many steps in all. `train` gives the fast network's first layer its whitening filters.
    pub(crate) fn trainer<'a>(&self, network: &'a Network, train: &ImageDataset, steps: u64) -> Trainer<'a> {
        let smoothing = CrossEntropyOptions { label_smoothing: self.label_smoothing, ..Default::default() };
        let loss = move |y: &Var, t: &Var| ops::cross_entropy(y, t, smoothing.clone());
        let Network::Speed(net) = network else {
            let model = network.module();
            return Trainer::new(model, self.optimizer(model)).loss(loss).schedule_steps(self.plan(steps));
        };
        let first = DataLoader::new(train.clone().take(5000)).batch_size(train.len().min(5000));
        let images = first.iter().next().expect("at least one image").images;
        net.set_whitening(Whitening::of(&images, 2).filters(5e-4));
        let (norms, others) = net.parameter_groups();
        let (lr, weight_decay) = (self.lr, self.weight_decay);
        let options =
            SGDOptions { lr, momentum: self.momentum, weight_decay, nesterov: true, ..Default::default() };
        // The biases of normalization learn 64 times as fast, and decay as slowly as the others.
        let fast = SGDOptions { lr: 64.0 * lr, weight_decay: weight_decay / 64.0, ..options };
        let bias = net.whitening_bias().clone();
        let trained_until = steps * 3 / 10;
        Trainer::new(&**net, SGD::with_options(others, options).group(norms, fast))
            .loss(loss)
            .schedule_steps(self.plan(steps))
            .lookahead(5, move |step| 0.95f64.powi(5) * (step as f64 / steps as f64).powi(3))
            .before_step(move |step| bias.set_requires_grad(step < trained_until))
    }
}
