//! The networks of this course and measurements on them, also used by the tests.

use tapegrad::nn::models::mlp;
use tapegrad::nn::{Flatten, Sequential};
use tapegrad::prelude::*;

/// Linear layers with ReLU between them, for images; weights as He et al. draw them.
pub(crate) fn layers(hidden: &[usize]) -> Sequential {
    let net = nn::sequential![Flatten::new(), mlp(&[&[3 * 32 * 32], hidden, &[10]].concat())];
    for p in net.parameters().iter().filter(|p| p.ndim() == 2) {
        nn::init::kaiming_normal_(p);
    }
    net
}

/// Half of the sum of all squared weights, without biases: what L2 regularization adds, times its strength. Its gradient
/// is what an optimizer's `weight_decay` adds.
pub(crate) fn half_squares(model: &dyn Forward) -> Var {
    let weights = model.parameters().into_iter().filter(|p| p.ndim() > 1);
    let squares = weights.map(|w| w.square().sum_all()).reduce(|a, b| a + b);
    squares.expect("a model with weights") * 0.5
}

/// For each parameter, the difference between the tape's gradient and central differences on up to 40 of its elements.
///
/// Where a ReLU or a maximum switches within the step, there is no derivative to compare with: the differences on the two
/// sides disagree. These elements are skipped and counted.
pub(crate) fn relative_errors(
    model: &dyn Forward,
    loss: impl Fn() -> Var,
    random: &mut Generator,
) -> Vec<(String, f64, usize)> {
    const STEP: f64 = 1e-6;
    const KINK: f64 = 1e-5;
    model.zero_grad();
    let first = loss();
    let here = first.item();
    first.backward();
    let of = |(name, p): (String, Var)| {
        let gradient = p.grad().expect("every parameter has a gradient").to_vec::<f64>();
        let scale = gradient.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
        let value = p.to_vec::<f64>();
        let at = |i: usize, by: f64| {
            let mut moved = value.clone();
            moved[i] += by;
            p.set_value(Tensor::from_vec(moved, p.shape()));
            no_grad(&loss).item()
        };
        let (mut worst, mut kinks) = (0.0, 0);
        for i in random.permutation(value.len()).to_vec::<i64>().into_iter().take(40) {
            let i = i as usize;
            let (after, before) = (at(i, STEP), at(i, -STEP));
            if ((after - here) - (here - before)).abs() / STEP > KINK * scale {
                kinks += 1;
            } else {
                worst = f64::max(worst, ((after - before) / (2.0 * STEP) - gradient[i]).abs());
            }
        }
        assert!(kinks < 10, "{name}: {kinks} of 40 elements at a kink are too many to be one");
        p.set_value(Tensor::from_vec(value.clone(), p.shape()));
        (name, worst / scale, kinks)
    };
    model.named_parameters().into_iter().map(of).collect()
}
