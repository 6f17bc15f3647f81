//! An entry for a competition on CIFAR-10: trains with a validation split, writes a file of predictions, and draws one
//! page with the architecture, the curves, the confusion matrix and samples.
//!
//! ```text
//! cargo run --release --example competition -- --quick
//! cargo run --release --example competition -- --data path/to/cifar-10-batches-bin
//! ```

#[path = "common/mod.rs"]
#[macro_use]
mod common;

use clap::Parser;
use common::course::Common;
use common::fit::{by_epoch, cifar, classes_of, hold_out_tenth, line, normalized};
use common::fit::{training, validation};
use common::page::{Page, Sample};
use common::results::{image, predictions_file};
use common::training::rate;
use common::{or_fail, or_warn, progress};
use tapegrad::datasets::transforms::{HorizontalFlip, RandomCrop};
use tapegrad::datasets::{Dataset, ImageLoader};
use tapegrad::nn::lr_scheduler::OneCycleLR;
use tapegrad::nn::optim::SGD;
use tapegrad::nn::plots::{Corner, Panel};
use tapegrad::nn::train::{EpochRecord, Trainer, confusion_matrix};
use tapegrad::nn::{BatchNorm2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU, Sequential};
use tapegrad::prelude::*;

/// Trains a convolutional network on images and writes a competition entry.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: Common,
    /// [default: 7, or 4 in a quick run]
    #[arg(long)]
    epochs: Option<u64>,
    /// Write class names instead of class numbers
    #[arg(long)]
    names: bool,
    /// The highest learning rate [default: 0.1, or 0.01 in a quick run]
    #[arg(long, value_parser = rate)]
    lr: Option<f64>,
}

/// Two convolutions with batch norm and ReLU; then pooling halves the width and height.
fn stage(channels: usize, width: usize) -> Sequential {
    // Batch norm has its own bias.
    let conv = |from| Conv2d::new(from, width, 3).padding(1).bias(false);
    let norm = || BatchNorm2d::new(width);
    let (first, second) = (conv(channels), conv(width));
    nn::sequential![first, norm(), ReLU::new(), second, norm(), ReLU::new(), MaxPool2d::new(2)]
}

/// Three stages and a linear layer.
fn network([a, b, c]: [usize; 3], classes: usize) -> Sequential {
    nn::sequential![
        stage(3, a),
        stage(a, b),
        stage(b, c),
        Flatten::new(),
        Dropout::new(0.2),
        Linear::new(c * 4 * 4, classes),
    ]
}

/// Trains with flips, shifts and label smoothing, on a one-cycle schedule.
fn fit(
    model: &Sequential,
    train: &ImageLoader,
    tenth: &ImageLoader,
    epochs: u64,
    lr: f64,
) -> Vec<EpochRecord> {
    let sgd = SGD::new(model.parameters(), lr).momentum(0.9).nesterov(true).weight_decay(5e-4);
    let steps = (epochs * train.len() as u64).max(1);
    let images = train.dataset().len();
    let bar = progress(images, String::new());
    let smoothing = ops::CrossEntropyOptions::new().label_smoothing(0.1);
    let mut trainer = Trainer::new(model, sgd)
        .epochs(epochs)
        .schedule_steps(OneCycleLR::new(lr, steps).cycle_momentum(false))
        .loss(|y, t| ops::cross_entropy_with(y, t, smoothing.clone()))
        .on_step(|e| {
            bar.set_prefix(format!("epoch {}/{epochs}", e.epoch));
            bar.set_position(e.score.count);
            bar.set_message(format!("loss {:.4}", e.score.loss()));
        })
        .on_epoch(|history| bar.suspend(|| println!("{}", line(history))));
    let history = or_fail(trainer.fit(tapegrad::source(train), Some(tapegrad::source(tenth))));
    bar.finish_and_clear();
    history
}

/// The fraction of images whose label was predicted, in percent.
fn percent(labels: &[i64], predicted: &[i64]) -> f64 {
    let right = labels.iter().zip(predicted).filter(|(l, p)| l == p).count();
    100.0 * right as f64 / labels.len().max(1) as f64
}

/// Loss and accuracy by epoch.
fn curves(history: &[EpochRecord]) -> [Panel; 2] {
    [
        Panel::new(
            "Loss",
            "epoch",
            "cross-entropy, smoothed labels",
            vec![
                by_epoch("training", history, |r| r.train.loss()),
                by_epoch("validation", history, |r| r.validation.map_or(f64::NAN, |v| v.loss())),
            ],
        ),
        Panel::new(
            "Accuracy",
            "epoch",
            "accuracy, %",
            vec![by_epoch("training", history, training), by_epoch("validation", history, validation)],
        )
        .legend(Corner::LowerRight),
    ]
}

fn main() {
    let Args { common, epochs, names, lr } = Args::parse();
    let common = common.prepared("competition");
    let (train, test) = common.either((50_000, 10_000), (2_500, 500));
    let all = cifar(&common, train, test);
    if all.train.shape()[1..] != [3, 32, 32] || all.train.len() < 100 {
        common::fail(format!("{}: the network takes at least 100 images of 32x32 pixels", common.data));
    }
    let classes: Vec<String> = all.train.classes().to_vec();
    let (all, test) = normalized(all.train, all.test);
    let [rest, tenth] = hold_out_tenth(&all, common.seed);

    let model = network(common.either([32, 64, 128], [8, 16, 32]), classes.len());
    let summary = model.summary(&[1, 3, 32, 32]).to_string();
    println!("{summary}");
    let train = ImageLoader::new(rest)
        .batch_size(common.either(128, 50))
        .shuffle(true)
        .workers(1)
        .transform(HorizontalFlip::new(0.5))
        .transform(RandomCrop::reflect(4))
        .seed(common.seed);
    let held_out = ImageLoader::new(tenth.clone()).batch_size(500);
    let epochs = epochs.unwrap_or(common.either(7, 4));
    let lr = lr.unwrap_or(common.either(0.1, 0.01));
    let history = fit(&model, &train, &held_out, epochs, lr);
    or_fail(model.state_dict().save(common.file("model.safetensors")));

    let name = |class: i64| classes[class as usize].as_str();
    let label = |class: i64| if names { name(class).to_string() } else { class.to_string() };
    let predicted = classes_of(&model, test.clone());
    predictions_file(&common.file("predictions.txt"), predicted.iter().map(|&class| label(class)));

    // The labels of a competition's test set are not available: the page shows the validation tenth.
    let labels: Vec<i64> = tenth.indices().iter().map(|&i| all.labels()[i]).collect();
    let guesses = classes_of(&model, tenth.clone());
    let counts = confusion_matrix(&labels, &guesses, classes.len()).to_vec::<i64>();
    let share = percent(&labels, &guesses);
    let samples: Vec<Sample> = (0..labels.len().min(40))
        .map(|i| Sample {
            image: image(&all, tenth.indices()[i]),
            label: name(labels[i]),
            predicted: name(guesses[i]),
        })
        .collect();
    let page = Page {
        title: &format!("Three stages of convolutions: {share:.2}% correct in validation"),
        architecture: summary.lines().collect(),
        curves: &curves(&history),
        confusion: (
            &format!("Confusion on {} validation images", labels.len()),
            &counts,
            &classes.iter().map(String::as_str).collect::<Vec<&str>>(),
        ),
        samples: ("Validation images: predicted class (green: correct, red: wrong)", &samples),
    };
    or_warn(page.draw(&common.file("page.png")));
    println!("validation accuracy {share:.2}%");
    println!(
        "test accuracy {:.2}%, {} lines in predictions.txt",
        percent(test.labels(), &predicted),
        predicted.len()
    );
}
