//! What a loader reads from: the [`Dataset`] trait, subsets, concatenations, tensors.

use std::sync::Arc;

use tapegrad_tape::{Generator, Tensor, Var};

use crate::collate::Collate;
use crate::error::{DataError, Result};
use crate::images::Images;
use crate::parallel;

/// Samples that are accessible by index, as `torch.utils.data.Dataset`.
///
/// ```
/// use tapegrad_datasets::{DataLoader, Dataset, Result};
///
/// /// Numbers and their squares.
/// struct Squares(usize);
///
/// impl Dataset for Squares {
///     type Sample = (f32, f32);
///     fn len(&self) -> usize {
///         self.0
///     }
///     fn get(&self, index: usize) -> Result<(f32, f32)> {
///         let x = index as f32;
///         Ok((x, x * x))
///     }
/// }
///
/// for (x, y) in &DataLoader::new(Squares(4)).batch_size(4) {
///     assert_eq!((&x * &x).to_vec::<f32>(), y.to_vec::<f32>());
/// }
/// ```
pub trait Dataset: Send + Sync {
    /// What [`get`](Self::get) returns. Numbers, tensors, sequences and tuples of them make batches by themselves
    /// ([`Collate`]); for other types, give the loader a function ([`DataLoader::collate_with`](crate::DataLoader)).
    type Sample: Send;

    /// The number of samples.
    fn len(&self) -> usize;

    /// Sample `index`. Loaders call it from several threads.
    ///
    /// # Errors
    /// If the sample cannot be read. A loader adds its index to the message.
    fn get(&self, index: usize) -> Result<Self::Sample>;

    /// True if there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples with these indices as a batch. Override it to make batches in another way.
    ///
    /// # Errors
    /// If a sample cannot be read, or the samples do not fit together.
    fn batch(&self, indices: &[usize]) -> Result<<Self::Sample as Collate>::Batch>
    where
        Self: Sized,
        Self::Sample: Collate,
    {
        Collate::collate(samples(self, indices)?).map_err(|reason| DataError::Batch { reason })
    }
}

/// The samples with these indices, read by several threads.
pub(crate) fn samples<D: Dataset + ?Sized>(dataset: &D, indices: &[usize]) -> Result<Vec<D::Sample>> {
    let mut read: Vec<Option<Result<D::Sample>>> = indices.iter().map(|_| None).collect();
    parallel::for_each_chunk(&mut read, 1, 1, |i, place| place[0] = Some(dataset.get(indices[i])));
    let named = |(read, &index): (Option<Result<D::Sample>>, &usize)| {
        read.expect("each place is filled").map_err(|e| e.of_sample(index))
    };
    read.into_iter().zip(indices).map(named).collect()
}

impl<D: Dataset + ?Sized> Dataset for Arc<D> {
    type Sample = D::Sample;
    fn len(&self) -> usize {
        (**self).len()
    }
    fn get(&self, index: usize) -> Result<D::Sample> {
        (**self).get(index)
    }
}

impl<D: Dataset + ?Sized> Dataset for Box<D> {
    type Sample = D::Sample;
    fn len(&self) -> usize {
        (**self).len()
    }
    fn get(&self, index: usize) -> Result<D::Sample> {
        (**self).get(index)
    }
}

/// Tensors whose first dimension counts the samples, as `torch.utils.data.TensorDataset`.
///
/// ```
/// use tapegrad_datasets::{DataLoader, TensorDataset};
/// use tapegrad_tape::Tensor;
/// let (x, y) = (Tensor::from_vec((0..6).map(|i| i as f32).collect(), &[3, 2]), Tensor::arange(0, 3));
/// let batches: Vec<_> = DataLoader::new(TensorDataset::new((x, y))).batch_size(2).into_iter().collect();
/// assert_eq!(batches[1].0.to_vec::<f32>(), [4.0, 5.0]);
/// assert_eq!(batches[0].1.to_vec::<i64>(), [0, 1]);
/// ```
#[derive(Debug, Clone)]
pub struct TensorDataset<T> {
    tensors: T,
    len: usize,
}

/// A tensor, or a tuple of tensors, whose first dimension counts the samples.
pub trait Rows: Send + Sync {
    /// One sample of each tensor.
    type Row: Collate + Send;
    /// The number of samples of each tensor.
    #[doc(hidden)]
    fn counts(&self) -> Vec<usize>;
    #[doc(hidden)]
    fn row(&self, index: usize) -> Self::Row;
    #[doc(hidden)]
    fn rows(&self, index: &Tensor) -> <Self::Row as Collate>::Batch;
}

impl Rows for Tensor {
    type Row = Tensor;
    fn counts(&self) -> Vec<usize> {
        vec![self.shape().first().copied().unwrap_or(0)]
    }
    fn row(&self, index: usize) -> Tensor {
        self.select(0, index)
    }
    fn rows(&self, index: &Tensor) -> Tensor {
        Var::from(self).index_select(0, &Var::from(index)).into_tensor()
    }
}

macro_rules! rows {
    ($($name:ident $place:tt),*) => {
        impl<$($name: Rows),*> Rows for ($($name,)*) {
            type Row = ($($name::Row,)*);
            fn counts(&self) -> Vec<usize> {
                [$(self.$place.counts()),*].concat()
            }
            fn row(&self, index: usize) -> Self::Row {
                ($(self.$place.row(index),)*)
            }
            fn rows(&self, index: &Tensor) -> <Self::Row as Collate>::Batch {
                ($(self.$place.rows(index),)*)
            }
        }
    };
}
rows!(A 0);
rows!(A 0, B 1);
rows!(A 0, B 1, C 2);
rows!(A 0, B 1, C 2, D 3);

impl<T: Rows> TensorDataset<T> {
    /// The rows of a tensor or of a tuple of tensors.
    ///
    /// # Panics
    /// If the tensors differ in their first size.
    #[track_caller]
    pub fn new(tensors: T) -> Self {
        let counts = tensors.counts();
        assert!(
            counts.windows(2).all(|w| w[0] == w[1]),
            "TensorDataset: the tensors should have one first size, but have {counts:?}"
        );
        TensorDataset { len: counts[0], tensors }
    }

    /// The tensors.
    pub fn tensors(&self) -> &T {
        &self.tensors
    }
}

impl<T: Rows> Dataset for TensorDataset<T> {
    type Sample = T::Row;

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, index: usize) -> Result<T::Row> {
        if index >= self.len {
            return Err(DataError::other(format!("there is no such row: there are {}", self.len)));
        }
        Ok(self.tensors.row(index))
    }

    fn batch(&self, indices: &[usize]) -> Result<<T::Row as Collate>::Batch> {
        if let Some(&index) = indices.iter().find(|&&i| i >= self.len) {
            return Err(self.get(index).err().expect("out of range").of_sample(index));
        }
        let index: Vec<i64> = indices.iter().map(|&i| i as i64).collect();
        Ok(self.tensors.rows(&Tensor::from_vec(index, &[indices.len()])))
    }
}

/// Some samples of a data set, as `torch.utils.data.Subset`.
pub struct Subset<D: ?Sized = dyn Images> {
    dataset: Arc<D>,
    indices: Arc<[usize]>,
}

impl<D: ?Sized> Clone for Subset<D> {
    fn clone(&self) -> Self {
        Subset { dataset: self.dataset.clone(), indices: self.indices.clone() }
    }
}

impl<D: Dataset + ?Sized> Subset<D> {
    /// The samples with these indices, in this order.
    ///
    /// # Panics
    /// If an index is not below the data set's length.
    #[track_caller]
    pub fn new(dataset: Arc<D>, indices: Vec<usize>) -> Self {
        if let Some(index) = indices.iter().find(|&&i| i >= dataset.len()) {
            panic!("Subset: index {index} of a data set with {} samples", dataset.len());
        }
        Subset { dataset, indices: indices.into() }
    }

    /// The index of each sample in the whole data set.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }
}

impl<D: Dataset + ?Sized> Dataset for Subset<D> {
    type Sample = D::Sample;
    fn len(&self) -> usize {
        self.indices.len()
    }
    fn get(&self, index: usize) -> Result<D::Sample> {
        self.dataset.get(self.indices[index])
    }
}

impl<D: Images + ?Sized> Images for Subset<D> {
    fn image_shape(&self) -> [usize; 3] {
        self.dataset.image_shape()
    }
    fn read(&self, index: usize, image: &mut [f32]) -> Result<i64> {
        self.dataset.read(self.indices[index], image)
    }
    fn classes(&self) -> &[String] {
        self.dataset.classes()
    }
}

/// Several data sets, one after the other, as `torch.utils.data.ConcatDataset`.
///
/// Data sets of several types are joined as `Arc<dyn Dataset<Sample = ...>>`.
///
/// ```
/// use tapegrad_datasets::{ConcatDataset, Dataset, TensorDataset};
/// use tapegrad_tape::Tensor;
/// let part = |from, to| TensorDataset::new(Tensor::arange(from, to));
/// let all = ConcatDataset::new([part(0, 3), part(10, 12)]);
/// assert_eq!((all.len(), all.get(3)?.item::<i64>()), (5, 10));
/// # Ok::<(), tapegrad_datasets::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConcatDataset<D> {
    parts: Vec<D>,
    /// The index behind the last sample of each part.
    ends: Vec<usize>,
}

impl<D: Dataset> ConcatDataset<D> {
    /// The samples of all parts.
    ///
    /// # Panics
    /// If there is no part, or there are more samples than an index can count.
    #[track_caller]
    pub fn new(parts: impl IntoIterator<Item = D>) -> Self {
        let parts: Vec<D> = parts.into_iter().collect();
        assert!(!parts.is_empty(), "ConcatDataset: expects at least one data set");
        let mut end = 0usize;
        let ends = parts.iter().map(|part| {
            end = end.checked_add(part.len()).expect("ConcatDataset: more samples than an index can count");
            end
        });
        ConcatDataset { ends: ends.collect(), parts }
    }

    /// The parts.
    pub fn parts(&self) -> &[D] {
        &self.parts
    }

    /// The number of a part and the index in it.
    fn place(&self, index: usize) -> (usize, usize) {
        let part = self.ends.partition_point(|&end| end <= index);
        (part, index - if part == 0 { 0 } else { self.ends[part - 1] })
    }
}

impl<D: Dataset> Dataset for ConcatDataset<D> {
    type Sample = D::Sample;
    fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }
    fn get(&self, index: usize) -> Result<D::Sample> {
        let (part, index) = self.place(index);
        match self.parts.get(part) {
            Some(part) => part.get(index),
            None => Err(DataError::other(format!("there is no such sample: there are {}", self.len()))),
        }
    }
}

impl<D: Images> Images for ConcatDataset<D> {
    fn image_shape(&self) -> [usize; 3] {
        self.parts[0].image_shape()
    }
    fn read(&self, index: usize, image: &mut [f32]) -> Result<i64> {
        let (part, index) = self.place(index);
        let [part, first] = [&self.parts[part], &self.parts[0]];
        if part.image_shape() != first.image_shape() {
            let (here, there) = (part.image_shape(), first.image_shape());
            return Err(DataError::other(format!(
                "an image of shape {here:?} among images of shape {there:?}"
            )));
        }
        part.read(index, image)
    }
    fn classes(&self) -> &[String] {
        self.parts[0].classes()
    }
}

/// Splits a data set at random into parts of the given lengths, as `torch.utils.data.random_split`: the same parts each
/// time.
///
/// # Panics
/// If the lengths do not add up to the number of samples.
///
/// ```
/// use tapegrad_datasets::{Dataset, random_split, synthetic};
/// let digits = std::sync::Arc::new(synthetic::digits(100, 0));
/// let [train, validation] = random_split(digits, [90, 10]);
/// assert_eq!((train.len(), validation.len()), (90, 10));
/// ```
#[track_caller]
pub fn random_split<D: Dataset + ?Sized, const N: usize>(
    dataset: Arc<D>,
    lengths: [usize; N],
) -> [Subset<D>; N] {
    random_split_with(dataset, lengths, 0)
}

/// [`random_split`] with a seed of its own: the same seed gives the same parts.
///
/// # Panics
/// Same as [`random_split`].
#[track_caller]
pub fn random_split_with<D: Dataset + ?Sized, const N: usize>(
    dataset: Arc<D>,
    lengths: [usize; N],
    seed: u64,
) -> [Subset<D>; N] {
    let sum = lengths.iter().fold(0, |sum: usize, &n| sum.saturating_add(n));
    assert!(
        sum == dataset.len(),
        "random_split: lengths {lengths:?} of a data set with {} samples; they should add up to that",
        dataset.len()
    );
    let mut order: Vec<usize> = (0..dataset.len()).collect();
    Generator::stream(seed, "split", [0, 0]).shuffle(&mut order);
    let mut start = 0;
    lengths.map(|length| {
        start += length;
        Subset::new(dataset.clone(), order[start - length..start].to_vec())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;

    fn values(n: i64) -> TensorDataset<(Tensor, Tensor)> {
        TensorDataset::new((Tensor::arange(0, 2 * n).reshape(&[n as usize, 2]), Tensor::arange(0, n)))
    }

    #[test]
    fn splits_are_disjoint_and_repeat() {
        let whole: Arc<dyn Images> = Arc::new(synthetic::digits(100, 0));
        let [a, b] = random_split(whole.clone(), [70, 30]);
        let [c, _] = random_split(whole.clone(), [70, 30]);
        assert_eq!(a.indices(), c.indices());
        let [other, _] = random_split_with(whole.clone(), [70, 30], 6);
        assert_ne!(a.indices(), other.indices());
        let mut all: Vec<_> = a.indices().iter().chain(b.indices()).copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        let pixels = |sample: Result<(Tensor, i64)>| sample.unwrap().0.to_vec::<f32>();
        assert_eq!(pixels(a.get(3)), pixels(whole.get(a.indices()[3])));
    }

    #[test]
    #[should_panic(expected = "random_split: lengths [99, 2] of a data set with 100 samples")]
    fn too_long_a_split_panics() {
        random_split(Arc::new(values(100)), [99, 2]);
    }

    #[test]
    #[should_panic(
        expected = "random_split: lengths [90, 9] of a data set with 100 samples; they should add up"
    )]
    fn no_sample_is_left_out_silently() {
        random_split(Arc::new(values(100)), [90, 9]);
    }

    #[test]
    #[should_panic(expected = "random_split: lengths [18446744073709551615, 2] of a data set")]
    fn lengths_do_not_wrap() {
        random_split(Arc::new(values(1)), [usize::MAX, 2]);
    }

    #[test]
    #[should_panic(expected = "TensorDataset: the tensors should have one first size, but have [3, 4]")]
    fn tensors_of_other_lengths_are_refused() {
        TensorDataset::new((Tensor::arange(0, 3), Tensor::arange(0, 4)));
    }

    #[test]
    fn rows_of_tensors_one_by_one_and_together() {
        let set = values(5);
        let (x, y) = set.batch(&[4, 0, 4]).unwrap();
        assert_eq!((x.to_vec::<i64>(), y.to_vec::<i64>()), (vec![8, 9, 0, 1, 8, 9], vec![4, 0, 4]));
        let (one, by_one) = Collate::collate(samples(&set, &[4, 0, 4]).unwrap()).unwrap();
        assert_eq!((one.to_vec::<i64>(), by_one.to_vec::<i64>()), (x.to_vec::<i64>(), y.to_vec::<i64>()));
        let message = set.batch(&[1, 7]).unwrap_err().to_string();
        assert_eq!(message, "sample 7: there is no such row: there are 5");
    }

    #[test]
    fn a_concatenation_finds_each_part() {
        let parts: [Arc<dyn Dataset<Sample = (Tensor, Tensor)>>; 3] = [
            Arc::new(values(2)),
            Arc::new(values(0)),
            Arc::new(Subset::new(Arc::new(values(9)), vec![8, 7])),
        ];
        let all = ConcatDataset::new(parts);
        let labels: Vec<i64> = (0..all.len()).map(|i| all.get(i).unwrap().1.item()).collect();
        assert_eq!(labels, [0, 1, 8, 7]);
        assert!(all.get(4).unwrap_err().to_string().contains("there are 4"));
    }
}
