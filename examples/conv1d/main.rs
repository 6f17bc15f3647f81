//! Conv1d as a drop-in for `torch.nn.Conv1d`: compared with its definition; sizes, errors and parameter counts.
//!
//! ```text
//! cargo run --release --example conv1d
//! ```

#[path = "../common/mod.rs"]
#[macro_use]
mod common;
mod naive;

use common::course::{Common, difference, headline};
use common::{or_fail, or_warn};
use naive::{Case, alexnet_layer, averaging_filters, parameters_without_sharing};
use tapegrad::nn::models::{LeNet5, ResNet, Vgg};
use tapegrad::nn::plots::{Corner, Panel, Series, panels};
use tapegrad::ops::{AvgPoolOptions, ConvOptions};
use tapegrad::prelude::*;
use tapegrad::tape::Slice;

fn main() {
    let common = Common::start("conv1d", "Conv1d as a drop-in for torch.nn.Conv1d");
    against_the_definition(&common);
    output_sizes();
    average_pooling(&common);
    filters_of_a_signal(&common);
    parameter_counts();
    println!("\nimages: {}", common.file("").display());
}

fn against_the_definition(common: &Common) {
    headline("nn::Conv1d against five nested loops, in double precision");
    let mut generator = Generator::manual_seed(common.seed);
    let count = common.either(500, 100);
    let cases: Vec<_> = (0..count)
        .map(|_| {
            let case = Case::random(&mut generator);
            (case, case.compare(&mut generator))
        })
        .collect();
    println!(" N  in out   L  K stride pad dil  L_out |   output    dL/dx    dL/dw    dL/db");
    for (c, d) in cases.iter().take(8) {
        println!(
            "{:>2} {:>3} {:>3} {:>3} {:>2} {:>6} {:>3} {:>3} {:>6} | {:>8.1e} {:>8.1e} {:>8.1e} {:>8.1e}",
            c.batch,
            c.channels[0],
            c.channels[1],
            c.length,
            c.kernel,
            c.stride,
            c.padding,
            c.dilation,
            c.output_length(),
            d.output,
            d.input_grad,
            d.weight_grad,
            d.bias_grad
        );
    }
    let worst = cases.iter().map(|(_, d)| d.largest()).fold(0.0, f64::max);
    println!("the largest difference of {count} random cases: {worst:.1e}");
    let x = Var::from(generator.normal(&[4, 3, 50], 0.0, 1.0));
    let every = nn::Conv1d::new(3, 6, 5);
    let third = nn::Conv1d::new(3, 6, 5).stride(3);
    or_fail(third.load_state_dict(&every.state_dict()));
    let kept = every.forward(&x).get((.., .., Slice::from(..).step(3)));
    let apart = difference(&third.forward(&x), &kept);
    println!("stride 3 against stride 1 of which every third output is kept: {apart:.1e}");
    let keys: Vec<String> =
        third.named_parameters().iter().map(|(name, p)| format!("{name} {:?}", p.shape())).collect();
    println!("in a state dict, as in PyTorch: {}", keys.join(", "));

    type Part = fn(&naive::Differences) -> f64;
    let parts: [(&str, Part, usize); 3] = [
        ("output, by input channels x kernel", |d| d.output, 0),
        ("dL/dx, by output channels x kernel", |d| d.input_grad, 1),
        ("dL/dw, by batch x output length", |d| d.weight_grad, 3),
    ];
    let size = |c: &Case, part: usize| match part {
        0 => c.channels[0] * c.kernel,
        1 => c.channels[1] * c.kernel,
        _ => c.batch * c.output_length(),
    };
    let cloud = |(i, (name, part, color)): (usize, (&str, Part, usize))| {
        let points = cases.iter().map(|(c, d)| (size(c, i) as f64, part(d) * 1e15));
        Panel::new(
            name,
            "products in a sum",
            "largest difference, 1e-15",
            vec![Series::new(name, points).dots().color(color)],
        )
    };
    let all: Vec<Panel> = parts.into_iter().enumerate().map(cloud).collect();
    or_warn(panels(&common.file("differences.png"), &all));
}

/// The output length, and the errors for sizes that do not fit.
fn output_sizes() {
    headline("Sizes: L_out = floor((L + 2 padding - dilation (K - 1) - 1) / stride) + 1");
    println!("   L  K stride pad dil  L_out");
    for (length, kernel, stride, padding, dilation) in [
        (32, 5, 1, 0, 1),
        (32, 5, 1, 2, 1),
        (32, 5, 2, 2, 1),
        (32, 5, 3, 0, 1),
        (32, 3, 1, 4, 4),
        (5, 5, 9, 0, 1),
    ] {
        let case = Case { batch: 1, channels: [1, 1], length, kernel, stride, padding, dilation };
        let x = Var::zeros_with((1, 1, length), DType::F64);
        let got = no_grad(|| case.layer().forward(&x)).size(2);
        assert_eq!(got, case.output_length());
        let reach = (got - 1) * stride + dilation * (kernel - 1) + 1;
        let unseen = length + 2 * padding - reach;
        let note = if unseen > 0 { format!("  ({unseen} at the end unseen)") } else { String::new() };
        println!("{length:>4} {kernel:>2} {stride:>6} {padding:>3} {dilation:>3} {got:>6}{note}");
    }
    println!("Sizes that do not fit are rejected:");
    let x = Var::zeros((8, 3, 6));
    refused(|| nn::Conv1d::new(3, 4, 9).padding(1).forward(&x));
    refused(|| nn::Conv1d::new(3, 4, 3).dilation(3).forward(&x));
    refused(|| nn::Conv1d::new(3, 4, 3).stride(0).forward(&x));
    refused(|| nn::Conv1d::new(5, 4, 3).forward(&x));
    refused(|| ops::avg_pool1d(&x, AvgPoolOptions::new(3).padding(2)));
}

/// Prints the message of the panic.
fn refused(f: impl Fn() -> Var + std::panic::UnwindSafe) {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let result = std::panic::catch_unwind(f);
    std::panic::set_hook(hook);
    let message = match result {
        Ok(y) => format!("accepted, with the result {:?}", y.shape()),
        Err(panic) => match panic.downcast_ref::<String>() {
            Some(text) => text.clone(),
            None => panic.downcast_ref::<&str>().unwrap_or(&"a panic without a message").to_string(),
        },
    };
    println!("  {message}");
}

fn average_pooling(common: &Common) {
    headline("Average pooling is a convolution with constant filters");
    let mut generator = Generator::manual_seed(common.seed);
    let x = Var::from(generator.normal(&[4, 6, 30], 0.0, 1.0).cast(DType::F64));
    let options = ConvOptions::new().stride(3).groups(6);
    let strided = ops::conv1d_with(&x, &averaging_filters(6, &[3]), None, options);
    let off = difference(&strided, &ops::avg_pool1d(&x, 3));
    println!("1d, windows of 3:    {:?} -> {:?}, largest difference {off:.1e}", x.shape(), strided.shape());
    let x = Var::from(generator.normal(&[4, 6, 8, 12], 0.0, 1.0).cast(DType::F64));
    let options = ConvOptions::new().stride([2, 3]).groups(6);
    let strided = ops::conv2d_with(&x, &averaging_filters(6, &[2, 3]), None, options);
    let off = difference(&strided, &ops::avg_pool2d(&x, [2, 3]));
    println!("2d, windows of 2x3:  {:?} -> {:?}, largest difference {off:.1e}", x.shape(), strided.shape());
}

/// A plot of convolutions of a noisy step: smoothing, edge detection, subsampling.
fn filters_of_a_signal(common: &Common) {
    let length = 160;
    let noise = Generator::manual_seed(common.seed).normal(&[length], 0.0, 0.15).to_vec::<f32>();
    let step = |i: usize| if (50..110).contains(&i) { 1.0 } else { 0.0 };
    let signal: Vec<f32> = noise.iter().enumerate().map(|(i, e)| step(i) + e).collect();
    let x = Var::from_vec(signal.clone(), (1, 1, length));
    let filtered = |filter: Vec<f32>, stride: usize| {
        let size = filter.len();
        let w = Var::from_vec(filter, (1, 1, size));
        let options = ConvOptions::new().stride(stride).padding(size / 2);
        let y = ops::conv1d_with(&x, &w, None, options).to_vec::<f32>();
        y.into_iter().enumerate().map(|(t, y)| ((t * stride) as f64, f64::from(y))).collect::<Vec<_>>()
    };
    let raw = signal.iter().enumerate().map(|(i, v)| (i as f64, f64::from(*v)));
    let edge: Vec<f32> = (0..9).map(|k| (k as f32 - 4.0) / 20.0).collect();
    let series = |last| vec![Series::new("signal", raw.clone()).color(4), last];
    let image = [
        Panel::new(
            "Nine equal taps smooth",
            "place",
            "value",
            series(Series::new("mean of 9", filtered(vec![1.0 / 9.0; 9], 1)).color(3)),
        ),
        Panel::new(
            "A ramp of nine taps finds edges",
            "place",
            "value",
            series(Series::new("slope", filtered(edge, 1)).color(3)),
        ),
        Panel::new(
            "Stride 8 thins out",
            "place",
            "value",
            series(Series::new("mean of 9, every 8th", filtered(vec![1.0 / 9.0; 9], 8)).dots().color(3)),
        ),
    ]
    .map(|p| p.legend(Corner::UpperRight).window((0.0, 160.0), (-0.6, 1.9)));
    or_warn(panels(&common.file("signal.png"), &image));
}

fn parameter_counts() {
    headline("AlexNet's first layer: 96 filters of 11x11, stride 4, on 227x227x3");
    let layer = alexnet_layer();
    let y = no_grad(|| layer.forward(&Var::zeros((1, 3, 227, 227))));
    println!("output {:?}: (227 - 11) / 4 + 1 = {}", y.shape(), (227 - 11) / 4 + 1);
    println!("parameters with shared weights:  {:>11}", layer.num_parameters());
    println!("without sharing:                 {:>11}", parameters_without_sharing(&layer, y.shape()));

    headline("Parameters of whole networks, and what PyTorch counts");
    let models: [(&str, Box<dyn Forward>, usize); 3] = [
        ("LeNet-5, 28x28x1", Box::new(LeNet5::new(10)), 61_706),
        ("VGG-11 with batch norm, 32x32x3", Box::new(Vgg::vgg11(10)), 9_231_114),
        ("ResNet-18, 32x32x3", Box::new(ResNet::resnet18(10)), 11_173_962),
    ];
    for (name, model, torch) in models {
        let count = model.num_parameters();
        println!(
            "{name:<34} {count:>10} {torch:>10}  {}",
            if count == torch { "equal" } else { "DIFFERENT" }
        );
    }
}
