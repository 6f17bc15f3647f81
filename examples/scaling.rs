//! Measures training steps of several processes with one thread each against one process with as many threads.
//!
//! ```text
//! cargo build --release -p tapegrad-examples --features mpi --example scaling
//! mpirun --bind-to none -n 2 target/release/examples/scaling
//! ```
//!
//! Without `--bind-to none` all threads of the process that is measured alone share a core. Efficiency is the time of one
//! process with `N` threads divided by that of `N` processes with one thread, on the same batch. Hidden is the
//! part of the communication that went on while the backward pass ran.

use clap::Parser;
use std::ops::Range;
use std::time::Instant;
use tapegrad::distributed::{
    Communicator, DdpOptions, DistributedDataParallel, Reduce, ZeroRedundancyOptimizer,
};
use tapegrad::nn::models::{Gpt, GptConfig, LeNet5, ResNet, Vgg, mlp};
use tapegrad::prelude::*;

#[derive(Parser)]
struct Args {
    /// The models
    #[arg(long, value_delimiter = ',', default_value = "mlp,lenet,vgg11,resnet18,gpt")]
    models: Vec<String>,
    /// The samples of a step, of all processes
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// Steps that are measured; the median counts
    #[arg(long, default_value_t = 7)]
    steps: usize,
    /// Bytes of gradients that are sent at once
    #[arg(long, default_value_t = DdpOptions::new().bucket_bytes)]
    bucket_bytes: usize,
}

/// A model with its loss for a range of a batch.
struct Case {
    model: Box<dyn Forward>,
    loss: Box<dyn Fn(&dyn Forward, Range<usize>) -> Var>,
}

fn case(name: &str, batch: usize) -> Case {
    manual_seed(0);
    let mut rng = Generator::manual_seed(1);
    let (model, row): (Box<dyn Forward>, Vec<usize>) = match name {
        "mlp" => (Box::new(mlp(&[784, 256, 128, 10])), vec![784]),
        "lenet" => (Box::new(LeNet5::new(10)), vec![1, 28, 28]),
        "vgg11" => (Box::new(Vgg::vgg11(10)), vec![3, 32, 32]),
        "resnet18" => (Box::new(ResNet::resnet18(10)), vec![3, 32, 32]),
        "gpt" => {
            let config = GptConfig::tiny(64);
            let block = config.block;
            let model = Gpt::new(config);
            let tokens: Vec<i64> = (0..batch * block).map(|_| rng.below(64) as i64).collect();
            let tokens = Var::from_vec(tokens, (batch, block));
            let loss = move |model: &dyn Forward, part: Range<usize>| {
                let x = tokens.narrow(0, part.start, part.len());
                ops::cross_entropy(&model.forward(&x).flatten((0, 1)), &x.flatten((0, 1)))
            };
            return Case { model: Box::new(model), loss: Box::new(loss) };
        }
        other => panic!("there is no model {other}"),
    };
    let x = Var::from(rng.normal([&[batch], &row[..]].concat(), 0.0, 1.0));
    let target = Var::from_vec((0..batch as i64).map(|i| i % 10).collect::<Vec<_>>(), batch);
    let loss = move |model: &dyn Forward, part: Range<usize>| {
        let y = model.forward(&x.narrow(0, part.start, part.len()));
        ops::cross_entropy(&y, &target.narrow(0, part.start, part.len()))
    };
    Case { model, loss: Box::new(loss) }
}

/// The median of the times of a step, in seconds.
fn measure(steps: usize, mut step: impl FnMut()) -> f64 {
    step();
    step();
    let mut times: Vec<f64> = (0..steps)
        .map(|_| {
            let begin = Instant::now();
            step();
            begin.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[steps / 2]
}

/// The bytes of AdamW's states: of the whole optimizer, and of a rank's share.
fn states(comm: &Communicator, case: Case) -> (usize, usize) {
    let Case { model, loss } = case;
    let model = DistributedDataParallel::new(model, comm).unwrap_or_else(|e| panic!("{e}"));
    let make = |shares| nn::optim::AdamW::new(shares, 1e-3);
    let mut optimizer = ZeroRedundancyOptimizer::new(model.replica(), make).reduce_scatter(true);
    model.backward(1, |part| loss(&**model.module(), part)).unwrap_or_else(|e| panic!("{e}"));
    optimizer.step();
    let whole: usize = model.parameters().iter().map(|p| 2 * p.tensor().bytes()).sum();
    (whole, optimizer.state_bytes())
}

/// How long a sum of 16 MB takes, and how long after a pause without calls in which it could have gone on.
fn progress(comm: &Communicator) -> (f64, f64) {
    let time = |pause: f64| {
        let mut times: Vec<f64> = (0..5)
            .map(|_| {
                comm.barrier().unwrap_or_else(|e| panic!("{e}"));
                let sum = comm.start_all_reduce(Tensor::ones(4 << 20), Reduce::Sum);
                std::thread::sleep(std::time::Duration::from_secs_f64(pause));
                let begin = Instant::now();
                sum.and_then(|sum| sum.wait()).unwrap_or_else(|e| panic!("{e}"));
                begin.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[2]
    };
    let at_once = time(0.0);
    (at_once, time(10.0 * at_once))
}

/// The milliseconds that 32 MB of gradients take in pieces of so many bytes, summed in a fixed order.
fn in_pieces(comm: &Communicator, bytes: usize) -> f64 {
    let count = (32 << 20) / bytes;
    1e3 * measure(5, || {
        let sums: Vec<_> = (0..count)
            .map(|_| {
                comm.start_all_reduce(Tensor::ones(bytes / 4), Reduce::Sum).unwrap_or_else(|e| panic!("{e}"))
            })
            .collect();
        sums.into_iter().for_each(|sum| drop(sum.wait().unwrap_or_else(|e| panic!("{e}"))));
    })
}

fn main() {
    let args = Args::parse();
    let comm = Communicator::world().unwrap_or_else(|e| panic!("{e}"));
    let (rank, size, batch) = (comm.rank(), comm.size(), args.batch_size);
    let (at_once, paused) = progress(&comm);
    let pieces: Vec<String> = [64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20]
        .map(|bytes| format!("{:.1} in pieces of {} kB", in_pieces(&comm, bytes), bytes >> 10))
        .into();
    if rank == 0 {
        println!("32 MB in ms: {}", pieces.join(", "));
        println!("{size} processes, a batch of {batch}");
        println!(
            "a sum of 16 MB: {:.1} ms; {:.1} ms are left after a pause of ten times as long without calls\n",
            at_once * 1e3,
            paused * 1e3
        );
        println!(
            "| model | one process, {size} threads, ms | {size} processes, ms | efficiency | hidden | 8 shards, ms | sent per step, MB | copied | AdamW's states, MB: whole, divided |"
        );
        println!("|---|---|---|---|---|---|---|---|---|");
    }
    for name in &args.models {
        let alone = (rank == 0).then(|| {
            set_num_threads(size);
            let Case { model, loss } = case(name, batch);
            let mut optimizer = nn::optim::SGD::new(model.parameters(), 0.01);
            let time = measure(args.steps, || {
                optimizer.zero_grad();
                loss(&*model, 0..batch).backward();
                optimizer.step();
            });
            set_num_threads(1);
            time
        });
        set_num_threads(1);
        comm.barrier().unwrap_or_else(|e| panic!("{e}"));
        let together = |deterministic: bool| {
            let Case { model, loss } = case(name, batch);
            let options = DdpOptions::new().deterministic(deterministic).bucket_bytes(args.bucket_bytes);
            let model = DistributedDataParallel::with_options(model, &comm, options);
            let model = model.unwrap_or_else(|e| panic!("{e}"));
            let mut optimizer = model.optimizer(nn::optim::SGD::new(model.parameters(), 0.01));
            let bound = |r: usize| (r * batch).div_ceil(size);
            let sent = comm.stats().sent_bytes;
            let time = measure(args.steps, || {
                optimizer.zero_grad();
                let own = |part: Range<usize>| {
                    loss(&**model.module(), bound(rank) + part.start..bound(rank) + part.end)
                };
                model.backward(bound(rank + 1) - bound(rank), own).unwrap_or_else(|e| panic!("{e}"));
                optimizer.step();
            });
            let sent = (comm.stats().sent_bytes - sent) as f64 / (args.steps + 2) as f64;
            (time, sent, model.stats())
        };
        let (fast, sent, stats) = together(false);
        let (exact, _, _) = together(true);
        let (whole, divided) = states(&comm, case(name, batch));
        if let Some(alone) = alone {
            let hidden = 1.0 - stats.waiting.as_secs_f64() / stats.communicating.as_secs_f64().max(1e-12);
            println!(
                "| {name} | {:.2} | {:.2} | {:.2} | {:.0}% | {:.2} | {:.2} | {:.0}% | {:.2}, {:.2} |",
                alone * 1e3,
                fast * 1e3,
                alone / fast,
                hidden * 100.0,
                exact * 1e3,
                sent / 1e6,
                100.0 * stats.copied_bytes as f64 / stats.gradient_bytes as f64,
                whole as f64 / 1e6,
                divided as f64 / 1e6
            );
        }
    }
}
