//! Progress of a training run: a bar for each epoch, and a line at its end.

use super::progress;
use indicatif::ProgressBar;
use std::cell::RefCell;
use tapegrad::nn::train::{EpochRecord, Score, StepEvent};

pub(crate) struct Bars {
    bar: RefCell<Option<ProgressBar>>,
    images: usize,
    epochs: u64,
}

impl Bars {
    pub(crate) fn new(images: usize, epochs: u64) -> Bars {
        Bars { bar: RefCell::default(), images, epochs }
    }

    pub(crate) fn step(&self, event: &StepEvent) {
        let mut bar = self.bar.borrow_mut();
        let label = || progress(self.images, format!("epoch {}/{}", event.epoch, self.epochs));
        let bar = bar.get_or_insert_with(label);
        bar.set_position(event.score.count);
        bar.set_message(describe(event.score));
    }

    /// The line; `held_out` says what the second score is of.
    pub(crate) fn epoch(&self, history: &[EpochRecord], held_out: &str) {
        self.close();
        let last = history.last().expect("an epoch has ended");
        println!(
            "epoch {}/{}: {} | {held_out} {} | lr {:.2e} | {:.1} s, {:.0} images/s",
            last.epoch,
            self.epochs,
            describe(&last.train),
            last.validation.as_ref().map(describe).unwrap_or_default(),
            last.lr,
            last.seconds,
            last.train.count as f64 / last.seconds
        );
    }

    pub(crate) fn close(&self) {
        drop(self.bar.take().inspect(ProgressBar::finish_and_clear));
    }
}

fn describe(score: &Score) -> String {
    format!("loss {:.4} accuracy {:.4}", score.loss(), score.accuracy().unwrap_or(f64::NAN))
}
