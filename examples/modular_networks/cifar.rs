//! Two networks trained on all images.

use crate::common::fit::{accuracy, by_epoch, hold_out_tenth, training, validation};
use crate::common::results::first_layer;
use crate::common::{or_fail, or_warn};
use crate::{Course, talking};
use tapegrad::datasets::ImageLoader;
use tapegrad::datasets::transforms::{HorizontalFlip, RandomCrop};
use tapegrad::nn::Flatten;
use tapegrad::nn::lr_scheduler::OneCycleLR;
use tapegrad::nn::models::{MlpOptions, ThreeLayerConvNet, mlp_with};
use tapegrad::nn::optim::{AdamW, SGD};
use tapegrad::nn::plots::{Corner, Panel, panels};
use tapegrad::nn::train::{EpochRecord, Trainer};
use tapegrad::prelude::*;
use tapegrad::source;

/// Trains for some epochs of a one-cycle schedule; nine tenths of the images train, one tenth validates.
fn fit(
    course: &Course,
    model: &dyn Forward,
    optimizer: impl Optimizer,
    shift: usize,
    epochs: u64,
) -> Vec<EpochRecord> {
    let epochs = course.epochs.unwrap_or(course.common.either(epochs, 2));
    let [rest, tenth] = hold_out_tenth(&course.images().0, course.common.seed);
    let mut train = ImageLoader::new(rest).batch_size(64).shuffle(true).workers(1);
    train = train.transform(HorizontalFlip::new(0.5));
    if shift > 0 {
        train = train.transform(RandomCrop::reflect(shift));
    }
    let train = train.seed(course.common.seed);
    let tenth = ImageLoader::new(tenth).batch_size(500);
    let peak = optimizer.lr(0);
    let schedule = OneCycleLR::new(peak, (epochs * train.len() as u64).max(1)).cycle_momentum(false);
    let mut trainer = talking(Trainer::new(model, optimizer).epochs(epochs).schedule_steps(schedule));
    or_fail(trainer.fit(source(&train), Some(source(&tenth))))
}

fn report(course: &Course, file: &str, title: &str, model: &dyn Forward, history: &[EpochRecord]) {
    let loss = |r: &EpochRecord| r.validation.map_or(f64::NAN, |v| v.loss());
    let charts = [
        Panel::new(
            format!("{title}: loss"),
            "epoch",
            "cross-entropy",
            vec![by_epoch("training", history, |r| r.train.loss()), by_epoch("validation", history, loss)],
        ),
        Panel::new(
            format!("{title}: accuracy"),
            "epoch",
            "accuracy, %",
            vec![by_epoch("training", history, training), by_epoch("validation", history, validation)],
        )
        .legend(Corner::LowerRight),
    ];
    or_fail(model.state_dict().save(course.common.file(&format!("{file}.safetensors"))));
    or_warn(panels(&course.common.file(&format!("{file}.png")), &charts));
    let best = history.iter().map(validation).fold(0.0, f64::max);
    let first = history.first().map_or(0.0, validation);
    println!("validation accuracy after one epoch {first:.2}%, at its best {best:.2}%");
    println!("test accuracy {:.2}%", 100.0 * accuracy(model, course.images().1.clone()));
}

/// Two hidden layers with batch norm and dropout.
pub(crate) fn fully_connected(course: &Course) {
    let options = MlpOptions { batch_norm: true, dropout: 0.25 };
    let net = nn::sequential![Flatten::new(), mlp_with(&[3 * 32 * 32, 1024, 512, 10], options)];
    let history = fit(course, &net, AdamW::new(net.parameters(), 2e-3).weight_decay(0.05), 0, 10);
    report(course, "fully_connected", "Fully connected", &net, &history);
}

/// One convolution and two linear layers.
pub(crate) fn convnet(course: &Course) {
    let net = ThreeLayerConvNet::new(10);
    let optimizer = SGD::new(net.parameters(), 0.03).momentum(0.9).nesterov(true).weight_decay(5e-4);
    let history = fit(course, &net, optimizer, 3, 12);
    report(course, "convnet", "Three-layer convnet", &net, &history);
    first_layer(&course.common.file("filters.png"), &net, [3, 32, 32]);
}
