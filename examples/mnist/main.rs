//! Trains a network on MNIST, or on synthetic digits if there are no files.
//!
//! ```text
//! cargo run --release --example mnist
//! cargo run --release --example mnist -- --data path/to/mnist --model mlp
//! ```
//!
//! With the feature `mpi`, `mpirun -n 4` trains in four processes, to the same weights as in one. It can be stopped at any moment: `--resume` continues from the last checkpoint and ends with the same weights.

#[path = "../common/mod.rs"]
#[macro_use]
mod common;

use clap::{Parser, ValueEnum};
use common::bars::Bars;
use common::ranks::Ranks;
use common::training::{Resumption, Signals, digest, rate};
use common::{fail, or_fail, or_warn, results};
use std::path::PathBuf;
use std::sync::Arc;
use tapegrad::datasets::{Dataset, ImageDataset, ImageLoader, Mnist, Normalization, random_split_with};
use tapegrad::nn::lr_scheduler::OneCycleLR;
use tapegrad::nn::models::{LeNet5, mlp};
use tapegrad::nn::optim::{Adam, Optimizer, SGD};
use tapegrad::nn::plots::{Panel, Series, panels};
use tapegrad::nn::train::{EpochRecord, Score, Source, Trainer, predict, predictions};
use tapegrad::nn::{Forward, RunFolder, StateDict};
use tapegrad::prelude::*;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Model {
    /// 784-256-128-10 with ReLU
    Mlp,
    /// LeNet-5 with ReLU and max pooling
    Lenet,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Method {
    Adam,
    Sgd,
}

/// Trains a network on handwritten digits and reports its test accuracy.
#[derive(Parser)]
struct Args {
    /// A folder with MNIST's IDX files (raw or .gz) or mnist_train.csv and mnist_test.csv; `synthetic` draws digits
    #[arg(long, default_value = "synthetic")]
    data: String,
    #[arg(long, value_enum, default_value = "lenet")]
    model: Model,
    #[arg(long, default_value_t = 5)]
    epochs: usize,
    #[arg(long, default_value_t = 64, value_parser = positive)]
    batch_size: usize,
    /// The highest learning rate of the one-cycle schedule [default: 0.003 for adam, 0.1 for sgd]
    #[arg(long, value_parser = rate)]
    lr: Option<f64>,
    #[arg(long, value_enum, default_value = "adam")]
    optimizer: Method,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads to compute on [default: all cores]
    #[arg(long, value_parser = positive)]
    threads: Option<usize>,
    /// Train on at most this many images
    #[arg(long, value_parser = positive)]
    limit: Option<usize>,
    /// The folder for the results
    #[arg(long, default_value = "runs/mnist")]
    out: PathBuf,
    #[command(flatten)]
    resumption: Resumption,
    /// Start from the weights of a .safetensors or .npz file
    #[arg(long)]
    load: Option<PathBuf>,
    /// Only measure the test accuracy
    #[arg(long)]
    eval_only: bool,
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "must be an integer above zero".into())
}

fn main() {
    let args = Args::parse();
    let ranks = Ranks::join(args.threads);
    manual_seed(args.seed);

    let Mnist { train, test } = match args.data.as_str() {
        "synthetic" => Mnist::synthetic(args.limit.unwrap_or(20_000).max(100), 5_000, args.seed),
        dir => or_fail(Mnist::open(dir)),
    };
    let train = match args.limit {
        Some(n) => train.take(n),
        None => train,
    };
    if train.shape()[1..] != [1, 28, 28] {
        fail(format!(
            "{}: the networks take images of 28x28 pixels, not {:?}",
            args.data,
            &train.shape()[1..]
        ));
    }
    let normalization = if args.data == "synthetic" { train.statistics() } else { Normalization::mnist() };
    let (train, test) =
        (train.with_normalization(normalization.clone()), test.with_normalization(normalization));

    let model: Box<dyn Forward> = match args.model {
        Model::Mlp => Box::new(mlp(&[784, 256, 128, 10])),
        Model::Lenet => Box::new(LeNet5::new(10)),
    };
    if let Some(file) = &args.load {
        let state = or_fail(StateDict::load(file));
        or_fail(model.load_state_dict(&state).map_err(|e| format!("{}: {e}", file.display())));
    }
    let one: &[usize] = if args.model == Model::Mlp { &[1, 784] } else { &[1, 1, 28, 28] };
    println!("{}", model.summary(one));
    let run = ranks.folder(&args.out);

    if !args.eval_only {
        let (history, batch_losses) = fit(&args, &*model, train, &run, &ranks);
        // From here on the first process works alone.
        let _ranks = ranks.leave();
        // Save the weights before the plots.
        let state = model.state_dict();
        or_fail(state.save(run.file("model.safetensors")));
        or_fail(state.save(run.file("model.npz")));
        curves(&run, &history, &batch_losses);
    }

    let predicted = classes(&args, &*model, &test);
    let wrong = predicted.iter().zip(test.labels()).filter(|(p, l)| p != l).count();
    results::predictions_file(&run.file("predictions.txt"), &predicted);
    results::first_layer(&run.file("filters.png"), &*model, [1, 28, 28]);
    results::mistakes(&run.file("mistakes.png"), &test, &predicted, |digit| digit.to_string());
    match test.is_empty() {
        true => println!("there are no test images"),
        false => println!(
            "test accuracy {:.4} ({wrong} wrong of {})",
            1.0 - wrong as f64 / test.len() as f64,
            test.len()
        ),
    }
}

/// Trains, and returns the metrics of all epochs and the loss of each batch with its position in epochs.
fn fit(
    args: &Args,
    model: &dyn Forward,
    train: ImageDataset,
    run: &RunFolder,
    ranks: &Ranks,
) -> (Vec<EpochRecord>, Vec<(f64, f64)>) {
    let held_out = (train.len() / 12).clamp(1, 5000);
    if train.len() <= held_out {
        fail(format!(
            "{} images leave none to train on, since {held_out} are held out for validation",
            train.len()
        ));
    }
    let data = digest(&train);
    let [train, validation] =
        random_split_with(Arc::new(train.clone()), [train.len() - held_out, held_out], args.seed);
    let train = ImageLoader::new(train).batch_size(args.batch_size).shuffle(true).seed(args.seed).workers(1);
    let (train, validation) =
        (ranks.loader(train), ranks.loader(ImageLoader::new(validation).batch_size(500)));
    let images = train.dataset().len();

    let optimizer: Box<dyn Optimizer> = match args.optimizer {
        Method::Adam => Box::new(Adam::new(model.parameters(), args.lr.unwrap_or(0.003))),
        Method::Sgd => {
            Box::new(SGD::new(model.parameters(), args.lr.unwrap_or(0.1)).momentum(0.9).weight_decay(5e-4))
        }
    };
    let epochs = args.epochs;
    let steps = (epochs * train.len()).max(1) as u64;
    let schedule = OneCycleLR::new(optimizer.lr(0), steps).cycle_momentum(false);

    let signals = Signals::watch();
    let bars = Bars::new(images, epochs as u64);
    let mut batch_losses = Vec::new();
    let trainer = Trainer::new(model, optimizer)
        .epochs(epochs as u64)
        .schedule_steps(schedule)
        .setting("data", data)
        .setting("optimizer", format!("{:?}", args.optimizer))
        .on_step(|event| {
            bars.step(event);
            let place = (event.epoch - 1) as f64 + event.score.count as f64 / images as f64;
            batch_losses.push((place, event.loss));
        })
        .on_epoch(|history| bars.epoch(history, "validation"));
    let trainer = args.resumption.trainer(trainer, run, &signals);
    let mut trainer = ranks.trainer(trainer, model);
    let source = |loader| image_batches(args, tapegrad::source(loader));
    let history = trainer.fit(source(&train), Some(source(&validation)));
    drop(trainer);
    bars.close();
    let history = or_fail(history);
    signals.end_of_training(run);
    (history, batch_losses)
}

/// The model's input: flattened images for a fully connected network.
fn image_batches<'a>(args: &Args, source: Source<'a>) -> Source<'a> {
    match args.model {
        Model::Mlp => source.map(|x, target| (x.flatten(1), target)),
        Model::Lenet => source,
    }
}

/// The predicted class of each image.
fn classes(args: &Args, model: &dyn Forward, data: &ImageDataset) -> Vec<i64> {
    let loader = ImageLoader::new(data.clone()).batch_size(500);
    let input = |images: Tensor| match args.model {
        Model::Mlp => Var::from(images).flatten(1),
        Model::Lenet => Var::from(images),
    };
    loader.iter().flat_map(|batch| predictions(&predict(model, &input(batch.images)))).collect()
}

fn curves(run: &RunFolder, history: &[EpochRecord], batch_losses: &[(f64, f64)]) {
    let smooth = smoothed(batch_losses, (batch_losses.len() / 100).max(1));
    let by_epoch = |value: fn(&Score) -> f64, score: fn(&EpochRecord) -> Option<Score>| {
        history
            .iter()
            .map(move |r| (r.epoch as f64, score(r).map_or(f64::NAN, |s| value(&s))))
            .collect::<Vec<_>>()
    };
    let error = |s: &Score| 100.0 * (1.0 - s.accuracy().unwrap_or(f64::NAN));
    let losses = vec![
        Series::new("training", smooth),
        Series::new("validation", by_epoch(Score::loss, |r| r.validation)),
    ];
    let errors = vec![
        Series::new("training", by_epoch(error, |r| Some(r.train))),
        Series::new("validation", by_epoch(error, |r| r.validation)),
    ];
    let charts = [
        Panel::new("Loss", "epoch", "cross-entropy", losses).log(),
        Panel::new("Error", "epoch", "wrong predictions, %", errors),
    ];
    or_warn(panels(run.file("curves.png"), &charts));
}

/// Means over windows of `width` points.
fn smoothed(points: &[(f64, f64)], width: usize) -> Vec<(f64, f64)> {
    points
        .chunks(width)
        .map(|c| (c[c.len() - 1].0, c.iter().map(|p| p.1).sum::<f64>() / c.len() as f64))
        .collect()
}
