//! Shared by the programs with long training runs: signals, checkpoints and settings.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tapegrad::datasets::ImageDataset;
use tapegrad::nn::RunFolder;
use tapegrad::nn::train::{StopHandle, Trainer};

/// The flags of a training run that can be stopped and resumed.
#[derive(clap::Args)]
pub(crate) struct Resumption {
    /// Resume from the newest checkpoint in --out; start over if there is none, and fail if none can be read
    #[arg(long)]
    pub resume: bool,
    /// Start over in any case: a checkpoint that cannot be read, or of an unfinished training run, is kept under
    /// another name
    #[arg(long)]
    pub restart: bool,
    /// Write a checkpoint after every so many steps, in addition to those after each epoch and every five minutes
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub checkpoint_every: Option<u64>,
}

impl Resumption {
    /// The trainer with its files in this folder, which stops on signals.
    pub(crate) fn trainer<'a>(
        &self,
        trainer: Trainer<'a>,
        run: &RunFolder,
        signals: &Signals,
    ) -> Trainer<'a> {
        let trainer = trainer.run_folder(run).stop_on(&signals.handle()).resume(self.resume && !self.restart);
        match self.checkpoint_every {
            Some(steps) => trainer.checkpoint_every(steps),
            None => trainer,
        }
    }
}

/// A learning rate: finite and at least 0.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|x: &f64| x.is_finite() && *x >= 0.0);
    rate.ok_or_else(|| "must be finite and at least 0".into())
}

/// A digest of the images and labels, to detect other data (FNV-1a).
pub(crate) fn digest(data: &ImageDataset) -> String {
    let labels = data.labels().iter().flat_map(|label| label.to_le_bytes());
    let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = labels.chain(data.pixels().iter().copied()).fold(0xcbf2_9ce4_8422_2325, add);
    format!("{} images with digest {hash:016x}", data.labels().len())
}

/// SIGINT, SIGTERM and SIGHUP: the first lets the training finish its step and write its checkpoint, the second ends the
/// program at once.
pub(crate) struct Signals {
    stopped: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl Signals {
    /// Watches for signals from now on. One that the program was started to ignore (`nohup`) stays ignored.
    pub(crate) fn watch() -> Signals {
        let signals = Signals { stopped: Arc::default(), signal: Arc::default() };
        for (signal, _) in NAMES {
            if is_ignored(signal) {
                continue;
            }
            // In this order: the first signal finds the flag unset, and sets it.
            let registered =
                flag::register_conditional_shutdown(signal, 128 + signal, signals.stopped.clone())
                    .and_then(|_| flag::register_usize(signal, signals.signal.clone(), signal as usize))
                    .and_then(|_| flag::register(signal, signals.stopped.clone()));
            if let Err(e) = registered {
                super::warn(format!("signal {signal} will end the program without a checkpoint: {e}"));
            }
        }
        signals
    }

    /// The handle for a trainer.
    pub(crate) fn handle(&self) -> StopHandle {
        StopHandle::from(self.stopped.clone())
    }

    /// After training: ends the program with the signal's exit code if one was received, saying how to resume. From
    /// here on a signal ends the program at once.
    pub(crate) fn end_of_training(&self, run: &RunFolder) {
        if !self.stopped.swap(true, Ordering::SeqCst) {
            return;
        }
        let signal = self.signal.load(Ordering::SeqCst) as i32;
        let name = NAMES.iter().find(|(number, _)| *number == signal).map_or("a signal", |(_, name)| name);
        let checkpoint = run.file("last.safetensors");
        match checkpoint.exists() {
            true => eprintln!(
                "stopped by {name}: the checkpoint is {}; the same command with --resume continues from it",
                checkpoint.display()
            ),
            false => eprintln!("stopped by {name} before the first step: there is no checkpoint"),
        }
        std::process::exit(128 + signal);
    }
}

#[cfg(unix)]
const NAMES: [(i32, &str); 3] =
    [(SIGINT, "SIGINT"), (SIGTERM, "SIGTERM"), (signal_hook::consts::SIGHUP, "SIGHUP")];
#[cfg(not(unix))]
const NAMES: [(i32, &str); 2] = [(SIGINT, "SIGINT"), (SIGTERM, "SIGTERM")];

/// Whether the process was started with a signal ignored, where the system reports it.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (mask >> (signal - 1)) & 1 == 1
}
