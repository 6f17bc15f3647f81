//! Properties of whole training steps: the same bits on any number of threads, and constant memory.

use std::sync::Mutex;
use tapegrad::nn::models::LeNet5;
use tapegrad::nn::optim::SGD;
use tapegrad::prelude::*;

/// The number of threads and the pool's statistics are global to the process: one test at a time.
static PROCESS: Mutex<()> = Mutex::new(());

fn step(model: &LeNet5, optimizer: &mut SGD, batch: usize, k: usize) -> f64 {
    let x = Generator::manual_seed(k as u64).normal(&[batch, 1, 28, 28], 0.0, 1.0);
    let target =
        Var::from_vec((0..batch as i64).map(|i| (i * 7 + k as i64) % 10).collect::<Vec<_>>(), &[batch]);
    optimizer.zero_grad();
    let loss = ops::cross_entropy(&model.forward(&x.into()), &target);
    loss.backward();
    optimizer.step();
    loss.item()
}

#[test]
fn the_same_bits_on_one_thread_and_on_two() {
    let _lock = PROCESS.lock().unwrap_or_else(|e| e.into_inner());
    let weights = |threads| {
        set_num_threads(threads);
        manual_seed(3);
        let model = LeNet5::new(10);
        let mut optimizer = SGD::new(model.parameters(), 0.05).momentum(0.9);
        (0..100).for_each(|k| {
            step(&model, &mut optimizer, 64, k);
        });
        model.parameters().iter().flat_map(|p| p.to_vec::<f32>()).map(f32::to_bits).collect::<Vec<u32>>()
    };
    let one = weights(1);
    assert_eq!(one, weights(2));
    assert_eq!(one, weights(1), "and the same seed gives them again");
}

#[test]
fn a_steady_step_allocates_nothing_and_leaves_nothing() {
    let _lock = PROCESS.lock().unwrap_or_else(|e| e.into_inner());
    set_num_threads(2);
    let model = LeNet5::new(10);
    let mut optimizer = SGD::new(model.parameters(), 0.05).momentum(0.9);
    (0..3).for_each(|k| {
        step(&model, &mut optimizer, 32, k);
    });
    optimizer.zero_grad();
    let before = tape::pool_stats();
    for k in 0..10 {
        step(&model, &mut optimizer, 32, k);
        optimizer.zero_grad();
        assert_eq!(tape::pool_stats().live_bytes, before.live_bytes, "step {k}");
    }
    assert_eq!(tape::pool_stats().system_allocations, before.system_allocations);
}

#[test]
fn the_first_loss_is_that_of_a_guess() {
    let _lock = PROCESS.lock().unwrap_or_else(|e| e.into_inner());
    manual_seed(0);
    let model = LeNet5::new(10);
    let mut optimizer = SGD::new(model.parameters(), 0.0);
    assert!((step(&model, &mut optimizer, 256, 1) - 10f64.ln()).abs() < 0.1);
}
