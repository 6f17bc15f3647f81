//! The scenarios with ranks that are threads, and what only they can show.

mod scenarios;

use proptest::prelude::*;
use scenarios::{ALL, bucket_order};
use tapegrad_distributed::{Communicator, Reduce};
use tapegrad_tape::Tensor;

/// Runs a function on each of several ranks.
fn on_ranks(size: usize, f: impl Fn(Communicator) + Sync) {
    std::thread::scope(|scope| {
        for comm in Communicator::threads(size) {
            scope.spawn(|| f(comm));
        }
    });
}

#[test]
fn all_scenarios_with_1_2_and_4_ranks() {
    for size in [1, 2, 4] {
        for (name, scenario) in ALL {
            println!("{name}, {size} ranks");
            on_ranks(size, |comm| scenario(&comm));
        }
    }
}

#[test]
fn numbers_of_ranks_that_are_no_power_of_two() {
    for (name, scenario) in ALL {
        if ["collective calls", "calls that do not wait", "a thousand tiny sums"].contains(name) {
            on_ranks(3, |comm| scenario(&comm));
        }
    }
    on_ranks(3, |comm| {
        let options = tapegrad_distributed::DdpOptions::new().shards(6);
        let model = tapegrad_distributed::DistributedDataParallel::with_options(
            scenarios::in_order(vec![0, 1]),
            &comm,
            options,
        );
        assert_eq!(model.unwrap().shards(), 6);
    });
}

#[test]
fn the_same_bits_with_8_ranks() {
    let (_, scenario) = ALL.iter().find(|(name, _)| name.starts_with("the same bits")).unwrap();
    on_ranks(8, |comm| scenario(&comm));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn buckets_of_every_size_in_every_order(
        order in Just((0..6).collect::<Vec<usize>>()).prop_shuffle(),
        first in 0usize..600,
        bytes in 0usize..1000,
        ranks in prop::sample::select(vec![1usize, 2, 4]),
    ) {
        on_ranks(ranks, |comm| bucket_order(&comm, order.clone(), first, bytes));
    }
}

#[test]
fn a_rank_that_ends_is_named() {
    on_ranks(3, |comm| {
        if comm.rank() == 1 {
            return;
        }
        let error = comm.all_reduce(Tensor::ones(&[4]), Reduce::Sum).unwrap_err();
        assert!(error.reason.contains("rank 1 has ended"), "{error}");
        assert_eq!(error.rank, comm.rank());
    });
}

#[test]
fn calls_that_differ_are_told() {
    on_ranks(2, |comm| {
        let t = Tensor::ones(&[4 + comm.rank()]);
        let error = comm.start_broadcast(t, 0).unwrap().wait().unwrap_err().to_string();
        assert!(error.contains("shape [4]") && error.contains("shape [5]"), "{error}");
    });
}

#[test]
fn waiting_has_an_end() {
    on_ranks(2, |comm| {
        let comm = comm.timeout(std::time::Duration::from_millis(200));
        if comm.rank() == 0 {
            let error = comm.barrier().unwrap_err().to_string();
            assert!(error.contains("rank 1 has not come within 200ms"), "{error}");
        } else {
            std::thread::sleep(std::time::Duration::from_millis(600));
        }
    });
}

#[test]
fn ranks_that_do_not_come_are_named() {
    on_ranks(5, |comm| {
        let comm = comm.timeout(std::time::Duration::from_millis(800));
        comm.barrier().unwrap();
        match comm.rank() {
            // One hangs, another one before its next call but one.
            1 => std::thread::sleep(std::time::Duration::from_millis(1600)),
            3 => {
                let sum = comm.start_all_reduce(Tensor::ones(&[4]), Reduce::Sum).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(1600));
                assert!(sum.wait().is_err());
            }
            // Another one comes late, but comes.
            rank => {
                std::thread::sleep(std::time::Duration::from_millis(50 * rank as u64));
                let error = comm.all_reduce(Tensor::ones(&[4]), Reduce::Sum).unwrap_err();
                assert_eq!(error.reason, "ranks 1, 3 have not come within 800ms");
            }
        }
    });
}
