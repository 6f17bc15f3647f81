//! `multinomial`.

use super::{Generator, with_default_generator};
use crate::dtype::DType;
use crate::int_list::Int;
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// Indices of elements, drawn with probabilities in proportion to the elements (`torch.multinomial`), from this thread's
    /// default generator.
    ///
    /// From `[n]` the result is `[num_samples]`, from rows `[m, n]` it is `[m, num_samples]`, in I64 and without gradient.
    /// Without replacement no index appears twice in a row; elements of zero are drawn only if no others are left, as in
    /// PyTorch.
    ///
    /// # Panics
    /// If the elements are not floating point, one is negative, infinite or NaN, or the sum of a row is zero; if
    /// `num_samples` is not positive, or without replacement larger than `n`.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let weights = Var::from_vec(vec![0f32, 3.0, 0.0, 1.0], 4);
    /// let mut drawn = weights.multinomial(2, false).to_vec::<i64>();
    /// drawn.sort();
    /// assert_eq!(drawn, [1, 3]);
    /// ```
    #[track_caller]
    pub fn multinomial(&self, num_samples: impl Int, replacement: bool) -> Var {
        with_default_generator(|g| self.multinomial_with(num_samples, replacement, g))
    }

    /// [`Var::multinomial`] from a generator.
    ///
    /// # Panics
    /// Same as [`Var::multinomial`].
    #[track_caller]
    pub fn multinomial_with(
        &self,
        num_samples: impl Int,
        replacement: bool,
        generator: &mut Generator,
    ) -> Var {
        let (n, count) = check(self, num_samples, replacement);
        let out_shape = [&self.shape()[..self.ndim() - 1], &[count]].concat();
        let total = shape::numel_for("multinomial", &out_shape);
        let weights = self.to_vec::<f64>();
        for row in weights.chunks_exact(n.max(1)) {
            check_row(row);
        }
        let mut drawn = Tensor::uninit(&out_shape, DType::I64);
        if total > 0 {
            let rows = weights.chunks_exact(n).zip(drawn.data_mut::<i64>().chunks_exact_mut(count));
            rows.for_each(|(weights, out)| match replacement {
                true => with_replacement(weights, out, generator),
                false => without_replacement(weights, out, generator),
            });
        }
        Var::from(drawn)
    }
}

#[track_caller]
fn check(weights: &Var, num_samples: impl Int, replacement: bool) -> (usize, usize) {
    assert!(
        weights.dtype().is_float(),
        "multinomial: only supports floating-point weights, got {}",
        weights.dtype()
    );
    assert!(
        matches!(weights.ndim(), 1 | 2),
        "multinomial: the weights must have 1 or 2 dimensions, but got shape {:?}",
        weights.shape()
    );
    let (n, asked) = (weights.size(-1), num_samples.to_isize());
    assert!(asked > 0, "multinomial: cannot sample n_sample <= 0 samples, got {asked}");
    let count = asked as usize;
    assert!(
        replacement || count <= n,
        "multinomial: cannot sample {count} samples without replacement from {n} elements"
    );
    assert!(n > 0, "multinomial: there is nothing to sample from in weights of shape {:?}", weights.shape());
    (n, count)
}

#[track_caller]
fn check_row(row: &[f64]) {
    if let Some(bad) = row.iter().find(|w| !w.is_finite()) {
        panic!("multinomial: invalid distribution (encountering probability entry = infinity or NaN: {bad})");
    }
    if let Some(bad) = row.iter().find(|&&w| w < 0.0) {
        panic!("multinomial: invalid distribution (encountering probability entry < 0: {bad})");
    }
    assert!(row.iter().any(|&w| w > 0.0), "multinomial: invalid distribution (sum of probabilities <= 0)");
}

/// By the inverse of the cumulative sums.
fn with_replacement(weights: &[f64], out: &mut [i64], generator: &mut Generator) {
    // Scaled, so that the sum is finite.
    let largest = weights.iter().copied().fold(0.0, f64::max);
    let mut sum = 0.0;
    let sums: Vec<f64> = weights
        .iter()
        .map(|w| {
            sum += w / largest;
            sum
        })
        .collect();
    // Rounding must not lead past the last element that is not zero.
    let last = weights.iter().rposition(|&w| w > 0.0).expect("checked");
    for v in out {
        let at = generator.next_f64() * sum;
        *v = sums.partition_point(|&s| s <= at).min(last) as i64;
    }
}

/// By the smallest of exponential times whose rates are the weights, which arrive in the order of such draws (Efraimidis
/// and Spirakis 2006, "Weighted random sampling with a reservoir").
fn without_replacement(weights: &[f64], out: &mut [i64], generator: &mut Generator) {
    let mut times: Vec<(f64, i64)> =
        weights.iter().zip(0..).map(|(w, i)| (generator.next_exponential() / w, i)).collect();
    let order = |a: &(f64, i64), b: &(f64, i64)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
    if out.len() < times.len() {
        times.select_nth_unstable_by(out.len(), order);
        times.truncate(out.len());
    }
    times.sort_unstable_by(order);
    out.iter_mut().zip(times).for_each(|(v, (_, i))| *v = i);
}

#[cfg(test)]
mod unit {
    use super::*;

    fn weights(values: &[f64]) -> Var {
        Var::from_vec(values.to_vec(), values.len())
    }

    #[test]
    fn rows_and_zeros() {
        let rows = Var::from_vec(vec![0f32, 1.0, 0.0, 5.0, 0.0, 0.0], (2, 3));
        assert_eq!(rows.multinomial(3, true).to_vec::<i64>(), [1, 1, 1, 0, 0, 0]);
        // As in PyTorch: elements of zero come last.
        assert_eq!(weights(&[0.0, 1.0, 0.0]).multinomial(2, false).to_vec::<i64>(), [1, 0]);
        assert_eq!(Var::zeros((0, 3)).multinomial(2, false).shape(), [0, 2]);
        assert_eq!(weights(&[1e308; 4]).multinomial(9, true).shape(), [9]);
    }

    #[test]
    fn wrong_calls() {
        let cases: [(&[f64], isize, bool, &str); 7] = [
            (&[0.0, 0.0], 1, false, "multinomial: invalid distribution (sum of probabilities <= 0)"),
            (
                &[1.0, -1.0],
                1,
                true,
                "multinomial: invalid distribution (encountering probability entry < 0: -1)",
            ),
            (
                &[1.0, f64::NAN],
                1,
                true,
                "multinomial: invalid distribution (encountering probability entry = infinity or NaN: NaN)",
            ),
            (
                &[1.0, 1.0],
                3,
                false,
                "multinomial: cannot sample 3 samples without replacement from 2 elements",
            ),
            (&[1.0, 1.0], 0, false, "multinomial: cannot sample n_sample <= 0 samples, got 0"),
            (&[1.0, 1.0], -1, true, "multinomial: cannot sample n_sample <= 0 samples, got -1"),
            (&[], 1, true, "multinomial: there is nothing to sample from in weights of shape [0]"),
        ];
        for (values, count, replacement, expected) in cases {
            let panic =
                std::panic::catch_unwind(|| weights(values).multinomial(count, replacement)).unwrap_err();
            let message = panic.downcast_ref::<String>().map(String::as_str);
            assert_eq!(message.or(panic.downcast_ref::<&str>().copied()), Some(expected));
        }
    }

    #[test]
    #[should_panic(expected = "multinomial: the weights must have 1 or 2 dimensions, but got shape []")]
    fn a_scalar() {
        Var::from(1.0).multinomial(1, true);
    }
}
