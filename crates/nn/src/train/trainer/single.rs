//! A batch of one sample, reported before the first step.

use super::TrainError;
use crate::module::Forward;
use crate::norm::{BatchNorm1d, BatchNorm2d, BatchNorm3d};
use crate::summary::{Modes, with_forward_hook};
use crate::train::source::Source;
use std::cell::RefCell;
use std::rc::Rc;
use tapegrad_tape::{Var, no_grad};

/// Refuses a source with a batch of one sample where that leaves a batch normalization one value per channel: images
/// have more, rows of features do not. One sample goes through the model in evaluation mode, which shows the shapes.
pub(super) fn check(model: &dyn Forward, source: &Source<'_>, x: &Var) -> Result<(), TrainError> {
    if source.smallest() != Some(1) || x.ndim() == 0 || x.shape()[0] == 0 {
        return Ok(());
    }
    let alone: Rc<RefCell<Option<String>>> = Rc::default();
    let found = alone.clone();
    let hook = move |m: &dyn crate::fields::Module, input: &Var, _: &Var| {
        let channels = input.shape().get(1).copied().unwrap_or(0);
        let is_norm = m.is::<BatchNorm1d>() || m.is::<BatchNorm2d>() || m.is::<BatchNorm3d>();
        if is_norm && channels > 0 && input.numel() == channels {
            let text = format!("{} gets {:?} of it, one value per channel", m.class(), input.shape());
            found.borrow_mut().get_or_insert(text);
        }
    };
    let modes = Modes::of(model);
    model.eval();
    with_forward_hook(hook, || no_grad(|| drop(model.forward(&x.narrow(0, 0, 1)))));
    modes.restore(model);
    match alone.take() {
        Some(text) => Err(TrainError::SingleSample(text)),
        None => Ok(()),
    }
}
