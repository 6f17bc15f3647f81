//! Attention in differentiable operations, which hold the scores.

use super::OP;
use crate::activation::dropped_by;
use crate::kernels::softmax::Kind;
use crate::product::product;
use crate::softmax::along;
use tapegrad_tape::{DType, Tensor, Var};

/// The arguments of attention besides query, key and value.
pub(super) struct Composed {
    pub(super) scale: f64,
    pub(super) causal: bool,
    pub(super) mask: Option<Var>,
    /// The probability, and the key that decides what is dropped.
    pub(super) dropout: Option<(f64, u64)>,
    /// Whether several heads of the query share one of the key.
    pub(super) grouped: bool,
}

impl Composed {
    /// The result and the weights.
    #[track_caller]
    pub(super) fn attend(&self, query: &Var, key: &Var, value: &Var) -> (Var, Var) {
        let (key, value) = self.repeated(query, key, value);
        let weights = self.dropped(&self.weights(query, &key));
        (product(OP, &weights, false, &value, false), weights)
    }

    /// The gradients of query, key and value; these may have more dimensions, and larger ones.
    #[track_caller]
    pub(super) fn gradients(&self, [query, key, value]: [&Var; 3], g: &Var) -> [Var; 3] {
        let heads = [key, value].map(|x| if self.grouped { x.size(-3) } else { 0 });
        let (key, value) = self.repeated(query, key, value);
        let weights = self.weights(query, &key);
        let dv = product(OP, &self.dropped(&weights), true, g, false);
        let dw = self.dropped(&product(OP, g, false, &value, true));
        let ds = &weights * &(&dw - &(&dw * &weights).sum_keepdim(-1));
        let dq = product(OP, &ds, false, &key, false) * self.scale;
        let dk = product(OP, &ds, true, query, false) * self.scale;
        [dq, self.shared(dk, heads[0]), self.shared(dv, heads[1])]
    }

    fn repeated(&self, query: &Var, key: &Var, value: &Var) -> (Var, Var) {
        match self.grouped {
            true => (repeat_heads(key, query.size(-3)), repeat_heads(value, query.size(-3))),
            false => (key.clone(), value.clone()),
        }
    }

    /// Sums over the heads that share one.
    pub(super) fn shared(&self, grad: Var, heads: usize) -> Var {
        if !self.grouped || grad.size(-3) == heads {
            return grad;
        }
        let mut shape: Vec<isize> = grad.shape().iter().map(|&n| n as isize).collect();
        let d = shape.len() - 3;
        shape[d] = heads as isize;
        shape.insert(d + 1, (grad.size(-3) / heads) as isize);
        grad.reshape(&shape).sum(d + 1)
    }

    fn dropped(&self, weights: &Var) -> Var {
        match self.dropout {
            Some((p, key)) => dropped_by(weights, p, key),
            None => weights.clone(),
        }
    }

    /// The weights before dropout.
    #[track_caller]
    fn weights(&self, query: &Var, key: &Var) -> Var {
        let mut scores = product(OP, &(query * self.scale), false, key, true);
        if self.causal {
            let (l, s) = (query.size(-2), key.size(-2));
            let hidden: Vec<bool> = (0..l * s).map(|i| i % s > i / s).collect();
            scores = scores.masked_fill(&Tensor::from_vec(hidden, &[l, s]).into(), f64::NEG_INFINITY);
        }
        if let Some(mask) = &self.mask {
            scores = match mask.dtype() {
                DType::Bool => scores.masked_fill(&mask.logical_not(), f64::NEG_INFINITY),
                _ => scores.add(mask.cast(query.dtype())),
            };
        }
        // Only a mask can leave a row without keys.
        let kind = if self.mask.is_some() { Kind::Safe } else { Kind::Plain };
        along("softmax", &scores, -1, kind)
    }
}

/// Repeats each head, up to `heads` in all.
#[track_caller]
fn repeat_heads(x: &Var, heads: usize) -> Var {
    let own = x.size(-3);
    if own == heads {
        return x.clone();
    }
    let d = x.ndim() - 3;
    let mut wide: Vec<isize> = x.shape().iter().map(|&n| n as isize).collect();
    wide.insert(d + 1, (heads / own) as isize);
    let mut shape = wide.clone();
    shape.remove(d + 1);
    shape[d] = heads as isize;
    x.unsqueeze(d + 1).expand(&wide).reshape(&shape)
}
