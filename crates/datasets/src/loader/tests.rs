use super::*;
use crate::dataset::ImageDataset;
use crate::synthetic;
use crate::transforms::{AlternatingFlip, CutMix, Cutout, Mixup, RandomCrop};

fn set(n: usize) -> ImageDataset {
    synthetic::shapes(n, 0)
}

fn loader(workers: usize) -> DataLoader {
    DataLoader::new(set(53))
        .batch_size(8)
        .shuffle(true)
        .seed(9)
        .workers(workers)
        .transform(RandomCrop::zero(4))
        .transform(AlternatingFlip)
        .transform(Cutout::new(8))
        .mix(CutMix::new(1.0))
}

/// The contents of a batch, in a comparable form.
fn contents(batch: &Batch) -> (Vec<f32>, Vec<i64>, Vec<f32>, Vec<usize>) {
    let targets = batch.targets.as_ref().map_or(vec![], |t| t.to_vec::<f32>());
    (batch.images.to_vec(), batch.labels.to_vec(), targets, batch.indices.clone())
}

#[test]
fn the_same_batches_with_any_number_of_workers() {
    let reference = loader(0);
    let epochs: Vec<Vec<_>> = (0..3).map(|_| reference.iter().map(|b| contents(&b)).collect()).collect();
    assert_eq!(epochs[0].len(), 7);
    assert_ne!(epochs[0][0], epochs[1][0]);
    for workers in [1, 2, 4] {
        let other = loader(workers).prefetch(1);
        for (number, epoch) in epochs.iter().enumerate() {
            let found: Vec<_> = other.iter().map(|b| contents(&b)).collect();
            assert!(found == *epoch, "epoch {number} differs with {workers} workers");
        }
    }
}

#[test]
fn an_epoch_visits_every_sample_once() {
    let mut seen: Vec<_> = loader(2).iter().flat_map(|b| b.indices).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..53).collect::<Vec<_>>());
    let whole = loader(2).drop_last(true);
    assert_eq!(whole.len(), 6);
    assert_eq!(whole.iter().len(), 6);
    assert!(whole.iter().all(|b| b.len() == 8));
    let plain = DataLoader::new(set(5)).batch_size(2);
    assert_eq!(plain.iter().map(|b| b.indices).collect::<Vec<_>>(), [vec![0, 1], vec![2, 3], vec![4]]);
}

#[test]
fn a_batch_holds_what_the_data_set_gives() {
    let set = set(10);
    let batch = DataLoader::new(set.clone()).batch_size(4).iter().nth(1).unwrap();
    assert_eq!(batch.images.shape(), [4, 3, 32, 32]);
    assert_eq!(batch.labels.dtype(), DType::I64);
    let (image, label) = set.get(6);
    assert_eq!(batch.images.to_vec::<f32>()[2 * 3072..3 * 3072], image);
    assert_eq!(batch.labels.to_vec::<i64>()[2], label);
}

#[test]
fn resumes_with_the_batch_that_would_have_followed() {
    let undisturbed = loader(0);
    let all: Vec<_> =
        (0..2).flat_map(|_| undisturbed.iter().map(|b| contents(&b)).collect::<Vec<_>>()).collect();
    for stop in 0..=14 {
        for workers in [0, 2] {
            let first = loader(workers);
            let mut done = 0;
            'outer: for _ in 0..2 {
                for _ in first.iter().take(stop - done) {
                    done += 1;
                    if done == stop {
                        break 'outer;
                    }
                }
            }
            let state = LoaderState::from_array(first.state().to_array());
            let second = loader(workers);
            second.restore(state).unwrap();
            let mut rest = Vec::new();
            while rest.len() + stop < all.len() {
                rest.extend(second.iter().map(|b| contents(&b)));
            }
            assert!(rest == all[stop..], "stopped after {stop} batches, {workers} workers");
        }
    }
}

#[test]
fn the_state_follows_the_batches() {
    let loader = loader(1);
    for (i, _) in loader.iter().enumerate() {
        assert_eq!((loader.state().epoch, loader.state().position), (0, i as u64 + 1));
    }
    assert_eq!((loader.state().epoch, loader.state().position), (1, 0));
    assert_eq!(loader.iter().take(2).count(), 2);
    assert_eq!((loader.state().epoch, loader.state().position), (1, 2));
    // An epoch that was left early is not resumed.
    assert_eq!(loader.iter().count(), 7);
    assert_eq!(loader.state().epoch, 3);
    assert!(loader.waited() > Duration::ZERO);
}

#[test]
fn a_state_of_another_loader_is_refused() {
    let state = loader(0).state();
    let message = |l: DataLoader, s| l.restore(s).unwrap_err().to_string();
    assert_eq!(message(loader(0).batch_size(16), state), "saved loader state: batch_size is 8, expected 16");
    assert_eq!(message(loader(0).seed(1), state), "saved loader state: seed is 9, expected 1");
    let far = LoaderState { position: 8, ..state };
    assert_eq!(message(loader(0), far), "saved loader state: position is 8, expected at most 7");
}

#[test]
fn mixed_targets_are_probabilities() {
    let loader = DataLoader::new(set(20)).batch_size(10).shuffle(true).mix(Mixup::new(0.4));
    for batch in &loader {
        let targets = batch.targets.unwrap();
        assert_eq!(targets.shape(), [10, 10]);
        for row in targets.to_vec::<f32>().chunks(10) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }
}

#[test]
fn a_panic_in_a_worker_reaches_the_consumer() {
    struct Bad(Vec<String>);
    impl Dataset for Bad {
        fn len(&self) -> usize {
            10
        }
        fn image_shape(&self) -> [usize; 3] {
            [1, 1, 1]
        }
        fn read(&self, index: usize, _: &mut [f32]) -> i64 {
            assert!(index != 7, "sample 7 is broken");
            0
        }
        fn classes(&self) -> &[String] {
            &self.0
        }
    }
    let loader = DataLoader::new(Bad(vec!["x".into()])).batch_size(2).workers(2);
    let mut batches = loader.iter();
    assert_eq!(batches.by_ref().take(3).count(), 3);
    let panic = catch_unwind(AssertUnwindSafe(|| batches.next())).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>().copied(), Some("sample 7 is broken"));
}
