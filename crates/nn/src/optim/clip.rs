//! Gradient clipping.

use super::core::step_type;
use tapegrad_tape::kernels::update::sums_of_squares;
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
    let (total, factor) = clip_factor(params, max_norm, norm_type);
    assert!(
        total.is_finite() || !error_if_nonfinite,
        "clip_grad_norm_: the total norm of order {norm_type} of the gradients is {total}, so they cannot be clipped; \
         to scale them all the same, set error_if_nonfinite to false"
    );
    scale_gradients(params, factor);
    total
}

/// The norm of all gradients together, and the factor by which [`clip_grad_norm_`] would multiply them: at most 1. Nothing is
/// changed; [`Optimizer::step_scaled`](super::Optimizer::step_scaled) multiplies as it steps, which spares a pass over the
/// gradients.
pub fn clip_factor(params: &[Var], max_norm: f64, norm_type: f64) -> (f64, f64) {
    let total = grad_norm(params, norm_type);
    let scale = max_norm / (total + 1e-6);
    // A NaN norm scales too: hiding it would only delay the failure.
    (total, if scale < 1.0 || scale.is_nan() { scale } else { 1.0 })
}

/// Multiplies all gradients by a factor.
pub(super) fn scale_gradients(params: &[Var], factor: f64) {
    if factor == 1.0 {
        return;
    }
    for p in params {
        if let Some(g) = p.grad() {
            p.set_grad(Some(scaled(&g, factor)));
        }
    }
}

/// The norm of all gradients together.
pub(crate) fn grad_norm(params: &[Var], order: f64) -> f64 {
    let gradients = params.iter().filter_map(|p| Some(p.grad()?.into_tensor()));
    if order == 2.0 {
        let gradients: Vec<Tensor> = gradients.collect();
        return sums_of_squares(&gradients).into_iter().sum::<f64>().sqrt();
    }
    let norms: Vec<f64> = gradients.map(|g| norm(&g, order)).collect();
    combine(norms.into_iter(), order)
}

/// Whether every element is finite. One pass, in as many lanes as a vector has.
pub(crate) fn all_finite(t: &Tensor) -> bool {
    if !t.dtype().is_float() {
        return true;
    }
    let t = widened(t).contiguous();
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

/// A gradient times a factor.
pub(super) fn scaled(g: &Var, scale: f64) -> Var {
    let g = g.tensor();
    if matches!(g.dtype(), tapegrad_tape::DType::F16 | tapegrad_tape::DType::BF16) {
        return Var::from(g) * scale;
    }
    Var::from(tapegrad_tape::dispatch!(float: g.dtype(), "clip_grad_norm_", T => {
        let scale = <T as tapegrad_tape::Float>::c(scale);
        tapegrad_tape::kernels::strided::map::<T, T>(&g, move |x| x * scale)
    }))
}

fn combine(norms: impl Iterator<Item = f64>, order: f64) -> f64 {
    if order == f64::INFINITY {
        norms.fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a })
    } else {
        norms.map(|n| n.powf(order)).sum::<f64>().powf(1.0 / order)
    }
}

/// In the type in which it is computed with.
fn widened(t: &Tensor) -> Tensor {
    t.cast(step_type(t.dtype()))
}

fn norm(g: &Tensor, order: f64) -> f64 {
    // Sums of blocks of fixed size, in f64: the same bits however many threads there are.
    let g = widened(g).contiguous();
    tapegrad_tape::dispatch!(float: g.dtype(), "clip_grad_norm_", T => {
        let values = g.as_slice::<T>().expect("contiguous");
        let of = |block: &[T]| -> f64 {
            let values = block.iter().map(|&x| tapegrad_tape::Element::to_f64(x).abs());
            if order == f64::INFINITY {
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
    fn a_scaled_step_has_the_bits_of_a_clipped_one() {
        use crate::optim::{Adafactor, Adam, Lion, Muon, Optimizer, SGD, ScheduleFreeAdamW, ScheduleFreeSGD};
        let step = |fused: bool, make: &dyn Fn(Vec<Var>) -> Box<dyn Optimizer>| {
            let mut random = tapegrad_tape::Generator::manual_seed(4);
            let params: Vec<Var> =
                [[30, 7], [5, 4]].map(|s| Var::parameter(random.normal(&s, 0.0, 1.0))).to_vec();
            let mut optimizer = make(params.clone());
            let norms: Vec<f64> = (0..3)
                .map(|_| {
                    params.iter().for_each(|p| p.set_grad(Some(random.normal(p.shape(), 0.0, 1.0).into())));
                    if fused {
                        let (norm, factor) = clip_factor(&params, 0.5, 2.0);
                        optimizer.step_scaled(factor);
                        return norm;
                    }
                    let norm = clip_grad_norm_(&params, 0.5);
                    optimizer.step();
                    norm
                })
                .collect();
            (norms, params.iter().map(|p| p.to_vec::<f32>()).collect::<Vec<_>>())
        };
        let makers: [&dyn Fn(Vec<Var>) -> Box<dyn Optimizer>; 8] = [
            &|p| Box::new(SGD::new(p, 0.1).momentum(0.9).maximize(true)),
            &|p| Box::new(Adam::new(p, 0.1).weight_decay(0.1)),
            &|p| Box::new(Adafactor::new(p, 0.1).maximize(true)),
            &|p| Box::new(Lion::new(p, 0.1)),
            &|p| Box::new(Muon::new(p, 0.1)),
            &|p| Box::new(ScheduleFreeAdamW::new(p, 0.1)),
            &|p| Box::new(ScheduleFreeSGD::new(p, 0.1)),
            &|p| Box::new(crate::optim::Rprop::new(p, 0.1)),
        ];
        for make in makers {
            assert_eq!(step(true, make), step(false, make));
        }
    }

    #[test]
    fn one_and_two_threads_give_the_same_norm() {
        let mut random = tapegrad_tape::Generator::manual_seed(4);
        let params = [300_001, 17, 0, 70_000].map(|n| {
            let p = Var::parameter(Tensor::zeros(n));
            p.set_grad(Some(random.normal(&[n], 0.0, 1.0).into()));
            p
        });
        let norms = [1, 2].map(|threads| {
            tapegrad_tape::set_num_threads(threads);
            grad_norm(&params, 2.0)
        });
        assert_eq!(norms[0], norms[1]);
        let all = params.iter().flat_map(|p| p.grad().unwrap().to_vec::<f64>());
        let naive = all.map(|x| x * x).sum::<f64>().sqrt();
        assert!((norms[0] - naive).abs() < 1e-12 * naive);
    }

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
