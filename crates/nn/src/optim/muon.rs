//! `Muon`.

use super::rule::{Rule, Step};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::update::{update0, update1};
use tapegrad_tape::{Tensor, Var};

/// How the learning rate of [`Muon`] depends on a matrix's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdjustLr {
    /// `sqrt(max(1, rows / columns))`, as in the original publication.
    Original,
    /// `0.2 sqrt(max(rows, columns))`: matches the update size of AdamW, so that its hyperparameters can be reused.
    MatchRmsAdamw,
}

impl super::core::Hyper for AdjustLr {
    fn to_numbers(self) -> Vec<f64> {
        vec![f64::from(u8::from(self == AdjustLr::MatchRmsAdamw))]
    }
    fn from_numbers(numbers: &[f64]) -> Option<Self> {
        match numbers {
            [x] => Some(if *x == 0.0 { AdjustLr::Original } else { AdjustLr::MatchRmsAdamw }),
            _ => None,
        }
    }
}

optimizer! {
    /// Orthogonalized momentum (`torch.optim.Muon`), for the weights of hidden linear layers. Parameters that are
    /// not matrices belong to another optimizer.
    ///
    /// PyTorch computes the orthogonalization in bfloat16; this is done in the type of the parameter.
    ///
    /// ```
    /// use tapegrad_nn::optim::{Muon, Optimizer};
    /// use tapegrad_tape::{Tensor, Var};
    /// let w = Var::parameter(Tensor::from_vec(vec![1f32, 0.0, 0.0, 1.0], &[2, 2]));
    /// let mut muon = Muon::new([w.clone()], 0.1).weight_decay(0.0);
    /// (&w * &w).sum_all().backward();
    /// muon.step();
    /// assert!((w.to_vec::<f32>()[0] - 0.9).abs() < 0.05);
    /// ```
    Muon, MuonOptions {
        /// The learning rate.
        lr: f64 = 1e-3,
        /// Weight decay.
        weight_decay: f64 = 0.1,
        /// The momentum factor.
        momentum: f64 = 0.95,
        /// Nesterov momentum.
        nesterov: bool = true,
        /// The coefficients of the Newton-Schulz iteration.
        ns_coefficients: (f64, f64, f64) = (3.4445, -4.775, 2.0315),
        /// The lower bound of the norm by which a direction is divided.
        eps: f64 = 1e-7,
        /// The number of Newton-Schulz iterations.
        ns_steps: usize = 5,
        /// How the learning rate depends on a matrix's shape.
        adjust_lr_fn: AdjustLr = AdjustLr::Original,
    }
    momentum: momentum;
}

impl Rule for MuonOptions {
    rule_options!("Muon");

    fn buffers(&self) -> &'static [&'static str] {
        &["momentum_buffer"]
    }

    fn check(&self, shape: &[usize]) {
        assert!(shape.len() == 2, "Muon: takes matrices only, got a parameter of shape {shape:?}");
    }

    fn update<T: Float>(&self, at: Step, _: &mut [f64], p: &mut [T], g: &[T], buffers: &mut [&mut [T]]) {
        let [m] = buffers else { unreachable!("Muon keeps one buffer") };
        let (rows, columns) = (at.shape[0], at.shape[1]);
        let (mu, join) = (T::c(self.momentum), T::c(1.0 - self.momentum));
        let mut direction = vec![T::ZERO; p.len()];
        let (nesterov, factor) = (self.nesterov, at.factor::<T>(false));
        update1(&mut direction, g, m, |_, g, m| {
            let g = factor * g;
            let m = m + (g - m) * join;
            (if nesterov { g + (m - g) * mu } else { m }, m)
        });
        let direction = self.orthogonal(Tensor::from_vec(direction, &[rows, columns]));
        let ratio = match self.adjust_lr_fn {
            AdjustLr::Original => (rows as f64 / columns as f64).max(1.0).sqrt(),
            AdjustLr::MatchRmsAdamw => 0.2 * (rows.max(columns) as f64).sqrt(),
        };
        let (shrink, rate) = (T::c(1.0 - self.lr * self.weight_decay), T::c(self.lr * ratio));
        let direction = direction.as_slice::<T>().expect("made contiguous");
        update0(p, direction, |p, d| (p * shrink - rate * d,));
    }
}

impl MuonOptions {
    /// Newton-Schulz iterations toward the nearest orthogonal matrix: the singular values approach one.
    fn orthogonal(&self, g: Tensor) -> Tensor {
        let (a, b, c) = self.ns_coefficients;
        tapegrad_tape::no_grad(|| {
            let tall = g.shape()[0] > g.shape()[1];
            let x = Var::from(if tall { g.transpose(0, 1).contiguous() } else { g });
            let norm = x.square().sum_all().sqrt().clamp_min(self.eps);
            let mut x = x / norm;
            for _ in 0..self.ns_steps {
                let gram = tapegrad_ops::matmul(&x, &x.transpose(0, 1));
                let update = &gram * b + tapegrad_ops::matmul(&gram, &gram) * c;
                x = &x * a + tapegrad_ops::matmul(&update, &x);
            }
            let x = x.into_tensor();
            if tall { x.transpose(0, 1).contiguous() } else { x.contiguous() }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::Optimizer;
    use tapegrad_tape::DType;

    #[test]
    fn steps_are_nearly_orthogonal() {
        for (rows, columns) in [(3, 5), (5, 3)] {
            let p = Var::parameter(Tensor::zeros_with(&[rows, columns], DType::F64));
            let g =
                tapegrad_tape::Generator::manual_seed(1).normal(&[rows, columns], 0.0, 1.0).cast(DType::F64);
            p.set_grad(Some(Var::from(g)));
            let mut muon =
                Muon::new([p.clone()], 1.0).weight_decay(0.0).adjust_lr_fn(AdjustLr::MatchRmsAdamw);
            muon.step();
            let scale = 0.2 * 5f64.sqrt();
            let x = p.detach() * (1.0 / scale);
            let x = if rows > columns { x.transpose(0, 1) } else { x };
            let gram = tapegrad_ops::matmul(&x, &x.transpose(0, 1)).to_vec::<f64>();
            for (i, v) in gram.iter().enumerate() {
                // The iteration yields singular values between 0.7 and 1.2, not at one.
                let range = if i % 4 == 0 { 0.4..1.5 } else { -0.35..0.35 };
                assert!(range.contains(v), "{gram:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "Muon: takes matrices only, got a parameter of shape [3]")]
    fn vectors_are_refused() {
        let _ = Muon::new([Var::parameter(Tensor::zeros_with(&[3], DType::F32))], 0.1);
    }
}
