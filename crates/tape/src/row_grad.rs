//! Gradients of some rows of a parameter.

use crate::dtype::DType;
use crate::grad_mode;
use crate::node::{Cotangent, Gradients, Node, ONCE, RecordOptions, Rule, Shortcut, enter, gradients};
use crate::shape::Dims;
use crate::tensor::Tensor;
use crate::var::Var;
use std::sync::Arc;

/// The rule of an operation that looks up rows, see [`record_rows`].
struct Rows<F> {
    values: F,
    rows: Tensor,
    shape: Dims,
    dtype: DType,
}

impl<F: Fn(&Var) -> Var + Send + Sync> Rule for Rows<F> {
    fn apply(&self, _: Option<&Arc<Node>>, c: Cotangent) -> Gradients {
        let zeros = Var::from(Tensor::zeros_with(&self.shape[..], self.dtype));
        let values = (self.values)(c.grad()).cast(self.dtype);
        gradients([Some(zeros.index_add(0, &Var::from(&self.rows), &values))])
    }
    fn shortcut(&self) -> Shortcut {
        Shortcut::Rows
    }
    fn rows(&self, gradient: &Var) -> (Tensor, Tensor) {
        (self.rows.clone(), (self.values)(gradient).cast(self.dtype).tensor())
    }
}

/// Like [`record`](crate::record), for an operation that looks up rows of `x`: its gradient for these rows, in their order, is
/// `values(gradient)`. If `x` is a parameter, [`Var::grad_rows`] has them; nothing of the size of `x` is made.
///
/// ```
/// use tapegrad_tape::{Tensor, Var, record_rows};
/// let table = Var::parameter(Tensor::ones((1000, 2)));
/// let rows = Var::from_vec(vec![7i64, 3, 7], 3);
/// let value = table.detach().index_select(0, &rows).tensor();
/// record_rows("look_up", &table, value, &rows, |g| g.clone()).sum_all().backward();
/// let (rows, values) = table.grad_rows().unwrap();
/// assert_eq!((rows.to_vec::<i64>(), values.to_vec::<f32>()), (vec![3, 7], vec![1.0, 1.0, 2.0, 2.0]));
/// ```
#[track_caller]
pub fn record_rows(
    op: &'static str,
    x: &Var,
    value: Tensor,
    rows: &Var,
    values: impl Fn(&Var) -> Var + Send + Sync + 'static,
) -> Var {
    let mut parts = Some((values, rows.tensor()));
    let (shape, dtype) = (x.shape(), x.dtype());
    enter(op, &[Some(x)], value, RecordOptions::new(), &mut |_| {
        let (values, rows) = parts.take().expect(ONCE);
        Arc::new(Rows { values, rows, shape: Dims::from_slice(shape), dtype })
    })
}

/// An accumulated gradient.
#[derive(Clone)]
pub(crate) enum Grad {
    /// Of all elements.
    Dense(Var),
    /// The sum of gradients of some rows: lists of rows, in which a row may be repeated, and their values.
    Rows(Vec<(Tensor, Tensor)>),
}

impl Grad {
    /// As one tensor of all elements.
    pub(crate) fn into_dense(self, shape: &Dims) -> Var {
        match self {
            Grad::Dense(grad) => grad,
            Grad::Rows(parts) => grad_mode::no_grad(|| {
                let dtype = parts[0].1.dtype();
                let zeros = Var::from(Tensor::zeros_with(&shape[..], dtype));
                parts.into_iter().fold(zeros, plus)
            }),
        }
    }

    /// A gradient, if there is one yet, and that of some rows.
    pub(crate) fn plus_rows(grad: Option<Grad>, rows: Tensor, values: Tensor) -> Grad {
        match grad {
            None => Grad::Rows(vec![(rows, values)]),
            Some(Grad::Rows(mut parts)) => {
                parts.push((rows, values));
                Grad::Rows(parts)
            }
            Some(Grad::Dense(sum)) => Grad::Dense(grad_mode::no_grad(|| plus(sum, (rows, values)))),
        }
    }

    /// The rows in increasing order, each once, and their gradients; `None` for a gradient of all elements.
    pub(crate) fn rows(&mut self) -> Option<(Tensor, Tensor)> {
        let Grad::Rows(parts) = self else { return None };
        let is_sorted = |rows: &Tensor| rows.to_vec::<i64>().is_sorted_by(|a, b| a < b);
        if parts.len() > 1 || !is_sorted(&parts[0].0) {
            *parts = vec![coalesced(parts)];
        }
        Some(parts[0].clone())
    }
}

fn plus(sum: Var, (rows, values): (Tensor, Tensor)) -> Var {
    sum.index_add(0, &Var::from(rows), &Var::from(values))
}

/// Adds the gradients of rows that are repeated, in the order in which they came.
fn coalesced(parts: &[(Tensor, Tensor)]) -> (Tensor, Tensor) {
    let all: Vec<i64> = parts.iter().flat_map(|(rows, _)| rows.to_vec::<i64>()).collect();
    let mut rows = all.clone();
    rows.sort_unstable();
    rows.dedup();
    let place = |row: &i64| rows.binary_search(row).expect("every row is there") as i64;
    let mut shape = Dims::from(parts[0].1.shape());
    shape[0] = rows.len();
    let (n, mut first) = (rows.len(), 0);
    let zeros = Var::from(Tensor::zeros_with(&shape[..], parts[0].1.dtype()));
    let sum = grad_mode::no_grad(|| {
        parts.iter().fold(zeros, |sum, (part, values)| {
            let places: Vec<i64> = all[first..first + part.numel()].iter().map(place).collect();
            first += places.len();
            plus(sum, (Tensor::from_vec(places, &[part.numel()]), values.clone()))
        })
    });
    (Tensor::from_vec(rows, &[n]), sum.into_tensor())
}

#[cfg(test)]
mod tests {
    use crate::{DType, Tensor, Var, grad, gradcheck, gradgradcheck, record_rows};
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn table() -> Var {
        Var::parameter(Tensor::from_vec((0..10).map(|i| i as f64 * 0.25 - 1.0).collect(), &[5, 2]))
    }

    fn look_up(table: &Var, rows: &[i64]) -> Var {
        let rows = Var::from_vec(rows.to_vec(), &[rows.len()]);
        let value = table.detach().index_select(0, &rows).tensor();
        record_rows("look_up", table, value, &rows, |g| g.clone())
    }

    #[test]
    fn several_look_ups_and_passes_are_added() {
        let w = table();
        let weights = Var::from_vec(vec![1f64, 2.0, 3.0, 4.0, 5.0, 6.0], &[3, 2]);
        for _ in 0..2 {
            let y = (look_up(&w, &[4, 1, 4]) * &weights).sum_all() + look_up(&w, &[2]).sum_all();
            y.backward();
        }
        let (rows, values) = w.grad_rows().unwrap();
        assert_eq!(rows.to_vec::<i64>(), [1, 2, 4]);
        assert_eq!(values.to_vec::<f64>(), [6.0, 8.0, 2.0, 2.0, 12.0, 16.0]);
        let dense = w.grad().unwrap().to_vec::<f64>();
        assert_eq!(dense, [0.0, 0.0, 6.0, 8.0, 2.0, 2.0, 0.0, 0.0, 12.0, 16.0]);
        assert!(w.grad_rows().is_some(), "asking for all changes nothing");
        assert_eq!(w.take_grad().unwrap().to_vec::<f64>(), dense);
        assert!(w.grad().is_none() && w.grad_rows().is_none());
    }

    #[test]
    fn a_gradient_of_all_elements_before_or_after_gives_one_of_all() {
        for reversed in [false, true] {
            let w = table();
            let parts = [look_up(&w, &[3, 3]).sum_all(), (&w * 2.0).sum_all()];
            let sum = if reversed { &parts[1] + &parts[0] } else { &parts[0] + &parts[1] };
            sum.backward();
            look_up(&w, &[0]).sum_all().backward();
            assert!(w.grad_rows().is_none());
            let rows: Vec<f64> = w.grad().unwrap().to_vec::<f64>().into_iter().step_by(2).collect();
            assert_eq!(rows, [3.0, 2.0, 2.0, 4.0, 2.0]);
            w.set_grad(Some(w.ones_like()));
            assert_eq!(w.grad().unwrap().to_vec::<f64>(), [1.0; 10]);
        }
    }

    #[test]
    fn hooks_see_gradients_and_derivatives_are_of_every_order() {
        let w = table();
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let after = w.register_post_accumulate_grad_hook(|w| {
            CALLS.fetch_add(1, Ordering::Relaxed);
            assert_eq!(w.grad_rows().unwrap().0.to_vec::<i64>(), [0, 1]);
        });
        (look_up(&w, &[0]) + look_up(&w, &[1])).sum_all().backward();
        assert_eq!(CALLS.load(Ordering::Relaxed), 1);
        after.remove();
        w.zero_grad();
        let doubled = w.register_hook(|g| Some(g * 2.0));
        look_up(&w, &[1]).sum_all().backward();
        assert!(w.grad_rows().is_none());
        assert_eq!(w.grad().unwrap().to_vec::<f64>()[2], 2.0);
        doubled.remove();
        let f = |v: &[Var]| look_up(&v[0], &[2, 0, 2]).exp();
        gradcheck(f, &[table()]).unwrap();
        gradgradcheck(f, &[table()]).unwrap();
        assert_eq!(grad(&look_up(&w, &[1]).sum_all(), &w).shape(), [5, 2]);
        // Not a leaf.
        w.zero_grad();
        look_up(&(&w * 3.0), &[1]).sum_all().backward();
        assert_eq!(w.grad().unwrap().cast(DType::F32).to_vec::<f32>()[2..4], [3.0, 3.0]);
    }
}
