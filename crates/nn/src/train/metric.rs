//! Metrics of a model's outputs: the [`Metric`] trait, and those that ship.

use super::metrics::predictions;
use tapegrad_tape::{DType, Tensor, Var};

/// A number that is computed from outputs and targets over many batches. A [`Trainer`](super::Trainer) takes any.
///
/// ```
/// use tapegrad_nn::train::Metric;
/// use tapegrad_tape::Var;
///
/// /// The largest error.
/// #[derive(Default)]
/// struct Worst(f64);
///
/// impl Metric for Worst {
///     fn name(&self) -> String {
///         "worst".into()
///     }
///     fn update(&mut self, output: &Var, target: &Var) {
///         self.0 = (output - target).abs().to_vec::<f64>().into_iter().fold(self.0, f64::max);
///     }
///     fn value(&self) -> f64 {
///         self.0
///     }
///     fn reset(&mut self) {
///         self.0 = 0.0;
///     }
/// }
///
/// let mut worst = Worst::default();
/// worst.update(&Var::from_vec(vec![1f32, 2.0], &[2]), &Var::from_vec(vec![1f32, 5.0], &[2]));
/// assert_eq!(worst.value(), 3.0);
/// ```
pub trait Metric {
    /// Its name, in records and files.
    fn name(&self) -> String;

    /// Adds a batch.
    fn update(&mut self, output: &Var, target: &Var);

    /// The value over all batches since the last reset; NaN if there was none.
    fn value(&self) -> f64;

    /// Starts over.
    fn reset(&mut self);

    /// The sums from which the value is computed, as many for every data set: those of several processes are added up.
    /// `None`, the default, for a metric of one process.
    fn sums(&self) -> Option<Vec<f64>> {
        None
    }

    /// Replaces the sums by those of all processes.
    fn set_sums(&mut self, sums: &[f64]) {
        let _ = sums;
    }
}

/// The classes `[N]` of a target, or the largest of probabilities `[N, classes]`.
#[track_caller]
fn classes(name: &str, output: &Var, target: &Var) -> Vec<i64> {
    assert!(
        output.ndim() == 2 && target.ndim() > 0 && target.shape()[0] == output.shape()[0],
        "{name}: the output is [N, classes] and the target [N] or [N, classes], got shapes {:?} and {:?}",
        output.shape(),
        target.shape()
    );
    match target.ndim() {
        1 if !target.dtype().is_float() => target.to_vec::<i64>(),
        2 if target.shape() == output.shape() => predictions(target),
        _ => panic!(
            "{name}: the target is [N] of integers or [N, classes], got {} of shape {:?}",
            target.dtype(),
            target.shape()
        ),
    }
}

/// The fraction of rows whose target is among the `k` largest values.
///
/// ```
/// use tapegrad_nn::train::{Metric, TopK};
/// use tapegrad_tape::Var;
/// let output = Var::from_vec(vec![0.1f32, 0.5, 0.4, 0.7, 0.1, 0.2], &[2, 3]);
/// let mut two = TopK::new(2);
/// two.update(&output, &Var::from_vec(vec![2i64, 1], &[2]));
/// assert_eq!((two.name().as_str(), two.value()), ("top-2", 0.5));
/// ```
#[derive(Clone, Debug)]
pub struct TopK {
    k: usize,
    correct: u64,
    count: u64,
}

impl TopK {
    /// Among the `k` largest.
    ///
    /// # Panics
    /// If `k` is zero.
    #[track_caller]
    pub fn new(k: usize) -> TopK {
        assert!(k > 0, "TopK: k must be at least 1");
        TopK { k, correct: 0, count: 0 }
    }
}

impl Metric for TopK {
    fn name(&self) -> String {
        format!("top-{}", self.k)
    }
    #[track_caller]
    fn update(&mut self, output: &Var, target: &Var) {
        let wanted = classes("TopK", output, target);
        let width = output.shape()[1].max(1);
        for (row, class) in output.to_vec::<f64>().chunks(width).zip(wanted) {
            let Some(&own) = usize::try_from(class).ok().and_then(|c| row.get(c)) else { continue };
            // Of equal values the first ones count, as in `predictions`.
            let better =
                row.iter().enumerate().filter(|&(i, &v)| v > own || (v == own && (i as i64) < class));
            self.correct += u64::from(!own.is_nan() && better.count() < self.k);
            self.count += 1;
        }
    }
    fn value(&self) -> f64 {
        self.correct as f64 / self.count as f64
    }
    fn reset(&mut self) {
        (self.correct, self.count) = (0, 0);
    }
    fn sums(&self) -> Option<Vec<f64>> {
        Some(vec![self.correct as f64, self.count as f64])
    }
    fn set_sums(&mut self, sums: &[f64]) {
        (self.correct, self.count) = (sums[0] as u64, sums[1] as u64);
    }
}

/// The fraction of rows whose target is the largest value.
#[derive(Clone, Debug)]
pub struct Accuracy(TopK);

impl Accuracy {
    /// Of no sample yet.
    pub fn new() -> Accuracy {
        Accuracy(TopK::new(1))
    }
}

impl Default for Accuracy {
    fn default() -> Accuracy {
        Accuracy::new()
    }
}

impl Metric for Accuracy {
    fn name(&self) -> String {
        "accuracy".into()
    }
    #[track_caller]
    fn update(&mut self, output: &Var, target: &Var) {
        self.0.update(output, target);
    }
    fn value(&self) -> f64 {
        self.0.value()
    }
    fn reset(&mut self) {
        self.0.reset();
    }
    fn sums(&self) -> Option<Vec<f64>> {
        self.0.sums()
    }
    fn set_sums(&mut self, sums: &[f64]) {
        self.0.set_sums(sums);
    }
}

/// How often each class (row) was predicted as each class (column). Its value is the mean over the classes of the fraction
/// of their samples that were recognized (the balanced accuracy); [`Confusion::matrix`] is the whole table.
#[derive(Clone, Debug)]
pub struct Confusion {
    classes: usize,
    counts: Vec<i64>,
}

impl Confusion {
    /// Among this many classes.
    #[track_caller]
    pub fn new(classes: usize) -> Confusion {
        let n = tapegrad_tape::shape::numel_for("Confusion", &[classes, classes]);
        Confusion { classes, counts: vec![0; n] }
    }

    /// The table `[classes, classes]`.
    pub fn matrix(&self) -> Tensor {
        Tensor::from_vec(self.counts.clone(), &[self.classes, self.classes])
    }
}

impl Metric for Confusion {
    fn name(&self) -> String {
        "balanced_accuracy".into()
    }
    /// # Panics
    /// If a class is not below their number.
    #[track_caller]
    fn update(&mut self, output: &Var, target: &Var) {
        let n = self.classes;
        for (label, prediction) in classes("Confusion", output, target).into_iter().zip(predictions(output)) {
            let inside = |c: i64| (0..n as i64).contains(&c);
            assert!(
                inside(label) && inside(prediction),
                "Confusion: {label} or {prediction} is not one of {n} classes"
            );
            self.counts[label as usize * n + prediction as usize] += 1;
        }
    }
    fn value(&self) -> f64 {
        let rows = self.counts.chunks(self.classes.max(1)).enumerate();
        let recalls = rows.filter_map(|(i, row)| {
            let all: i64 = row.iter().sum();
            (all > 0).then(|| row[i] as f64 / all as f64)
        });
        let (sum, n) = recalls.fold((0.0, 0), |(sum, n), r| (sum + r, n + 1));
        sum / f64::from(n)
    }
    fn reset(&mut self) {
        self.counts.fill(0);
    }
    fn sums(&self) -> Option<Vec<f64>> {
        Some(self.counts.iter().map(|&n| n as f64).collect())
    }
    fn set_sums(&mut self, sums: &[f64]) {
        self.counts = sums.iter().map(|&n| n as i64).collect();
    }
}

/// The mean of the absolute differences of all elements.
///
/// ```
/// use tapegrad_nn::train::{MeanAbsoluteError, Metric};
/// use tapegrad_tape::Var;
/// let mut mae = MeanAbsoluteError::default();
/// mae.update(&Var::from_vec(vec![1f32, 2.0], &[2]), &Var::from_vec(vec![0f32, 5.0], &[2]));
/// assert_eq!(mae.value(), 2.0);
/// ```
#[derive(Clone, Debug, Default)]
pub struct MeanAbsoluteError {
    sum: f64,
    count: u64,
}

impl Metric for MeanAbsoluteError {
    fn name(&self) -> String {
        "mae".into()
    }
    /// # Panics
    /// If output and target differ in shape.
    #[track_caller]
    fn update(&mut self, output: &Var, target: &Var) {
        assert!(
            output.shape() == target.shape(),
            "MeanAbsoluteError: the output has shape {:?}, the target {:?}",
            output.shape(),
            target.shape()
        );
        let pairs = output.to_vec::<f64>().into_iter().zip(target.to_vec::<f64>());
        self.sum += pairs.map(|(y, t)| (y - t).abs()).sum::<f64>();
        self.count += output.numel() as u64;
    }
    fn value(&self) -> f64 {
        self.sum / self.count as f64
    }
    fn reset(&mut self) {
        *self = MeanAbsoluteError::default();
    }
    fn sums(&self) -> Option<Vec<f64>> {
        Some(vec![self.sum, self.count as f64])
    }
    fn set_sums(&mut self, sums: &[f64]) {
        *self = MeanAbsoluteError { sum: sums[0], count: sums[1] as u64 };
    }
}

/// The exponential of the mean cross-entropy of logits `[N, classes]`, or `[N, classes, ...]`, and classes; -100 is ignored.
///
/// ```
/// use tapegrad_nn::train::{Metric, Perplexity};
/// use tapegrad_tape::{DType, Tensor, Var};
/// let mut perplexity = Perplexity::default();
/// let uniform = Var::from(Tensor::zeros_with(&[3, 8], DType::F32));
/// perplexity.update(&uniform, &Var::from_vec(vec![0i64, 5, -100], &[3]));
/// assert!((perplexity.value() - 8.0).abs() < 1e-5);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Perplexity {
    sum: f64,
    count: u64,
}

impl Metric for Perplexity {
    fn name(&self) -> String {
        "perplexity".into()
    }
    #[track_caller]
    fn update(&mut self, output: &Var, target: &Var) {
        let counted = target.cast(DType::I64).to_vec::<i64>().iter().filter(|&&c| c != -100).count();
        if counted == 0 {
            return;
        }
        let loss = tapegrad_ops::cross_entropy(&output.detach(), target);
        self.sum += loss.item() * counted as f64;
        self.count += counted as u64;
    }
    fn value(&self) -> f64 {
        (self.sum / self.count as f64).exp()
    }
    fn reset(&mut self) {
        *self = Perplexity::default();
    }
    fn sums(&self) -> Option<Vec<f64>> {
        Some(vec![self.sum, self.count as f64])
    }
    fn set_sums(&mut self, sums: &[f64]) {
        *self = Perplexity { sum: sums[0], count: sums[1] as u64 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_and_classes_that_do_not_count() {
        let output = Var::from_vec(vec![0.5f32, 0.5, 0.0, 0.0, f32::NAN, 0.0], &[3, 2]);
        let target = Var::from_vec(vec![1i64, 0, 0], &[3]);
        let mut accuracy = Accuracy::new();
        assert!(accuracy.value().is_nan());
        accuracy.update(&output, &target);
        assert_eq!(accuracy.value(), 1.0 / 3.0);
        accuracy.reset();
        // Ignored classes do not count.
        accuracy.update(&output, &Var::from_vec(vec![0i64, -100, -100], &[3]));
        assert_eq!(accuracy.value(), 1.0);
        let mut soft = Accuracy::new();
        soft.update(&output, &Var::from_vec(vec![0.9f32, 0.1, 0.2, 0.8, 1.0, 0.0], &[3, 2]));
        assert_eq!(soft.value(), 1.0 / 3.0);
    }

    #[test]
    fn classes_weigh_alike() {
        let mut confusion = Confusion::new(3);
        let rows = [[1f32, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]].concat();
        confusion.update(&Var::from_vec(rows, &[4, 3]), &Var::from_vec(vec![0i64, 0, 1, 1], &[4]));
        assert_eq!(confusion.matrix().to_vec::<i64>(), [2, 0, 0, 1, 1, 0, 0, 0, 0]);
        assert_eq!(confusion.value(), 0.75);
    }
}
