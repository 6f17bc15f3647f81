//! `substitute`: other variables in the place of parameters.

use crate::var::Var;
use std::cell::RefCell;
use std::sync::atomic::Ordering;

thread_local! {
    /// What stands for leaves, by their numbers; the last one counts.
    static STAND_INS: RefCell<Vec<(u64, Var)>> = const { RefCell::new(Vec::new()) };
}

/// What stands for the leaf of this number on this thread.
pub(crate) fn find(leaf: u64) -> Option<Var> {
    STAND_INS.with_borrow(|list| list.iter().rev().find(|(n, _)| *n == leaf).map(|(_, v)| v.clone()))
}

/// Runs `body` with variables in the place of parameters or buffers: wherever an operation takes the first of a pair, it takes
/// the second, whose value and whose place in the graph it has (what `torch.func.functional_call` does for a module). The
/// parameter itself gets no gradient then, unless the second was computed from it.
///
/// This holds on the calling thread. In `body` a parameter in a pair cannot be changed.
///
/// ```
/// use tapegrad_tape::{Tensor, Var, substitute};
/// let weight = Var::parameter(Tensor::scalar(3.0));
/// let layer = |x: f64| &weight * x;
/// let y = substitute(&[(&weight, &(&weight * &weight))], || layer(2.0));
/// y.backward();
/// assert_eq!((y.item(), weight.grad().unwrap().item(), layer(2.0).item()), (18.0, 12.0, 6.0));
/// ```
///
/// # Panics
/// If the first of a pair is not a parameter or buffer, or the second has another shape.
#[track_caller]
pub fn substitute<R>(pairs: &[(&Var, &Var)], body: impl FnOnce() -> R) -> R {
    for (i, (leaf, value)) in pairs.iter().enumerate() {
        assert!(
            leaf.own_leaf().is_some(),
            "substitute: the first variable of pair {i} is not a parameter or buffer, but of shape {:?}",
            leaf.shape()
        );
        assert_eq!(
            leaf.shape(),
            value.shape(),
            "substitute: the parameter of pair {i} has shape {:?}, the variable in its place {:?}",
            leaf.shape(),
            value.shape()
        );
    }
    struct End<'a>(Vec<&'a Var>);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            let ended = STAND_INS.with_borrow_mut(|list| list.split_off(list.len() - self.0.len()));
            count(&self.0, u32::wrapping_sub);
            drop(ended);
        }
    }
    // A variable that stands for itself would be looked up without end.
    let pairs: Vec<_> = pairs.iter().filter(|(leaf, value)| leaf.id() != value.id()).collect();
    let leaves: Vec<&Var> = pairs.iter().map(|(leaf, _)| *leaf).collect();
    let values = pairs.iter().map(|(leaf, value)| (leaf.id().expect("a leaf"), value.resolved()));
    let values: Vec<(u64, Var)> = values.collect();
    STAND_INS.with_borrow_mut(|list| list.extend(values));
    count(&leaves, u32::wrapping_add);
    let _end = End(leaves);
    body()
}

/// Counts the calls, on all threads, that have a stand-in for each leaf: without one, none is looked for.
fn count(leaves: &[&Var], change: fn(u32, u32) -> u32) {
    for leaf in leaves.iter().filter_map(|leaf| leaf.own_leaf()) {
        let _ = leaf.substituted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(change(n, 1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Tensor, gradcheck, gradgradcheck, jvp, no_grad};

    fn parameter(values: &[f64]) -> Var {
        Var::parameter(Tensor::from_slice(values, &[values.len()]))
    }

    #[test]
    fn derivatives_of_every_order_go_through_the_stand_in() {
        let weight = parameter(&[0.3, -0.7]);
        let layer = |x: &Var| (&weight * x).exp() * &weight;
        let f = |v: &[Var]| {
            let stand_in = &v[0] * &v[0].sin();
            substitute(&[(&weight, &stand_in)], || layer(&v[1])) + layer(&v[1])
        };
        let inputs = [parameter(&[0.5, 1.5]), parameter(&[-0.4, 0.2])];
        gradcheck(f, &inputs).unwrap();
        gradgradcheck(f, &inputs).unwrap();
        weight.zero_grad();
        substitute(&[(&weight, &(&inputs[0] * 1))], || layer(&inputs[1])).sum_all().backward();
        assert!(weight.grad().is_none() && inputs[0].grad().is_some());
    }

    #[test]
    fn tangents_go_through_the_stand_in() {
        let (weight, x) = (parameter(&[0.3, -0.7]), parameter(&[0.5, 1.5]));
        let f = |v: &[Var]| substitute(&[(&weight, &v[0])], || (&weight * &weight * &x).sum_all());
        let (at, along) = (Var::from_vec(vec![2.0f64, 3.0], 2), Var::from_vec(vec![1.0f64, 10.0], 2));
        let (y, t) = jvp(f, std::slice::from_ref(&at), std::slice::from_ref(&along));
        assert_eq!((y.item(), t.item()), (2.0 + 13.5, 2.0 + 90.0));
        // The graph of value and tangent leads to `x`, not to the parameter.
        t.backward();
        assert_eq!(x.grad().unwrap().to_vec::<f64>(), [4.0, 60.0]);
        assert!(weight.grad().is_none());
        let (y, t) = no_grad(|| jvp(f, &[at], &[along]));
        assert_eq!((y.item(), t.item(), t.requires_grad()), (15.5, 92.0, false));
    }

    #[test]
    fn the_innermost_counts_and_all_end() {
        let w = parameter(&[1.0]);
        let (a, b) = (parameter(&[2.0]), Var::from_vec(vec![3f64], &[1]));
        let seen = substitute(&[(&w, &a)], || {
            let inner = substitute(&[(&w, &b), (&a, &w)], || (w.item(), a.item(), w.requires_grad()));
            (inner, w.item())
        });
        assert_eq!(seen, ((3.0, 2.0, false), 2.0));
        let caught = std::panic::catch_unwind(|| substitute(&[(&w, &b)], || panic!("in the body")));
        assert!(caught.is_err() && w.item() == 1.0 && w.requires_grad());
        assert_eq!(substitute(&[(&w, &w)], || w.item()), 1.0);
        let other = substitute(&[(&w, &b)], || std::thread::scope(|s| s.spawn(|| w.item()).join().unwrap()));
        assert_eq!(other, 1.0, "another thread sees the parameter");
    }

    #[test]
    fn types_and_constants() {
        let w = parameter(&[1.0]);
        let single = Var::from(w.tensor().cast(DType::F32));
        substitute(&[(&w, &single)], || {
            assert_eq!(
                (w.dtype(), (&w * 2).dtype(), (&w * 2).requires_grad()),
                (DType::F32, DType::F32, false)
            );
        });
        no_grad(|| substitute(&[(&w, &(&w * 3))], || assert_eq!(w.saved().item(), 3.0)));
    }

    #[test]
    #[should_panic(expected = "update: another variable stands for this parameter of shape [1]")]
    fn a_parameter_that_is_stood_for_is_not_changed() {
        let (w, a) = (parameter(&[1.0]), parameter(&[2.0]));
        substitute(&[(&w, &a)], || w.set_value(Tensor::zeros_with(&[1], DType::F64)));
    }

    #[test]
    #[should_panic(
        expected = "substitute: the parameter of pair 0 has shape [2], the variable in its place [1]"
    )]
    fn shapes_are_checked() {
        substitute(&[(&parameter(&[1.0, 2.0]), &parameter(&[2.0]))], || ());
    }
}
