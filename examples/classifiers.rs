//! Binary and multi-class classifiers on MNIST: logistic regression, support vector machines and softmax regression, the
//! same with a hidden layer, and convolutional networks. Sizes are chosen on a validation set by a small random search.
//!
//! ```text
//! cargo run --release --example classifiers -- --quick
//! cargo run --release --example classifiers -- --data path/to/mnist --part binary
//! ```

#[path = "common/mod.rs"]
#[macro_use]
mod common;

use clap::{Parser, ValueEnum};
use common::course::{Common, headline};
use common::fit::{hold_out_tenth, normalized};
use common::{or_fail, or_warn};
use std::sync::Arc;
use std::time::Instant;
use tapegrad::datasets::{Dataset, ImageDataset, ImageLoader, Mnist, Subset};
use tapegrad::nn::optim::Adam;
use tapegrad::nn::plots::{Corner, Panel, Series, panels};
use tapegrad::nn::train::predict;
use tapegrad::nn::{BatchNorm2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU, Sequential};
use tapegrad::prelude::*;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    /// 3 against 8, on 500 images
    Binary,
    /// All ten digits
    Multiclass,
}

/// Binary and multi-class classifiers, from logistic regression to convolutional networks.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: Common,
    /// What to do [default: both]
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// The number of trials of the random search
    #[arg(long, default_value_t = 5)]
    tries: usize,
}

/// Scores `[N, 1]` whose sign separates class 1 from 0, or `[N, classes]`.
type Loss = fn(&Var, &Var) -> Var;

/// Class 0 as -1, class 1 as 1, in the shape of the scores.
fn signs(scores: &Var, labels: &Var) -> Var {
    (labels.cast(scores.dtype()) * 2.0 - 1.0).unsqueeze(1)
}

fn logistic(scores: &Var, labels: &Var) -> Var {
    ops::soft_margin_loss(scores, &signs(scores, labels))
}

fn hinge(scores: &Var, labels: &Var) -> Var {
    ops::hinge_loss(scores, &signs(scores, labels))
}

fn softmax(scores: &Var, labels: &Var) -> Var {
    ops::cross_entropy(scores, labels)
}

/// Training, validation and test images, and how many scores a model gives: one for two classes.
struct Data {
    outputs: usize,
    train: Subset,
    validation: Subset,
    test: Subset,
}

/// The sizes of a model, as sampled by the search.
#[derive(Clone, Copy, Default)]
struct Sizes {
    hidden: usize,
    filters: usize,
    kernel: usize,
}

/// A kind of model: its constructor, its loss, and the sizes that the search samples.
struct Kind {
    name: &'static str,
    make: fn(Sizes, usize) -> Sequential,
    loss: Loss,
    hidden: &'static [usize],
    filters: &'static [usize],
    kernels: &'static [usize],
}

impl Kind {
    const fn new(name: &'static str, make: fn(Sizes, usize) -> Sequential, loss: Loss) -> Kind {
        Kind { name, make, loss, hidden: &[], filters: &[], kernels: &[] }
    }

    const fn hidden(mut self, hidden: &'static [usize]) -> Kind {
        self.hidden = hidden;
        self
    }

    const fn filters(mut self, filters: &'static [usize], kernels: &'static [usize]) -> Kind {
        (self.filters, self.kernels) = (filters, kernels);
        self
    }
}

const BINARY: [Kind; 4] = [
    Kind::new("logistic regression", linear, logistic),
    Kind::new("two layers, logistic loss", two_layers, logistic).hidden(&[8, 16, 32, 64, 128, 256]),
    Kind::new("linear SVM", linear, hinge),
    Kind::new("two layers, hinge loss", two_layers, hinge).hidden(&[8, 16, 32, 64, 128, 256]),
];

const MULTICLASS: [Kind; 4] = [
    Kind::new("softmax regression", linear, softmax),
    Kind::new("two layers, softmax", two_layers, softmax).hidden(&[8, 16, 32, 64, 128, 256]),
    Kind::new("CNN", cnn, softmax).hidden(&[32, 64, 128]).filters(&[4, 8, 16], &[3, 5, 7]),
    Kind::new("CNN, dropout and batch norm", cnn_regularized, softmax)
        .hidden(&[32, 64, 128])
        .filters(&[4, 8, 16], &[3, 5, 7]),
];

fn linear(_: Sizes, outputs: usize) -> Sequential {
    nn::sequential![Flatten::new(), Linear::new(784, outputs)]
}

fn two_layers(s: Sizes, outputs: usize) -> Sequential {
    nn::sequential![Flatten::new(), Linear::new(784, s.hidden), ReLU::new(), Linear::new(s.hidden, outputs)]
}

/// A convolution and its pooling, with batch norm or without.
fn convolution(channels: usize, s: Sizes, norm: bool) -> Sequential {
    let conv = Conv2d::new(channels, s.filters, s.kernel).padding(s.kernel / 2).bias(!norm);
    let mut block = Sequential::new().add(conv);
    if norm {
        block.push(BatchNorm2d::new(s.filters));
    }
    block.add(ReLU::new()).add(MaxPool2d::new(2))
}

fn cnn(s: Sizes, outputs: usize) -> Sequential {
    nn::sequential![
        convolution(1, s, false),
        convolution(s.filters, s, false),
        Flatten::new(),
        Linear::new(s.filters * 49, s.hidden),
        ReLU::new(),
        Linear::new(s.hidden, outputs),
    ]
}

fn cnn_regularized(s: Sizes, outputs: usize) -> Sequential {
    nn::sequential![
        convolution(1, s, true),
        convolution(s.filters, s, true),
        Flatten::new(),
        Dropout::new(0.25),
        Linear::new(s.filters * 49, s.hidden),
        ReLU::new(),
        Dropout::new(0.5),
        Linear::new(s.hidden, outputs),
    ]
}

/// The fraction of images on the correct side of zero, or whose class has the highest score.
fn accuracy(model: &Sequential, data: &Subset) -> f64 {
    let loader = ImageLoader::new(data.clone()).batch_size(500);
    let mut right = 0;
    for (images, labels) in &loader {
        let scores = predict(model, &images);
        let classes = if scores.size(1) == 1 { scores.gt(0.0).squeeze(1) } else { scores.argmax(1) };
        let labels = labels.to_vec::<i64>();
        right +=
            classes.cast(DType::I64).to_vec::<i64>().iter().zip(labels).filter(|(c, l)| **c == *l).count();
    }
    right as f64 / data.len().max(1) as f64
}

/// Trains a model. Returns it as it was after the epoch with the best validation accuracy, and the accuracies of all
/// epochs.
fn train(kind: &Kind, sizes: Sizes, data: &Data, epochs: usize, seed: u64) -> (Sequential, Vec<f64>) {
    manual_seed(seed);
    let model = (kind.make)(sizes, data.outputs);
    let mut adam = Adam::new(model.parameters(), 1e-3);
    let batch = if data.train.len() <= 500 { 25 } else { 100 };
    let loader = ImageLoader::new(data.train.clone()).batch_size(batch).shuffle(true).seed(seed).workers(1);
    let (mut history, mut best) = (Vec::new(), (f64::MIN, model.state_dict()));
    for _ in 0..epochs {
        model.train();
        for (images, labels) in &loader {
            adam.zero_grad();
            (kind.loss)(&model.forward(&images), &labels).backward();
            adam.step();
        }
        let validated = accuracy(&model, &data.validation);
        if validated > best.0 {
            best = (validated, model.state_dict());
        }
        history.push(validated);
    }
    or_fail(model.load_state_dict(&best.1));
    (model, history)
}

fn highest(accuracies: &[f64]) -> f64 {
    accuracies.iter().copied().fold(0.0, f64::max)
}

/// Trains briefly with random sizes, prints the result of each, and returns the best.
fn search(kind: &Kind, data: &Data, tries: usize, epochs: usize, seed: u64) -> Sizes {
    let mut random = Generator::manual_seed(seed);
    let mut draw = |from: &[usize]| match from.len() {
        0 => 0,
        n => from[random.next_u64() as usize % n],
    };
    let mut tried: Vec<(Sizes, f64)> = Vec::new();
    println!("  hidden  filters  kernel  validation");
    while tried.len() < tries.max(1) {
        let s = Sizes { hidden: draw(kind.hidden), filters: draw(kind.filters), kernel: draw(kind.kernels) };
        let same = |t: &Sizes| (t.hidden, t.filters, t.kernel) == (s.hidden, s.filters, s.kernel);
        let choices = kind.hidden.len() * kind.filters.len().max(1) * kind.kernels.len().max(1);
        if tried.iter().any(|(t, _)| same(t)) && tried.len() < choices {
            continue;
        }
        let (_, history) = train(kind, s, data, epochs, seed);
        let best = highest(&history);
        let conv = |n: usize| if n == 0 { "-".into() } else { n.to_string() };
        println!("{:>8} {:>8} {:>7} {:>10.2}%", s.hidden, conv(s.filters), conv(s.kernel), 100.0 * best);
        tried.push((s, best));
    }
    // The first of equal ones, as printed.
    tried.into_iter().reduce(|a, b| if b.1 > a.1 { b } else { a }).expect("at least one trial").0
}

/// Two digits as the classes 0 and 1: 500 images for training, 250 for validation, 250 for testing.
fn pair(all: &Mnist, digits: [i64; 2]) -> Data {
    let only = |data: &ImageDataset, from: usize, count: usize| {
        let wanted = |i: &usize| digits.contains(&data.labels()[*i]);
        let indices: Vec<usize> = (0..data.len()).filter(wanted).skip(from).take(count).collect();
        let pixels = indices.iter().flat_map(|&i| data.image(i)).copied().collect();
        let labels = indices.iter().map(|&i| i64::from(data.labels()[i] == digits[1])).collect();
        let [_, channels, height, width] = data.shape();
        let shape = [indices.len(), channels, height, width];
        ImageDataset::new(pixels, shape, labels, digits.iter().map(i64::to_string).collect())
    };
    let train = only(&all.train, 0, 500);
    let statistics = train.statistics();
    let whole = |data: ImageDataset| -> Subset {
        let n = data.len();
        Subset::new(Arc::new(data.with_normalization(statistics.clone())), (0..n).collect())
    };
    let (validation, test) = (only(&all.train, 500, 250), only(&all.test, 0, 250));
    Data { outputs: 1, train: whole(train), validation: whole(validation), test: whole(test) }
}

/// All digits, a tenth of those for training held out.
fn all_digits(all: Mnist, seed: u64) -> Data {
    let outputs = all.train.classes().len();
    let (train, test) = normalized(all.train, all.test);
    let [train, validation] = hold_out_tenth(&train, seed);
    let n = test.len();
    Data { outputs, train, validation, test: Subset::new(Arc::new(test), (0..n).collect()) }
}

/// Searches, trains and tests each kind; returns a row of the final table for each, and the curves.
fn compare(
    kinds: &[Kind],
    data: &Data,
    tries: usize,
    [brief, long]: [usize; 2],
    seed: u64,
) -> (String, Vec<Series>) {
    let (mut table, mut curves) = (String::new(), Vec::new());
    for kind in kinds {
        println!("{}", kind.name);
        let chosen = match kind.hidden {
            [] => Sizes::default(),
            _ => search(kind, data, tries, brief, seed),
        };
        let start = Instant::now();
        let (model, history) = train(kind, chosen, data, long, seed);
        let seconds = start.elapsed().as_secs_f64();
        let (held_out, test) = (highest(&history), accuracy(&model, &data.test));
        println!("  trained for {long} epochs in {seconds:.1} s");
        let sizes = match (chosen.hidden, chosen.filters) {
            (0, _) => String::new(),
            (hidden, 0) => format!("{hidden} hidden"),
            (hidden, filters) => {
                format!("{hidden} hidden, {filters} filters {0}x{0}", chosen.kernel)
            }
        };
        table +=
            &format!("{:<29} {sizes:<28} {:>9.2}% {:>9.2}%\n", kind.name, 100.0 * held_out, 100.0 * test);
        let points = history.iter().enumerate().map(|(i, a)| ((i + 1) as f64, 100.0 * a));
        curves.push(Series::new(kind.name, points));
    }
    (table, curves)
}

fn main() {
    let Args { common, part, tries } = Args::parse();
    let common = common.prepared("classifiers");
    let all = common.mnist(common.either(60_000, 6_000), common.either(10_000, 2_000));
    if all.train.shape()[1..] != [1, 28, 28] {
        common::fail(format!("{}: the models take images of 28x28 pixels", common.data));
    }
    let tries = common.either(tries, tries.min(3));
    let (mut table, mut charts) = (String::new(), Vec::new());
    let mut take = |title: &str, (rows, curves): (String, Vec<Series>)| {
        table += &format!("{title}\n{rows}");
        let all = || curves.iter().flat_map(|s| s.points());
        let (low, high) = all().fold((100.0, 0.0), |(l, h), p| (f64::min(l, p.1), f64::max(h, p.1)));
        let (last, range) = (all().fold(1.0, |m, p| f64::max(m, p.0)), f64::max(high - low, 1.0));
        let panel = Panel::new(format!("{title}: validation"), "epoch", "accuracy, %", curves);
        // The legend is below the lowest curve.
        let y = (low - 0.5 * range, high + 0.05 * range);
        charts.push(panel.window((0.9, last + 0.1), y).legend(Corner::LowerRight));
    };
    if part != Some(Part::Multiclass) {
        headline("3 against 8");
        let data = pair(&all, [3, 8]);
        if data.train.len() < 500 || data.validation.len() < 250 || data.test.len() < 250 {
            common::fail(format!(
                "{}: 750 images of 3 and 8 and 250 more to test with are needed",
                common.data
            ));
        }
        take("3 against 8", compare(&BINARY, &data, tries, common.either([10, 20], [3, 8]), common.seed));
    }
    if part != Some(Part::Binary) {
        headline("Ten digits");
        let data = all_digits(all, common.seed);
        take("Ten digits", compare(&MULTICLASS, &data, tries, common.either([1, 6], [1, 2]), common.seed));
    }
    or_warn(panels(&common.file("validation.png"), &charts));
    headline("Test accuracy");
    println!("{:<29} {:<28} {:>10} {:>10}", "", "chosen on the validation set", "validation", "test");
    print!("{table}");
}
