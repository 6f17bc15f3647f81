//! The training loop: for those who would rather not write one. A training loop of your own needs nothing from here.

mod average;
mod metric;
mod metrics;
mod predict;
mod replicas;
mod source;
mod tensorboard;
mod trainer;

pub use average::{WeightAverage, update_bn};
pub use metric::{Accuracy, Confusion, MeanAbsoluteError, Metric, Perplexity, TopK};
pub use metrics::{EpochRecord, Score, confusion_matrix, evaluate, measure, predictions, to_csv};
pub use predict::{ensemble, predict, predict_mirrored, predict_shifted, predict_views};
pub use replicas::{ReplicaError, Replicas};
pub use source::Source;
pub use tensorboard::TensorBoard;
pub use trainer::{Best, Nonfinite, OnNonfinite, StepEvent, StopHandle, TrainError, Trainer};
