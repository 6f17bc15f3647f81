//! Gradient clipping.

use tapegrad_tape::{Number, Tensor, Var};

/// Scales all gradients together so that their norm is at most `max_norm`, and returns the norm before scaling
/// (`torch.nn.utils.clip_grad_norm_`). `norm_type` is the norm's order, 2 for the usual one; infinity takes
/// the largest absolute value.
///
/// ```
/// use tapegrad_nn::optim::clip_grad_norm_with;
/// use tapegrad_tape::{Tensor, Var};
/// let w = Var::parameter(Tensor::from_vec(vec![3.0, 4.0], &[2]));
/// (&w * &w).sum_all().backward();
/// assert_eq!(clip_grad_norm_with(&[w.clone()], 1.0, 2.0, true), 10.0);
/// assert!((w.grad().unwrap().to_vec::<f64>()[0] - 0.6).abs() < 1e-6);
/// ```
#[track_caller]
pub fn clip_grad_norm_(params: &[Var], max_norm: f64) -> f64 {
    clip_grad_norm_with(params, max_norm, 2.0, false)
}

/// [`clip_grad_norm_`] with another norm, or with a refusal of norms that are not finite.
#[track_caller]
pub fn clip_grad_norm_with(params: &[Var], max_norm: f64, norm_type: f64, error_if_nonfinite: bool) -> f64 {
    let total = grad_norm(params, norm_type);
    assert!(
        total.is_finite() || !error_if_nonfinite,
        "clip_grad_norm_: the total norm of order {norm_type} of the gradients is {total}, so they cannot be clipped; \
         to scale them all the same, set error_if_nonfinite to false"
    );
    let scale = max_norm / (total + 1e-6);
    // A NaN norm scales too: hiding it would only delay the failure.
    if scale < 1.0 || scale.is_nan() {
        for p in params {
            if let Some(g) = p.grad() {
                p.set_grad(Some(Var::from(scaled(g.tensor(), scale))));
            }
        }
    }
    total
}

/// The norm of all gradients together.
pub(crate) fn grad_norm(params: &[Var], order: f64) -> f64 {
    let norms: Vec<f64> = params.iter().filter_map(|p| Some(norm(&p.grad()?.tensor(), order))).collect();
    combine(norms.into_iter(), order)
}

/// Whether every element is finite. One pass, in as many lanes as a vector has.
pub(crate) fn all_finite(t: &Tensor) -> bool {
    if !t.dtype().is_float() {
        return true;
    }
    let t = t.contiguous();
    tapegrad_tape::dispatch!(float: t.dtype(), "all_finite", T => {
        const LANES: usize = 32;
        let mut sums = [T::ZERO; LANES];
        let values = t.as_slice::<T>().expect("contiguous");
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            for (sum, &x) in sums.iter_mut().zip(chunk) {
                // Zero if finite, otherwise NaN.
                *sum += x * T::ZERO;
            }
        }
        rest.iter().map(|&x| x * T::ZERO).chain(sums).all(|x| x == T::ZERO)
    })
}

/// Clamps every element of the gradients to `[-clip_value, clip_value]` (`torch.nn.utils.clip_grad_value_`).
///
/// ```
/// use tapegrad_nn::optim::clip_grad_value_;
/// use tapegrad_tape::{Tensor, Var};
/// let w = Var::parameter(Tensor::from_vec(vec![3.0, -0.1], &[2]));
/// (&w * &w).sum_all().backward();
/// clip_grad_value_(&[w.clone()], 1.0);
/// assert_eq!(w.grad().unwrap().to_vec::<f64>(), [1.0, -0.2]);
/// ```
pub fn clip_grad_value_(params: &[Var], clip_value: f64) {
    for p in params {
        if let Some(g) = p.grad() {
            let g = g.tensor();
            let clipped = tapegrad_tape::dispatch!(float: g.dtype(), "clip_grad_value_", T => {
                let bound = <T as tapegrad_tape::Float>::c(clip_value);
                tapegrad_tape::kernels::strided::map::<T, T>(&g, move |x| {
                    let x = if x > bound { bound } else { x };
                    if x < -bound { -bound } else { x }
                })
            });
            p.set_grad(Some(Var::from(clipped)));
        }
    }
}

fn scaled(g: Tensor, scale: f64) -> Tensor {
    tapegrad_tape::dispatch!(float: g.dtype(), "clip_grad_norm_", T => {
        let scale = <T as tapegrad_tape::Float>::c(scale);
        tapegrad_tape::kernels::strided::map::<T, T>(&g, move |x| x * scale)
    })
}

fn combine(norms: impl Iterator<Item = f64>, order: f64) -> f64 {
    if order == f64::INFINITY {
        norms.fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a })
    } else {
        norms.map(|n| n.powf(order)).sum::<f64>().powf(1.0 / order)
    }
}

fn norm(g: &Tensor, order: f64) -> f64 {
    // Sums of blocks of fixed size, in f64: the same bits however many threads there are.
    let g = g.contiguous();
    tapegrad_tape::dispatch!(float: g.dtype(), "clip_grad_norm_", T => {
        let values = g.as_slice::<T>().expect("contiguous");
        let of = |block: &[T]| -> f64 {
            let values = block.iter().map(|&x| tapegrad_tape::Element::to_f64(x).abs());
            if order == 2.0 {
                values.map(|x| x * x).sum()
            } else if order == f64::INFINITY {
                values.fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a })
            } else {
                values.map(|x| x.powf(order)).sum()
            }
        };
        let blocks = values.chunks(4096).map(of);
        if order == f64::INFINITY { combine(blocks, order) } else { blocks.sum::<f64>().powf(1.0 / order) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_of_the_norm() {
        let w = Var::parameter(Tensor::from_vec(vec![0.0f32; 3], &[3]));
        let grad = || Some(Var::from(Tensor::from_vec(vec![1f32, -2.0, 2.0], &[3])));
        for (order, expected) in [(1.0, 5.0), (2.0, 3.0), (f64::INFINITY, 2.0)] {
            w.set_grad(grad());
            let got = clip_grad_norm_with(std::slice::from_ref(&w), 100.0, order, false);
            assert!((got - expected).abs() < 1e-9, "{got}");
            assert_eq!(w.grad().unwrap().to_vec::<f32>(), [1.0, -2.0, 2.0]);
        }
    }

    #[test]
    fn a_norm_that_is_not_finite_is_an_error_by_choice() {
        let w = Var::parameter(Tensor::from_vec(vec![0.0f32; 2], &[2]));
        for (bad, orders) in [(f32::NAN, [2.0, f64::INFINITY]), (f32::INFINITY, [1.0, 2.0])] {
            for order in orders {
                let grad = Tensor::from_vec(vec![1.0, bad], &[2]);
                w.set_grad(Some(Var::from(grad)));
                let params = std::slice::from_ref(&w);
                let clip = || clip_grad_norm_with(params, 1.0, order, true);
                let error = std::panic::catch_unwind(std::panic::AssertUnwindSafe(clip)).unwrap_err();
                let text = error.downcast::<String>().expect("a message");
                assert!(
                    text.starts_with(&format!("clip_grad_norm_: the total norm of order {order}")),
                    "{text}"
                );
                assert_eq!(w.grad().unwrap().to_vec::<f32>()[0], 1.0);
                assert!(!clip_grad_norm_with(params, 1.0, order, false).is_finite());
            }
        }
    }

    #[test]
    fn one_element_that_is_not_finite_is_seen_wherever_it_stands() {
        for n in [1, 31, 32, 33, 70] {
            let mut values = vec![f32::MAX; n];
            assert!(all_finite(&Tensor::from_slice(&values, &[n])));
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for i in 0..n {
                    values[i] = bad;
                    assert!(!all_finite(&Tensor::from_slice(&values, &[n])), "{bad} at {i} of {n}");
                    values[i] = f32::MAX;
                }
            }
        }
        assert!(all_finite(&Tensor::from_slice(&[1i64], &[1])));
    }
}
