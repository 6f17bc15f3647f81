//! Trains a network on CIFAR-10 (or CIFAR-100), or on synthetic shapes if there are no files.
//!
//! ```text
//! cargo run --release --example cifar10
//! cargo run --release --example cifar10 -- --data path/to/cifar-10-batches-bin --model resnet9
//! ```
//!
//! With the feature `mpi`, `mpirun -n 4` trains in four processes, to the same weights as in one. It can be stopped at any moment: `--resume` continues from the last checkpoint and ends with the same weights.

#[path = "../common/mod.rs"]
#[macro_use]
mod common;
mod recipe;

use clap::Parser;
use common::bars::Bars;
use common::memory::peak_rss_mb;
use common::ranks::Ranks;
use common::training::{Resumption, Signals, digest, rate};
use common::{fail, or_fail, or_warn, results};
use recipe::{Augment, Method, Model, Network, Plan, Recipe, Tta};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tapegrad::datasets::{Cifar, Dataset, ImageDataset, ImageLoader, Normalization, random_split_with};
use tapegrad::nn::plots::{confusion, training_curves};
use tapegrad::nn::train::{confusion_matrix, predictions};
use tapegrad::nn::{Forward, RunFolder, StateDict};
use tapegrad::prelude::*;

/// The number of test images for the curves of a run without a validation set.
const WATCHED: usize = 2000;

/// Trains a network on small color images and reports its test accuracy. Defaults are chosen for each model.
#[derive(Parser)]
struct Args {
    /// A folder or .tar.gz archive with CIFAR's binary or Python files; `synthetic` draws colored shapes
    #[arg(long, default_value = "synthetic")]
    data: String,
    #[arg(long, value_enum, default_value = "lenet")]
    model: Model,
    #[arg(long)]
    epochs: Option<u64>,
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    batch_size: Option<u64>,
    #[arg(long, value_enum)]
    optimizer: Option<Method>,
    /// The highest learning rate of the schedule
    #[arg(long, value_parser = rate)]
    lr: Option<f64>,
    #[arg(long, value_enum)]
    schedule: Option<Plan>,
    /// Augmentation in training: a list, separated by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    augment: Option<Vec<Augment>>,
    /// Test-time augmentation
    #[arg(long, value_enum)]
    tta: Option<Tta>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads to compute on [default: all cores]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    threads: Option<u64>,
    /// Train on at most this many images
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Hold out this many training images, for validation and the curves; without, the curves show the first 2,000
    /// test images, which influence nothing
    #[arg(long, default_value_t = 0)]
    validation: usize,
    /// The folder for the results
    #[arg(long, default_value = "runs/cifar10")]
    out: PathBuf,
    #[command(flatten)]
    resumption: Resumption,
    /// No training: the mean prediction of these models
    #[arg(long, num_args = 1.., value_name = "FILE")]
    ensemble: Vec<PathBuf>,
    /// No training: predict with the model in --out
    #[arg(long)]
    predict: bool,
}

impl Args {
    fn recipe(&self, model: Model) -> Recipe {
        let mut recipe = model.recipe();
        if let Some(method) = self.optimizer
            && method != recipe.method
        {
            recipe.method = method;
            (recipe.lr, recipe.weight_decay) = match method {
                Method::Sgd => (0.05, 5e-4),
                Method::Adam => (1e-3, 0.0),
                Method::Adamw => (1e-3, 0.01),
            };
        }
        recipe.epochs = self.epochs.unwrap_or(recipe.epochs);
        recipe.batch_size = self.batch_size.map_or(recipe.batch_size, |n| n as usize);
        recipe.lr = self.lr.unwrap_or(recipe.lr);
        recipe.schedule = self.schedule.unwrap_or(recipe.schedule);
        recipe.tta = self.tta.unwrap_or(recipe.tta);
        recipe.augment = self.augment.clone().unwrap_or(recipe.augment);
        recipe
    }
}

fn main() {
    let args = Args::parse();
    let ranks = Ranks::join(args.threads.map(|n| n as usize));
    manual_seed(args.seed);
    let limit = args.limit.map(|n| n as usize);
    let Cifar { train, test, .. } = match args.data.as_str() {
        "synthetic" => Cifar::synthetic(limit.unwrap_or(10_000).max(100), 2_000, args.seed),
        dir => or_fail(Cifar::open(dir)),
    };
    let train = match limit {
        Some(n) => train.take(n),
        None => train,
    };
    let run = ranks.folder(&args.out);

    let begin = Instant::now();
    let (scores, network) = if args.predict || !args.ensemble.is_empty() {
        let files = match args.ensemble.is_empty() {
            true => vec![args.out.join("model.safetensors")],
            false => args.ensemble.clone(),
        };
        predict_with(&args, &files, &test)
    } else {
        let normalization =
            if args.data == "synthetic" { train.statistics() } else { Normalization::cifar10() };
        let (train, test) = (
            train.with_normalization(normalization.clone()),
            test.clone().with_normalization(normalization.clone()),
        );
        let recipe = args.recipe(args.model);
        let network = args.model.build(test.classes().len());
        println!("{}", network.module().summary(&[1, 3, 32, 32]));
        fit(&args, &recipe, &network, train, &test, &run, &ranks);
        // From here on the first process works alone.
        let _ranks = ranks.leave();
        save(&args, &network, &normalization, test.classes().len());
        (scores_of(network.module(), recipe.tta, &test), network)
    };

    let predictions = predictions(&scores);
    let classes: Vec<&str> = test.classes().iter().map(String::as_str).collect();
    let wrong = predictions.iter().zip(test.labels()).filter(|(p, l)| p != l).count();
    // Without images there is no accuracy.
    let accuracy = 1.0 - wrong as f64 / test.len() as f64;
    results::predictions_file(&args.out.join("predictions.txt"), &predictions);
    results::mistakes(&args.out.join("mistakes.png"), &test, &predictions, |c| classes[c as usize].into());
    results::first_layer(&args.out.join("first_layer.png"), network.module(), [3, 32, 32]);
    let counts = confusion_matrix(test.labels(), &predictions, classes.len());
    let title = format!("Test images: {accuracy:.4} of {} right", test.len());
    or_warn(confusion(&args.out.join("confusion.png"), &title, &counts.to_vec::<i64>(), &classes));
    println!(
        "{:.1} minutes, {:.0} MB at the most; results in {}",
        begin.elapsed().as_secs_f64() / 60.0,
        peak_rss_mb(),
        args.out.display()
    );
    println!("test accuracy {accuracy:.4} ({wrong} wrong of {})", test.len());
}

/// Trains, and draws the curves after each epoch.
fn fit(
    args: &Args,
    recipe: &Recipe,
    network: &Network,
    train: ImageDataset,
    test: &ImageDataset,
    run: &RunFolder,
    ranks: &Ranks,
) {
    if args.validation >= train.len() {
        fail(format!("--validation {} of {} training images leaves none", args.validation, train.len()));
    }
    let kept = train.len() - args.validation;
    let [part, held_back] = random_split_with(Arc::new(train.clone()), [kept, args.validation], args.seed);
    let watched = match args.validation {
        0 => ImageLoader::new(test.clone().take(WATCHED)),
        _ => ImageLoader::new(held_back),
    }
    .batch_size(500);
    let watched = ranks.loader(watched);
    let loader = ImageLoader::new(part).batch_size(recipe.batch_size.min(kept)).shuffle(true).seed(args.seed);
    // Batches of equal size: the fast recipe relies on its number of steps.
    let loader = recipe.augmented(ranks.loader(loader.drop_last(args.model == Model::Resnet9).workers(1)));

    let steps = recipe.epochs * loader.len() as u64;
    let signals = Signals::watch();
    let trainer = recipe.trainer(network, &train, steps).epochs(recipe.epochs);
    let trainer = ranks.trainer(trainer, network.module());
    let trainer = args.resumption.trainer(trainer, run, &signals).tensorboard(args.out.join("events"));
    let trainer = trainer
        .setting("model", args.model.name())
        .setting("data", digest(&train))
        .setting("optimizer", format!("{:?}", recipe.method))
        .setting("schedule", format!("{:?}", recipe.schedule))
        .setting("augment", format!("{:?}", recipe.augment))
        .setting("label_smoothing", recipe.label_smoothing);
    let bars = Bars::new(kept, recipe.epochs);
    let (short, long) = match args.validation {
        0 => ("test", "first 2,000 test images"),
        _ => ("validation", "validation"),
    };
    let mut trainer = trainer.on_step(|event| bars.step(event)).on_epoch(|history| {
        bars.epoch(history, short);
        or_warn(training_curves(args.out.join("curves.png"), history, "training (augmented)", long));
    });
    let begin = Instant::now();
    let result = trainer.fit(tapegrad::source(&loader), Some(tapegrad::source(&watched)));
    drop(trainer);
    bars.close();
    or_fail(result);
    signals.end_of_training(run);
    println!(
        "waited for images: {:.2}% of the time",
        100.0 * loader.waited().as_secs_f64() / begin.elapsed().as_secs_f64().max(1e-9)
    );
}

/// The file records the model's name and the normalization of its images.
fn save(args: &Args, network: &Network, normalization: &Normalization, classes: usize) {
    let mut state = network.module().state_dict();
    let list = |v: &[f32]| v.iter().map(f32::to_string).collect::<Vec<_>>().join(" ");
    let notes = [
        ("model", args.model.name()),
        ("classes", classes.to_string()),
        ("mean", list(&normalization.mean)),
        ("std", list(&normalization.std)),
    ];
    state.metadata.extend(notes.map(|(name, text)| (name.to_string(), text)));
    or_fail(state.save(args.out.join("model.safetensors")));
    or_fail(state.save(args.out.join("model.npz")));
}

/// The network in a file, and the normalization of its images.
fn load(file: &Path) -> Result<(Model, Network, Normalization), String> {
    let state = StateDict::load(file).map_err(|e| e.to_string())?;
    let strange = |what: &str| {
        format!("{}: does not record its {what}; was it written by this program?", file.display())
    };
    let note = |what: &str| state.metadata.get(what).ok_or_else(|| strange(what));
    let list = |what: &str| -> Result<Vec<f32>, String> {
        let numbers: Vec<f32> = note(what)?.split(' ').filter_map(|n| n.parse().ok()).collect();
        if numbers.len() == 3 { Ok(numbers) } else { Err(strange(what)) }
    };
    let model = <Model as clap::ValueEnum>::from_str(note("model")?, false).map_err(|_| strange("model"))?;
    let classes = note("classes")?.parse().map_err(|_| strange("classes"))?;
    let (mean, std) = (list("mean")?, list("std")?);
    if std.iter().any(|&s| s.is_nan() || s <= 0.0) {
        return Err(strange("std"));
    }
    let network = model.build(classes);
    let loaded = network.module().load_state_dict(&state);
    loaded.map_err(|e| format!("{}: {e}", file.display()))?;
    Ok((model, network, Normalization::new(&mean, &std)))
}

/// The mean class probabilities of the models in these files, and the first of the models.
fn predict_with(args: &Args, files: &[PathBuf], test: &ImageDataset) -> (Var, Network) {
    let mut sum: Option<Var> = None;
    let mut first = None;
    for file in files {
        let (model, network, normalization) = or_fail(load(file));
        let tta = args.recipe(model).tta;
        let test = test.clone().with_normalization(normalization);
        let scores = ops::softmax(&scores_of(network.module(), tta, &test), -1);
        let wrong = predictions(&scores).iter().zip(test.labels()).filter(|(p, l)| p != l).count();
        println!("{} ({}): {wrong} wrong of {}", file.display(), model.name(), test.len());
        sum = Some(match sum {
            Some(sum) if sum.shape() != scores.shape() => {
                fail(format!("{}: has another number of classes than the previous models", file.display()))
            }
            Some(sum) => sum + scores,
            None => scores,
        });
        first.get_or_insert(network);
    }
    (sum.expect("at least one file"), first.expect("at least one file"))
}

/// The scores of all images, `[N, classes]`.
fn scores_of(model: &dyn Forward, tta: Tta, data: &ImageDataset) -> Var {
    let loader = ImageLoader::new(data.clone()).batch_size(500);
    let parts: Vec<Var> = loader.iter().map(|batch| tta.scores(model, &Var::from(&batch.images))).collect();
    tape::cat(&parts, 0)
}
