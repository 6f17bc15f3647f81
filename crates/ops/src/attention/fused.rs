//! Attention in F32 by the kernel that never holds the scores.

use super::OP;
use super::composed::Composed;
use crate::kernels::attention::{self as kernel, Attention, Drop, Mask, Results, Rows, RowsMut, Sizes};
use tapegrad_tape::shape::{self, Dims};
use tapegrad_tape::{DType, Tensor, Var, is_grad_enabled, note_flops, note_saved, record_with_output};

/// Whether the kernel computes this. It has no gradient for a mask, and nothing to do for empty tensors.
pub(super) fn applies(query: &Var, key: &Var, value: &Var, form: &Composed) -> bool {
    let mask = form.mask.as_ref();
    query.dtype() == DType::F32
        && [query, key, value].iter().all(|v| v.numel() > 0)
        && mask.is_none_or(|m| m.numel() > 0 && !(m.requires_grad() && is_grad_enabled()))
        && form.dropout.is_none_or(|(p, _)| p < 1.0)
}

/// The value, and the rule that is given what the forward pass kept.
#[track_caller]
pub(super) fn attention(query: &Var, key: &Var, value: &Var, form: Composed) -> Var {
    let geometry = Geometry::new(query, key, value, &form);
    let tensors = [query, key, value].map(|v| contiguous_rows(v.tensor()));
    let mask = form.mask.as_ref().map(|m| additive(m, &geometry));
    let (out, logs) = geometry.forward(&tensors, mask.as_ref(), &form);
    let Sizes { count, l, s, e, v } = geometry.sizes;
    let flops = [2, count, l, s].iter().fold((e + v) as u64, |f, &n| f.saturating_mul(n as u64));
    note_flops(if form.causal { flops / 2 } else { flops });
    note_saved(logs.bytes());
    let saved = [query, key, value].map(Var::saved);
    record_with_output(OP, [query, key, value], out, move |c| {
        let wants = [0, 1, 2].map(|i| c.wants(i));
        let all = match is_grad_enabled() {
            true => form.gradients([&saved[0], &saved[1], &saved[2]], c.grad()),
            false => {
                let [q, k, v] = saved.each_ref();
                let tensors = [q, k, v].map(|v| contiguous_rows(v.tensor()));
                let mask = form.mask.as_ref().map(|m| additive(m, &geometry));
                let out = contiguous_rows(c.output().tensor());
                let grad = contiguous_rows(c.grad().tensor());
                let [dq, dk, dv] = geometry.backward(&tensors, mask.as_ref(), &form, [&out, &grad], &logs);
                let heads = |x: &Var| if form.grouped { x.size(-3) } else { 0 };
                [dq, form.shared(dk, heads(k)), form.shared(dv, heads(v))]
            }
        };
        let [dq, dk, dv] = all;
        [wants[0].then_some(dq), wants[1].then_some(dk), wants[2].then_some(dv)]
    })
}

/// A tensor whose last dimension is contiguous.
fn contiguous_rows(t: Tensor) -> Tensor {
    if t.size(-1) == 1 || t.strides()[t.ndim() - 1] == 1 { t } else { t.contiguous() }
}

/// A mask as numbers to be added, with contiguous rows of all keys.
fn additive(mask: &Var, geometry: &Geometry) -> Tensor {
    let numbers = match mask.dtype() {
        DType::Bool => {
            let zeros = Var::from(Tensor::zeros_with(mask.shape(), DType::F32));
            zeros.masked_fill(&mask.detach().logical_not(), f64::NEG_INFINITY).tensor()
        }
        _ => mask.tensor().cast(DType::F32),
    };
    let mut shape: Dims = numbers.shape().into();
    match shape.last_mut() {
        Some(last) => *last = geometry.sizes.s,
        None => shape.push(geometry.sizes.s),
    }
    contiguous_rows(numbers.expand(&shape))
}

/// The sizes, and how matrices lie in their tensors.
struct Geometry {
    sizes: Sizes,
    /// The dimensions of the result before the last two.
    batch: Dims,
    /// Query heads that share a head of the key and of the value.
    groups: [usize; 2],
    /// The order of the result's dimensions in memory, but for the last one, which is contiguous.
    order: Dims,
}

impl Geometry {
    #[track_caller]
    fn new(query: &Var, key: &Var, value: &Var, form: &Composed) -> Geometry {
        let lead = |v: &Var| -> Dims { v.shape()[..v.ndim() - 2].into() };
        let mut groups = [1, 1];
        let widened = |v: &Var, group: &mut usize| {
            let mut dims = lead(v);
            if let (true, Some(heads)) = (form.grouped, dims.last_mut()) {
                *group = query.size(-3) / *heads;
                *heads = query.size(-3);
            }
            dims
        };
        let (k, v) = (widened(key, &mut groups[0]), widened(value, &mut groups[1]));
        let batch = shape::broadcast_for(OP, &shape::broadcast_for(OP, &lead(query), &k), &v);
        let sizes = Sizes {
            count: shape::numel(&batch),
            l: query.size(-2),
            s: key.size(-2),
            e: query.size(-1),
            v: value.size(-1),
        };
        if let Some(mask) = &form.mask {
            let mut scores = batch.clone();
            scores.extend([sizes.l, sizes.s]);
            let fits = shape::broadcast(mask.shape(), &scores).is_some_and(|s| s == scores);
            assert!(fits, "{OP}: attn_mask {:?} does not broadcast to the scores {scores:?}", mask.shape());
        }
        // The result lies as the query does, so that heads can be joined without a copy.
        let mut order: Dims = (0..batch.len() + 1).collect();
        if query.shape()[..query.ndim() - 2] == *batch {
            let t = query.tensor();
            order.sort_by_key(|&d| std::cmp::Reverse(t.strides()[d]));
        }
        Geometry { sizes, batch, groups, order }
    }

    /// A new tensor `[..., rows, width]`, in the order of the result.
    fn tensor(&self, rows: usize, width: usize) -> Tensor {
        let mut shape: Dims = self.batch.clone();
        shape.extend([rows]);
        let mut permuted: Dims = self.order.iter().map(|&d| shape[d]).collect();
        permuted.extend([width]);
        shape::numel_for(OP, &permuted);
        let mut back = vec![0; permuted.len()];
        for (i, &d) in self.order.iter().enumerate() {
            back[d] = i as isize;
        }
        back[self.order.len()] = self.order.len() as isize;
        Tensor::uninit(&permuted, DType::F32).permute(&back)
    }

    /// Where each matrix of a tensor starts, of which `group` neighbors in the last dimension before the matrices are one.
    fn offsets(&self, t: &Tensor, group: usize) -> Vec<usize> {
        let lead = t.ndim() - 2;
        let (mut sizes, mut strides): (Dims, Dims) = (t.shape()[..lead].into(), t.strides()[..lead].into());
        let mut batch = self.batch.clone();
        if group > 1 {
            // The heads of the result, by those of the tensor and a dimension without stride.
            let last = batch.len() - 1;
            batch[last] /= group;
            batch.push(group);
            sizes.push(1);
            strides.push(0);
        }
        let strides = shape::broadcast_strides(&sizes, &strides, &batch);
        let mut offsets = vec![0];
        for (&n, &s) in batch.iter().zip(&strides) {
            offsets = offsets.iter().flat_map(|&o| (0..n).map(move |i| o + i * s)).collect();
        }
        offsets
    }

    /// Calls `f` with what the kernel computes from.
    fn with<R>(
        &self,
        [q, k, v]: &[Tensor; 3],
        mask: Option<&Tensor>,
        form: &Composed,
        f: impl FnOnce(&Attention) -> R,
    ) -> R {
        let [oq, ok, ov] =
            [self.offsets(q, 1), self.offsets(k, self.groups[0]), self.offsets(v, self.groups[1])];
        // A mask may have fewer dimensions than matrices have.
        let mask = mask.map(|m| {
            let missing = 2usize.saturating_sub(m.ndim());
            (0..missing).fold(m.clone(), |m, _| m.unsqueeze(0))
        });
        let om = mask.as_ref().map(|m| self.offsets(m, 1));
        let attention = Attention {
            sizes: self.sizes,
            q: rows(q, &oq),
            k: rows(k, &ok),
            v: rows(v, &ov),
            scale: form.scale as f32,
            causal: form.causal,
            mask: mask.as_ref().zip(om.as_ref()).map(|(m, offsets)| Mask {
                data: m.data::<f32>(),
                offsets,
                row: if m.size(-2) == 1 { 0 } else { m.strides()[m.ndim() - 2] },
            }),
            drop: form.dropout.map(|(p, key)| Drop { p, key }),
        };
        f(&attention)
    }

    /// The result, and the logarithms of the sums.
    fn forward(&self, operands: &[Tensor; 3], mask: Option<&Tensor>, form: &Composed) -> (Tensor, Tensor) {
        let Sizes { count, l, v, .. } = self.sizes;
        let mut out = self.tensor(l, v);
        let mut logs = Tensor::uninit(&[count, l], DType::F32);
        let (offsets, stride) = (self.offsets(&out, 1), out.strides()[out.ndim() - 2]);
        self.with(operands, mask, form, |a| {
            let out = RowsMut::new(out.make_mut::<f32>(), &offsets, stride);
            kernel::forward(a, &out, logs.make_mut::<f32>());
        });
        (out, logs)
    }

    /// The gradients of query, key and value, with the dimensions of the result before their last two.
    fn backward(
        &self,
        operands: &[Tensor; 3],
        mask: Option<&Tensor>,
        form: &Composed,
        [out, grad]: [&Tensor; 2],
        logs: &Tensor,
    ) -> [Var; 3] {
        let Sizes { l, s, e, v, .. } = self.sizes;
        let mut results = [self.tensor(l, e), self.tensor(s, e), self.tensor(s, v)];
        let offsets = results.each_ref().map(|t| self.offsets(t, 1));
        let strides = results.each_ref().map(|t| t.strides()[t.ndim() - 2]);
        let (out_offsets, grad_offsets) = (self.offsets(out, 1), self.offsets(grad, 1));
        self.with(operands, mask, form, |a| {
            let from = Results {
                out: rows(out, &out_offsets),
                logs: logs.data::<f32>(),
                grad: rows(grad, &grad_offsets),
            };
            let [q, k, v] = &mut results;
            let [q, k, v] = [(q, 0), (k, 1), (v, 2)]
                .map(|(t, i)| RowsMut::new(t.make_mut::<f32>(), &offsets[i], strides[i]));
            kernel::backward(a, &from, [&q, &k, &v]);
        });
        results.map(Var::from)
    }
}

fn rows<'a>(t: &'a Tensor, offsets: &'a [usize]) -> Rows<'a> {
    Rows { data: t.data::<f32>(), offsets, stride: t.strides()[t.ndim() - 2] }
}
