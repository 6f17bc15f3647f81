//! `embedding`.

use crate::options::setters;
use std::collections::HashMap;
use tapegrad_tape::shape::numel_for;
use tapegrad_tape::{DType, RecordOptions, Tensor, Var, no_grad, record_rows, record_with};

/// The options of [`embedding`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmbeddingOptions {
    /// The index of a row that gets no gradient; negative ones count from the back.
    pub padding_idx: Option<isize>,
    /// Rows that are looked up and have a larger norm are first scaled down to it, in place.
    pub max_norm: Option<f64>,
    /// Which norm `max_norm` bounds.
    pub norm_type: f64,
    /// Divides each row's gradient by the number of times that it was looked up.
    pub scale_grad_by_freq: bool,
    /// Gives the weight a gradient of the rows that were looked up ([`Var::grad_rows`]), with which optimizers change these
    /// alone: the time of a step then does not depend on the number of rows. `Var::grad` is the same as without.
    pub sparse: bool,
}

impl EmbeddingOptions {
    setters! { norm_type: f64, scale_grad_by_freq: bool, sparse: bool; max_norm: f64; padding_idx }
}

impl Default for EmbeddingOptions {
    /// PyTorch's: all off, and the 2-norm.
    fn default() -> EmbeddingOptions {
        EmbeddingOptions {
            padding_idx: None,
            max_norm: None,
            norm_type: 2.0,
            scale_grad_by_freq: false,
            sparse: false,
        }
    }
}

/// The rows of a table at the indices (`torch.nn.functional.embedding`).
///
/// `indices` are integers of any shape, `weight` is `[rows, width]`; the result has the shape of the indices and then
/// `width`.
///
/// # Panics
/// If `weight` is not a matrix, the indices are not integers or are out of bounds, or `max_norm` is given for a weight
/// that cannot be changed.
///
/// ```
/// use tapegrad_ops::{EmbeddingOptions, embedding, embedding_with};
/// use tapegrad_tape::Var;
/// let table = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
/// let indices = Var::from_vec(vec![1i64, 0, 1], &[3]);
/// let y = embedding(&indices, &table);
/// assert_eq!(y.to_vec::<f32>(), [3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
/// ```
#[track_caller]
pub fn embedding(indices: &Var, weight: &Var) -> Var {
    embedding_with(indices, weight, Default::default())
}

/// [`embedding`] with options.
///
/// # Panics
/// Same as [`embedding`].
#[track_caller]
pub fn embedding_with(indices: &Var, weight: &Var, options: EmbeddingOptions) -> Var {
    assert!(weight.ndim() == 2, "embedding: 'weight' must be 2-D, but has shape {:?}", weight.shape());
    assert!(
        matches!(indices.dtype(), DType::I64 | DType::U8),
        "embedding: expected integer indices, but got {}",
        indices.dtype()
    );
    let (rows, width) = (weight.shape()[0], weight.shape()[1]);
    let list = indices.to_vec::<i64>();
    for &i in &list {
        assert!(
            (0..rows as i64).contains(&i),
            "embedding: index {i} is out of range for a weight of {rows} rows (shape {:?})",
            weight.shape()
        );
    }
    let padding = options.padding_idx.map(|p| {
        let n = rows as isize;
        assert!(
            (-n..n).contains(&p),
            "embedding: padding_idx must be within the {rows} rows of the weight, got {p}"
        );
        (if p < 0 { p + n } else { p }) as i64
    });
    if let Some(max_norm) = options.max_norm {
        renormalize("embedding", weight, &list, max_norm, options.norm_type);
    }
    let n = list.len();
    numel_for("embedding", &[indices.shape(), &[width]].concat());
    let mut shape: Vec<isize> = indices.shape().iter().map(|&n| n as isize).collect();
    shape.push(width as isize);
    let dtype = weight.dtype();
    let column = |values: Vec<f64>| {
        let n = values.len();
        Var::from(Tensor::from_vec(values, &[n, 1]).cast(dtype))
    };
    let factors = options.scale_grad_by_freq.then(|| column(by_frequency(&list)));
    let index = Var::from(Tensor::from_slice(&list, &[n]));
    let samples = indices.shape().first().copied().unwrap_or(0);
    let value = no_grad(|| weight.index_select(0, &index).reshape(&shape)).tensor();
    let of_rows = move |g: &Var, factors: &Option<Var>| {
        let g = g.cast(dtype).reshape((n, width));
        factors.as_ref().map_or_else(|| g.clone(), |f| g.mul(f))
    };
    if options.sparse {
        let trained: Vec<i64> = (0..n as i64).filter(|&i| Some(list[i as usize]) != padding).collect();
        let kept = (trained.len() < n).then(|| Var::from(Tensor::from_slice(&trained, &[trained.len()])));
        let rows = kept.as_ref().map_or_else(|| index.clone(), |kept| index.index_select(0, kept));
        return record_rows("embedding", weight, value, &rows, move |g| {
            let g = of_rows(g, &factors);
            kept.as_ref().map_or_else(|| g.clone(), |kept| g.index_select(0, kept))
        });
    }
    let trained = padding.map(|p| column(list.iter().map(|&i| f64::from(u8::from(i != p))).collect()));
    let factors = [factors, trained].into_iter().flatten().reduce(|a, b| a.mul(&b));
    let (places, scales) = (index.clone(), factors.clone());
    let linear = |t: &Var| {
        let rows = t.index_select(0, &places);
        scales.as_ref().map_or_else(|| rows.clone(), |f| rows.mul(f)).reshape(&shape)
    };
    let record_options = RecordOptions::new().linear(&linear).by_sample(samples > 0);
    record_with("embedding", [weight], value, record_options, move |c| {
        let g = of_rows(c.grad(), &factors);
        let (tables, index) = match c.by_sample(0) {
            // A table for each sample, one below the other.
            true => (samples, &index + in_table(n, samples, rows)),
            false => (1, index.clone()),
        };
        let zeros = Var::from(Tensor::zeros_with(&[tables * rows, width], dtype));
        let sum = zeros.index_add(0, &index, &g);
        [Some(if c.by_sample(0) { sum.reshape(&[samples, rows, width]) } else { sum })]
    })
}

/// The first row of the table of the sample that each of `n` indices belongs to.
fn in_table(n: usize, samples: usize, rows: usize) -> Var {
    let each = n / samples.max(1);
    Var::from_vec((0..n).map(|i| (i / each * rows) as i64).collect(), &[n])
}

/// One divided by the number of times that each row in the list was looked up.
fn by_frequency(list: &[i64]) -> Vec<f64> {
    let mut counts: HashMap<i64, f64> = HashMap::new();
    list.iter().for_each(|&i| *counts.entry(i).or_default() += 1.0);
    list.iter().map(|i| 1.0 / counts[i]).collect()
}

/// Scales down, in place, the rows in the list whose norm is too large.
#[track_caller]
pub(crate) fn renormalize(op: &str, weight: &Var, list: &[i64], max_norm: f64, norm_type: f64) {
    assert!(
        weight.is_leaf() && weight.id().is_some(),
        "{op}: max_norm changes the weight, so it must be a parameter or buffer"
    );
    let mut wanted = vec![false; weight.shape()[0]];
    list.iter().for_each(|&i| wanted[i as usize] = true);
    let norm = |row: &[f64]| match norm_type {
        f64::INFINITY => row.iter().fold(0.0, |max: f64, x| max.max(x.abs())),
        p => row.iter().map(|x| x.abs().powf(p)).sum::<f64>().powf(1.0 / p),
    };
    // Atomically, so that another thread's change of the weight is not lost.
    weight.update(|value| {
        let scale: Vec<f64> = value
            .to_vec::<f64>()
            .chunks(value.shape()[1].max(1))
            .zip(wanted)
            .map(|(row, wanted)| (norm(row), wanted))
            .map(|(norm, wanted)| if wanted && norm > max_norm { max_norm / (norm + 1e-7) } else { 1.0 })
            .collect();
        let factors = Var::from(Tensor::from_vec(scale, &[value.shape()[0], 1]).cast(value.dtype()));
        *value = Var::from(&*value).mul(&factors).tensor();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    fn indices() -> Var {
        Var::from_vec(vec![3i64, 0, 3, 1], &[2, 2])
    }

    #[test]
    fn gradients_with_every_option() {
        for options in [
            EmbeddingOptions::new(),
            EmbeddingOptions::new().padding_idx(-1),
            EmbeddingOptions::new().scale_grad_by_freq(true).padding_idx(0),
            EmbeddingOptions::new().sparse(true),
            EmbeddingOptions::new().sparse(true).padding_idx(-1),
            EmbeddingOptions::new().sparse(true).scale_grad_by_freq(true).padding_idx(0),
        ] {
            let w = parameter(&[4, 3], 1);
            let y = embedding_with(&indices(), &w, options);
            assert_eq!(y.shape(), [2, 2, 3]);
            y.sum_all().backward();
            assert_eq!(w.grad_rows().is_some(), options.sparse);
            let count = |row: usize| w.grad().unwrap().to_vec::<f64>()[row * 3];
            let last = if options.padding_idx == Some(-1) {
                0.0
            } else if options.scale_grad_by_freq {
                1.0
            } else {
                2.0
            };
            let first = if options.padding_idx == Some(0) { 0.0 } else { 1.0 };
            assert_eq!([count(0), count(1), count(2), count(3)], [first, 1.0, 0.0, last]);
        }
        for sparse in [false, true] {
            let options = EmbeddingOptions::new().sparse(sparse);
            check_gradients(|x| embedding_with(&indices(), &x[0], options), &[parameter(&[4, 3], 1)]);
        }
    }

    #[test]
    fn a_sparse_gradient_has_the_rows_that_are_trained() {
        let w = parameter(&[4, 3], 1);
        embedding_with(&indices(), &w, EmbeddingOptions::new().sparse(true).padding_idx(0))
            .sum_all()
            .backward();
        let (rows, values) = w.grad_rows().unwrap();
        assert_eq!(rows.to_vec::<i64>(), [1, 3]);
        assert_eq!(values.to_vec::<f64>(), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
        let none = Var::from_vec(Vec::<i64>::new(), &[0]);
        w.zero_grad();
        embedding_with(&none, &w, EmbeddingOptions::new().sparse(true)).sum_all().backward();
        assert_eq!(w.grad_rows().unwrap().1.shape(), [0, 3]);
        assert_eq!(w.grad().unwrap().to_vec::<f64>(), [0.0; 12]);
    }

    #[test]
    fn long_rows_are_scaled_down() {
        let w = Var::parameter(Tensor::from_vec(vec![3.0f64, 4.0, 30.0, 40.0], &[2, 2]));
        let first = Var::from_vec(vec![0i64], &[1]);
        let y = embedding_with(&first, &w, EmbeddingOptions::new().max_norm(1.0));
        assert!((y.to_vec::<f64>()[0] - 0.6).abs() < 1e-6);
        assert_eq!(w.to_vec::<f64>()[2..], [30.0, 40.0]);
    }

    #[test]
    #[should_panic(expected = "embedding: index 4 is out of range for a weight of 4 rows")]
    fn rows_that_are_not_there() {
        embedding(&Var::from_vec(vec![4i64], &[1]), &parameter(&[4, 3], 1));
    }
}
