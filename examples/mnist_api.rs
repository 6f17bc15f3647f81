//! A multilayer perceptron for MNIST with PyTorch's methods: forward, loss, wrong predictions, zero_grad, backward,
//! step.
//!
//! ```text
//! cargo run --release --example mnist_api -- --data path/to/folder/with/mnist_train.csv
//! cargo run --release --example mnist_api -- --activation tanh
//! ```

#[path = "common/mod.rs"]
#[macro_use]
mod common;

use clap::{Parser, ValueEnum};
use common::course::Common;
use common::fit::hold_out_tenth;
use common::training::rate;
use common::{or_fail, or_warn};
use std::time::Instant;
use tapegrad::datasets::{ImageLoader, Mnist};
use tapegrad::nn::lr_scheduler::{OneCycleLR, Schedule};
use tapegrad::nn::optim::Adam;
use tapegrad::nn::plots::{Panel, Series, panels};
use tapegrad::nn::{Linear, PReLU, ReLU, Sequential, Sigmoid, StateDict, Tanh};
use tapegrad::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Activation {
    Sigmoid,
    Tanh,
    Relu,
    Prelu,
}

/// Trains a multilayer perceptron on handwritten digits, with one activation or with all in turn.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: Common,
    /// The activation [default: all in turn]
    #[arg(long, value_enum)]
    activation: Option<Activation>,
    /// The sizes of the hidden layers
    #[arg(long, value_delimiter = ',', default_value = "512")]
    hidden: Vec<usize>,
    /// [default: 10, or 4 in a quick run]
    #[arg(long)]
    epochs: Option<usize>,
    /// The highest learning rate of Adam
    #[arg(long, default_value_t = 0.01, value_parser = rate)]
    lr: f64,
}

/// The network with its optimizer, and the state of the last forward pass.
struct Mlp {
    net: Sequential,
    optimizer: Adam,
    output: Option<Var>,
    loss: Option<Var>,
}

impl Mlp {
    /// Weights from N(0, 1), biases zero.
    fn new(hidden: &[usize], activation: Activation, lr: f64) -> Mlp {
        let sizes = [&[784], hidden, &[10]].concat();
        let mut net = Sequential::new();
        for (i, pair) in sizes.windows(2).enumerate() {
            let layer = Linear::new(pair[0], pair[1]);
            nn::init::normal_(&layer.weight, 0.0, 1.0);
            nn::init::zeros_(layer.bias.as_ref().expect("a layer with a bias"));
            net.push(layer);
            if i + 2 < sizes.len() {
                match activation {
                    Activation::Sigmoid => net.push(Sigmoid::new()),
                    Activation::Tanh => net.push(Tanh::new()),
                    Activation::Relu => net.push(ReLU::new()),
                    Activation::Prelu => net.push(PReLU::new(1)),
                }
            }
        }
        let optimizer = Adam::new(net.parameters(), lr);
        Mlp { net, optimizer, output: None, loss: None }
    }

    /// The scores of the ten digits for images `[N, 1, 28, 28]`.
    fn forward(&mut self, images: &Tensor) -> Var {
        let output = self.net.forward(&Var::from(images).flatten(1));
        self.output = Some(output.clone());
        output
    }

    fn last_output(&self) -> &Var {
        self.output.as_ref().expect("forward comes first")
    }

    /// The mean cross-entropy of the last forward pass.
    fn loss(&mut self, labels: &Tensor) -> f64 {
        let loss = ops::cross_entropy(self.last_output(), &Var::from(labels));
        let value = loss.item();
        self.loss = Some(loss);
        value
    }

    /// How many predictions of the last forward pass are wrong.
    fn wrong(&self, labels: &Tensor) -> usize {
        let predicted = no_grad(|| self.last_output().argmax(1)).to_vec::<i64>();
        predicted.iter().zip(labels.to_vec::<i64>()).filter(|(p, l)| **p != *l).count()
    }

    /// Computes the gradients of the loss and frees its graph.
    fn backward(&mut self) {
        self.loss.take().expect("loss comes first").backward();
        self.output = None;
    }

    fn step(&mut self) {
        self.optimizer.step();
    }

    /// The fraction of wrong predictions over all batches.
    fn error(&mut self, data: &ImageLoader) -> f64 {
        let (mut wrong, mut count) = (0, 0);
        for batch in data.iter() {
            no_grad(|| self.forward(&batch.images));
            wrong += self.wrong(&batch.labels);
            count += batch.len();
        }
        wrong as f64 / count.max(1) as f64
    }
}

/// The values for the plot, by epoch.
#[derive(Default)]
struct Curves {
    loss: Vec<(f64, f64)>,
    training: Vec<(f64, f64)>,
    validation: Vec<(f64, f64)>,
}

fn train(mlp: &mut Mlp, train: &ImageLoader, validation: &ImageLoader, epochs: usize) -> Curves {
    let mut curves = Curves::default();
    let steps = (epochs * train.len()).max(1) as u64;
    let peak = mlp.optimizer.lr(0);
    let mut schedule = OneCycleLR::new(peak, steps).cycle_momentum(false).attach(&mut mlp.optimizer);
    for epoch in 1..=epochs {
        let start = Instant::now();
        let (mut loss_sum, mut wrong, mut count) = (0.0, 0, 0);
        for batch in train.iter() {
            mlp.optimizer.zero_grad();
            mlp.forward(&batch.images);
            loss_sum += mlp.loss(&batch.labels) * batch.len() as f64;
            wrong += mlp.wrong(&batch.labels);
            mlp.backward();
            mlp.step();
            schedule.step(&mut mlp.optimizer);
            count += batch.len();
        }
        let seconds = start.elapsed().as_secs_f64();
        let (loss, error) = (loss_sum / count as f64, 100.0 * wrong as f64 / count as f64);
        let held_out = 100.0 * mlp.error(validation);
        println!(
            "  epoch {epoch:>2}: loss {loss:>8.4}  error {error:>5.2}%  validation {held_out:>5.2}%  {seconds:.1} s"
        );
        let x = epoch as f64;
        curves.loss.push((x, loss));
        curves.training.push((x, error));
        curves.validation.push((x, held_out));
    }
    curves
}

fn main() {
    let Args { common, activation, hidden, epochs, lr } = Args::parse();
    let common = common.prepared("mnist_api");
    let Mnist { train: all, test } = common.mnist(common.either(60_000, 5_000), common.either(10_000, 1_000));
    if all.shape()[1..] != [1, 28, 28] {
        common::fail(format!("{}: the network takes images of 28x28 pixels", common.data));
    }
    // Pixels stay between 0 and 1: with centered ones, weights from N(0, 1) would drive every unit further into
    // saturation.
    let [rest, tenth] = hold_out_tenth(&all, common.seed);
    let train_loader = ImageLoader::new(rest).batch_size(64).shuffle(true).seed(common.seed).workers(1);
    let validation = ImageLoader::new(tenth).batch_size(500);
    let test = ImageLoader::new(test).batch_size(500);

    let epochs = epochs.unwrap_or(common.either(10, 4));
    let chosen = activation.map_or_else(|| Activation::value_variants().to_vec(), |a| vec![a]);
    let (mut loss, mut training, mut held_out, mut table) = (vec![], vec![], vec![], String::new());
    for activation in chosen {
        let name = format!("{activation:?}").to_lowercase();
        println!("{name}");
        manual_seed(common.seed);
        let mut mlp = Mlp::new(&hidden, activation, lr);
        let curves = train(&mut mlp, &train_loader, &validation, epochs);
        let error = mlp.error(&test);

        let file = common.file(&format!("{name}.npz"));
        or_fail(mlp.net.state_dict().save(&file));
        let mut again = Mlp::new(&hidden, activation, lr);
        or_fail(again.net.load_state_dict(&or_fail(StateDict::load(&file))));
        assert_eq!(again.error(&test), error, "the weights that were read back give the same error");
        table += &format!("{name:<8} {:>6.2}%   {}\n", 100.0 * error, file.display());

        loss.push(Series::new(&name, curves.loss));
        training.push(Series::new(&name, curves.training));
        held_out.push(Series::new(&name, curves.validation));
    }
    let error = |title, series| Panel::new(title, "epoch", "wrong predictions, %", series);
    let charts = [
        Panel::new("Loss in training", "epoch", "cross-entropy", loss).log(),
        error("Error in training", training),
        error("Error in validation", held_out),
    ];
    or_warn(panels(&common.file("training.png"), &charts));
    println!("\n          test error");
    print!("{table}");
}
