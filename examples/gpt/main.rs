//! Trains a language model on the characters of a text, and lets it write.
//!
//! ```text
//! cargo run --release --example gpt
//! cargo run --release --example gpt -- --data shakespeare.txt --preset small --steps 2000
//! cargo run --release --example gpt -- --write 500 --prompt "The tape" --top-k 20
//! cargo run --release --example gpt -- --preset gpt2 --weights gpt2/model.safetensors --write 100 --prompt "The tape"
//! ```
//!
//! The last command writes with the published weights of a GPT-2, of any size; `vocab.json` and `merges.txt` are expected
//! beside them. Without `--write` it trains them further.
//!
//! With the feature `mpi`, `mpirun -n 4` trains in four processes, to the same weights as in one. It can be stopped at any moment:
//! `--resume` continues from the last checkpoint and ends with the same weights.

mod bpe;
#[path = "../common/mod.rs"]
#[macro_use]
mod common;
mod generate;
mod text;

use bpe::Bpe;
use clap::{Parser, ValueEnum};
use common::ranks::{Copies, Ranks};
use common::training::{Signals, rate};
use common::{fail, or_fail, warn};
use generate::{Sampling, generate};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tapegrad::nn::models::{Gpt, GptConfig};
use tapegrad::nn::optim::{AdamW, Optimizer, clip_factor};
use tapegrad::nn::{Checkpoint, RunFolder, StateDict};
use tapegrad::prelude::*;
use text::{Text, batch, windows};

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Preset {
    /// 4 layers, 128 wide, 64 characters
    Tiny,
    /// 6 layers, 384 wide, 256 characters
    Small,
    /// GPT-2's smallest: 12 layers, 768 wide, 1,024 characters; with --weights that of these
    Gpt2,
}

/// Trains a character-level GPT and writes text with it.
#[derive(Parser)]
struct Args {
    /// A text file; `guide` is this project's guide, `grammar` sentences of a small grammar
    #[arg(long, default_value = "guide")]
    data: String,
    #[arg(long, value_enum, default_value = "tiny")]
    preset: Preset,
    /// Start with the published weights of a GPT-2, and its tokens in the same folder
    #[arg(long)]
    weights: Option<PathBuf>,
    #[arg(long, default_value_t = 1000)]
    steps: u64,
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..))]
    batch_size: u64,
    /// The highest learning rate, after a warm-up of a twentieth of the steps; it falls to a tenth as a cosine
    #[arg(long, default_value_t = 1e-3, value_parser = rate)]
    lr: f64,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads to compute on [default: all cores]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    threads: Option<u64>,
    /// Compute products and attention in BF16, with parameters in F32
    #[arg(long)]
    autocast: bool,
    /// The folder for checkpoint and weights
    #[arg(long, default_value = "runs/gpt")]
    out: PathBuf,
    /// Continue from the newest checkpoint in --out, if there is one
    #[arg(long)]
    resume: bool,
    /// Steps between validations, each with a sample and a checkpoint
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// Do not train: write so many characters, or tokens, with --weights or the weights in --out
    #[arg(long)]
    write: Option<usize>,
    /// What the text to be written begins with
    #[arg(long, default_value = "\n")]
    prompt: String,
    #[command(flatten)]
    sampling: Sampling,
}

fn main() {
    let args = Args::parse();
    let ranks = Ranks::join(args.threads.map(|n| n as usize));
    manual_seed(args.seed);
    let source = match args.data.as_str() {
        "guide" => text::guide(),
        "grammar" => text::grammar(args.seed),
        file => or_fail(std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))),
    };
    let (text, model) = match published(&args) {
        Some((state, config, tokens)) => {
            let model = Gpt::new(config).tie_weights();
            or_fail(model.load_gpt2(&state));
            (Text::new(&source, Some(tokens)), model)
        }
        None => {
            let text = Text::new(&source, None);
            let config = match args.preset {
                Preset::Tiny => GptConfig::tiny,
                Preset::Small => GptConfig::small,
                Preset::Gpt2 => GptConfig::gpt2,
            }(text.vocab());
            (text, Gpt::new(config))
        }
    };
    let (count, unit) = (text.train.len() + text.validation.len(), text.unit());
    if text.validation.len() <= model.block() && args.write.is_none() {
        fail(format!(
            "{}: {count} {unit} leave {} for validation, and the model takes {} at once",
            args.data,
            text.validation.len(),
            model.block()
        ));
    }
    let prompt =
        or_fail(text.encode(&args.prompt).map_err(|c| format!("--prompt: {c:?} does not occur in the text")));
    if prompt.is_empty() {
        fail("--prompt: the text has to begin with a character");
    }
    println!("{count} {unit}, {} different ones; {} parameters", text.vocab(), model.num_parameters());
    let run = ranks.folder(&args.out);
    let mut training = Training::new(&args, &model, &text, &prompt, run, ranks);
    match args.write {
        Some(count) => training.write(count),
        None => training.run(),
    }
}

/// The weights, sizes and tokens of a published GPT-2.
fn published(args: &Args) -> Option<(StateDict, GptConfig, Bpe)> {
    let path = args.weights.as_deref()?;
    if args.preset != Preset::Gpt2 {
        fail("--weights: of a GPT-2; needs --preset gpt2");
    }
    let state = or_fail(StateDict::load(path));
    let Some(config) = GptConfig::of_gpt2(&state) else {
        fail(format!("{}: has not the weights of a GPT-2", path.display()))
    };
    let tokens = or_fail(Bpe::read(path.parent().unwrap_or(Path::new(""))));
    if tokens.len() != config.vocab {
        let (known, path) = (tokens.len(), path.display());
        fail(format!("{path}: weights for {} tokens, and vocab.json has {known}", config.vocab));
    }
    Some((state, config, tokens))
}

/// A training run: what changes from step to step.
struct Training<'a> {
    args: &'a Args,
    model: &'a Gpt,
    text: &'a Text,
    prompt: &'a [i64],
    optimizer: AdamW,
    run: RunFolder,
    ranks: Ranks,
    copies: Copies,
    step: u64,
}

impl<'a> Training<'a> {
    fn new(
        args: &'a Args,
        model: &'a Gpt,
        text: &'a Text,
        prompt: &'a [i64],
        run: RunFolder,
        ranks: Ranks,
    ) -> Training<'a> {
        let optimizer = AdamW::new(model.parameters(), args.lr).betas((0.9, 0.95)).weight_decay(0.1);
        let copies = ranks.copies(model);
        Training { args, model, text, prompt, optimizer, run, ranks, copies, step: 0 }
    }

    /// Everything that the weights at a step depend on.
    fn settings(&self) -> String {
        let Args { preset, steps, batch_size, lr, seed, .. } = self.args;
        let digest = self.text.digest();
        format!("preset {preset:?}, steps {steps}, batch {batch_size}, lr {lr}, seed {seed}, text {digest}")
    }

    fn run(&mut self) {
        if self.args.resume {
            self.restore();
        }
        let signals = Signals::watch();
        let stop = signals.handle();
        let Args { every, steps, .. } = *self.args;
        let (mut clock, mut losses) = (Instant::now(), Vec::new());
        while self.step < steps && !self.ranks.any(stop.is_stopped()) {
            losses.push(self.train());
            let is_first = self.ranks.place().0 == 0;
            if is_first && (self.step.is_multiple_of(every) || self.step == steps) {
                let seconds = clock.elapsed().as_secs_f64() / losses.len() as f64;
                let loss = losses.iter().sum::<f64>() / losses.len() as f64;
                let validation = self.validate();
                println!(
                    "step {}/{steps}: loss {loss:.4} | validation {validation:.4}, perplexity {:.3} | {:.1} ms a step",
                    self.step,
                    validation.exp(),
                    seconds * 1e3
                );
                self.write(120);
                self.save();
                (clock, losses) = (Instant::now(), Vec::new());
            }
        }
        if self.step < steps {
            self.save();
        }
        signals.end_of_training(&self.run);
        or_fail(self.model.state_dict().save(self.run.file("model.safetensors")));
    }

    /// One step; returns the loss.
    fn train(&mut self) -> f64 {
        let Args { batch_size, lr, seed, steps, .. } = *self.args;
        let warm_up = (steps / 20).max(1);
        let part = (self.step.saturating_sub(warm_up)) as f64 / (steps - warm_up).max(1) as f64;
        let falling = 0.1 + 0.9 * 0.5 * (1.0 + (std::f64::consts::PI * part).cos());
        self.optimizer.set_lr(0, lr * falling.min((self.step + 1) as f64 / warm_up as f64));
        let (x, target) = batch(&self.text.train, [batch_size as usize, self.model.block()], seed, self.step);
        self.optimizer.zero_grad();
        let block = self.model.block();
        let loss = self.copies.backward(batch_size as usize, |part| {
            let targets = target.narrow(0, part.start * block, part.len() * block);
            let forward = || self.loss(&x.narrow(0, part.start, part.len()), &targets);
            if self.args.autocast { tape::autocast(DType::BF16, forward) } else { forward() }
        });
        let (_, factor) = clip_factor(&self.optimizer.parameters(), 1.0, 2.0);
        self.optimizer.step_scaled(factor);
        self.step += 1;
        loss
    }

    fn loss(&self, x: &Var, target: &Var) -> Var {
        let hidden = self.model.hidden(x);
        let hidden = hidden.reshape((target.numel(), -1));
        ops::linear_cross_entropy(&hidden, self.model.head(), target, None)
    }

    /// The mean loss of the validation text, in windows beside one another.
    fn validate(&self) -> f64 {
        let (tokens, block) = (&self.text.validation, self.model.block());
        let starts: Vec<usize> = (0..tokens.len() - block).step_by(block).take(64).collect();
        let sum = |starts: &[usize]| {
            let (x, target) = windows(tokens, starts, block);
            no_grad(|| self.loss(&x, &target).item()) * starts.len() as f64
        };
        starts.chunks(8).map(sum).sum::<f64>() / starts.len() as f64
    }

    /// Prints a text that begins with the prompt.
    fn write(&mut self, count: usize) {
        match self.args {
            Args { write: Some(_), weights: None, .. } => self.load_weights(),
            Args { write: Some(_), resume: true, .. } => self.restore(),
            _ => {}
        }
        let mut generator = Generator::stream(self.args.seed, "sample", [self.step, 0]);
        let tokens = generate(self.model, self.prompt, count, self.args.sampling, &mut generator);
        println!("{}", self.text.decode(&tokens));
    }

    fn checkpoint(&self) -> PathBuf {
        self.run.file("last.safetensors")
    }

    fn save(&self) {
        let mut checkpoint = Checkpoint::new();
        checkpoint.put("model", &self.model.state_dict());
        checkpoint.put("optimizer", &self.optimizer.state_dict());
        checkpoint.put_numbers("step", &[self.step as i64]);
        checkpoint.put_note("settings", &self.settings());
        or_fail(checkpoint.save(self.checkpoint()));
    }

    /// Continues where the newest checkpoint was written.
    fn restore(&mut self) {
        let (checkpoint, rejected) = Checkpoint::newest(self.args.out.join("last.safetensors"));
        rejected.iter().for_each(warn);
        let Some(checkpoint) = checkpoint else {
            if !rejected.is_empty() {
                fail("no checkpoint can be read; without --resume the training starts over");
            }
            return;
        };
        let (found, own) = (checkpoint.note("settings").unwrap_or_default(), self.settings());
        if found != own {
            fail(format!("the checkpoint is of another training: {found}; this is {own}"));
        }
        or_fail(self.model.load_state_dict(&checkpoint.part("model")));
        or_fail(self.optimizer.load_state_dict(&checkpoint.part("optimizer")));
        self.step = or_fail(checkpoint.numbers("step")).first().map_or(0, |&step| step as u64);
        println!("continuing after step {}", self.step);
    }

    /// The weights of a finished training.
    fn load_weights(&self) {
        let path = self.run.file("model.safetensors");
        let state = or_fail(StateDict::load(&path));
        or_fail(self.model.load_state_dict(&state).map_err(|e| format!("{}: {e}", path.display())));
    }
}
