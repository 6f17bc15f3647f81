//! Shared by the programs that train networks on images.

use super::course::Common;
use super::or_fail;
use std::sync::Arc;
use tapegrad::datasets::{Cifar, Dataset, ImageDataset, ImageLoader, Images, Subset, random_split_with};
use tapegrad::nn::plots::Series;
use tapegrad::nn::train::{EpochRecord, predict, predictions};
use tapegrad::prelude::*;

/// Color images from `--data`, or synthetic shapes; at most this many.
pub(crate) fn cifar(common: &Common, train: usize, test: usize) -> Cifar {
    match common.data.as_str() {
        "synthetic" => Cifar::synthetic(train, test, common.seed),
        dir => {
            let all = or_fail(Cifar::open(dir));
            Cifar { train: all.train.take(train), test: all.test.take(test), ..all }
        }
    }
}

/// Both sets, normalized by the mean and standard deviation of the first.
pub(crate) fn normalized(train: ImageDataset, test: ImageDataset) -> (ImageDataset, ImageDataset) {
    let statistics = train.statistics();
    (train.with_normalization(statistics.clone()), test.with_normalization(statistics))
}

/// Holds out a random tenth; returns the rest and the tenth.
pub(crate) fn hold_out_tenth(data: &ImageDataset, seed: u64) -> [Subset; 2] {
    let tenth = data.len() / 10;
    random_split_with(Arc::new(data.clone()), [data.len() - tenth, tenth], seed)
}

/// The predicted class of each image.
pub(crate) fn classes_of(model: &dyn Forward, data: impl Images + 'static) -> Vec<i64> {
    let loader = ImageLoader::new(data).batch_size(500);
    loader.iter().flat_map(|b| predictions(&predict(model, &Var::from(b.images)))).collect()
}

/// The fraction of images whose class is predicted.
pub(crate) fn accuracy(model: &dyn Forward, data: impl Images + 'static) -> f64 {
    let loader = ImageLoader::new(data).batch_size(500);
    let batches = loader.iter().map(|b| (Var::from(b.images), Var::from(b.labels)));
    let score = nn::train::evaluate(model, batches, |y, t| ops::cross_entropy(y, t));
    score.accuracy().unwrap_or(0.0)
}

/// A value of each epoch as a curve.
pub(crate) fn by_epoch(
    name: impl Into<String>,
    history: &[EpochRecord],
    value: impl Fn(&EpochRecord) -> f64,
) -> Series {
    Series::new(name, history.iter().map(|r| (r.epoch as f64, value(r))))
}

/// The accuracy in training, in percent.
pub(crate) fn training(record: &EpochRecord) -> f64 {
    100.0 * record.train.accuracy().unwrap_or(0.0)
}

/// The accuracy in validation, in percent.
pub(crate) fn validation(record: &EpochRecord) -> f64 {
    100.0 * record.validation.and_then(|v| v.accuracy()).unwrap_or(0.0)
}

/// The last epoch in a line.
pub(crate) fn line(history: &[EpochRecord]) -> String {
    let last = history.last().expect("an epoch has ended");
    format!(
        "epoch {:>2}: loss {:.4}  training {:.2}%  validation {:.2}%  {:.1} s",
        last.epoch,
        last.train.loss(),
        training(last),
        validation(last),
        last.seconds
    )
}
