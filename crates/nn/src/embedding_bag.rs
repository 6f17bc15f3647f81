//! `EmbeddingBag`.

use crate::init::normal_;
use tapegrad_ops::{EmbeddingBagMode, EmbeddingBagOptions};
use tapegrad_tape::{DType, Int, Tensor, Var};

impl crate::Field for EmbeddingBagMode {}

crate::module! {
    /// A learned table of which the rows of each bag are reduced (`torch.nn.EmbeddingBag`).
    ///
    /// ```
    /// use tapegrad_nn::EmbeddingBag;
    /// use tapegrad_tape::Var;
    /// let words = Var::from_vec(vec![4i64, 0, 4, 1, 2], &[5]);
    /// let offsets = Var::from_vec(vec![0i64, 3], &[2]);
    /// assert_eq!(EmbeddingBag::new(10, 3).forward(&words, Some(&offsets), None).shape(), [2, 3]);
    /// ```
    pub struct EmbeddingBag {
        /// `[num_embeddings, embedding_dim]`, drawn from a standard normal distribution.
        pub weight: Var,
        mode: EmbeddingBagMode,
        max_norm: Option<f64>,
        norm_type: f64,
        scale_grad_by_freq: bool,
        include_last_offset: bool,
        padding_idx: Option<isize>,
        sparse: bool,
    }
}

impl EmbeddingBag {
    /// A table of this many embeddings of this size, of which means are taken.
    pub fn new(num_embeddings: usize, embedding_dim: usize) -> EmbeddingBag {
        let weight = Var::parameter(Tensor::zeros_with(&[num_embeddings, embedding_dim], DType::F32));
        normal_(&weight, 0.0, 1.0);
        EmbeddingBag {
            weight,
            mode: EmbeddingBagMode::Mean,
            max_norm: None,
            norm_type: 2.0,
            scale_grad_by_freq: false,
            include_last_offset: false,
            padding_idx: None,
            sparse: false,
        }
    }

    /// This table with another reduction.
    pub fn mode(mut self, mode: EmbeddingBagMode) -> EmbeddingBag {
        self.mode = mode;
        self
    }

    /// This table with looked-up rows renormalized to at most this norm.
    pub fn max_norm(mut self, max_norm: f64) -> EmbeddingBag {
        self.max_norm = Some(max_norm);
        self
    }

    /// This table with another order of the norm for `max_norm`.
    pub fn norm_type(mut self, norm_type: f64) -> EmbeddingBag {
        self.norm_type = norm_type;
        self
    }

    /// This table with each row's gradient divided by the number of times that it was looked up.
    pub fn scale_grad_by_freq(mut self, scale: bool) -> EmbeddingBag {
        self.scale_grad_by_freq = scale;
        self
    }

    /// This table for offsets whose last one is the number of indices.
    pub fn include_last_offset(mut self, include: bool) -> EmbeddingBag {
        self.include_last_offset = include;
        self
    }

    /// This table with a row that is left out of all bags; negative indices count from the end.
    pub fn padding_idx(mut self, row: impl Int) -> EmbeddingBag {
        self.padding_idx = Some(row.to_isize());
        self
    }

    /// This table with a gradient of the rows that were looked up, so that [`SparseAdam`](crate::optim::SparseAdam),
    /// [`SGD`](crate::optim::SGD) and [`Adagrad`](crate::optim::Adagrad) change these alone; not for the maximum.
    pub fn sparse(mut self, sparse: bool) -> EmbeddingBag {
        self.sparse = sparse;
        self
    }

    /// The reduced rows; arguments as of [`tapegrad_ops::embedding_bag`].
    ///
    /// # Panics
    /// If the shapes do not fit or indices are out of bounds.
    #[track_caller]
    pub fn forward<'a>(
        &self,
        input: &Var,
        offsets: impl Into<Option<&'a Var>>,
        per_sample_weights: impl Into<Option<&'a Var>>,
    ) -> Var {
        let (offsets, per_sample_weights) = (offsets.into(), per_sample_weights.into());
        let options = EmbeddingBagOptions {
            offsets: offsets.cloned(),
            max_norm: self.max_norm,
            norm_type: self.norm_type,
            scale_grad_by_freq: self.scale_grad_by_freq,
            mode: self.mode,
            per_sample_weights: per_sample_weights.cloned(),
            include_last_offset: self.include_last_offset,
            padding_idx: self.padding_idx,
            sparse: self.sparse,
        };
        tapegrad_ops::embedding_bag_with(input, &self.weight, options)
    }
}
