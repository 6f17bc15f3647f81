//! Single steps: stopped, not finite, accumulated; and what counts as better.

use super::*;
use crate::BatchNorm1d;

#[test]
fn stopped_by_its_handle_it_resumes_to_the_same_bits() {
    let model = net();
    trainer(&model).fit(source(), None).unwrap();
    let expected = weights(&model);
    for at in [1, 5, 6, 7, 12, 24] {
        let dir = tempfile::tempdir().unwrap();
        let model = net();
        let stop = StopHandle::new();
        let mut first = trainer(&model).folder(dir.path()).stop_on(&stop).on_step(|e| {
            assert!(e.step <= at, "it continues after it was stopped");
            if e.step == at {
                stop.stop();
            }
        });
        first.fit(source(), None).unwrap();
        let model = net();
        tapegrad_tape::manual_seed(99);
        let mut second = trainer(&model).folder(dir.path()).resume(true).on_warning(|w| panic!("{w}"));
        second.fit(source(), None).unwrap();
        drop(second);
        assert_eq!(weights(&model), expected, "stopped at step {at}");
    }
    // Stopped before the start, it makes no step.
    let stop = StopHandle::new();
    stop.stop();
    assert!(
        trainer(&net()).stop_on(&stop).on_step(|_| panic!("a step")).fit(source(), None).unwrap().is_empty()
    );
}

#[test]
fn checkpoints_come_by_time() {
    let model = net();
    trainer(&model).fit(source(), None).unwrap();
    let expected = weights(&model);
    for (interval, resumed_at) in
        [(std::time::Duration::ZERO, Some(4)), (std::time::Duration::from_secs(300), Some(1))]
    {
        let dir = tempfile::tempdir().unwrap();
        let model = net();
        let mut first = trainer(&model).folder(dir.path()).checkpoint_interval(interval).on_step(|e| {
            if e.step == 4 {
                panic!("killed");
            }
        });
        let run = std::panic::AssertUnwindSafe(|| first.fit(source(), None));
        assert!(std::panic::catch_unwind(run).is_err());
        let model = net();
        let mut began = None;
        let mut second =
            trainer(&model).folder(dir.path()).resume(true).on_step(|e| _ = began.get_or_insert(e.step));
        second.fit(source(), None).unwrap();
        drop(second);
        assert_eq!((weights(&model), began), (expected.clone(), resumed_at), "{interval:?}");
    }
}

/// Batches of eight; the third has three samples and is recognized by its size.
fn odd_source(last: usize) -> Source<'static> {
    Source::new(move || {
        (0..last).map(|i| {
            let (x, t) = batch(i);
            if i == 2 || i == 3 { (x.narrow(0, 0, 3), t.narrow(0, 0, 3)) } else { (x, t) }
        })
    })
}

fn normed() -> Sequential {
    tapegrad_tape::manual_seed(1);
    crate::sequential![Linear::new(4, 8), BatchNorm1d::new(8), Dropout::new(0.2), Linear::new(8, 3)]
}

fn state(model: &Sequential) -> Vec<Vec<u64>> {
    model
        .state_dict()
        .iter()
        .map(|(_, t)| t.to_vec::<f64>().into_iter().map(f64::to_bits).collect())
        .collect()
}

/// A loss that makes batches of three samples non-finite by a function of zero.
fn spoiled(by: fn(Var) -> Var) -> impl Fn(&Var, &Var) -> Var {
    move |y, t| match t.numel() {
        3 => by(y.sum_all() * 0.0),
        _ => tapegrad_ops::cross_entropy(y, t),
    }
}

#[test]
fn what_is_not_finite_stops_before_weights_and_checkpoints_are_touched() {
    let cases: [(fn(Var) -> Var, &str, &str); 3] = [
        (|zero| (zero - 1.0).log(), "loss", "log: made the first NaN, called at "),
        (|zero| zero.abs().log(), "loss", "log: made the first infinity, called at "),
        (|zero| zero.sqrt(), "gradient norm", "backward: `sqrt`, recorded at "),
    ];
    let good = normed();
    Trainer::new(&good, Adam::new(good.parameters(), 0.01)).fit(odd_source(2), None).unwrap();
    for (by, what, origin) in cases {
        let dir = tempfile::tempdir().unwrap();
        let model = normed();
        let error = Trainer::new(&model, Adam::new(model.parameters(), 0.01))
            .loss(spoiled(by))
            .folder(dir.path())
            .fit(odd_source(6), None)
            .unwrap_err();
        let TrainError::Nonfinite(found) = &error else { panic!("{error}") };
        assert_eq!((found.epoch, found.step, found.batch, found.what), (1, 3, 3, what));
        assert!(found.origin.starts_with(origin), "{error}");
        assert!(!found.value.is_finite());
        assert_eq!(state(&model), state(&good), "{what}");
        assert!(model.parameters().iter().all(|p| p.grad().is_none()));
        assert!(!dir.path().join("last.safetensors").exists());
    }
    // Inputs that were not finite are reported as such.
    let model = normed();
    let nan = || {
        std::iter::once((
            Var::from(Tensor::full_with(&[4, 4], f64::NAN, DType::F32)),
            batch(0).1.narrow(0, 0, 4),
        ))
    };
    let error =
        Trainer::new(&model, SGD::new(model.parameters(), 0.1)).fit(Source::new(nan), None).unwrap_err();
    assert!(error.to_string().contains("the batch's input, of shape [4, 4], is not finite"), "{error}");
    model.parameters()[0].set_value(Tensor::full_with(&[8, 4], f64::INFINITY, DType::F32));
    let error = Trainer::new(&model, SGD::new(model.parameters(), 0.1)).fit(odd_source(1), None).unwrap_err();
    assert!(error.to_string().contains("the parameter 0.weight is not finite"), "{error}");
}

#[test]
fn steps_that_are_not_finite_are_left_out_by_choice() {
    let without = normed();
    let sound = || (0..7).filter(|i| ![2, 3].contains(i)).map(batch);
    Trainer::new(&without, SGD::new(without.parameters(), 0.1)).fit(Source::new(sound), None).unwrap();
    let nan = |zero: Var| (zero - 1.0).log();
    let model = normed();
    let mut warnings = Vec::new();
    let mut trainer = Trainer::new(&model, SGD::new(model.parameters(), 0.1))
        .loss(spoiled(nan))
        .on_nonfinite(OnNonfinite::Skip(2))
        .on_warning(|w| warnings.push(w.to_string()));
    let history = trainer.fit(odd_source(7), None).unwrap();
    drop(trainer);
    assert_eq!((history[0].step, history[0].train.count), (5, 40));
    assert!(history[0].train.loss().is_finite());
    assert_eq!(warnings.len(), 2);
    assert!(
        warnings[1].starts_with("epoch 1, step 3, batch 4: the loss is NaN: log: made the first NaN"),
        "{warnings:?}"
    );
    // Dropout has drawn numbers for the skipped batches; everything else is as if they had not existed.
    let running = |m: &Sequential| m.state_dict().get("1.num_batches_tracked").unwrap().to_vec::<i64>();
    assert_eq!(running(&model), running(&without));
    assert!(model.state_dict().iter().all(|(_, t)| t.to_vec::<f64>().iter().all(|v| v.is_finite())));

    let model = normed();
    let error = Trainer::new(&model, SGD::new(model.parameters(), 0.1))
        .loss(spoiled(nan))
        .on_nonfinite(OnNonfinite::Skip(1))
        .on_warning(|_| ())
        .fit(odd_source(7), None)
        .unwrap_err();
    assert!(matches!(error, TrainError::Nonfinite(Nonfinite { batch: 4, .. })), "{error}");
    let model = normed();
    let mut ignoring = Trainer::new(&model, SGD::new(model.parameters(), 0.1)).loss(spoiled(nan));
    ignoring = ignoring.on_nonfinite(OnNonfinite::Ignore);
    assert!(ignoring.fit(odd_source(7), None).unwrap()[0].train.loss().is_nan());
}

/// The value of a single weight `w = 1` after training with a learning rate of one.
fn one_step(batches: &[(&[f64], &[f64])], accumulate: usize) -> f64 {
    let model = Linear::new(1, 1).bias(false);
    model.to_dtype(DType::F64);
    crate::init::ones_(&model.weight);
    let var = |v: &[f64]| Var::from_vec(v.to_vec(), &[v.len(), 1]);
    let source = Source::new(|| batches.iter().map(|(x, t)| (var(x), var(t))));
    let mut trainer = Trainer::new(&model, SGD::new(model.parameters(), 1.0)).accumulate(accumulate);
    trainer = trainer.loss(|y, t| tapegrad_ops::mse_loss(y, t));
    let history = trainer.fit(source, None).unwrap();
    assert_eq!(history[0].step, 1);
    model.weight.item()
}

#[test]
fn accumulated_batches_of_unequal_size_have_the_gradient_of_the_joined_one() {
    // Two samples of target 0 and one of target 3: the gradient at w = 1 is 2/3 (1 + 1 - 2) = 0.
    let (a, b): ((&[f64], &[f64]), (&[f64], &[f64])) = ((&[1.0, 1.0], &[0.0, 0.0]), (&[1.0], &[3.0]));
    for accumulate in [2, 3, 10] {
        assert_eq!(one_step(&[a, b], accumulate), 1.0);
        assert_eq!(one_step(&[b, a], accumulate), 1.0);
    }
    assert_eq!(one_step(&[(&[1.0, 1.0, 1.0], &[0.0, 0.0, 3.0])], 1), 1.0);
}

#[test]
fn accumulated_batches_with_ignored_targets_have_the_gradient_of_the_joined_one() {
    let (x, t) = batch(0);
    let x = x.cast(DType::F64);
    let mut labels = t.to_vec::<i64>();
    for i in [0, 1, 4, 5, 6, 7] {
        labels[i] = -100;
    }
    let t = Var::from_vec(labels, &[8]);
    let run = |sizes: &[usize]| {
        tapegrad_tape::manual_seed(1);
        let model = Linear::new(4, 3);
        model.to_dtype(DType::F64);
        let ends: Vec<usize> = sizes
            .iter()
            .scan(0, |end, n| {
                *end += n;
                Some(*end)
            })
            .collect();
        let parts =
            || sizes.iter().zip(&ends).map(|(&n, &end)| (x.narrow(0, end - n, n), t.narrow(0, end - n, n)));
        let mut trainer = Trainer::new(&model, SGD::new(model.parameters(), 0.1)).accumulate(sizes.len());
        let history = trainer.fit(Source::new(parts), None).unwrap();
        (model.weight.to_vec::<f64>(), history[0].train.loss())
    };
    let (whole, loss) = run(&[8]);
    // The last four are all ignored, so the mean is over nothing.
    for sizes in [&[3, 1, 4][..], &[1, 2, 5], &[2, 6]] {
        let (parts, same) = run(sizes);
        assert!(whole.iter().zip(&parts).all(|(a, b)| (a - b).abs() < 1e-12), "{sizes:?}");
        assert!((loss - same).abs() < 1e-12);
    }
}

#[test]
fn a_weight_of_ones_own_is_that_of_the_mean() {
    let (x, t) = batch(0);
    let x = x.cast(DType::F64);
    let class = [1.0, 5.0, 1.0];
    let options = tapegrad_ops::CrossEntropyOptions::new().weight(Var::from_vec(class.to_vec(), &[3]));
    let run = |cut: usize| {
        tapegrad_tape::manual_seed(1);
        let model = Linear::new(4, 3);
        model.to_dtype(DType::F64);
        let parts = || {
            [(0, cut), (cut, 8 - cut)]
                .map(|(at, n)| (x.narrow(0, at, n), t.narrow(0, at, n)))
                .into_iter()
                .filter(|(x, _)| x.numel() > 0)
        };
        let mut trainer = Trainer::new(&model, SGD::new(model.parameters(), 0.1))
            .accumulate(2)
            .loss(|y, t| tapegrad_ops::cross_entropy_with(y, t, options.clone()))
            .batch_weight(|_, t| t.to_vec::<i64>().iter().map(|&c| class[c as usize]).sum());
        trainer.fit(Source::new(parts), None).unwrap();
        model.weight.to_vec::<f64>()
    };
    let whole = run(8);
    for cut in [1, 3, 6] {
        assert!(whole.iter().zip(run(cut)).all(|(a, b)| (a - b).abs() < 1e-12), "cut at {cut}");
    }
}

#[test]
fn not_a_number_is_never_the_best() {
    for by in [Best::Loss, Best::Accuracy] {
        let dir = tempfile::tempdir().unwrap();
        let model = net();
        let epoch = Cell::new(1);
        let mut trainer = Trainer::new(&model, SGD::new(model.parameters(), 0.1))
            .epochs(3)
            .best_by(by)
            .folder(dir.path())
            .on_warning(|_| ())
            .on_epoch(|h| epoch.set(h.len() + 1))
            .loss(|y, t| {
                let validates = !tapegrad_tape::is_grad_enabled() && epoch.get() != 2;
                tapegrad_ops::mse_loss(y, t) * if validates { f64::NAN } else { 1.0 }
            });
        // Without classes both are judged by the loss, which is finite in the second epoch only.
        let pairs = || (0..4).map(|i| (batch(i).0, Var::from(Tensor::zeros_with(&[8, 3], DType::F32))));
        let history = trainer.fit(Source::new(pairs), Some(Source::new(pairs))).unwrap();
        drop(trainer);
        assert_eq!(
            history.iter().map(|r| r.validation.unwrap().loss().is_nan()).collect::<Vec<_>>(),
            [true, false, true]
        );
        let best = StateDict::load(dir.path().join("best.safetensors")).unwrap();
        assert_eq!(best.metadata["epoch"], "2");
    }
}

#[test]
fn a_regression_has_no_accuracy_and_is_judged_by_its_loss() {
    for outputs in [1, 2] {
        tapegrad_tape::manual_seed(2);
        let model = Linear::new(4, outputs);
        let data = |i: usize| {
            let x = batch(i).0;
            let sum = x.sum_keepdim(1);
            (x, if outputs == 1 { sum } else { tapegrad_tape::cat(&[sum.clone(), sum * 2.0], 1) })
        };
        let mut trainer =
            Trainer::new(&model, SGD::new(model.parameters(), 0.02)).epochs(100).early_stopping(5);
        trainer = trainer.loss(|y, t| tapegrad_ops::mse_loss(y, t));
        let history = trainer.fit(Source::new(move || (0..4).map(data)), None).unwrap();
        assert!(history.iter().all(|r| r.train.accuracy().is_none()));
        assert!(history.last().unwrap().train.loss() < 1e-2 * history[0].train.loss(), "{outputs}");
    }
    // Probabilities of classes, as mixup gives them, are distinguished from a regression.
    let mut score = Score::default();
    let y = Var::from_vec(vec![0.9f32, 0.1, 0.2, 0.8], &[2, 2]);
    score.add(1.0, &y, &Var::from_vec(vec![0.7f32, 0.3, 0.6, 0.4], &[2, 2]));
    assert_eq!(score.accuracy(), Some(0.5));
    score.add(1.0, &y, &Var::from_vec(vec![0.7f32, 0.7, 0.6, 0.4], &[2, 2]));
    assert_eq!(score.accuracy(), None);
    assert_eq!(Score { classified: true, ..Score::default() }.accuracy(), None, "of nothing");
}

#[test]
fn a_batch_of_one_sample_for_batch_norm_is_announced_before_the_first_step() {
    let model = normed();
    let mut trainer =
        Trainer::new(&model, SGD::new(model.parameters(), 0.1)).on_step(|_| panic!("a step was made"));
    let before = state(&model);
    let error = trainer.fit(odd_source(3).smallest_batch(1), None).unwrap_err().to_string();
    drop(trainer);
    assert!(error.contains("BatchNorm1d gets [1, 8] of it") && error.contains("drop_last(true)"), "{error}");
    assert_eq!(state(&model), before);
    // Larger batches, models without such layers, and images of several pixels are fine.
    Trainer::new(&model, SGD::new(model.parameters(), 0.1))
        .fit(odd_source(3).smallest_batch(2), None)
        .unwrap();
    let plain = net();
    Trainer::new(&plain, SGD::new(plain.parameters(), 0.1))
        .fit(odd_source(3).smallest_batch(1), None)
        .unwrap();
    let images = crate::sequential![crate::BatchNorm2d::new(1), crate::Flatten::new(), Linear::new(4, 3)];
    let one =
        || std::iter::once((batch(0).0.narrow(0, 0, 1).reshape(&[1, 1, 2, 2]), batch(0).1.narrow(0, 0, 1)));
    Trainer::new(&images, SGD::new(images.parameters(), 0.1))
        .fit(Source::new(one).smallest_batch(1), None)
        .unwrap();
}

#[test]
fn a_last_shorter_step_does_not_run_into_the_next_epoch() {
    let model = net();
    let mut trainer = Trainer::new(&model, SGD::new(model.parameters(), 0.1)).epochs(2).accumulate(4);
    let history = trainer.fit(source(), None).unwrap();
    // Six batches of eight: a step of four, and one of two.
    assert_eq!(history.iter().map(|r| (r.step, r.train.count)).collect::<Vec<_>>(), [(2, 48), (4, 48)]);
}

#[test]
fn a_training_that_stopped_early_is_not_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let run = || {
        let model = net();
        let mut trainer =
            Trainer::new(&model, SGD::new(model.parameters(), 0.0)).epochs(50).early_stopping(2);
        trainer = trainer.folder(dir.path()).resume(true);
        trainer.fit(source(), Some(Source::new(|| std::iter::once(batch(7))))).unwrap().len()
    };
    assert_eq!([run(), run()], [3, 3]);
}
