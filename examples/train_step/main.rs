//! Times whole training steps: zero_grad, forward, loss, backward and the optimizer's step. With `--eval` the forward pass
//! alone, in evaluation mode, of a batch of one if no other is given: its latency. Prints one line of JSON.
//!
//! ```text
//! cargo run --release --example train_step -- --model resnet18 --batch 128 --threads 2 --steps 5 --profile
//! cargo run --release --example train_step -- --model gpt-small --eval
//! ```

#[path = "../common/memory.rs"]
mod memory;
mod profile;
mod work;

use clap::Parser;
use memory::peak_rss_mb;
use std::time::Instant;
use tapegrad::prelude::*;
use tapegrad::tape;
use work::{Model, Step, Work, work};

/// Times training steps on random images, sequences, tokens or points.
#[derive(Parser)]
struct Args {
    #[arg(long, value_enum)]
    model: Model,
    /// Samples in a batch [default: by the model; 1 with --eval]
    #[arg(long)]
    batch: Option<usize>,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Print a profile
    #[arg(long)]
    profile: bool,
    /// Only the forward pass, in evaluation mode; of the language models one token, after half of the longest sequence
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
    let Work { name, batch, step } = work(args.model, args.batch, args.eval);
    let mut step: Step = match args.autocast {
        true => autocast(step),
        false => step,
    };
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
        profile::profile(&mut *step);
    }
}

fn autocast(mut step: Step) -> Step {
    Box::new(move || tape::autocast(DType::BF16, &mut step))
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
