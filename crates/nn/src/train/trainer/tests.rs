//! The trainer, resumed, stopped and averaged.

mod files;
mod steps;

use super::*;
use crate::StateDict;
use crate::lr_scheduler::{Mode, OneCycleLR, ReduceLROnPlateau, StepLR};
use crate::optim::{Adam, SGD};
use crate::{Dropout, Linear, Module, ReLU, Sequential};
use std::rc::Rc;
use tapegrad_tape::{DType, Generator, Tensor};

const BATCHES: usize = 6;

fn net() -> Sequential {
    tapegrad_tape::manual_seed(1);
    crate::sequential![Linear::new(4, 16), ReLU::new(), Dropout::new(0.2), Linear::new(16, 3)]
}

fn batch(number: usize) -> (Var, Var) {
    let x = Generator::manual_seed(number as u64).normal(&[8, 4], 0.0, 1.0);
    let labels: Vec<i64> = x.to_vec::<f32>().chunks(4).map(|r| i64::from(r[0] > 0.0)).collect();
    (Var::from(x), Var::from_vec(labels, &[8]))
}

/// Batches that depend on the epoch, from a position that can be restored.
fn source() -> Source<'static> {
    let place = Rc::new(Cell::new((0usize, 0usize)));
    let (a, b, c) = (place.clone(), place.clone(), place);
    Source::new(move || {
        let place = a.clone();
        std::iter::from_fn(move || {
            let (epoch, i) = place.get();
            if i == BATCHES {
                place.set((epoch + 1, 0));
                return None;
            }
            place.set((epoch, i + 1));
            Some(batch(epoch * BATCHES + i))
        })
    })
    .resumable(
        move || vec![b.get().0 as i64, b.get().1 as i64],
        move |p| {
            c.set((p[0] as usize, p[1] as usize));
            Ok(())
        },
    )
}

fn trainer<'a>(model: &'a Sequential) -> Trainer<'a> {
    Trainer::new(model, Adam::new(model.parameters(), 0.01))
        .epochs(4)
        .schedule_steps(OneCycleLR::new(0.02, 4 * BATCHES as u64))
        .clip_grad_norm(1.0)
        .ema(0.9)
        .lookahead(5, |step| 0.5 + step as f64 * 1e-3)
}

fn weights(model: &Sequential) -> Vec<u32> {
    model.parameters().iter().flat_map(|p| p.to_vec::<f32>()).map(f32::to_bits).collect()
}

#[test]
fn resumed_training_ends_with_the_same_bits() {
    let model = net();
    let history = trainer(&model).fit(source(), None).unwrap();
    let expected = weights(&model);
    for stop_at in [2, 5, 6, 7, 13, 23] {
        let dir = tempfile::tempdir().unwrap();
        let model = net();
        let mut first = trainer(&model).folder(dir.path()).checkpoint_every(1).on_step(|e| {
            if e.step == stop_at {
                panic!("killed");
            }
        });
        let run = std::panic::AssertUnwindSafe(|| first.fit(source(), None));
        assert!(std::panic::catch_unwind(run).is_err());
        let model = net();
        tapegrad_tape::manual_seed(99);
        let resumed =
            trainer(&model).folder(dir.path()).checkpoint_every(1).resume(true).fit(source(), None).unwrap();
        assert_eq!(weights(&model), expected, "stopped at step {stop_at}");
        let losses = |h: &[EpochRecord]| h.iter().map(|r| r.train.loss()).collect::<Vec<f64>>();
        assert_eq!(losses(&resumed), losses(&history));
        let csv = std::fs::read_to_string(dir.path().join("metrics.csv")).unwrap();
        assert_eq!(csv.lines().count(), 5);
    }
}

#[test]
fn accumulated_gradients_are_those_of_the_whole_batch() {
    let (x, t) = batch(0);
    let run = |accumulate: usize| {
        tapegrad_tape::manual_seed(1);
        let model = Linear::new(4, 3);
        model.to_dtype(DType::F64);
        let size = 8 / accumulate;
        let x = x.cast(DType::F64);
        let parts = || (0..accumulate).map(|i| (x.narrow(0, i * size, size), t.narrow(0, i * size, size)));
        let mut trainer = Trainer::new(&model, SGD::new(model.parameters(), 0.1)).accumulate(accumulate);
        trainer.fit(Source::new(parts), None).unwrap();
        model.weight.to_vec::<f64>()
    };
    for (a, b) in run(1).iter().zip(run(4)) {
        assert!((a - b).abs() < 1e-12);
    }
    // A last step with fewer batches uses their own mean.
    let three = {
        tapegrad_tape::manual_seed(1);
        let model = Linear::new(4, 3);
        let parts = || std::iter::once(batch(0));
        let mut trainer = Trainer::new(&model, SGD::new(model.parameters(), 0.1)).accumulate(3);
        trainer.fit(Source::new(parts), None).unwrap();
        model.weight.to_vec::<f32>()
    };
    assert!(run(1).iter().zip(three).all(|(a, b)| (a - f64::from(b)).abs() < 1e-6));
}

#[test]
fn it_stops_early_and_by_steps_and_keeps_the_best() {
    let model = net();
    let dir = tempfile::tempdir().unwrap();
    let mut count = 0;
    let history = Trainer::new(&model, SGD::new(model.parameters(), 0.0))
        .epochs(50)
        .early_stopping(2)
        .best_by(Best::Loss)
        .schedule_epochs(StepLR::new(1).gamma(0.5))
        .schedule_plateau(ReduceLROnPlateau::new(Mode::Min), Best::Loss)
        .folder(dir.path())
        .tensorboard(dir.path().join("events"))
        .on_epoch(|_| count += 1)
        .fit(source(), Some(Source::new(|| std::iter::once(batch(7)))))
        .unwrap();
    assert_eq!(history.len(), 3);
    assert_eq!(std::fs::read_dir(dir.path().join("events")).unwrap().count(), 1);
    assert!(history[2].validation.unwrap().accuracy().is_some());
    model.load_state_dict(&StateDict::load(dir.path().join("best.safetensors")).unwrap()).unwrap();
    drop(model);
    assert_eq!(count, 3);

    let model = net();
    let history =
        Trainer::new(&model, SGD::new(model.parameters(), 0.1)).steps(8).fit(source(), None).unwrap();
    assert_eq!((history.len(), history[1].step, history[1].train.count), (2, 8, 16));
}

#[test]
fn a_checkpoint_of_another_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = net();
    trainer(&model).folder(dir.path()).fit(source(), None).unwrap();
    let other = crate::sequential![Linear::new(4, 3)];
    let error = Trainer::new(&other, Adam::new(other.parameters(), 0.01))
        .folder(dir.path())
        .resume(true)
        .fit(source(), None)
        .unwrap_err();
    assert!(matches!(error, TrainError::Model(_)), "{error}");
}

#[cfg(feature = "plots")]
#[test]
fn curves_are_drawn_after_each_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("curves.png");
    let drawn = std::cell::Cell::new(0);
    let model = net();
    // The callback runs first: it sees the plot of the previous epoch.
    let mut trainer = trainer(&model).folder(dir.path()).curves().on_epoch(|history| {
        assert_eq!(file.exists(), history.len() > 1);
        drawn.set(history.len());
    });
    trainer.fit(source(), Some(source())).unwrap();
    assert!(drawn.get() > 1 && std::fs::read(&file).unwrap().starts_with(b"\x89PNG"));
}
