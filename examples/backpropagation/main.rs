//! Backpropagation checked: gradients in closed form against those of the tape, and the tape itself.
//!
//! ```text
//! cargo run --release --example backpropagation
//! ```
//!
//! The derivations are in the guide, on the page "Backpropagation checked".

#[path = "../common/mod.rs"]
#[macro_use]
mod common;
mod lessons;

use common::course::{Common, difference, headline};
use common::{or_warn, write_text};
use lessons::{Lesson, convolution_and_pooling, samples};
use tapegrad::nn::plots::{Tile, sheet};
use tapegrad::prelude::*;

fn main() {
    let common = Common::start("backpropagation", "Gradients in closed form against those of the tape");
    for lesson in samples(common.seed) {
        headline(lesson.title);
        print!("{}", trace(&lesson.loss));
        report(&lesson);
        if lesson.title.starts_with("One step") {
            by_hand(&lesson);
        }
        let name = lesson.title.to_lowercase().replace([' ', ','], "_");
        write_text(&common.file(&format!("{name}.dot")), &trace(&lesson.loss).to_dot());
    }
    digit(&common);
    println!("\nimages and graphs: {}", common.file("").display());
}

fn report(lesson: &Lesson) {
    for (name, closed, tape) in &lesson.gradients {
        println!("{name:<14} largest difference {:.1e}", difference(closed, tape));
    }
}

/// The values of a computation by hand.
fn by_hand(lesson: &Lesson) {
    let loss = lesson.loss.item();
    println!("By hand, for x = (1, 2), W = (0.5 -0.5; -1 1), y = (1, 0), rate 0.5, where L = {loss:.6}:");
    for (name, closed, _) in &lesson.gradients {
        let numbers: Vec<String> = closed.to_vec::<f64>().iter().map(|v| format!("{v:9.6}")).collect();
        println!("{name:<8} {}", numbers.join(" "));
    }
}

/// The gradients of convolution, sigmoid and pooling on a digit, as images.
fn digit(common: &Common) {
    headline("Convolution, sigmoid and pooling on a digit");
    let data = common.mnist(10, 10).test;
    let pixels: Vec<f64> = data.image(0).iter().map(|&v| f64::from(v) / 255.0).collect();
    let x = Var::from_vec(pixels, (1, 1, 28, 28));
    // A filter for edges: bright below, dark above.
    let edge = vec![-1.0, -2.0, -1.0, 0.0, 0.0, 0.0, 1.0, 2.0, 1.0];
    let k = Var::parameter(Tensor::from_vec(edge, (1, 1, 3, 3)));
    let c = no_grad(|| ops::conv2d(&x, &k, None));
    let s = c.sigmoid();
    let p = ops::avg_pool2d(&s, 2);
    // The loss pulls the pooled image toward the digit.
    let target = ops::avg_pool2d(&x.get((.., .., 1..27, 1..27)), 2);
    let g = &p - &target;
    let lesson = convolution_and_pooling(&x, &k, &g);
    report(&lesson);
    let named = [("X", &x), ("K", &k), ("C", &c), ("S", &s), ("P", &p), ("dL/dP", &g)];
    let gradients = lesson.gradients.iter().map(|(name, _, tape)| (*name, tape));
    let tiles: Vec<Tile> = named.into_iter().chain(gradients).map(|(name, v)| tile(name, v)).collect();
    or_warn(sheet(
        &common.file("digit.png"),
        "Forward and back; black is each one's lowest value",
        &tiles,
        5,
        1,
    ));
}

/// An image of about 168 pixels, whatever the matrix's size.
fn tile(name: &str, v: &Var) -> Tile {
    let [h, w] = [v.size(-2), v.size(-1)];
    let zoom = 168 / w;
    let values = v.to_vec::<f64>();
    let enlarged: Vec<f32> = (0..h * w * zoom * zoom)
        .map(|i| values[i / (w * zoom * zoom) * w + i % (w * zoom) / zoom] as f32)
        .collect();
    let (low, high) =
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    Tile::stretched(&enlarged, [1, h * zoom, w * zoom]).caption(format!("{name}: {low:.2} to {high:.2}"))
}
