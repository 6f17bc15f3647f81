//! `Adafactor`.

use super::rule::{Rule, Step};
use tapegrad_tape::Float;
use tapegrad_tape::kernels::update::{update0, update1};

/// An absent first number is the type's own.
impl super::core::Hyper for (Option<f64>, f64) {
    fn to_numbers(self) -> Vec<f64> {
        self.0.into_iter().chain([self.1]).collect()
    }
    fn from_numbers(numbers: &[f64]) -> Option<Self> {
        match numbers {
            [b] => Some((None, *b)),
            [a, b] => Some((Some(*a), *b)),
            _ => None,
        }
    }
}

optimizer! {
    /// Adafactor (`torch.optim.Adafactor`; Shazeer & Stern 2018): for a matrix, or a batch of them in the last two
    /// dimensions, it keeps the mean squares of rows and columns instead of one for each element. The size of a step is
    /// relative to that of the parameter.
    ///
    /// ```
    /// use tapegrad_nn::optim::{Adafactor, Optimizer};
    /// use tapegrad_tape::{Tensor, Var};
    /// let w = Var::parameter(Tensor::ones((30, 20)));
    /// let mut adafactor = Adafactor::new([w.clone()], 0.1);
    /// (&w * &w).sum_all().backward();
    /// adafactor.step();
    /// assert!((w.to_vec::<f32>()[7] - 0.9).abs() < 1e-6);
    /// assert_eq!(adafactor.state_dict().get("state.0.0.col_var").unwrap().shape(), [1, 20]);
    /// ```
    Adafactor, AdafactorOptions {
        /// The largest learning rate; it is at most one divided by the square root of the number of the step.
        lr: f64 = 1e-2,
        /// The power of the step in the decay rate of the mean squares.
        beta2_decay: f64 = -0.8,
        /// The lower bounds of mean squares (its square; the type's machine epsilon, if absent) and of the size of a
        /// parameter.
        eps: (Option<f64>, f64) = (None, 1e-3),
        /// The root mean square above which an update is scaled down.
        d: f64 = 1.0,
        /// Decoupled weight decay.
        weight_decay: f64 = 0.0,
        /// Maximize instead of minimize.
        maximize: bool = false,
    }
    momentum: none;
}

impl Rule for AdafactorOptions {
    rule_options!("Adafactor");
    const ROW_MAJOR: bool = true;

    fn buffers(&self) -> &'static [&'static str] {
        &["row_var", "col_var", "variance"]
    }

    fn buffer_shape(&self, name: &str, shape: &[usize]) -> Option<Vec<usize>> {
        let [batch @ .., rows, columns] = shape else { return (name == "variance").then(|| shape.to_vec()) };
        match name {
            "row_var" => Some([batch, &[*rows, 1]].concat()),
            "col_var" => Some([batch, &[1, *columns]].concat()),
            _ => None,
        }
    }

    fn update<T: Float>(&self, at: Step, _: &mut [f64], p: &mut [T], g: &[T], buffers: &mut [&mut [T]]) {
        if p.is_empty() {
            return;
        }
        let step = at.number as f64;
        let fresh = step.powf(self.beta2_decay);
        let epsilon = if size_of::<T>() == 4 { f64::from(f32::EPSILON) } else { f64::EPSILON };
        let epsilon = self.eps.0.unwrap_or(epsilon);
        let rate = self.eps.1.max(root_mean_square(p)) * self.lr.min(1.0 / step.sqrt());
        let factor = at.factor::<T>(self.maximize);
        // The gradient at first.
        let mut direction: Vec<T> = g.iter().map(|g| factor * *g).collect();
        match buffers {
            [variance] => {
                let (fresh, floor) = (T::c(fresh), T::c(epsilon * epsilon));
                update1(&mut direction, g, variance, |g, _, v| {
                    let v = v + (g * g - v) * fresh;
                    (g / v.maximum(floor).sqrt(), v)
                });
            }
            [rows, columns] => {
                let (height, width) = (at.shape[at.shape.len() - 2], at.shape[at.shape.len() - 1]);
                let sides = rows.chunks_mut(height).zip(columns.chunks_mut(width));
                for (direction, (rows, columns)) in direction.chunks_mut(height * width).zip(sides) {
                    move_toward_means(rows, columns, direction, fresh);
                    factored(direction, rows, columns, epsilon);
                }
            }
            _ => unreachable!("Adafactor keeps one or two buffers"),
        }
        let rate = rate / (root_mean_square(&direction) / self.d).max(1.0);
        let (rate, shrink) = (T::c(rate), T::c(1.0 - self.lr * self.weight_decay));
        update0(p, &direction, |p, d| (p * shrink - rate * d,));
    }
}

fn root_mean_square<T: Float>(values: &[T]) -> f64 {
    let sum: f64 = values.iter().map(|x| x.to_f64() * x.to_f64()).sum();
    (sum / values.len() as f64).sqrt()
}

/// Moves the mean squares of rows and columns toward those of a matrix.
fn move_toward_means<T: Float>(rows: &mut [T], columns: &mut [T], g: &[T], fresh: f64) {
    let mut sums = vec![0.0; columns.len()];
    for (row, g) in rows.iter_mut().zip(g.chunks(columns.len())) {
        let mut sum = 0.0;
        for (column, g) in sums.iter_mut().zip(g) {
            let square = g.to_f64() * g.to_f64();
            sum += square;
            *column += square;
        }
        *row = *row + (T::c(sum / g.len() as f64) - *row) * T::c(fresh);
    }
    for (column, sum) in columns.iter_mut().zip(sums) {
        *column = *column + (T::c(sum / rows.len() as f64) - *column) * T::c(fresh);
    }
}

/// Divides the gradient by the root of the mean squares that follow from those of its row and its column.
fn factored<T: Float>(g: &mut [T], rows: &[T], columns: &[T], epsilon: f64) {
    let mean = rows.iter().map(|r| r.to_f64()).sum::<f64>() / rows.len() as f64;
    let floor = T::c(epsilon * epsilon);
    for (g, row) in g.chunks_mut(columns.len()).zip(rows) {
        let row = T::c(row.to_f64() / mean.max(epsilon));
        for (g, column) in g.iter_mut().zip(columns) {
            *g = *g / (row * *column).maximum(floor).sqrt();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::Optimizer;
    use tapegrad_tape::{DType, MemoryFormat, Tensor, Var};

    #[test]
    fn the_memory_order_of_a_kernel_does_not_matter() {
        let t = Tensor::from_vec((0..120).map(|i| (i * 7 % 31) as f64).collect(), &[2, 3, 4, 5]);
        let results = [MemoryFormat::Contiguous, MemoryFormat::ChannelsLast].map(|format| {
            let p = Var::parameter(t.to_format(format));
            let mut adafactor = Adafactor::new([p.clone()], 0.1);
            for _ in 0..2 {
                p.set_grad(Some(Var::from(t.to_format(format))));
                adafactor.step();
            }
            p.to_vec::<f64>()
        });
        assert_eq!(results[0], results[1]);
    }

    #[test]
    fn a_loaded_state_goes_on_and_one_of_another_shape_is_refused() {
        let w = |columns| Var::parameter(Tensor::ones_with(&[3, columns], DType::F32));
        let (a, b) = (w(2), w(2));
        let step = |p: &Var, o: &mut Adafactor| {
            p.set_grad(Some(p.detach() * p.detach()));
            o.step();
        };
        let mut first = Adafactor::new([a.clone()], 0.1).eps((Some(1e-6), 1e-2));
        step(&a, &mut first);
        b.set_value(a.tensor());
        let mut second = Adafactor::new([b.clone()], 0.3);
        second.load_state_dict(&first.state_dict()).unwrap();
        assert_eq!(second.groups()[0].options.eps, (Some(1e-6), 1e-2));
        step(&a, &mut first);
        step(&b, &mut second);
        assert_eq!(a.to_vec::<f32>(), b.to_vec::<f32>());
        let error = Adafactor::new([w(4)], 0.1).load_state_dict(&first.state_dict()).unwrap_err();
        assert_eq!(error.key, "state.0.0.col_var");
    }

    #[test]
    fn an_empty_parameter_is_left_alone() {
        let p = Var::parameter(Tensor::zeros_with(&[3, 0], DType::F32));
        p.set_grad(Some(Var::from(Tensor::zeros_with(&[3, 0], DType::F32))));
        Adafactor::new([p.clone()], 0.1).step();
        assert_eq!(p.shape(), [3, 0]);
    }
}
