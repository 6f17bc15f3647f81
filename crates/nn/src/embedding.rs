//! `Embedding`.

use crate::fields::Field;
use crate::init::normal_;
use crate::module::Forward;
use crate::summary::observe;
use tapegrad_ops::EmbeddingOptions;
use tapegrad_tape::{DType, Int, Tensor, Var};

impl Field for EmbeddingOptions {}

crate::module! {
    /// A learned table whose rows are looked up by integers (`torch.nn.Embedding`).
    ///
    /// ```
    /// use tapegrad_nn::{Embedding, Forward};
    /// use tapegrad_tape::Var;
    /// let words = Var::from_vec(vec![4i64, 0, 4], &[3]);
    /// assert_eq!(Embedding::new(10, 3).forward(&words).shape(), [3, 3]);
    /// ```
    pub struct Embedding {
        /// `[num_embeddings, embedding_dim]`, drawn from a standard normal distribution.
        pub weight: Var,
        options: EmbeddingOptions,
    }
}

impl Embedding {
    /// A table of this many embeddings of this size.
    pub fn new(num_embeddings: usize, embedding_dim: usize) -> Embedding {
        let weight = Var::parameter(Tensor::zeros_with(&[num_embeddings, embedding_dim], DType::F32));
        normal_(&weight, 0.0, 1.0);
        Embedding { weight, options: EmbeddingOptions::new() }
    }

    /// This table with a row of zeros that is not trained; negative indices count from the end.
    ///
    /// # Panics
    /// If there is no such row.
    #[track_caller]
    pub fn padding_idx(mut self, row: impl Int) -> Embedding {
        let row = row.to_isize();
        let rows = self.weight.shape()[0] as isize;
        assert!((-rows..rows).contains(&row), "Embedding: there is no row {row} for padding in {rows} rows");
        let width = self.weight.shape()[1];
        let start = (if row < 0 { row + rows } else { row }) as usize * width;
        self.weight.update(|t| t.make_mut::<f32>()[start..start + width].fill(0.0));
        self.options.padding_idx = Some(row);
        self
    }

    /// This table with looked-up rows renormalized to at most this norm.
    pub fn max_norm(mut self, max_norm: f64) -> Embedding {
        self.options.max_norm = Some(max_norm);
        self
    }

    /// This table with another order of the norm for `max_norm`.
    pub fn norm_type(mut self, norm_type: f64) -> Embedding {
        self.options.norm_type = norm_type;
        self
    }

    /// This table with each row's gradient divided by the number of times that it was looked up.
    pub fn scale_grad_by_freq(mut self, scale: bool) -> Embedding {
        self.options.scale_grad_by_freq = scale;
        self
    }

    /// This table with a gradient of the rows that were looked up, so that [`SparseAdam`](crate::optim::SparseAdam),
    /// [`SGD`](crate::optim::SGD) and [`Adagrad`](crate::optim::Adagrad) change these alone.
    pub fn sparse(mut self, sparse: bool) -> Embedding {
        self.options.sparse = sparse;
        self
    }
}

impl Forward for Embedding {
    #[track_caller]
    fn forward(&self, indices: &Var) -> Var {
        observe(self, indices, |indices| tapegrad_ops::embedding_with(indices, &self.weight, self.options))
    }
}
