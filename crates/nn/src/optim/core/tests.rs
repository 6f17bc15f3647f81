//! What all optimizers share: copies of short parameters, several threads.

use crate::optim::{Adam, Optimizer, SGD};
use tapegrad_tape::{DType, Generator, Tensor, Var, bf16, set_num_threads};

fn values(n: usize, seed: u64) -> Tensor {
    Generator::manual_seed(seed).normal(&[n], 0.0, 1.0)
}

/// Sets the gradient to half the value and steps.
fn step(p: &Var, optimizer: &mut dyn Optimizer) {
    p.set_grad(Some(p.detach() * 0.5));
    optimizer.step();
}

#[test]
fn steps_that_bf16_cannot_hold_add_up() {
    let start = values(100, 1).cast(DType::BF16);
    let (short, long) = (Var::parameter(start.clone()), Var::parameter(start.cast(DType::F32)));
    let (mut a, mut b) = (Adam::new([short.clone()], 1e-4), Adam::new([long.clone()], 1e-4));
    for _ in 0..50 {
        // The same gradients, which BF16 holds.
        for (p, optimizer) in [(&short, &mut a), (&long, &mut b)] {
            p.set_grad(Some(Var::from(start.cast(p.dtype()))));
            optimizer.step();
        }
    }
    assert_eq!(short.dtype(), DType::BF16);
    assert_eq!(short.to_vec::<bf16>(), long.cast(DType::BF16).to_vec::<bf16>());
    assert_ne!(short.to_vec::<bf16>(), start.to_vec::<bf16>());
    let master = a.state_dict().get("state.0.0.master").unwrap().to_vec::<f32>();
    assert_eq!(master, long.to_vec::<f32>());
}

#[test]
fn a_loaded_copy_goes_on_and_a_replaced_value_is_taken() {
    let p = || Var::parameter(values(9, 1).cast(DType::BF16));
    let (p, q) = (p(), p());
    let mut first = SGD::new([p.clone()], 1e-3).momentum(0.9);
    (0..3).for_each(|_| step(&p, &mut first));
    q.set_value(p.tensor());
    let mut second = SGD::new([q.clone()], 1e-3).momentum(0.9);
    second.load_state_dict(&first.state_dict()).unwrap();
    for _ in 0..3 {
        step(&p, &mut first);
        step(&q, &mut second);
    }
    let master = |o: &SGD| o.state_dict().get("state.0.0.master").unwrap().to_vec::<f32>();
    assert_eq!(master(&first), master(&second));
    p.set_value(Tensor::zeros_with(9, DType::BF16));
    p.set_grad(Some(Var::from(Tensor::zeros_with(9, DType::BF16))));
    let mut plain = SGD::new([p.clone()], 1e-3);
    plain.step();
    step(&p, &mut first);
    assert!(master(&first).iter().all(|x| x.abs() < 0.1), "the copy of the old value is gone");
}

#[test]
fn small_parameters_are_stepped_on_several_threads_with_the_same_bits() {
    let run = |threads| {
        set_num_threads(threads);
        let params: Vec<Var> = (0..20)
            .map(|i| Var::parameter(values(if i == 7 { 300_000 } else { 3000 + i }, i as u64)))
            .collect();
        let mut adam = Adam::new(params.clone(), 0.1);
        for _ in 0..2 {
            params.iter().for_each(|p| p.set_grad(Some(p.detach() * 0.5)));
            adam.step();
        }
        params.iter().map(|p| p.to_vec::<f32>()).collect::<Vec<_>>()
    };
    assert!(run(1) == run(2));
}

#[test]
fn a_parameter_given_twice_is_stepped_twice() {
    let p = Var::parameter(values(40_000, 1));
    let before = p.to_vec::<f32>();
    p.set_grad(Some(Var::from(Tensor::ones(40_000))));
    SGD::new([p.clone(), p.clone()], 1.0).step();
    assert!(p.to_vec::<f32>().iter().zip(&before).all(|(a, b)| *a == b - 1.0 - 1.0));
}
