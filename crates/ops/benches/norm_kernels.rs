//! Times normalisations and softmax, forward and backward: `cargo bench -p tapegrad-ops --bench norm_kernels`.
//!
//! Each figure is the best of many runs.

use ops::{BatchNormOptions, batch_norm, softmax};
use std::time::Instant;
use tape::{BackwardOptions, DType, MemoryFormat, Tensor, Var};

/// The best times of both passes in milliseconds.
fn best(x: &Tensor, f: impl Fn(&Var) -> Var) -> (f64, f64) {
    let x = Var::parameter(x.clone());
    let (mut forward, mut backward) = (f64::INFINITY, f64::INFINITY);
    let start = Instant::now();
    let mut runs = 0;
    while runs < 10 || start.elapsed().as_secs_f64() < 0.5 {
        let begun = Instant::now();
        let y = f(&x);
        forward = forward.min(begun.elapsed().as_secs_f64());
        let g = y.detach();
        let begun = Instant::now();
        y.backward_with(Some(&g), BackwardOptions::default());
        backward = backward.min(begun.elapsed().as_secs_f64());
        x.zero_grad();
        runs += 1;
    }
    (forward * 1e3, backward * 1e3)
}

fn numbers(shape: &[usize], format: MemoryFormat) -> Tensor {
    let n = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..n).map(|i| (i * 7919 % 2003) as f32 / 1001.5 - 1.0).collect();
    Tensor::from_vec(values, shape).to_format(format)
}

fn main() {
    println!("{:<44} {:>10} {:>10}", "", "forward", "backward");
    let report = |name: String, (forward, backward): (f64, f64)| {
        println!("{name:<44} {forward:>7.3} ms {backward:>7.3} ms")
    };
    for shape in [[128, 64, 32, 32], [128, 128, 16, 16], [128, 512, 4, 4], [32, 3, 32, 32]] {
        let channels = shape[1];
        let weight = Var::parameter(Tensor::ones(&[channels], DType::F32));
        let bias = Var::parameter(Tensor::zeros(&[channels], DType::F32));
        for format in [MemoryFormat::ChannelsLast, MemoryFormat::Contiguous] {
            let x = numbers(&shape, format);
            let options = BatchNormOptions { training: true, ..Default::default() };
            let times = best(&x, |x| batch_norm(x, None, Some(&weight), Some(&bias), options));
            report(format!("batch_norm {shape:?} {format:?}"), times);
        }
    }
    for shape in [[128, 10], [4096, 1000]] {
        report(
            format!("softmax {shape:?}"),
            best(&numbers(&shape, MemoryFormat::Contiguous), |x| softmax(x, 1, None)),
        );
    }
}
