//! Losses, accuracies, confusion matrices and their history.

use super::metric::Metric;
use crate::module::Forward;
use crate::summary::Modes;
use tapegrad_tape::shape::numel_for;
use tapegrad_tape::{DType, Tensor, Var, no_grad};

/// Loss and accuracy over a number of samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// The sum of the losses, each weighted with its batch.
    pub loss_sum: f64,
    /// The sum of these weights: the number of targets that counted.
    pub weight: f64,
    /// The number of correctly classified samples, if the targets are classes.
    pub correct: u64,
    /// The number of samples.
    pub count: u64,
    /// Whether the targets are classes.
    pub classified: bool,
}

impl Score {
    /// The values that it is saved as.
    pub(super) const NUMBERS: usize = 5;

    /// Adds a batch: its mean loss, output and target.
    pub fn add(&mut self, loss: f64, output: &Var, target: &Var) {
        self.add_weighted(loss, batch_weight(output, target), output, target);
    }

    /// Adds a batch whose loss has a weight; a loss of weight 0 may be anything.
    pub(super) fn add_weighted(&mut self, loss: f64, weight: f64, output: &Var, target: &Var) {
        let classified = correct(output, target);
        // One batch without classes makes the whole score one without classes.
        self.classified = classified.is_some() && (self.classified || self.count == 0);
        self.correct += classified.unwrap_or(0);
        self.count += output.shape().first().copied().unwrap_or(1) as u64;
        if weight > 0.0 {
            self.loss_sum += loss * weight;
            self.weight += weight;
        }
    }

    /// Adds the samples of another score.
    pub fn merge(&mut self, other: &Score) {
        self.classified = match (self.count, other.count) {
            (0, _) => other.classified,
            (_, 0) => self.classified,
            _ => self.classified && other.classified,
        };
        self.loss_sum += other.loss_sum;
        self.weight += other.weight;
        self.correct += other.correct;
        self.count += other.count;
    }

    /// The mean loss.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.weight
    }

    /// The fraction of correct predictions, if the targets are classes and there are any.
    pub fn accuracy(&self) -> Option<f64> {
        (self.classified && self.count > 0).then(|| self.correct as f64 / self.count as f64)
    }

    /// The number of misclassified samples.
    pub fn wrong(&self) -> u64 {
        self.count - self.correct
    }

    pub(super) fn to_numbers(self) -> Vec<f64> {
        let classified = f64::from(u8::from(self.classified));
        vec![self.loss_sum, self.correct as f64, self.count as f64, classified, self.weight]
    }

    pub(super) fn from_numbers(v: &[f64]) -> Option<Score> {
        let (loss_sum, correct, count, classified, weight) = match *v {
            [loss_sum, correct, count, classified] => (loss_sum, correct, count, classified, count),
            [loss_sum, correct, count, classified, weight] => (loss_sum, correct, count, classified, weight),
            _ => return None,
        };
        let (correct, count) = (correct as u64, count as u64);
        Some(Score { loss_sum, weight, correct, count, classified: classified != 0.0 })
    }
}

/// The default weight of a batch: the number of targets, excluding class -100, which cross-entropy ignores.
pub(super) fn batch_weight(_: &Var, target: &Var) -> f64 {
    let ignored = match target.dtype() {
        DType::I64 => target.to_vec::<i64>().iter().filter(|&&class| class == -100).count(),
        _ => 0,
    };
    (target.numel() - ignored) as f64
}

/// The class with the largest value in each row of `[N, classes]`; the first of equal ones.
///
/// ```
/// use tapegrad_tape::Var;
/// assert_eq!(tapegrad_nn::train::predictions(&Var::from_vec(vec![0.1f32, 0.9, 0.8, 0.2], &[2, 2])), [1, 0]);
/// ```
///
/// # Panics
/// If there are not two dimensions.
#[track_caller]
pub fn predictions(output: &Var) -> Vec<i64> {
    assert_eq!(output.ndim(), 2, "predictions: the output is [N, classes], got shape {:?}", output.shape());
    let classes = output.shape()[1].max(1);
    let best = |row: &[f64]| {
        let mut best = 0;
        for (i, x) in row.iter().enumerate() {
            if *x > row[best] {
                best = i;
            }
        }
        best as i64
    };
    output.to_vec::<f64>().chunks(classes).map(best).collect()
}

/// How many rows of `[N, classes]` have their largest value at the target: a class `[N]`, or the largest of
/// probabilities `[N, classes]`. `None` where there are no classes: other shapes, and values that are not
/// probabilities, as in a regression.
fn correct(output: &Var, target: &Var) -> Option<u64> {
    if output.ndim() != 2 {
        return None;
    }
    let wanted = match (target.ndim(), target.dtype()) {
        (1, DType::I64) => target.to_vec::<i64>(),
        (2, t) if t.is_float() && target.shape() == output.shape() && are_probabilities(target) => {
            predictions(target)
        }
        _ => return None,
    };
    Some(predictions(output).iter().zip(&wanted).filter(|(a, b)| a == b).count() as u64)
}

/// Whether the rows of `[N, classes]` are probabilities of at least two classes.
fn are_probabilities(target: &Var) -> bool {
    let classes = target.shape()[1];
    let is_distribution =
        |row: &[f64]| row.iter().all(|p| *p >= 0.0) && (row.iter().sum::<f64>() - 1.0).abs() < 1e-2;
    classes > 1 && target.to_vec::<f64>().chunks(classes).all(is_distribution)
}

/// How often each class (row) was predicted as each class (column): `[classes, classes]`.
///
/// # Panics
/// If a class is not below `classes`, or the lists differ in length.
///
/// ```
/// let t = tapegrad_nn::train::confusion_matrix(&[0, 1, 1], &[0, 0, 1], 2);
/// assert_eq!(t.to_vec::<i64>(), [1, 0, 1, 1]);
/// ```
#[track_caller]
pub fn confusion_matrix(labels: &[i64], predictions: &[i64], classes: usize) -> Tensor {
    assert_eq!(labels.len(), predictions.len(), "confusion_matrix: labels and predictions differ in length");
    numel_for("confusion_matrix", &[classes, classes]);
    let mut table = Tensor::zeros_with(&[classes, classes], DType::I64);
    let counts = table.data_mut::<i64>();
    for (&label, &prediction) in labels.iter().zip(predictions) {
        let inside = |c: i64| (0..classes as i64).contains(&c);
        assert!(
            inside(label) && inside(prediction),
            "confusion_matrix: {label} or {prediction} is not a class"
        );
        counts[label as usize * classes + prediction as usize] += 1;
    }
    table
}

/// Loss and accuracy of a model over batches, in evaluation mode and without recording. The model returns to the
/// mode that it was in.
pub fn evaluate<M: Forward + ?Sized>(
    model: &M,
    batches: impl IntoIterator<Item = (Var, Var)>,
    loss: impl Fn(&Var, &Var) -> Var,
) -> Score {
    evaluate_weighted(model, batches, loss, batch_weight, &mut [])
}

/// The metrics of a model over batches, in evaluation mode and without recording, with their names. The model returns to the
/// mode that it was in.
///
/// ```
/// use tapegrad_nn::{Linear, train::{MeanAbsoluteError, measure}};
/// use tapegrad_tape::{DType, Tensor, Var};
/// let batch = || (Var::from(Tensor::ones_with(&[4, 3], DType::F32)), Var::from(Tensor::ones_with(&[4, 1], DType::F32)));
/// let found = measure(&Linear::new(3, 1), [batch(), batch()], &mut [Box::new(MeanAbsoluteError::default())]);
/// assert_eq!(found[0].0, "mae");
/// ```
pub fn measure<M: Forward + ?Sized>(
    model: &M,
    batches: impl IntoIterator<Item = (Var, Var)>,
    metrics: &mut [Box<dyn Metric + '_>],
) -> Vec<(String, f64)> {
    let no_loss = |_: &Var, _: &Var| Var::from(0.0);
    evaluate_weighted(model, batches, no_loss, batch_weight, metrics);
    values(metrics)
}

/// The names and values of metrics.
pub(super) fn values(metrics: &[Box<dyn Metric + '_>]) -> Vec<(String, f64)> {
    metrics.iter().map(|m| (m.name(), m.value())).collect()
}

pub(super) fn evaluate_weighted<M: Forward + ?Sized>(
    model: &M,
    batches: impl IntoIterator<Item = (Var, Var)>,
    loss: impl Fn(&Var, &Var) -> Var,
    weight: impl Fn(&Var, &Var) -> f64,
    metrics: &mut [Box<dyn Metric + '_>],
) -> Score {
    let modes = Modes::of(model);
    model.eval();
    metrics.iter_mut().for_each(|m| m.reset());
    let mut score = Score::default();
    no_grad(|| {
        for (x, target) in batches {
            let y = model.forward(&x);
            score.add_weighted(loss(&y, &target).item(), weight(&y, &target), &y, &target);
            metrics.iter_mut().for_each(|m| m.update(&y, &target));
        }
    });
    modes.restore(model);
    score
}

/// The metrics of one epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochRecord {
    /// Its number, from 1.
    pub epoch: u64,
    /// The number of steps at its end.
    pub step: u64,
    /// The first group's learning rate in its last step.
    pub lr: f64,
    /// Training loss and accuracy.
    pub train: Score,
    /// Validation loss and accuracy.
    pub validation: Option<Score>,
    /// How long it took, validation included.
    pub seconds: f64,
    /// The metrics of [`Trainer::metric`](super::Trainer::metric) over the validation batches, by their names.
    pub metrics: Vec<(String, f64)>,
}

/// The metrics of all epochs as CSV, with a header line.
pub fn to_csv(history: &[EpochRecord]) -> String {
    let mut out = String::from("epoch,step,lr,train_loss,train_accuracy,val_loss,val_accuracy,seconds");
    // A name with a comma or a quote in it would need quotes.
    let names: Vec<&str> =
        history.iter().flat_map(|r| &r.metrics).map(|(n, _)| n.as_str()).fold(vec![], |mut all, n| {
            if !all.contains(&n) {
                all.push(n);
            }
            all
        });
    names.iter().for_each(|n| out.push_str(&format!(",\"{}\"", n.replace('"', "\"\""))));
    out.push('\n');
    let accuracy = |s: Score| s.accuracy().map_or(String::new(), |a| format!("{a:.6}"));
    for r in history {
        let validation = r.validation.map_or(",".into(), |v| format!("{:.6},{}", v.loss(), accuracy(v)));
        out.push_str(&format!(
            "{},{},{:e},{:.6},{},{validation},{:.3}",
            r.epoch,
            r.step,
            r.lr,
            r.train.loss(),
            accuracy(r.train),
            r.seconds
        ));
        for name in &names {
            let value = r.metrics.iter().find(|(n, _)| n == name);
            out.push_str(&value.map_or(",".into(), |(_, v)| format!(",{v:.6}")));
        }
        out.push('\n');
    }
    out
}
