//! The same network trained in several ways, in one plot.

use crate::Course;
use crate::common::fit::{by_epoch, training, validation};
use crate::common::{or_fail, or_warn};
use crate::measures::layers;
use tapegrad::datasets::ImageLoader;
use tapegrad::nn::Flatten;
use tapegrad::nn::models::{MlpOptions, mlp_with};
use tapegrad::nn::optim::{Adadelta, Adagrad, Adam, RMSprop, SGD};
use tapegrad::nn::plots::{Corner, Panel, panels};
use tapegrad::nn::train::{EpochRecord, Trainer};
use tapegrad::prelude::*;
use tapegrad::source;

type Method = fn(Vec<Var>) -> Box<dyn Optimizer>;

/// Each with a suitable learning rate: these differ widely.
const METHODS: [(&str, Method); 6] = [
    ("SGD", |p| Box::new(SGD::new(p, 0.01))),
    ("SGD + momentum", |p| Box::new(SGD::new(p, 0.01).momentum(0.9))),
    ("RMSProp", |p| Box::new(RMSprop::new(p, 1e-4))),
    ("Adam", |p| Box::new(Adam::new(p, 5e-4))),
    ("AdaGrad", |p| Box::new(Adagrad::new(p, 5e-3))),
    ("AdaDelta", |p| Box::new(Adadelta::new(p, 0.5))),
];

/// Six layers with the same initial weights.
pub(crate) fn optimizers(course: &Course) {
    let (train, held_out) = (&course.images().0, course.held_out());
    let (images, epochs) = course.common.either((8_000, 10), (1_000, 4));
    let (mut losses, mut known, mut new) = (vec![], vec![], vec![]);
    println!("{:<16} {:>9} {:>9} {:>11}", "", "loss", "training", "validation");
    for (name, method) in METHODS {
        manual_seed(course.common.seed);
        let net = layers(&[100; 5]);
        let train = ImageLoader::new(train.clone().take(images)).batch_size(100).shuffle(true);
        let held_out = ImageLoader::new(held_out.clone()).batch_size(500);
        let mut trainer = Trainer::new(&net, method(net.parameters())).epochs(epochs);
        let history = or_fail(trainer.fit(source(&train.seed(course.common.seed)), Some(source(&held_out))));
        tell(name, &history);
        losses.push(by_epoch(name, &history, |r| r.train.loss()));
        known.push(by_epoch(name, &history, training));
        new.push(by_epoch(name, &history, validation));
    }
    let charts = [
        Panel::new("Loss in training", "epoch", "cross-entropy", losses),
        Panel::new("Accuracy in training", "epoch", "accuracy, %", known).legend(Corner::LowerRight),
        Panel::new("Accuracy in validation", "epoch", "accuracy, %", new).legend(Corner::LowerRight),
    ];
    or_warn(panels(&course.common.file("optimizers.png"), &charts));
}

fn tell(name: &str, history: &[EpochRecord]) {
    let last = history.last().expect("at least one epoch");
    println!("{name:<16} {:>9.4} {:>8.2}% {:>10.2}%", last.train.loss(), training(last), validation(last));
}

/// Few images and many weights: without dropout the network overfits.
pub(crate) fn dropout(course: &Course) {
    let (train, held_out) = (&course.images().0, course.held_out());
    let loader = ImageLoader::new(train.clone().take(500)).batch_size(100).shuffle(true);
    let loader = loader.seed(course.common.seed);
    let held_out = ImageLoader::new(held_out.clone()).batch_size(500);
    let (mut losses, mut known, mut new) = (vec![], vec![], vec![]);
    println!("{:<16} {:>9} {:>9} {:>11}", "", "loss", "training", "validation");
    for (name, p) in [("no dropout", 0.0), ("dropout 0.75", 0.75)] {
        manual_seed(course.common.seed);
        let options = MlpOptions::new().dropout(p);
        let net = nn::sequential![Flatten::new(), mlp_with(&[3 * 32 * 32, 500, 10], options)];
        let mut trainer = Trainer::new(&net, Adam::new(net.parameters(), 5e-4)).epochs(25);
        let history = or_fail(trainer.fit(source(&loader), Some(source(&held_out))));
        tell(name, &history);
        losses.push(by_epoch(name, &history, |r| r.validation.map_or(f64::NAN, |v| v.loss())));
        known.push(by_epoch(name, &history, training));
        new.push(by_epoch(name, &history, validation));
    }
    let charts = [
        Panel::new("Accuracy in training (500 images)", "epoch", "accuracy, %", known)
            .legend(Corner::LowerRight),
        Panel::new("Accuracy in validation", "epoch", "accuracy, %", new).legend(Corner::LowerRight),
        Panel::new("Loss in validation", "epoch", "cross-entropy", losses).legend(Corner::UpperLeft),
    ];
    or_warn(panels(&course.common.file("dropout.png"), &charts));
}
