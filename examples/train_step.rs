//! Times whole training steps: zero_grad, forward, cross-entropy, backward, SGD; for the language models also clipping,
//! and AdamW. Prints one line of JSON.
//!
//! ```text
//! cargo run --release --example train_step -- --model resnet18 --batch 128 --threads 2 --steps 5 --profile
//! ```

#[path = "common/memory.rs"]
mod memory;

use clap::{Parser, ValueEnum};
use memory::peak_rss_mb;
use std::time::Instant;
use tapegrad::nn::models::{
    Gpt, GptConfig, LeNet5, MobileNetV2, ResNet, SpeedNet, ThreeLayerConvNet, Vgg, mlp,
};
use tapegrad::nn::optim::{AdamW, Optimizer, SGD, clip_factor};
use tapegrad::nn::{Forward, LSTM, Linear, Module};
use tapegrad::prelude::*;

#[derive(Clone, Copy, ValueEnum)]
enum Model {
    Mlp,
    Lenet,
    Cnn3,
    Vgg11,
    Resnet18,
    Resnet9,
    #[value(name = "resnet18-224")]
    Resnet18Large,
    #[value(name = "resnet50-224")]
    Resnet50Large,
    #[value(name = "mobilenetv2-224")]
    MobileNetV2,
    Lstm,
    GptTiny,
    GptSmall,
}

tapegrad::nn::module! {
    /// A classifier of sequences by the last output of an LSTM.
    struct LastOutput {
        lstm: LSTM,
        fc: Linear,
    }
}

impl Forward for LastOutput {
    fn forward(&self, x: &Var) -> Var {
        self.fc.forward(&self.lstm.forward(x).select(1, -1))
    }
}

/// Times training steps on random images, sequences or tokens.
#[derive(Parser)]
struct Args {
    #[arg(long, value_enum)]
    model: Model,
    /// Images or sequences in a batch [default: 64 for mlp and lenet, 50 for cnn3, 1024 for resnet9, 128 for vgg11 and
    /// resnet18, 8 for images of 224x224 and gpt-small, 32 for lstm, 12 for gpt-tiny]
    #[arg(long)]
    batch: Option<usize>,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Print a profile
    #[arg(long)]
    profile: bool,
    /// Only the forward pass, in evaluation mode
    #[arg(long)]
    eval: bool,
    /// Compute products, convolutions and attention in BF16
    #[arg(long)]
    autocast: bool,
}

fn main() {
    let args = Args::parse();
    set_num_threads(args.threads);
    manual_seed(0);
    let Work { name, model, mut optimizer, x, target } = work(&args);
    let batch = x.shape()[0];

    let mut step = || -> Option<Var> {
        if args.eval {
            no_grad(|| model.forward(&x));
            return None;
        }
        optimizer.zero_grad();
        let forward = || {
            let logits = model.forward(&x);
            let classes = logits.size(-1) as isize;
            ops::cross_entropy(&logits.reshape((-1, classes)), &target)
        };
        let loss = if args.autocast { tape::autocast(DType::BF16, forward) } else { forward() };
        loss.backward();
        if name.starts_with("gpt") {
            let (_, factor) = clip_factor(&optimizer.parameters(), 1.0, 2.0);
            optimizer.step_scaled(factor);
        } else {
            optimizer.step();
        }
        Some(loss)
    };
    if args.eval {
        model.eval();
    }
    for _ in 0..3 {
        step();
    }
    let faults = page_faults();
    let mut times: Vec<f64> = (0..args.steps.max(1))
        .map(|_| {
            let start = Instant::now();
            step();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    let faults = (page_faults() - faults) as f64 / times.len() as f64;
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    println!(
        "{}",
        serde_json::json!({
            "library": "tapegrad",
            "model": name,
            "batch": batch,
            "threads": args.threads,
            "steps": times.len(),
            "median_ms": median,
            "min_ms": times[0],
            "samples_per_s": batch as f64 / median * 1e3,
            "page_faults_per_step": faults,
            "peak_rss_mb": peak_rss_mb(),
        })
    );
    if args.profile {
        profile(&mut step);
    }
}

/// What is timed.
struct Work {
    name: &'static str,
    model: Box<dyn Forward>,
    optimizer: Box<dyn Optimizer>,
    x: Var,
    target: Var,
}

fn work(args: &Args) -> Work {
    match args.model {
        Model::GptTiny => language("gpt-tiny", GptConfig::tiny(65), args.batch.unwrap_or(12)),
        Model::GptSmall => language("gpt-small", GptConfig::small(65), args.batch.unwrap_or(8)),
        _ => images(args),
    }
}

/// Characters that follow one another by a rule.
fn language(name: &'static str, config: GptConfig, batch: usize) -> Work {
    let model = Gpt::new(config);
    let numbers =
        |f: fn(i64) -> i64| (0..(batch * config.block) as i64).map(|i| f(i) % 65).collect::<Vec<_>>();
    Work {
        name,
        optimizer: Box::new(AdamW::new(model.parameters(), 1e-3)),
        model: Box::new(model),
        x: Var::from_vec(numbers(|i| i * 7 + i / 3), (batch, config.block)),
        target: Var::from_vec(numbers(|i| i * 5 + i / 7), batch * config.block),
    }
}

fn images(args: &Args) -> Work {
    let (name, shape, default_batch): (&str, &[usize], usize) = match args.model {
        Model::Mlp => ("mlp", &[784], 64),
        Model::Lenet => ("lenet", &[1, 28, 28], 64),
        Model::Cnn3 => ("cnn3", &[3, 32, 32], 50),
        Model::Vgg11 => ("vgg11", &[3, 32, 32], 128),
        Model::Resnet9 => ("resnet9", &[3, 32, 32], 1024),
        Model::Resnet18Large => ("resnet18-224", &[3, 224, 224], 8),
        Model::Resnet50Large => ("resnet50-224", &[3, 224, 224], 8),
        Model::MobileNetV2 => ("mobilenetv2-224", &[3, 224, 224], 8),
        Model::Lstm => ("lstm", &[100, 256], 32),
        _ => ("resnet18", &[3, 32, 32], 128),
    };
    let model: Box<dyn Forward> = match args.model {
        Model::Mlp => Box::new(mlp(&[784, 256, 128, 10])),
        Model::Lenet => Box::new(LeNet5::new(10)),
        Model::Cnn3 => Box::new(ThreeLayerConvNet::new(10)),
        Model::Vgg11 => Box::new(Vgg::vgg11(10)),
        Model::Resnet9 => Box::new(SpeedNet::new(10)),
        Model::Resnet18Large => Box::new(ResNet::new([2, 2, 2, 2], true, 1000)),
        Model::Resnet50Large => Box::new(ResNet::resnet50(1000)),
        Model::MobileNetV2 => Box::new(MobileNetV2::new(1000)),
        Model::Lstm => {
            Box::new(LastOutput { lstm: LSTM::new(256, 256).batch_first(true), fc: Linear::new(256, 10) })
        }
        _ => Box::new(ResNet::resnet18(10)),
    };
    let batch = args.batch.unwrap_or(default_batch);
    Work {
        name,
        optimizer: Box::new(SGD::new(model.parameters(), 0.01).momentum(0.9).weight_decay(5e-4)),
        model,
        x: Var::from(with_default_generator(|g| g.normal(&[&[batch], shape].concat(), 0.0, 1.0))),
        target: Var::from_vec((0..batch as i64).map(|i| i % 10).collect::<Vec<_>>(), batch),
    }
}

/// One more step with each operation timed.
fn profile(step: &mut dyn FnMut() -> Option<Var>) {
    // A warm-up step first: during printing, the workers have returned to rayon.
    step();
    set_profiling(true);
    let start = Instant::now();
    let loss = step();
    let total = start.elapsed().as_secs_f64() * 1e3;
    set_profiling(false);
    let Some(loss) = loss else { return };
    let trace = trace(&loss);
    println!(
        "{:<26} {:<20} {:>10} {:>10} {:>9} {:>9} {:>10} {:>7}",
        "operation", "shape", "fwd ms", "bwd ms", "GFLOP/s", "GB/s", "saved MB", "share"
    );
    let ms = |d: std::time::Duration| d.as_secs_f64() * 1e3;
    for r in trace.rows.iter().filter(|r| r.op != "leaf") {
        let (forward, backward) = (ms(r.forward), ms(r.backward));
        // A product's backward pass is two products.
        let rate =
            r.flops as f64 * if backward > 0.0 { 3.0 } else { 1.0 } / ((forward + backward) * 1e6).max(1e-9);
        let bytes = r.shape.iter().product::<usize>() * r.dtype.size();
        let throughput = 2.0 * bytes as f64 / (forward * 1e6).max(1e-9);
        let rate = if r.flops > 0 { format!("{rate:.1}") } else { "-".into() };
        println!(
            "{:<26} {:<20} {forward:>10.3} {backward:>10.3} {rate:>9} {throughput:>9.1} {:>10.2} {:>6.1}%",
            r.op,
            format!("{:?}", r.shape),
            r.saved_bytes as f64 / 1e6,
            (forward + backward) / total * 100.0
        );
    }
    let (forward, backward) =
        trace.rows.iter().fold((0.0, 0.0), |(f, b), r| (f + ms(r.forward), b + ms(r.backward)));
    println!(
        "forward {forward:.3} ms, backward {backward:.3} ms, the rest (optimizer, bookkeeping) {:.3} ms",
        total - forward - backward
    );
}

/// Page faults of this process so far without disk access, from the operating system's counters.
fn page_faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the program's name in brackets; minor faults are the eighth after it.
    stat.rsplit(')')
        .next()
        .and_then(|s| s.split_whitespace().nth(7))
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}
