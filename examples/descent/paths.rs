//! The paths of gradient descent in the exercises: every gradient is the tape's, every step `optim::SGD`'s.

use tapegrad::nn::optim::SGD;
use tapegrad::prelude::*;

/// `1/2 (relu(w x) - d)^2` with `(x, d) = (0.5, 1)`.
pub(crate) fn relu_loss(w: &Var) -> Var {
    0.5 * (ops::relu(&(w * 0.5)) - 1.0).square()
}

/// The cross-entropy of `y = 1 / (1 + exp(-w x))` with `(x, d) = (-0.5, 1)`: since `d` is 1, it reduces to `-ln y`.
pub(crate) fn sigmoid_loss(w: &Var) -> Var {
    let y = 1.0 / (1.0 + (-(w * -0.5)).exp());
    -y.log()
}

/// `gelu(x) = x sigmoid(1.702 x)`.
pub(crate) fn gelu(x: &Var) -> Var {
    ops::gelu_with(x, ops::Approximate::Sigmoid)
}

/// A parameter in double precision.
pub(crate) fn number(x: f64) -> Var {
    Var::parameter(Tensor::from_vec(vec![x], ()))
}

/// The values of `w` before each step, and after the last.
fn walk(w: &Var, mut optimizer: SGD, f: impl Fn(&Var) -> Var, steps: usize) -> Vec<f64> {
    let mut path = vec![w.item()];
    for _ in 0..steps {
        optimizer.zero_grad();
        f(w).backward();
        optimizer.step();
        path.push(w.item());
    }
    path
}

/// `w_1` to `w_count` of `dw_k = 0.9 dw_(k-1) - 0.1 g(w_(k-1))`, `w_k = w_(k-1) + dw_k`.
///
/// SGD keeps a buffer `m`, and steps by `m = 0.9 m + g`, `w = w - 0.1 m`. So `dw` is `-0.1 m`, and the exercise's
/// first step `dw_1`, which has already been applied to `w_1`, is a buffer of `-dw_1 / 0.1` in the optimizer's state
/// after one step.
pub(crate) fn momentum(f: impl Fn(&Var) -> Var, w_1: f64, dw_1: f64, count: usize) -> Vec<f64> {
    let w = number(w_1);
    let mut optimizer = SGD::new([w.clone()], 0.1).momentum(0.9);
    let mut state = optimizer.state_dict();
    state.insert("state.0.0.step", Tensor::scalar(1i64));
    state.insert("state.0.0.momentum_buffer", Tensor::from_vec(vec![-dw_1 / 0.1], ()));
    optimizer.load_state_dict(&state).expect("the state of one parameter");
    walk(&w, optimizer, f, count - 1)
}

/// `x_(t+1) = x_t - rate grad f(x_t)`: this many steps.
pub(crate) fn descend(f: impl Fn(&Var) -> Var, x_0: f64, rate: f64, steps: usize) -> Vec<f64> {
    let x = number(x_0);
    walk(&x, SGD::new([x.clone()], rate), f, steps)
}

/// `v_0 = grad f(x_0)`, `v_(t+1) = 0.9 v_t + 0.1 grad f(x_t)`, `x_(t+1) = x_t - rate v_(t+1)`: this many steps.
///
/// That is SGD with momentum 0.9 and dampening 0.9: its first buffer is the gradient, undamped, and so is `v_1` here,
/// being `0.9 grad f(x_0) + 0.1 grad f(x_0)`.
pub(crate) fn averaged(f: impl Fn(&Var) -> Var, x_0: f64, rate: f64, steps: usize) -> Vec<f64> {
    let x = number(x_0);
    walk(&x, SGD::new([x.clone()], rate).momentum(0.9).dampening(0.9), f, steps)
}
