//! Trainers, divided optimizers and normalization over ranks.

use super::{Communicator, batch, bits, block, net, plain_net, rows};
use std::path::Path;
use std::sync::Arc;
use tapegrad_datasets::{DataLoader, LoaderState, TensorDataset};
use tapegrad_distributed::{
    DdpOptions, DistributedDataParallel, Replica, SyncBatchNorm, ZeroRedundancyOptimizer,
};
use tapegrad_nn::lr_scheduler::{Mode, ReduceLROnPlateau};
use tapegrad_nn::optim::{Adam, AdamW, Optimizer, ScheduleFreeAdamW, ScheduleFreeSGD};
use tapegrad_nn::train::{Accuracy, Best, EpochRecord, Perplexity, Source, Trainer};
use tapegrad_nn::{BatchNorm2d, Flatten, Forward, Linear, Module, Sequential, sequential};
use tapegrad_tape::{Tensor, Var, manual_seed};

type Loader = DataLoader<TensorDataset<(Tensor, Tensor)>>;

/// A loader of this rank's part of each batch: 50 samples, of which the last batch has 2.
fn loader(comm: &Communicator, seed: u64) -> Loader {
    let (x, t) = batch(50, seed);
    let data = TensorDataset::new((x.tensor(), t.tensor()));
    DataLoader::new(data).batch_size(16).shuffle(true).seed(seed).distributed(comm.rank(), comm.size())
}

fn source(loader: &Loader) -> Source<'_> {
    Source::new(move || loader.into_iter()).resumable(
        || loader.state().to_array().map(|n| n as i64).to_vec(),
        |place| {
            let place: [i64; 5] = place.try_into().map_err(|_| "five numbers".to_string())?;
            loader.restore(LoaderState::from_array(place.map(|n| n as u64))).map_err(|e| e.to_string())
        },
    )
}

pub(crate) type Outcome = (Vec<(String, Vec<u64>)>, Vec<EpochRecord>);

/// Trains with everything that a trainer has, as far as `epochs`.
pub(crate) fn train(
    comm: &Communicator,
    folder: Option<&Path>,
    epochs: u64,
    before_step: impl FnMut(u64),
) -> Outcome {
    let model = net();
    let replica = Replica::new(&model, comm, DdpOptions::new()).unwrap();
    let (training, validation) = (loader(comm, 1), loader(comm, 2));
    manual_seed(3);
    let mut trainer = Trainer::new(&model, AdamW::new(model.parameters(), 0.01))
        .distributed(replica)
        .epochs(epochs)
        .accumulate(2)
        .clip_grad_norm(1.0)
        .ema(0.9)
        .lookahead(3, |_| 0.5)
        .schedule_plateau(ReduceLROnPlateau::new(Mode::Min).patience(0), Best::Loss)
        .metric(Accuracy::new())
        .metric(Perplexity::default())
        .before_step(before_step)
        .on_warning(|_| {});
    if let Some(folder) = folder {
        trainer = trainer.folder(folder).checkpoint_every(1).resume(true);
    }
    let mut history = trainer.fit(source(&training), Some(source(&validation))).unwrap();
    drop(trainer);
    history.iter_mut().for_each(|r| r.seconds = 0.0);
    (bits(&model), history)
}

/// A folder of rank 0 that all ranks know.
fn shared_folder(comm: &Communicator) -> (Option<tempfile::TempDir>, std::path::PathBuf) {
    let own = (comm.rank() == 0).then(|| tempfile::tempdir().unwrap());
    let name = own.as_ref().map_or(String::new(), |d| d.path().display().to_string());
    let path = comm.broadcast_bytes(name.as_bytes()).unwrap();
    (own, String::from_utf8(path).unwrap().into())
}

pub(crate) fn trainers_agree(comm: &Communicator) {
    let alone = Communicator::single();
    let expected = train(&alone, None, 3, |_| {});
    assert!(expected.1.len() == 3 && expected.1[2].train.count == 50);
    let together = train(comm, None, 3, |_| {});
    assert_eq!(together.0, expected.0);
    for (a, b) in together.1.iter().zip(&expected.1) {
        assert_eq!((a.train, a.validation, a.lr), (b.train, b.validation, b.lr));
        // Sums of ranks: the last bits may differ.
        for ((_, x), (_, y)) in a.metrics.iter().zip(&b.metrics) {
            assert!((x - y).abs() < 1e-9, "{x} {y}");
        }
    }
    // Begun together, ended by one process; and the other way round.
    let (kept, folder) = shared_folder(comm);
    train(comm, Some(&folder), 1, |_| {});
    comm.barrier().unwrap();
    if comm.rank() == 0 {
        assert_eq!(train(&alone, Some(&folder), 3, |_| {}).0, expected.0);
    }
    drop(kept);
    let (kept, folder) = shared_folder(comm);
    if comm.rank() == 0 {
        train(&alone, Some(&folder), 2, |_| {});
    }
    comm.barrier().unwrap();
    assert_eq!(train(comm, Some(&folder), 3, |_| {}).0, expected.0);
    drop(kept);
}

pub(crate) fn trainers_that_differ(comm: &Communicator) {
    if comm.size() == 1 {
        return;
    }
    let run = |rate: f64, rows: usize| {
        let model = plain_net();
        let replica = Replica::new(&model, comm, DdpOptions::new()).unwrap();
        let (x, t) = batch(16, 0);
        let x = x.flatten(1).narrow(1, 0, rows);
        let own = block(comm, 16);
        let part = || std::iter::once((super::rows(&x, own.clone()), super::rows(&t, own.clone())));
        let mut trainer = Trainer::new(&model, Adam::new(model.parameters(), rate)).distributed(replica);
        let error = trainer.fit(Source::new(part), None).unwrap_err();
        error.to_string()
    };
    let rank = comm.rank() as f64;
    let error = run(0.1 + rank, 192);
    assert!(error.contains("optimizer's group.0.lr = [0.1]") && error.contains("lr = [1.1]"), "{error}");
    let error = run(0.1, 192 - comm.rank());
    assert!(error.contains("shape [192]") && error.contains("shape [191]"), "{error}");
}

pub(crate) fn divided_states(comm: &Communicator) {
    for reduce_scatter in [false, true] {
        let model = DistributedDataParallel::new(net(), comm).unwrap();
        let reference = DistributedDataParallel::new(net(), &Communicator::single()).unwrap();
        let make = |shares| AdamW::new(shares, 0.01).weight_decay(0.1);
        let mut divided = ZeroRedundancyOptimizer::new(model.replica(), make).reduce_scatter(reduce_scatter);
        let mut whole = make(reference.parameters());
        let step = |model: &DistributedDataParallel<Sequential>, comm: &Communicator, number: u64| {
            manual_seed(number);
            let (x, t) = batch(16, number);
            let own = block(comm, 16);
            let (x, t) = (rows(&x, own.clone()), rows(&t, own.clone()));
            let loss = |part: std::ops::Range<usize>| {
                let y = model.module().forward(&rows(&x, part.clone()));
                tapegrad_ops::cross_entropy(&y, &rows(&t, part))
            };
            model.parameters().iter().for_each(Var::zero_grad);
            model.backward(own.len(), loss).unwrap();
        };
        for number in 0..3 {
            step(&model, comm, number);
            divided.step();
            step(&reference, &Communicator::single(), number);
            whole.step();
            assert_eq!(bits(&model), bits(&reference), "reduce_scatter {reduce_scatter}, step {number}");
        }
        let (a, b) = (divided.state_dict(), whole.state_dict());
        assert_eq!(a.len(), b.len());
        for (key, t) in b.iter() {
            let own = a.get(key).unwrap_or_else(|| panic!("{key}"));
            assert_eq!((own.shape(), own.to_vec::<f64>()), (t.shape(), t.to_vec::<f64>()), "{key}");
        }
        let all: usize = b.iter().filter(|(k, _)| k.starts_with("state.")).map(|(_, t)| t.bytes()).sum();
        let fair = all / comm.size();
        assert!(divided.state_bytes() <= fair + 1000, "{} of {all}", divided.state_bytes());
        // The undivided optimizer's state goes on here.
        let mut again = ZeroRedundancyOptimizer::new(model.replica(), make).reduce_scatter(reduce_scatter);
        again.load_state_dict(&b).unwrap();
        step(&model, comm, 9);
        let norm = reduce_scatter.then(|| again.clip_grad_norm_(1e9).unwrap());
        again.step();
        step(&reference, &Communicator::single(), 9);
        let expected = reference.clip_grad_norm_(1e9).unwrap();
        assert!(norm.is_none_or(|n| (n - expected).abs() < 1e-5 * expected));
        whole.step();
        assert_eq!(bits(&model), bits(&reference));
    }
}

/// Steps, evaluates and steps on, with a state that is saved while the weights are averages, beside the undivided optimizer.
fn switched<O: Optimizer>(comm: &Communicator, make: impl Fn(Vec<Var>) -> O + Copy) {
    // Of the smallest parameter each of two ranks has one element.
    let net = || {
        manual_seed(8);
        sequential![Flatten::new(), Linear::new(192, 2), Linear::new(2, 2)]
    };
    let alone = Communicator::single();
    let model = DistributedDataParallel::new(net(), comm).unwrap();
    let reference = DistributedDataParallel::new(net(), &alone).unwrap();
    let mut divided = ZeroRedundancyOptimizer::new(model.replica(), make);
    let mut whole = make(reference.parameters());
    assert!(divided.switches());
    let gradients = |model: &DistributedDataParallel<Sequential>, comm: &Communicator, number: u64| {
        let (x, t) = batch(16, number);
        let own = block(comm, 16);
        let (x, t) = (rows(&x, own.clone()), rows(&t, own.clone()));
        let loss = |part: std::ops::Range<usize>| {
            tapegrad_ops::cross_entropy(&model.module().forward(&rows(&x, part.clone())), &rows(&t, part))
        };
        model.parameters().iter().for_each(Var::zero_grad);
        model.backward(own.len(), loss).unwrap();
    };
    let mut seen = Vec::new();
    for number in 0..3 {
        gradients(&model, comm, number);
        divided.step();
        gradients(&reference, &alone, number);
        whole.step();
        for training in [false, true] {
            divided.set_training(training);
            whole.set_training(training);
            assert_eq!(bits(&model), bits(&reference), "step {number}, training {training}");
            seen.push(bits(&model));
        }
        // The first average is the first step.
        assert!(number == 0 || seen[seen.len() - 2] != seen[seen.len() - 1]);
    }
    divided.eval();
    whole.eval();
    let (a, b) = (divided.state_dict(), whole.state_dict());
    assert_eq!(a.len(), b.len());
    for (key, t) in b.iter() {
        let own = a.get(key).unwrap_or_else(|| panic!("{key}"));
        assert_eq!((own.shape(), own.to_vec::<f64>()), (t.shape(), t.to_vec::<f64>()), "{key}");
    }
    let mut again = ZeroRedundancyOptimizer::new(model.replica(), make);
    again.load_state_dict(&b).unwrap();
    again.train();
    whole.train();
    assert_eq!(bits(&model), bits(&reference));
    gradients(&model, comm, 9);
    again.step();
    gradients(&reference, &alone, 9);
    whole.step();
    assert_eq!(bits(&model), bits(&reference));
}

pub(crate) fn divided_weights_are_switched(comm: &Communicator) {
    switched(comm, |shares| ScheduleFreeSGD::new(shares, 0.1));
    switched(comm, |shares| ScheduleFreeAdamW::new(shares, 0.01).weight_decay(0.1));
    // A trainer evaluates the averages, and ends with them.
    let train = |comm: &Communicator| {
        let model = plain_net();
        let replica = Arc::new(Replica::new(&model, comm, DdpOptions::new()).unwrap());
        let make = |shares| ScheduleFreeAdamW::new(shares, 0.01);
        let optimizer = ZeroRedundancyOptimizer::new(&replica, make);
        let (training, validation) = (loader(comm, 1), loader(comm, 2));
        manual_seed(3);
        let mut trainer = Trainer::new(&model, optimizer).distributed(replica).epochs(2).on_warning(|_| {});
        let history = trainer.fit(source(&training), Some(source(&validation))).unwrap();
        drop(trainer);
        (bits(&model), history.iter().map(|r| r.validation).collect::<Vec<_>>())
    };
    assert_eq!(train(comm), train(&Communicator::single()));
}

pub(crate) fn normalization_over_ranks(comm: &Communicator) {
    let (x, _) = batch(12, 4);
    let parameter = |x: &Var| Var::parameter(x.tensor());
    let (whole, part) = (parameter(&x), parameter(&rows(&x, block(comm, 12))));
    let (one, all) = (BatchNorm2d::new(3), SyncBatchNorm::new(3, comm));
    let weights = Var::from(Tensor::linspace(-1, 1, 12 * 192).reshape(&[12, 3, 8, 8]));
    let y = one.forward(&whole);
    (&y * &weights).sum_all().backward();
    let z = all.forward(&part);
    (&z * &rows(&weights, block(comm, 12))).sum_all().backward();
    let close = |a: &Var, b: &Var| {
        for (x, y) in a.to_vec::<f64>().iter().zip(b.to_vec::<f64>()) {
            assert!((x - y).abs() < 1e-4, "{x} {y}");
        }
    };
    close(&z, &rows(&y, block(comm, 12)));
    close(&part.grad().unwrap(), &rows(&whole.grad().unwrap(), block(comm, 12)));
    close(&all.running_mean, one.running_mean.as_ref().unwrap());
    close(&all.running_var, one.running_var.as_ref().unwrap());
    one.eval();
    all.eval();
    close(&all.forward(&part), &rows(&one.forward(&whole), block(comm, 12)));
}
