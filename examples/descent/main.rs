//! Descent by hand: momentum on two neurons of one weight, the minimum of GELU, and derivatives of activations.
//!
//! ```text
//! cargo run --release --example descent
//! ```

#[path = "../common/mod.rs"]
#[macro_use]
mod common;
mod paths;

use common::course::{Common, headline};
use common::or_warn;
use paths::{averaged, descend, gelu, momentum, number, relu_loss, sigmoid_loss};
use tapegrad::nn::plots::{Corner, Panel, Series, panels};
use tapegrad::prelude::*;

fn main() {
    let common = Common::start("descent", "Gradient descent by hand, with gradients from the tape");
    momentum_on_two_neurons(&common);
    the_minimum_of_gelu(&common);
    activations(&common);
    println!("\nimages: {}", common.file("").display());
}

/// A function of one variable, on a grid.
fn curve(f: impl Fn(&Var) -> Var, low: f64, high: f64, count: usize) -> Vec<(f64, f64)> {
    let xs = grid(low, high, count);
    let ys = no_grad(|| f(&Var::from_vec(xs.clone(), count)));
    xs.into_iter().zip(ys.to_vec::<f64>()).collect()
}

fn grid(low: f64, high: f64, count: usize) -> Vec<f64> {
    (0..count).map(|i| low + (high - low) * i as f64 / (count - 1) as f64).collect()
}

fn value(f: impl Fn(&Var) -> Var, x: f64) -> f64 {
    no_grad(|| f(&number(x))).item()
}

fn momentum_on_two_neurons(common: &Common) {
    headline("Momentum: dw_k = 0.9 dw_(k-1) - 0.1 g, w_k = w_(k-1) + dw_k");
    let relu = momentum(relu_loss, 1.0, 0.5, 167);
    let sigmoid = momentum(sigmoid_loss, 0.0, 0.5, 167);
    println!("{:>4} {:>24} {:>24}", "k", "relu neuron, w_k", "sigmoid neuron, w_k");
    for k in [1, 2, 3, 10, 50, 100, 167] {
        println!("{k:>4} {:>24.15} {:>24.15}", relu[k - 1], sigmoid[k - 1]);
    }
    println!("w_167 = {} and {}", relu[166], sigmoid[166]);
    let ends = [value(relu_loss, relu[166]), value(sigmoid_loss, sigmoid[166])];
    println!("The losses there: {:.3e} and {:.3e}", ends[0], ends[1]);
    let steps = |path: &[f64]| (1..).map(f64::from).zip(path.iter().copied()).collect::<Vec<_>>();
    let losses =
        |path: &[f64], f: fn(&Var) -> Var| steps(&path.iter().map(|&w| value(f, w)).collect::<Vec<_>>());
    let image = [
        Panel::new(
            "Momentum 0.9, rate 0.1, dw_1 = 0.5",
            "step k",
            "weight w_k",
            vec![Series::new("relu neuron", steps(&relu)), Series::new("sigmoid neuron", steps(&sigmoid))],
        ),
        Panel::new(
            "The loss on the way",
            "step k",
            "loss",
            vec![
                Series::new("relu neuron, 1/2 (y - d)^2", losses(&relu, relu_loss)),
                Series::new("sigmoid neuron, -ln y", losses(&sigmoid, sigmoid_loss)),
            ],
        )
        .log(),
    ];
    or_warn(panels(&common.file("momentum.png"), &image));
}

fn the_minimum_of_gelu(common: &Common) {
    headline("The minimum of gelu(x) = x sigmoid(1.702 x)");
    let runs = [
        ("from 0, rate 0.1", descend(gelu, 0.0, 0.1, 3)),
        ("from 0, rate 1", descend(gelu, 0.0, 1.0, 3)),
        ("from -3, rate 0.1", descend(gelu, -3.0, 0.1, 3)),
        ("from -3, rate 1", descend(gelu, -3.0, 1.0, 3)),
        ("from -3, rate 0.1, averaged", averaged(gelu, -3.0, 0.1, 3)),
        ("from -3, rate 1, averaged", averaged(gelu, -3.0, 1.0, 3)),
    ];
    println!("{:<28} {:>12} {:>12} {:>12} {:>12} {:>12}", "", "x_0", "x_1", "x_2", "x_3", "gelu(x_3)");
    for (name, path) in &runs {
        print!("{name:<28}");
        path.iter().for_each(|x| print!(" {x:>12.9}"));
        println!(" {:>12.9}", value(gelu, path[3]));
    }
    let bottom = descend(gelu, 0.0, 1.0, common.either(1000, 300));
    let bottom = bottom[bottom.len() - 1];
    println!("the minimum: gelu({bottom:.9}) = {:.9}", value(gelu, bottom));
    println!(
        "At -3 the slope is {:.4}: descent from there hardly moves, and averaging gradients does not help.",
        slope(gelu, -3.0)
    );

    let on_curve = |path: &[f64]| path.iter().map(|&x| (x, value(gelu, x))).collect::<Vec<_>>();
    let panel = |title: &str, first: usize, second: usize, window: [(f64, f64); 2], corner| {
        let series = vec![
            Series::new("gelu", curve(gelu, window[0].0, window[0].1, 300)),
            Series::new(runs[first].0, on_curve(&runs[first].1)).dots().color(1),
            Series::new(runs[second].0, on_curve(&runs[second].1)).rings().color(3),
        ];
        Panel::new(title, "x", "gelu(x)", series).window(window[0], window[1]).legend(corner)
    };
    let image = [
        panel("Three steps from 0", 0, 1, [(-1.6, 0.4), (-0.3, 0.1)], Corner::UpperLeft),
        panel("From -3, rate 0.1", 2, 4, [(-3.001, -2.991), (-0.0186, -0.0178)], Corner::UpperRight),
        panel("From -3, rate 1", 3, 5, [(-3.01, -2.91), (-0.022, -0.016)], Corner::UpperRight),
    ];
    or_warn(panels(&common.file("gelu.png"), &image));
}

/// The derivative at a point, from the tape.
fn slope(f: impl Fn(&Var) -> Var, x: f64) -> f64 {
    let x = number(x);
    grad(&f(&x), &x).item()
}

/// Each activation and its derivative: one backward pass gives it at all points at once.
fn activations(common: &Common) {
    headline("Activations and their derivatives, from the tape");
    let quarter = Var::from_vec(vec![0.25], 1);
    let functions: [(&str, &dyn Fn(&Var) -> Var); 6] = [
        ("relu(x)", &ops::relu),
        ("elu(x)", &ops::elu),
        ("gelu(x) = x sigmoid(1.702 x)", &gelu),
        ("prelu(x), slope 1/4", &|x| ops::prelu(x, &quarter)),
        ("sigmoid(x)", &|x| x.sigmoid()),
        ("tanh(x)", &|x| x.tanh()),
    ];
    let xs = grid(-4.0, 4.0, common.either(801, 401));
    println!("{:<30} {:>10} {:>10} {:>10}", "derivative at", "-1", "0", "1");
    let image = functions.map(|(name, f)| {
        println!("{name:<30} {:>10.6} {:>10.6} {:>10.6}", slope(f, -1.0), slope(f, 0.0), slope(f, 1.0));
        let x = Var::parameter(Tensor::from_vec(xs.clone(), xs.len()));
        let y = f(&x);
        y.sum_all().backward();
        let slopes = x.grad().expect("the sum depends on x").to_vec::<f64>();
        let on = |values: Vec<f64>| xs.iter().copied().zip(values).collect::<Vec<_>>();
        let series = vec![Series::new("function", on(y.to_vec())), Series::new("derivative", on(slopes))];
        Panel::new(name, "x", "value", series).legend(Corner::UpperLeft)
    });
    or_warn(panels(&common.file("activations.png"), &image));
}
