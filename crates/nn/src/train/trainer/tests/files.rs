//! Checkpoints that cannot be read, folders that cannot be written, settings that have changed.

use super::*;
use std::path::Path;

fn checkpoints(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|n| n.starts_with("last.")).collect();
    names.sort();
    names
}

/// A folder with two checkpoints of a training run that was stopped after step 13.
fn stopped(folder: &Path) {
    let model = net();
    let stop = StopHandle::new();
    let mut trainer = trainer(&model).folder(folder).checkpoint_every(5).stop_on(&stop).on_step(|e| {
        if e.step == 13 {
            stop.stop();
        }
    });
    trainer.fit(source(), None).unwrap();
    assert_eq!(checkpoints(folder), ["last.previous.safetensors", "last.safetensors"]);
}

fn undisturbed() -> Vec<u32> {
    let model = net();
    trainer(&model).fit(source(), None).unwrap();
    weights(&model)
}

/// Files that cannot be resumed from, each for another reason.
fn unreadable() -> Vec<(&'static str, Vec<u8>)> {
    let mut newer = StateDict::new();
    newer.metadata.insert("tapegrad.checkpoint".into(), "999".into());
    vec![
        ("is a checkpoint of version 999", newer.to_safetensors().unwrap()),
        ("has no version", StateDict::new().to_safetensors().unwrap()),
        ("last.safetensors: ", b"short".to_vec()),
    ]
}

#[test]
fn where_no_checkpoint_can_be_read_nothing_is_begun_or_overwritten() {
    for (reason, bytes) in unreadable() {
        for previous in [None, Some(b"other".to_vec())] {
            let dir = tempfile::tempdir().unwrap();
            let last = dir.path().join("last.safetensors");
            std::fs::write(&last, &bytes).unwrap();
            if let Some(previous) = &previous {
                std::fs::write(dir.path().join("last.previous.safetensors"), previous).unwrap();
            }
            let model = net();
            let before = weights(&model);
            let resumed = |model| trainer(model).folder(dir.path()).on_step(|_| panic!("a step was made"));
            let error = resumed(&model).resume(true).fit(source(), None).unwrap_err();
            assert!(
                matches!(error, TrainError::Unreadable(_)) && error.to_string().contains(reason),
                "{error}"
            );
            assert!(error.to_string().contains("--restart"), "{error}");
            assert_eq!(weights(&model), before);
            assert_eq!(std::fs::read(&last).unwrap(), bytes);

            // From the start, on request: existing files are renamed before the first step.
            let mut warnings = Vec::new();
            let mut restarted =
                trainer(&model).folder(dir.path()).on_warning(|text| warnings.push(text.to_string()));
            restarted.fit(source(), None).unwrap();
            drop(restarted);
            assert_eq!(std::fs::read(dir.path().join("last.unreadable-1.safetensors")).unwrap(), bytes);
            if let Some(previous) = previous {
                let kept = dir.path().join("last.previous.unreadable-1.safetensors");
                assert_eq!(std::fs::read(kept).unwrap(), previous);
            }
            assert!(
                warnings.iter().any(|w| w.contains("cannot be read") && w.contains("unreadable-1")),
                "{warnings:?}"
            );
        }
    }
    // A file that the system cannot read: a folder with its name stands for an I/O error.
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("last.safetensors")).unwrap();
    let error = trainer(&net()).folder(dir.path()).resume(true).fit(source(), None).unwrap_err();
    assert!(matches!(error, TrainError::Unreadable(_)), "{error}");
}

#[test]
fn the_checkpoint_before_is_taken_with_a_message_and_the_unreadable_one_is_kept() {
    let expected = undisturbed();
    for (reason, bytes) in unreadable() {
        let dir = tempfile::tempdir().unwrap();
        stopped(dir.path());
        std::fs::write(dir.path().join("last.safetensors"), &bytes).unwrap();
        let model = net();
        let mut warnings = Vec::new();
        let mut first_step = None;
        let mut resumed = trainer(&model)
            .folder(dir.path())
            .resume(true)
            .on_step(|e| _ = first_step.get_or_insert(e.step))
            .on_warning(|text| warnings.push(text.to_string()));
        resumed.fit(source(), None).unwrap();
        assert_eq!(resumed.rejected_checkpoints().len(), 1);
        drop(resumed);
        assert_eq!((weights(&model), first_step), (expected.clone(), Some(13)));
        let kept = dir.path().join("last.unreadable-1.safetensors");
        assert_eq!(std::fs::read(&kept).unwrap(), bytes);
        let text = &warnings[0];
        assert!(text.starts_with("a checkpoint was rejected: ") && text.contains(reason), "{text}");
        assert!(text.contains(&kept.display().to_string()) && text.contains("after step 12"), "{text}");
    }
}

#[test]
fn a_missing_checkpoint_is_told_where_the_one_before_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    stopped(dir.path());
    std::fs::remove_file(dir.path().join("last.safetensors")).unwrap();
    let model = net();
    let mut warnings = Vec::new();
    let mut resumed =
        trainer(&model).folder(dir.path()).resume(true).on_warning(|w| warnings.push(w.to_string()));
    resumed.fit(source(), None).unwrap();
    drop(resumed);
    assert_eq!(weights(&model), undisturbed());
    assert_eq!(
        warnings,
        ["there is no last.safetensors: training resumes from the previous checkpoint, after step 12"]
    );
}

#[test]
fn a_training_from_the_start_keeps_the_checkpoint_of_one_that_has_not_ended() {
    let dir = tempfile::tempdir().unwrap();
    stopped(dir.path());
    let unfinished = std::fs::read(dir.path().join("last.safetensors")).unwrap();
    let mut warnings = Vec::new();
    let model = net();
    trainer(&model)
        .folder(dir.path())
        .on_warning(|w| warnings.push(w.to_string()))
        .fit(source(), None)
        .unwrap();
    assert_eq!(std::fs::read(dir.path().join("last.unfinished-1.safetensors")).unwrap(), unfinished);
    assert!(warnings[0].contains("belongs to a training run that has not finished"), "{warnings:?}");
    // One that has finished is replaced.
    let model = net();
    trainer(&model).folder(dir.path()).fit(source(), None).unwrap();
    assert_eq!(
        checkpoints(dir.path()),
        ["last.previous.safetensors", "last.safetensors", "last.unfinished-1.safetensors"]
    );
}

#[test]
fn a_folder_in_use_or_not_writable_is_refused_before_the_first_step() {
    let dir = tempfile::tempdir().unwrap();
    let model = net();
    let refused = std::cell::RefCell::new(None);
    let mut first = trainer(&model).folder(dir.path()).on_step(|e| {
        if e.step == 1 {
            let other = net();
            let error = trainer(&other).folder(dir.path()).fit(source(), None).unwrap_err();
            refused.replace(Some(error.to_string()));
        }
    });
    first.fit(source(), None).unwrap();
    assert!(refused.take().unwrap().contains("is in use by another training run"));

    let file = dir.path().join("metrics.csv");
    let before = weights(&model);
    let error = trainer(&model).folder(&file).fit(source(), None).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: cannot be written to", file.display())), "{error}");
    assert_eq!(weights(&model), before);
    // A program that has opened its folder passes it on.
    let run = crate::RunFolder::open(dir.path()).unwrap();
    trainer(&model).run_folder(&run).fit(source(), None).unwrap();
}

#[test]
fn settings_that_would_be_ignored_are_refused_by_name_and_the_others_listed() {
    let dir = tempfile::tempdir().unwrap();
    let make = |lr: f64, gamma: f64, epochs: u64, data: &str, warnings: &mut Vec<String>| {
        let model = net();
        let sgd = SGD::new(model.parameters(), lr).momentum(0.9);
        let stop = StopHandle::new();
        Trainer::new(&model, sgd)
            .epochs(epochs)
            .schedule_steps(crate::lr_scheduler::ExponentialLR::new(gamma))
            .folder(dir.path())
            .setting("data", data)
            .resume(true)
            .on_warning(|w| warnings.push(w.to_string()))
            .stop_on(&stop)
            .on_step(|e| {
                if e.step == 8 {
                    stop.stop();
                }
            })
            .fit(source(), None)
            .map(|_| ())
    };
    let mut none = Vec::new();
    make(0.1, 0.9, 4, "digits", &mut none).unwrap();
    let bytes = || std::fs::read(dir.path().join("last.safetensors")).unwrap();
    let before = bytes();
    let error = make(0.2, 0.9, 5, "digits", &mut none).unwrap_err();
    assert!(matches!(error, TrainError::Settings(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("lr was 0.1, and is 0.2; epochs was 4, and is 5"), "{text}");
    assert!(none.is_empty() && bytes() == before);

    let mut warnings = Vec::new();
    make(0.1, 0.5, 3, "letters", &mut warnings).unwrap();
    let said = warnings.join("\n");
    assert!(said.contains("another setting: data was digits, and is letters"), "{said}");
    assert!(said.contains("another setting: epochs was 4, and is 3"), "{said}");
    assert!(said.contains("another schedule: after step 8 the learning rate was 0.04"), "{said}");
    assert!(said.contains(&format!("and is {}", 0.1 * 0.5f64.powi(8))), "{said}");
}

#[cfg(feature = "plots")]
#[test]
fn a_image_that_cannot_be_drawn_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("curves.png")).unwrap();
    std::fs::write(dir.path().join("events"), "a file where a folder should be").unwrap();
    let model = net();
    let mut warnings = Vec::new();
    let mut trainer = trainer(&model)
        .folder(dir.path())
        .curves()
        .tensorboard(dir.path().join("events"))
        .on_warning(|w| warnings.push(w.to_string()));
    trainer.fit(source(), None).unwrap();
    drop(trainer);
    assert_eq!(checkpoints(dir.path()), ["last.previous.safetensors", "last.safetensors"]);
    assert_eq!(weights(&model), undisturbed());
    for name in ["curves.png", "events"] {
        assert!(warnings.iter().any(|w| w.contains(name)), "{warnings:?}");
    }
}
