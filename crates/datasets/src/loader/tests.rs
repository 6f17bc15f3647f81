use std::panic::{AssertUnwindSafe, catch_unwind};

use tapegrad_tape::{DType, Tensor};

use super::*;
use crate::dataset::TensorDataset;
use crate::images::{ImageDataset, Images, image_sample};
use crate::synthetic;
use crate::transforms::{AlternatingFlip, CutMix, Cutout, Mixup, RandomCrop};

fn set(n: usize) -> ImageDataset {
    synthetic::shapes(n, 0)
}

fn loader(workers: usize) -> ImageLoader {
    ImageLoader::new(set(53))
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
    let plain = ImageLoader::new(set(5)).batch_size(2);
    assert_eq!(plain.iter().map(|b| b.indices).collect::<Vec<_>>(), [vec![0, 1], vec![2, 3], vec![4]]);
}

#[test]
fn a_batch_holds_what_the_data_set_gives() {
    let set = set(10);
    let batch = ImageLoader::new(set.clone()).batch_size(4).iter().nth(1).unwrap();
    assert_eq!(batch.images.shape(), [4, 3, 32, 32]);
    assert_eq!(batch.labels.dtype(), DType::I64);
    let (image, label) = set.get(6).unwrap();
    assert_eq!(batch.images.to_vec::<f32>()[2 * 3072..3 * 3072], image.to_vec::<f32>());
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
    let message = |l: ImageLoader, s| l.restore(s).unwrap_err().to_string();
    assert_eq!(message(loader(0).batch_size(16), state), "saved loader state: batch_size is 8, expected 16");
    assert_eq!(message(loader(0).seed(1), state), "saved loader state: seed is 9, expected 1");
    let far = LoaderState { position: 8, ..state };
    assert_eq!(message(loader(0), far), "saved loader state: position is 8, expected at most 7");
}

#[test]
fn mixed_targets_are_probabilities() {
    let loader = ImageLoader::new(set(20)).batch_size(10).shuffle(true).mix(Mixup::new(0.4));
    for batch in loader.iter() {
        let targets = batch.targets.unwrap();
        assert_eq!(targets.shape(), [10, 10]);
        for row in targets.to_vec::<f32>().chunks(10) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }
}

/// One sample of ten is broken: it fails, or panics.
struct Bad {
    panics: bool,
    reads: Arc<AtomicU64>,
}

impl Dataset for Bad {
    type Sample = (Tensor, i64);
    fn len(&self) -> usize {
        10
    }
    fn get(&self, index: usize) -> Result<(Tensor, i64)> {
        image_sample(self, index)
    }
}

impl Images for Bad {
    fn image_shape(&self) -> [usize; 3] {
        [1, 1, 1]
    }
    fn read(&self, index: usize, _: &mut [f32]) -> Result<i64> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        match (index, self.panics) {
            (7, true) => panic!("sample 7 is broken"),
            (7, false) => Err(DataError::other("its file is broken")),
            _ => Ok(0),
        }
    }
    fn classes(&self) -> &[String] {
        &[]
    }
}

#[test]
fn a_panic_in_a_worker_reaches_the_consumer() {
    let loader = ImageLoader::new(Bad { panics: true, reads: Arc::default() }).batch_size(2).workers(2);
    for _ in 0..2 {
        let mut batches = loader.iter();
        assert_eq!(batches.by_ref().take(3).count(), 3);
        let panic = catch_unwind(AssertUnwindSafe(|| batches.next())).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>().copied(), Some("sample 7 is broken"));
        assert!(batches.next().is_none(), "the epoch is over");
    }
    assert_eq!(loader.state().epoch, 2, "each was an epoch of its own");
}

#[test]
fn an_error_ends_the_epoch_and_names_the_sample() {
    for workers in [0, 1, 3] {
        let reads = Arc::new(AtomicU64::new(0));
        let loader =
            ImageLoader::new(Bad { panics: false, reads: reads.clone() }).workers(workers).prefetch(100);
        for epoch in 0..2 {
            let mut batches = loader.try_iter();
            assert!(batches.by_ref().take(7).all(|b| b.is_ok()));
            let error = batches.next().unwrap().unwrap_err().to_string();
            assert_eq!(error, "sample 7: its file is broken");
            assert!(batches.next().is_none());
            assert_eq!(loader.state().epoch, epoch + 1);
        }
        // Workers stop at the error; those that were at work on a later sample may have read it.
        assert!(reads.load(Ordering::Relaxed) <= 2 * (8 + workers as u64), "{reads:?}");
        let panic = catch_unwind(AssertUnwindSafe(|| loader.iter().count())).unwrap_err();
        assert_eq!(panic.downcast_ref::<String>().unwrap(), "sample 7: its file is broken");
    }
}

#[test]
fn samples_of_any_type() {
    struct Words;
    impl Dataset for Words {
        type Sample = (Vec<i64>, f32, String);
        fn len(&self) -> usize {
            5
        }
        fn get(&self, index: usize) -> Result<Self::Sample> {
            Ok((vec![7; index], index as f32, format!("word {index}")))
        }
    }
    let loader = DataLoader::new(Words).batch_size(2).shuffle(true).seed(3);
    let epochs = |workers| {
        let loader = DataLoader::new(Words).batch_size(2).shuffle(true).seed(3).workers(workers);
        let epoch =
            || loader.iter().map(|((words, _), x, names)| (words.to_vec::<i64>(), x.to_vec::<f32>(), names));
        [epoch().collect::<Vec<_>>(), epoch().collect()]
    };
    assert_eq!(epochs(0), epochs(2));
    assert_ne!(epochs(0)[0], epochs(0)[1]);
    for ((words, lengths), x, names) in &loader {
        assert_eq!(lengths.to_vec::<f32>(), x.to_vec::<f32>());
        assert_eq!(
            words.shape(),
            [names.len(), x.to_vec::<f32>().iter().fold(0.0f32, |a, &b| a.max(b)) as usize]
        );
    }
}

#[test]
fn a_sampler_decides_the_length() {
    let data = || TensorDataset::new(Tensor::arange(0, 10));
    let loader = DataLoader::new(data()).batch_size(4).sampler(crate::DistributedSampler::new(1, 3));
    assert_eq!((loader.len(), loader.iter().len()), (1, 1));
    assert_eq!(loader.iter().next().unwrap().to_vec::<i64>(), [1, 4, 7, 0]);
    assert_eq!(loader.smallest_batch(), 4);
    let rest = |n: usize| DataLoader::new(data()).batch_size(n);
    assert_eq!([rest(4), rest(5), rest(3), rest(20)].map(|l| l.smallest_batch()), [2, 5, 1, 10]);
    assert_eq!(rest(3).drop_last(true).smallest_batch(), 3);
    let weighted = crate::WeightedRandomSampler::new(&[1.0; 10], 25);
    assert_eq!(DataLoader::new(data()).batch_size(10).sampler(weighted).len(), 3);
    let wrong = DataLoader::new(TensorDataset::new((Tensor::arange(0, 2), Tensor::arange(0, 2))));
    assert_eq!(wrong.batch_size(2).drop_last(true).iter().count(), 1);
}

#[test]
fn processes_share_every_batch() {
    let loader = |rank, size| {
        let data = TensorDataset::new(Tensor::arange(0, 23));
        DataLoader::new(data).batch_size(5).shuffle(true).seed(3).distributed(rank, size)
    };
    let list =
        |l: &DataLoader<TensorDataset<Tensor>>| l.iter().map(|b| b.to_vec::<i64>()).collect::<Vec<_>>();
    let alone = loader(0, 1);
    let epochs = [list(&alone), list(&alone)];
    for size in [1, 2, 3, 4, 7] {
        for epoch in 0..2 {
            let mut joined: Vec<Vec<i64>> = vec![Vec::new(); 5];
            for rank in 0..size {
                let own = loader(rank, size);
                if epoch == 1 {
                    assert!(list(&own).len() <= own.len());
                }
                list(&own).into_iter().zip(&mut joined).for_each(|(b, all)| all.extend(b));
            }
            assert_eq!(joined, epochs[epoch], "{size} processes, epoch {epoch}");
        }
    }
    // The place of one process is that of every number of them.
    let (one, four) = (loader(0, 1), loader(3, 4));
    one.iter().take(2).for_each(drop);
    four.restore(one.state()).unwrap();
    let rest = list(&four);
    assert_eq!(rest, list(&loader(3, 4))[2..]);
}
