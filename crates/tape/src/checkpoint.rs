//! Activation checkpointing: less memory for more time.

use crate::autocast::{self, autocast_dtype};
use crate::backward::{GradOptions, external_nodes, grad_through};
use crate::grad_mode::{enable_grad, is_grad_enabled};
use crate::node::{next_number, record};
use crate::random::{default_generator_state, set_default_generator_state};
use crate::var::Var;

/// Runs a part of a network and keeps only its inputs; backward runs it again to recompute the rest
/// (`torch.utils.checkpoint.checkpoint`; Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
///
/// The second run draws the same random numbers as the first. Parameters that the function captures get
/// their gradients too.
///
/// ```
/// use tapegrad_tape::{Tensor, Var, checkpoint};
/// let w = Var::parameter(Tensor::scalar(2.0));
/// let x = Var::parameter(Tensor::scalar(3.0));
/// let inner = w.clone();
/// let y = checkpoint(move |x| (&x[0] * &inner).exp().log(), &[&x]);
/// y.backward();
/// assert!((x.grad().unwrap().item() - 2.0).abs() < 1e-5 && (w.grad().unwrap().item() - 3.0).abs() < 1e-5);
/// ```
#[track_caller]
pub fn checkpoint(f: impl Fn(&[Var]) -> Var + Send + Sync + 'static, inputs: &[&Var]) -> Var {
    let saved: Vec<Var> = inputs.iter().map(|x| x.saved()).collect();
    let (state, types) = (default_generator_state(), autocast_dtype());
    let start = next_number();
    let first = f(&saved);
    // A tangent that the function captures would be lost by running it again.
    if !is_grad_enabled() || !first.in_graph() || first.is_dual() {
        return first;
    }
    // What the function depends on: its inputs, and the parameters and variables that it captures. The graph
    // of this first run is dropped here.
    let sources = external_nodes(&first, start);
    let value = first.into_tensor();
    let handles: Vec<&Var> = sources.iter().collect();
    let targets = sources.clone();
    record("checkpoint", &handles, value, move |c| {
        let now = default_generator_state();
        set_default_generator_state(state);
        let mode = autocast::Mode::enter(types);
        let again = enable_grad(|| f(&saved));
        drop(mode);
        set_default_generator_state(now);
        let wanted: Vec<&Var> =
            targets.iter().enumerate().filter(|(i, _)| c.wants(*i)).map(|(_, v)| v).collect();
        let options = GradOptions::new().grad_outputs(vec![c.grad().clone()]).create_graph(is_grad_enabled());
        let mut gradients = grad_through(&[&again], &wanted, options, false).into_iter();
        (0..targets.len()).map(|i| if c.wants(i) { gradients.next().flatten() } else { None }).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tensor, gradcheck, gradgradcheck, manual_seed, with_default_generator};

    #[test]
    fn any_order_of_derivative() {
        let x = Var::parameter(Tensor::from_vec(vec![0.3, -0.4], &[2]));
        let w = Var::parameter(Tensor::from_vec(vec![1.5, 0.5], &[2]));
        let f = |v: &[Var]| {
            let before = &v[0] * &v[1];
            let inner = v[1].clone();
            let middle = checkpoint(move |x| (&x[0] * &inner).exp(), &[&before]);
            &middle * &v[0]
        };
        gradcheck(f, &[x.clone(), w.clone()]).unwrap();
        gradgradcheck(f, &[x, w]).unwrap();
    }

    #[test]
    fn the_same_random_numbers() {
        manual_seed(5);
        let x = Var::parameter(Tensor::ones_with(&[100], crate::DType::F32));
        let y =
            checkpoint(|x| &x[0] * &Var::from(with_default_generator(|g| g.normal(&[100], 0.0, 1.0))), &[&x]);
        let after = with_default_generator(|g| g.next_u64());
        y.sum_all().backward();
        assert_eq!(x.grad().unwrap().to_vec::<f32>(), y.to_vec::<f32>());
        assert_ne!(with_default_generator(|g| g.next_u64()), after);
    }

    #[test]
    fn intermediate_values_are_not_kept() {
        let x = Var::parameter(Tensor::ones_with(&[1000], crate::DType::F64));
        let deep = |x: &[Var]| (0..20).fold(x[0].clone(), |x, _| x.exp().log());
        let saved = |y: &Var| crate::trace(y).rows.iter().map(|r| r.saved_bytes).sum::<u64>();
        let plain = saved(&deep(&[&x * 1]));
        let checked = saved(&checkpoint(deep, &[&(&x * 1)]));
        assert!(checked * 10 < plain, "{checked} of {plain} bytes");
    }
}
