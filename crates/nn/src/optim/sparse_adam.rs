//! `SparseAdam`.

use super::rule::{Rule, Step};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::update::update2;

optimizer! {
    /// Adam for sparse gradients (`torch.optim.SparseAdam`), such as those of an [`Embedding`](crate::Embedding) that is
    /// `sparse`: a step changes the rows of the gradient and their running averages, and no others.
    ///
    /// A step on a gradient that is not sparse panics, as does one on a gradient that
    /// [`clip_grad_norm_`](super::clip_grad_norm_) has made dense; [`Optimizer::step_scaled`](super::Optimizer::step_scaled)
    /// leaves it sparse.
    ///
    /// ```
    /// use tapegrad_nn::{Embedding, Forward, optim::{Optimizer, SparseAdam}};
    /// use tapegrad_tape::Var;
    /// let table = Embedding::new(1000, 4).sparse(true);
    /// let before = table.weight.to_vec::<f32>();
    /// let mut optimizer = SparseAdam::new([table.weight.clone()], 0.1);
    /// table.forward(&Var::from_vec(vec![7i64, 3, 7], 3)).sum_all().backward();
    /// optimizer.step();
    /// let after = table.weight.to_vec::<f32>();
    /// let changed: Vec<usize> = (0..1000).filter(|row| before[row * 4] != after[row * 4]).collect();
    /// assert_eq!(changed, [3, 7]);
    /// ```
    SparseAdam, SparseAdamOptions {
        /// The learning rate.
        lr: f64 = 1e-3,
        /// The decay rates of the running averages of the gradient and of its square.
        betas: (f64, f64) = (0.9, 0.999),
        /// Added to the denominator for numerical stability.
        eps: f64 = 1e-8,
        /// Maximize instead of minimize.
        maximize: bool = false,
    }
    momentum: betas;
}

impl Rule for SparseAdamOptions {
    rule_options!("SparseAdam");
    const NEEDS_ROWS: bool = true;

    fn buffers(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }

    fn steps_rows(&self) -> bool {
        true
    }

    fn update<T: Float>(&self, at: Step, _: &mut [f64], p: &mut [T], g: &[T], buffers: &mut [&mut [T]]) {
        let [m, v] = buffers else { unreachable!("SparseAdam keeps two buffers") };
        let ((b1, b2), step) = (self.betas, at.number as f64);
        let rate = T::c(self.lr * (1.0 - b2.powf(step)).sqrt() / (1.0 - b1.powf(step)));
        let (d1, d2, eps) = (T::c(1.0 - b1), T::c(1.0 - b2), T::c(self.eps));
        let sign = at.factor::<T>(self.maximize);
        update2(p, g, m, v, |p, g, m, v| {
            let g = sign * g;
            let m = m + (g - m) * d1;
            let v = v + (g * g - v) * d2;
            (p - rate * (m / (v.sqrt() + eps)), m, v)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::{Adagrad, Optimizer, SGD, clip_grad_norm_};
    use tapegrad_ops::{EmbeddingOptions, embedding_with};
    use tapegrad_tape::{DType, Tensor, Var};

    /// The weights after four steps with gradients of rows, and with the same gradients of all elements.
    fn both(mut make: impl FnMut(Var) -> Box<dyn Optimizer>) -> [Vec<f64>; 2] {
        [true, false].map(|sparse| {
            let w = Var::parameter(Tensor::from_vec((0..12).map(|i| f64::from(i) - 5.0).collect(), &[6, 2]));
            let mut optimizer = make(w.clone());
            for step in 0..4 {
                let rows = Var::from_vec(vec![step, 5, step, (step * 3) % 5], &[4]);
                optimizer.zero_grad();
                let y = embedding_with(&rows, &w, EmbeddingOptions::new().sparse(sparse));
                (&y * &y * (step + 1)).sum_all().backward();
                optimizer.step();
            }
            w.to_vec::<f64>()
        })
    }

    #[test]
    fn rows_are_stepped_as_all_elements_would_be() {
        let check = |[rows, all]: [Vec<f64>; 2]| {
            assert!(rows.iter().zip(&all).all(|(a, b)| (a - b).abs() < 1e-12), "{rows:?} {all:?}");
        };
        check(both(|w| Box::new(SGD::new([w], 0.05))));
        check(both(|w| Box::new(SGD::new([w], 0.05).momentum(0.9).weight_decay(0.1))));
        check(both(|w| Box::new(Adagrad::new([w], 0.05).lr_decay(0.1))));
        check(both(|w| Box::new(Adagrad::new([w], 0.05).weight_decay(0.1))));
        check(both(|w| Box::new(crate::optim::Adam::new([w], 0.05))));
    }

    #[test]
    fn a_gradient_without_rows_is_one_of_nothing() {
        let w = Var::parameter(Tensor::ones_with(&[3, 2], DType::F32));
        let none = Var::from_vec(Vec::<i64>::new(), &[0]);
        embedding_with(&none, &w, EmbeddingOptions::new().sparse(true)).sum_all().backward();
        SparseAdam::new([w.clone()], 0.1).step();
        assert_eq!(w.to_vec::<f32>(), [1.0; 6]);
    }

    #[test]
    #[should_panic(
        expected = "SparseAdam: takes sparse gradients only, got a dense one for a parameter of shape [3, 2]"
    )]
    fn a_dense_gradient_is_refused() {
        let w = Var::parameter(Tensor::ones_with(&[3, 2], DType::F32));
        let rows = Var::from_vec(vec![1i64], &[1]);
        embedding_with(&rows, &w, EmbeddingOptions::new().sparse(true)).sum_all().backward();
        clip_grad_norm_(std::slice::from_ref(&w), 0.5);
        SparseAdam::new([w], 0.1).step();
    }
}
