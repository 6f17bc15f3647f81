//! Predictions of ensembles, and test-time augmentation.

use crate::module::Forward;
use crate::summary::Modes;
use tapegrad_tape::{PadMode, Var, no_grad};

/// The output in evaluation mode, without recording. The model returns to the mode that it was in.
pub fn predict<M: Forward + ?Sized>(model: &M, x: &Var) -> Var {
    let modes = Modes::of(model);
    model.eval();
    let y = no_grad(|| model.forward(x));
    modes.restore(model);
    y
}

/// The mean of several models' class probabilities, `[N, classes]`.
///
/// # Panics
/// If there is no model, or their outputs differ in shape.
///
/// ```
/// use tapegrad_nn::{Linear, train::ensemble};
/// use tapegrad_tape::{DType, Tensor, Var};
/// let (a, b) = (Linear::new(4, 3), Linear::new(4, 3));
/// let p = ensemble(&[&a, &b], &Var::from(Tensor::ones_with(&[2, 4], DType::F32)));
/// assert!((p.sum_all().item() - 2.0).abs() < 1e-6);
/// ```
#[track_caller]
pub fn ensemble(models: &[&dyn Forward], x: &Var) -> Var {
    let probabilities = |m: &&dyn Forward| tapegrad_ops::softmax(&predict(*m, x), -1);
    mean(models.iter().map(probabilities).collect())
}

/// The mean output over augmented copies of the input, such as an image and its mirror image (test-time augmentation).
///
/// # Panics
/// If there is no copy.
#[track_caller]
pub fn predict_views<M: Forward + ?Sized>(model: &M, views: &[Var]) -> Var {
    mean(views.iter().map(|x| predict(model, x)).collect())
}

#[track_caller]
fn mean(outputs: Vec<Var>) -> Var {
    let n = outputs.len();
    let sum = outputs.into_iter().reduce(|a, b| a + b).expect("at least one model or view");
    sum * (1.0 / n as f64)
}

/// The output for images `[N, C, H, W]`, averaged with the output for their mirror images.
pub fn predict_mirrored<M: Forward + ?Sized>(model: &M, x: &Var) -> Var {
    predict_views(model, &[x.clone(), x.flip(&[-1])])
}

/// As [`predict_mirrored`], with half of the weight on the images translated by one pixel up and to the left, and down
/// and to the right, with reflected borders.
pub fn predict_shifted<M: Forward + ?Sized>(model: &M, x: &Var) -> Var {
    let padded = x.pad_with(&[1, 1, 1, 1], PadMode::Reflect);
    let (height, width) = (x.size(-2), x.size(-1));
    let moved = |by: usize| padded.narrow(-2, by, height).narrow(-1, by, width);
    let shifted = predict_mirrored(model, &moved(0)) + predict_mirrored(model, &moved(2));
    predict_mirrored(model, x) * 0.5 + shifted * 0.25
}
