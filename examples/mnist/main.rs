//! Trains a network on MNIST, or on drawn digits where there are no files.
//!
//! ```text
//! cargo run --release --example mnist
//! cargo run --release --example mnist -- --data path/to/mnist --model mlp
//! ```

#[path = "../common/mod.rs"]
mod common;

use clap::{Parser, ValueEnum};
use common::{fail, make_folder, or_fail, progress, results, write_text};
use datasets::{DataLoader, Dataset, ImageDataset, Mnist, Normalization, random_split};
use nn::lr_scheduler::{OneCycleLR, Schedule};
use nn::models::{LeNet5, mlp};
use nn::optim::{Adam, Optimizer, SGD};
use nn::plots::{Panel, Series, panels};
use nn::{Module, StateDict};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tapegrad::prelude::*;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Model {
    /// 784-256-128-10 with ReLU
    Mlp,
    /// LeNet-5 with ReLU and max pooling
    Lenet,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
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
    #[arg(long)]
    lr: Option<f64>,
    #[arg(long, value_enum, default_value = "adam")]
    optimizer: Method,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads to compute on [default: all cores]
    #[arg(long, value_parser = positive)]
    threads: Option<usize>,
    /// Train on no more than so many pictures
    #[arg(long, value_parser = positive)]
    limit: Option<usize>,
    /// Where the results go
    #[arg(long, default_value = "runs/mnist")]
    out: PathBuf,
    /// Start from the weights of a .safetensors or .npz file
    #[arg(long)]
    load: Option<PathBuf>,
    /// Only measure the test accuracy
    #[arg(long)]
    eval_only: bool,
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "has to be a whole number above zero".into())
}

/// What one pass over a data set gives.
struct Score {
    loss: f64,
    wrong: usize,
    count: usize,
    predictions: Vec<i64>,
}

impl Score {
    fn error(&self) -> f64 {
        self.wrong as f64 / self.count.max(1) as f64
    }
}

fn main() {
    let args = Args::parse();
    if let Some(n) = args.threads {
        set_num_threads(n);
    }
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
            "{}: the networks take pictures of 28x28 pixels, not {:?}",
            args.data,
            &train.shape()[1..]
        ));
    }
    let normalization = if args.data == "synthetic" { train.statistics() } else { Normalization::mnist() };
    let (train, test) =
        (train.with_normalization(normalization.clone()), test.with_normalization(normalization));

    let model: Box<dyn Module> = match args.model {
        Model::Mlp => Box::new(mlp(&[784, 256, 128, 10])),
        Model::Lenet => Box::new(LeNet5::new(10)),
    };
    if let Some(file) = &args.load {
        let state = or_fail(StateDict::load(file));
        or_fail(model.load_state_dict(&state, true).map_err(|e| format!("{}: {e}", file.display())));
    }
    let one: &[usize] = if args.model == Model::Mlp { &[1, 784] } else { &[1, 1, 28, 28] };
    println!("{}", model.summary(one));
    make_folder(&args.out);

    if !args.eval_only {
        fit(&args, &*model, train);
    }

    let score = evaluate(&*model, &DataLoader::new(test.clone()).batch_size(500));
    results::predictions_file(&args.out.join("predictions.txt"), &score.predictions);
    results::first_layer(&args.out.join("filters.png"), &*model, [1, 28, 28]);
    results::mistakes(&args.out.join("mistakes.png"), &test, &score.predictions, |digit| digit.to_string());
    println!("test accuracy {:.4} ({} wrong of {})", 1.0 - score.error(), score.wrong, score.count);
}

/// The training loop, as one would write it with PyTorch.
fn fit(args: &Args, model: &dyn Module, train: ImageDataset) {
    let held_out = (train.len() / 12).clamp(1, 5000);
    let [train, validation] =
        random_split(Arc::new(train.clone()), [train.len() - held_out, held_out], args.seed);
    let train = DataLoader::new(train).batch_size(args.batch_size).shuffle(true).seed(args.seed).workers(1);
    let validation = DataLoader::new(validation).batch_size(500);
    let images = train.dataset().len();

    let mut optimizer: Box<dyn Optimizer> = match args.optimizer {
        Method::Adam => Box::new(Adam::new(model.parameters(), args.lr.unwrap_or(0.003))),
        Method::Sgd => {
            Box::new(SGD::new(model.parameters(), args.lr.unwrap_or(0.1)).momentum(0.9).weight_decay(5e-4))
        }
    };
    let steps = (args.epochs * train.len()).max(1) as u64;
    let peak = optimizer.lr(0);
    let mut schedule = OneCycleLR::new(peak, steps).cycle_momentum(false).attach(&mut *optimizer);

    let (mut batch_losses, mut train_error, mut val_loss, mut val_error) = (vec![], vec![], vec![], vec![]);
    let mut table = String::from(
        "epoch,train_loss,train_error,validation_loss,validation_error,seconds,images_per_second\n",
    );
    for epoch in 1..=args.epochs {
        let start = Instant::now();
        let bar = progress(images, format!("epoch {epoch}/{}", args.epochs));
        let (mut loss_sum, mut wrong, mut seen) = (0.0, 0, 0);
        model.train();
        for batch in &train {
            let (x, target) = (input(model, &batch.images), Var::from(&batch.labels));
            optimizer.zero_grad();
            let logits = model.forward(&x);
            let loss = ops::cross_entropy(&logits, &target, Default::default());
            loss.backward();
            optimizer.step();
            schedule.step(&mut *optimizer);

            let n = batch.len();
            loss_sum += loss.item() * n as f64;
            wrong += count_wrong(&predict(&logits), &batch.labels);
            seen += n;
            batch_losses.push(((epoch - 1) as f64 + seen as f64 / images as f64, loss.item()));
            bar.inc(n as u64);
            bar.set_message(format!(
                "loss {:.4} accuracy {:.4}",
                loss_sum / seen as f64,
                1.0 - wrong as f64 / seen as f64
            ));
        }
        let seconds = start.elapsed().as_secs_f64();
        bar.finish_and_clear();
        let score = evaluate(model, &validation);
        let (loss, error) = (loss_sum / seen.max(1) as f64, wrong as f64 / seen.max(1) as f64);
        println!(
            "epoch {epoch}/{}: loss {loss:.4} accuracy {:.4} | validation loss {:.4} accuracy {:.4} | {seconds:.1} s, {:.0} images/s",
            args.epochs,
            1.0 - error,
            score.loss,
            1.0 - score.error(),
            seen as f64 / seconds
        );
        table += &format!(
            "{epoch},{loss:.6},{error:.6},{:.6},{:.6},{seconds:.3},{:.1}\n",
            score.loss,
            score.error(),
            seen as f64 / seconds
        );
        train_error.push((epoch as f64, 100.0 * error));
        val_loss.push((epoch as f64, score.loss));
        val_error.push((epoch as f64, 100.0 * score.error()));
        write_text(&args.out.join("metrics.csv"), &table);
    }
    let smooth = smoothed(&batch_losses, (batch_losses.len() / 100).max(1));
    let loss = vec![Series::new("training", smooth), Series::new("validation", val_loss)];
    let error = vec![Series::new("training", train_error), Series::new("validation", val_error)];
    let charts = [
        Panel::new("Loss", "epoch", "cross-entropy", loss).log(),
        Panel::new("Error", "epoch", "wrong predictions, %", error),
    ];
    or_fail(panels(args.out.join("curves.png"), &charts));
    let state = model.state_dict();
    or_fail(state.save(args.out.join("model.safetensors")));
    or_fail(state.save(args.out.join("model.npz")));
}

/// Means over stretches of `width` points.
fn smoothed(points: &[(f64, f64)], width: usize) -> Vec<(f64, f64)> {
    points
        .chunks(width)
        .map(|c| (c[c.len() - 1].0, c.iter().map(|p| p.1).sum::<f64>() / c.len() as f64))
        .collect()
}

/// Pictures as the model takes them: in one row each for a fully connected one.
fn input(model: &dyn Module, images: &Tensor) -> Var {
    let x = Var::from(images);
    if model.parameters()[0].ndim() == 2 { x.flatten(1, -1) } else { x }
}

fn predict(logits: &Var) -> Vec<i64> {
    no_grad(|| logits.argmax(-1, false)).to_vec()
}

fn count_wrong(predictions: &[i64], labels: &Tensor) -> usize {
    predictions.iter().zip(labels.to_vec::<i64>()).filter(|(p, l)| **p != *l).count()
}

fn evaluate(model: &dyn Module, data: &DataLoader) -> Score {
    model.eval();
    let mut score = Score { loss: 0.0, wrong: 0, count: 0, predictions: Vec::new() };
    for batch in data {
        let logits = no_grad(|| model.forward(&input(model, &batch.images)));
        let loss = ops::cross_entropy(&logits, &Var::from(&batch.labels), Default::default());
        let predictions = predict(&logits);
        score.loss += loss.item() * batch.len() as f64;
        score.wrong += count_wrong(&predictions, &batch.labels);
        score.count += batch.len();
        score.predictions.extend(predictions);
    }
    score.loss /= score.count.max(1) as f64;
    score
}
