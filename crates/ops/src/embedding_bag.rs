//! `embedding_bag`.

use crate::autocast::through_f32;
use crate::embedding::{EmbeddingOptions, embedding_with, renormalize};
use crate::kernels::embedding_bag::{spread, sums};
use crate::options::setters;
use std::sync::Arc;
use tapegrad_tape::shape::numel_for;
use tapegrad_tape::{DType, Tensor, Var, dispatch, is_grad_enabled, record};

/// How the rows of a bag are reduced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmbeddingBagMode {
    /// Their sum.
    Sum,
    /// Their mean, the default.
    #[default]
    Mean,
    /// The largest element of each column.
    Max,
}

/// The options of [`embedding_bag`], with PyTorch's defaults.
#[derive(Clone, Debug)]
pub struct EmbeddingBagOptions {
    /// Where each bag begins in a list of indices: the first at 0, in ascending order.
    pub offsets: Option<Var>,
    /// Rows that are looked up and have a larger norm are first scaled down to it, in place.
    pub max_norm: Option<f64>,
    /// Which norm `max_norm` bounds.
    pub norm_type: f64,
    /// Divides each row's gradient by the number of times that it was looked up (not for the maximum).
    pub scale_grad_by_freq: bool,
    /// How the rows of a bag are reduced.
    pub mode: EmbeddingBagMode,
    /// What each row is multiplied by, of the shape of the indices (for sums only).
    pub per_sample_weights: Option<Var>,
    /// The last offset is the number of indices and begins no bag.
    pub include_last_offset: bool,
    /// The index of a row that is left out of all bags; negative ones count from the back.
    pub padding_idx: Option<isize>,
    /// Gives the weight a gradient of the rows that were looked up, see
    /// [`EmbeddingOptions::sparse`](crate::EmbeddingOptions::sparse) (not for the maximum).
    pub sparse: bool,
}

impl EmbeddingBagOptions {
    setters! { norm_type: f64, scale_grad_by_freq: bool, mode: EmbeddingBagMode, include_last_offset: bool, sparse: bool; offsets: Var, max_norm: f64, per_sample_weights: Var; padding_idx }
}

impl Default for EmbeddingBagOptions {
    fn default() -> EmbeddingBagOptions {
        EmbeddingBagOptions {
            offsets: None,
            max_norm: None,
            norm_type: 2.0,
            scale_grad_by_freq: false,
            mode: EmbeddingBagMode::Mean,
            per_sample_weights: None,
            include_last_offset: false,
            padding_idx: None,
            sparse: false,
        }
    }
}

/// The rows of a table at the indices of each bag, reduced (`torch.nn.functional.embedding_bag`).
///
/// `indices` are integers `[bags, size]`, or a list with the `offsets` of the bags in it; `weight` is `[rows, width]`;
/// the result is `[bags, width]`. An empty bag gives zeros.
///
/// # Panics
/// If the shapes do not fit, indices are out of bounds, or an option is not for the mode.
///
/// ```
/// use tapegrad_ops::{EmbeddingBagMode, EmbeddingBagOptions, embedding_bag, embedding_bag_with};
/// use tapegrad_tape::Var;
/// let table = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
/// let bags = Var::from_vec(vec![0i64, 1, 1, 1], &[2, 2]);
/// let options = EmbeddingBagOptions::new().mode(EmbeddingBagMode::Sum);
/// assert_eq!(embedding_bag_with(&bags, &table, options).to_vec::<f32>(), [4.0, 6.0, 6.0, 8.0]);
/// ```
#[track_caller]
pub fn embedding_bag(indices: &Var, weight: &Var) -> Var {
    embedding_bag_with(indices, weight, Default::default())
}

/// [`embedding_bag`] with options.
///
/// # Panics
/// Same as [`embedding_bag`].
#[track_caller]
pub fn embedding_bag_with(indices: &Var, weight: &Var, options: EmbeddingBagOptions) -> Var {
    let bags = Arc::new(Bags::new(indices, weight, &options));
    if let Some(max_norm) = options.max_norm {
        let list: Vec<i64> = bags.index.iter().map(|&i| i as i64).collect();
        renormalize("embedding_bag", weight, &list, max_norm, options.norm_type);
    }
    if options.mode == EmbeddingBagMode::Max {
        return through_f32([weight], |[weight]| bags.maxima(weight));
    }
    let factors = match &options.per_sample_weights {
        None => Var::from_vec(bags.factors(options.mode), bags.index.len()),
        Some(w) => w.reshape(bags.index.len()),
    };
    match options.sparse {
        true => bags.sums_of_rows(weight, &factors.cast(weight.dtype()), &options),
        false => through_f32([weight], |[weight]| bags.weighted(weight, &factors.cast(weight.dtype()))),
    }
}

/// Which rows each bag has.
struct Bags {
    rows: usize,
    width: usize,
    index: Vec<usize>,
    /// Where each bag begins, and where the last one ends.
    starts: Vec<usize>,
    /// Whether each index counts.
    counts: Vec<bool>,
    /// What the gradient of each index is multiplied by.
    frequency: Option<Vec<f64>>,
}

impl Bags {
    #[track_caller]
    fn new(indices: &Var, weight: &Var, options: &EmbeddingBagOptions) -> Bags {
        let op = "embedding_bag";
        assert!(weight.ndim() == 2, "{op}: weight has to be a 2D tensor, but has shape {:?}", weight.shape());
        assert!(
            weight.dtype().is_float(),
            "{op}: expected a weight of a floating-point type, but got {}",
            weight.dtype()
        );
        assert!(
            matches!(indices.dtype(), DType::I64 | DType::U8),
            "{op}: expected integer indices, but got {}",
            indices.dtype()
        );
        if let Some(w) = &options.per_sample_weights {
            assert!(
                options.mode == EmbeddingBagMode::Sum,
                "{op}: per_sample_weights is only supported for the mode Sum, not {:?}",
                options.mode
            );
            assert!(
                w.shape() == indices.shape() && w.dtype() == weight.dtype(),
                "{op}: per_sample_weights must have the shape of the indices and the type of the weight, {:?} and {}, but are {:?} and {}",
                indices.shape(),
                weight.dtype(),
                w.shape(),
                w.dtype()
            );
        }
        assert!(
            options.mode != EmbeddingBagMode::Max || !options.scale_grad_by_freq,
            "{op}: max mode does not support scaling the gradient by the frequency"
        );
        assert!(
            options.mode != EmbeddingBagMode::Max || !options.sparse,
            "{op}: max mode does not support a sparse gradient"
        );
        let (rows, width) = (weight.shape()[0], weight.shape()[1]);
        let list = indices.to_vec::<i64>();
        if let Some(bad) = list.iter().find(|&&i| i < 0 || i >= rows as i64) {
            panic!(
                "{op}: index {bad} is out of range for a weight of {rows} rows (shape {:?})",
                weight.shape()
            );
        }
        let padding = options.padding_idx.map(|p| {
            let n = rows as isize;
            assert!(
                (-n..n).contains(&p),
                "{op}: padding_idx must be within the {rows} rows of the weight, got {p}"
            );
            (if p < 0 { p + n } else { p }) as usize
        });
        let starts = starts(op, indices, options);
        numel_for(op, &[starts.len() - 1, width]);
        let index: Vec<usize> = list.iter().map(|&i| i as usize).collect();
        let frequency = options.scale_grad_by_freq.then(|| {
            let mut counts = vec![0.0; rows];
            index.iter().for_each(|&i| counts[i] += 1.0);
            index.iter().map(|&i| 1.0 / counts[i]).collect()
        });
        let counts = index.iter().map(|&i| padding != Some(i)).collect();
        Bags { rows, width, index, starts, counts, frequency }
    }

    fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// The factor of each index in a sum or a mean.
    fn factors(&self, mode: EmbeddingBagMode) -> Vec<f64> {
        let mut factors = vec![1.0; self.index.len()];
        if mode == EmbeddingBagMode::Mean {
            for bag in self.starts.windows(2) {
                let n = self.counts[bag[0]..bag[1]].iter().filter(|c| **c).count();
                // A bag of padding alone has an empty sum.
                factors[bag[0]..bag[1]].fill(1.0 / n.max(1) as f64);
            }
        }
        factors
    }

    /// Which bag each index is in; those before the first or after the last bag do not exist.
    fn bag_of_each(&self) -> Vec<i64> {
        let mut bags = vec![0; self.index.len()];
        for (b, range) in self.starts.windows(2).enumerate() {
            bags[range[0]..range[1]].fill(b as i64);
        }
        bags
    }

    /// The weighted sums, `[bags, width]`, linear in the table and in the weights.
    #[track_caller]
    fn weighted(self: &Arc<Self>, table: &Var, weights: &Var) -> Var {
        let t = table.tensor().contiguous();
        let w = weights.tensor().contiguous();
        let mut out = Tensor::uninit(&[self.count(), self.width], table.dtype());
        dispatch!(float: table.dtype(), "embedding_bag", T => {
            let w = w.as_slice::<T>().expect("contiguous");
            let w: Vec<Option<T>> = w.iter().zip(&self.counts).map(|(&w, &c)| c.then_some(w)).collect();
            sums::<T>(t.as_slice().expect("contiguous"), self.width, &self.index, &w, &self.starts, out.data_mut());
        });
        let (bags, table, weights) = (self.clone(), table.saved(), weights.saved());
        let inputs = [table.clone(), weights.clone()];
        record("embedding_bag", [&inputs[0], &inputs[1]], out, move |c| {
            let gt = c.wants(0).then(|| bags.table_gradient(c.grad(), &weights));
            [gt, c.wants(1).then(|| bags.weight_gradient(c.grad(), &table))]
        })
    }

    /// The weighted sums from rows that are looked up first: the table then has a gradient of these rows.
    #[track_caller]
    fn sums_of_rows(&self, table: &Var, weights: &Var, options: &EmbeddingBagOptions) -> Var {
        let kept: Vec<i64> = (0..self.index.len() as i64).filter(|&i| self.counts[i as usize]).collect();
        let kept = Var::from(Tensor::from_slice(&kept, &[kept.len()]));
        let of_table = EmbeddingOptions {
            padding_idx: options.padding_idx,
            scale_grad_by_freq: options.scale_grad_by_freq,
            sparse: true,
            ..Default::default()
        };
        let rows = embedding_with(&self.index_var(), table, of_table).index_select(0, &kept);
        let rows = rows.mul(weights.index_select(0, &kept).unsqueeze(1));
        let zeros = Var::from(Tensor::zeros_with(&[self.count(), self.width], table.dtype()));
        zeros.index_add(0, &self.bag_var().index_select(0, &kept), &rows)
    }

    /// What counts of each index's gradient.
    fn masked(&self, weights: &Var) -> Var {
        let scale = |i: usize| self.frequency.as_ref().map_or(1.0, |f| f[i]);
        let mask = (0..self.index.len()).map(|i| if self.counts[i] { scale(i) } else { 0.0 }).collect();
        weights.mul(Var::from(Tensor::from_vec(mask, &[self.index.len()]).cast(weights.dtype())))
    }

    fn index_var(&self) -> Var {
        Var::from_vec(self.index.iter().map(|&i| i as i64).collect(), &[self.index.len()])
    }

    fn bag_var(&self) -> Var {
        Var::from_vec(self.bag_of_each(), &[self.index.len()])
    }

    fn table_gradient(&self, g: &Var, weights: &Var) -> Var {
        let weights = self.masked(weights);
        if is_grad_enabled() {
            let each = g.index_select(0, &self.bag_var()).mul(weights.unsqueeze(1));
            let zeros = Var::from(Tensor::zeros_with(&[self.rows, self.width], g.dtype()));
            return zeros.index_add(0, &self.index_var(), &each);
        }
        let g = g.tensor().contiguous();
        let w = weights.tensor().contiguous();
        let mut out = Tensor::uninit(&[self.rows, self.width], g.dtype());
        // The indices in the order of their rows.
        let mut starts = vec![0; self.rows + 1];
        self.index.iter().for_each(|&i| starts[i + 1] += 1);
        (0..self.rows).for_each(|r| starts[r + 1] += starts[r]);
        let mut next = starts.clone();
        let bags = self.bag_of_each();
        dispatch!(float: g.dtype(), "embedding_bag", T => {
            let w = w.as_slice::<T>().expect("contiguous");
            let mut entries = vec![(0, <T as tapegrad_tape::Number>::ZERO); self.index.len()];
            for (k, &row) in self.index.iter().enumerate() {
                entries[next[row]] = (bags[k] as usize, w[k]);
                next[row] += 1;
            }
            spread::<T>(g.as_slice().expect("contiguous"), self.width, &entries, &starts, out.data_mut());
        });
        Var::from(out)
    }

    fn weight_gradient(&self, g: &Var, table: &Var) -> Var {
        let rows = table.index_select(0, &self.index_var());
        let dots = g.index_select(0, &self.bag_var()).mul(rows).sum(1);
        let mask = self.counts.iter().map(|&c| f64::from(u8::from(c))).collect();
        dots.mul(Var::from(Tensor::from_vec(mask, &[self.index.len()]).cast(g.dtype())))
    }

    #[track_caller]
    fn maxima(self: &Arc<Self>, table: &Var) -> Var {
        let (count, width) = (self.count(), self.width);
        let values = table.to_vec::<f64>();
        // Which row each maximum is of; an empty bag has the row after the last one, of zeros.
        let mut rows = vec![self.rows as i64; count * width];
        for (b, range) in self.starts.windows(2).enumerate() {
            for k in (range[0]..range[1]).filter(|&k| self.counts[k]) {
                for c in 0..width {
                    let best = &mut rows[b * width + c];
                    let x = values[self.index[k] * width + c];
                    if *best == self.rows as i64 || x > values[*best as usize * width + c] {
                        *best = self.index[k] as i64;
                    }
                }
            }
        }
        let zeros = Var::from(Tensor::zeros_with(&[1, width], table.dtype()));
        tapegrad_tape::cat(&[table, &zeros], 0).gather(0, &Var::from_vec(rows, &[count, width]))
    }
}

/// Where each bag begins, and where the last one ends.
#[track_caller]
fn starts(op: &str, indices: &Var, options: &EmbeddingBagOptions) -> Vec<usize> {
    let n = indices.numel();
    match (indices.shape(), &options.offsets) {
        (&[bags, size], None) => (0..=bags).map(|b| b * size).collect(),
        (&[_, _], Some(_)) => {
            panic!("{op}: if input is 2D, then offsets has to be None, since each row is a bag")
        }
        (&[_], None) => panic!("{op}: offsets has to be a 1D tensor but got none"),
        (&[_], Some(offsets)) => {
            assert!(
                offsets.ndim() == 1 && matches!(offsets.dtype(), DType::I64 | DType::U8),
                "{op}: offsets has to be a 1D tensor of integers, but has shape {:?} of {}",
                offsets.shape(),
                offsets.dtype()
            );
            let mut list = offsets.to_vec::<i64>();
            assert!(
                !options.include_last_offset || !list.is_empty(),
                "{op}: include_last_offset: number of offsets should be at least 1"
            );
            if options.include_last_offset {
                list.pop();
            }
            assert!(
                list.first().is_none_or(|&first| first == 0),
                "{op}: offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from position 0, but got {list:?}"
            );
            list.push(n as i64);
            assert!(
                list.windows(2).all(|w| w[0] <= w[1]),
                "{op}: offsets have to ascend and end at the number of indices, {n}, but got {list:?}"
            );
            let mut list: Vec<usize> = list.into_iter().map(|i| i as usize).collect();
            if list.len() == 1 {
                list = vec![0];
            }
            list
        }
        (shape, _) => panic!("{op}: input has to be a 1D or 2D tensor, but got shape {shape:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};

    fn list() -> (Var, Option<Var>) {
        (Var::from_vec(vec![3i64, 0, 3, 1, 2], &[5]), Some(Var::from_vec(vec![0i64, 2, 2], &[3])))
    }

    #[test]
    fn gradients_with_every_option() {
        let (indices, offsets) = list();
        let table = parameter(&[4, 3], 1);
        for mode in [EmbeddingBagMode::Sum, EmbeddingBagMode::Mean, EmbeddingBagMode::Max] {
            for padding_idx in [None, Some(-1)] {
                let options =
                    EmbeddingBagOptions { offsets: offsets.clone(), mode, padding_idx, ..Default::default() };
                check_gradients(
                    |v| embedding_bag_with(&indices, &v[0], options.clone()),
                    std::slice::from_ref(&table),
                );
            }
        }
        let both = [table, parameter(&[5], 2)];
        check_gradients(
            |v| {
                let options = EmbeddingBagOptions {
                    offsets: offsets.clone(),
                    mode: EmbeddingBagMode::Sum,
                    per_sample_weights: Some(v[1].clone()),
                    ..Default::default()
                };
                embedding_bag_with(&indices, &v[0], options)
            },
            &both,
        );
    }

    #[test]
    fn a_sum_of_embeddings() {
        let table = parameter(&[4, 3], 1);
        let bags = Var::from_vec(vec![3i64, 0, 3, 1], &[2, 2]);
        let rows = crate::embedding(&bags, &table);
        assert_close(&embedding_bag(&bags, &table), &rows.mean(1), 1e-14);
        let options = EmbeddingBagOptions::new().mode(EmbeddingBagMode::Max);
        assert_close(&embedding_bag_with(&bags, &table, options), &rows.amax(1), 0.0);
        let (indices, offsets) = list();
        let options = EmbeddingBagOptions { offsets, scale_grad_by_freq: true, ..Default::default() };
        let y = embedding_bag_with(&indices, &table, options);
        assert_eq!(y.to_vec::<f64>()[3..6], [0.0; 3]);
        y.sum_all().backward();
        // Row 3 is looked up twice, in a bag of two and in one of three.
        let want = (1.0 / 2.0 + 1.0 / 3.0) / 2.0;
        assert!((table.grad().unwrap().to_vec::<f64>()[9] - want).abs() < 1e-14);
    }

    #[test]
    fn a_bag_of_padding_is_empty() {
        for sparse in [false, true] {
            let table = parameter(&[3, 2], 1);
            let bags = Var::from_vec(vec![2i64, 2, 0, 2], &[2, 2]);
            let y =
                embedding_bag_with(&bags, &table, EmbeddingBagOptions::new().padding_idx(2).sparse(sparse));
            assert_eq!(y.to_vec::<f64>()[..2], [0.0; 2]);
            y.sum_all().backward();
            assert_eq!(table.grad().unwrap().to_vec::<f64>(), [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        }
    }

    #[test]
    fn sparse_gradients_are_those_of_all_rows() {
        let (indices, offsets) = list();
        let weights = parameter(&[5], 2);
        for (mode, padding_idx, scale_grad_by_freq, weighted) in [
            (EmbeddingBagMode::Sum, None, false, true),
            (EmbeddingBagMode::Sum, Some(1), true, false),
            (EmbeddingBagMode::Mean, Some(-1), false, false),
            (EmbeddingBagMode::Mean, None, true, false),
        ] {
            let run = |sparse: bool| {
                let (table, weights) = (parameter(&[4, 3], 1), Var::parameter(weights.tensor()));
                let options = EmbeddingBagOptions {
                    offsets: offsets.clone(),
                    per_sample_weights: weighted.then(|| weights.clone()),
                    mode,
                    padding_idx,
                    scale_grad_by_freq,
                    sparse,
                    ..Default::default()
                };
                let y = embedding_bag_with(&indices, &table, options);
                y.square().sum_all().backward();
                assert_eq!(table.grad_rows().is_some(), sparse);
                (y, table.grad().unwrap(), weights.grad())
            };
            let (dense, sparse) = (run(false), run(true));
            assert_close(&sparse.0, &dense.0, 1e-14);
            assert_close(&sparse.1, &dense.1, 1e-13);
            if let (Some(a), Some(b)) = (&sparse.2, &dense.2) {
                assert_close(a, b, 1e-13);
            }
        }
    }

    #[test]
    #[should_panic(expected = "embedding_bag: offsets have to ascend and end at the number of indices, 5")]
    fn offsets_out_of_order() {
        let offsets = Some(Var::from_vec(vec![0i64, 4, 2], &[3]));
        embedding_bag_with(
            &list().0,
            &parameter(&[4, 3], 1),
            EmbeddingBagOptions { offsets, ..Default::default() },
        );
    }
}
