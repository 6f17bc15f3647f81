//! `cdist` and `pdist`: distances of all pairs.

use crate::autocast::in_f32;
use crate::kernels::cdist::{self, Pairs};
use crate::product::{check_types, product};
use tapegrad_tape::shape::{broadcast_for, numel_for};
use tapegrad_tape::{DType, Tensor, Var, dispatch, is_grad_enabled, note_flops, record_with_output};

/// Whether [`cdist`] may compute Euclidean distances by a matrix product: faster, but close vectors far from zero lose
/// digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CdistMode {
    /// For more than 25 vectors (`use_mm_for_euclid_dist_if_necessary`).
    #[default]
    MmIfNecessary,
    /// Always (`use_mm_for_euclid_dist`).
    Mm,
    /// Never (`donot_use_mm_for_euclid_dist`).
    NoMm,
}

/// The `p`-norm distances of all pairs of vectors, `[..., P, M]` and `[..., R, M]`, as `[..., P, R]` (`torch.cdist`;
/// PyTorch's default `p` is 2). Batches broadcast. The gradient of a distance of zero is zero.
///
/// # Panics
/// If a tensor has fewer than two dimensions, the vectors differ in size, batches do not broadcast, the types differ or
/// are not float32 or float64, or `p` is negative.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![0f64, 0.0, 3.0, 4.0], &[2, 2]);
/// let d = tapegrad_ops::cdist(&x, &x);
/// assert_eq!(d.to_vec::<f64>(), [0.0, 5.0, 5.0, 0.0]);
/// ```
#[track_caller]
pub fn cdist(x1: &Var, x2: &Var) -> Var {
    cdist_with(x1, x2, 2.0, CdistMode::default())
}

/// [`cdist`] by another norm, or another way to compute it.
///
/// # Panics
/// Same as [`cdist`].
#[track_caller]
pub fn cdist_with(x1: &Var, x2: &Var, p: f64, mode: CdistMode) -> Var {
    let (x1, x2) = (in_f32(x1), in_f32(x2));
    let (x1, x2) = (&*x1, &*x2);
    let op = "cdist";
    check_types(op, x1.dtype(), x2.dtype());
    assert!(
        matches!(x1.dtype(), DType::F32 | DType::F64),
        "{op}: expected tensors of float32 or float64, but got {}",
        x1.dtype()
    );
    assert!(
        x1.ndim() >= 2 && x2.ndim() >= 2,
        "{op}: only supports at least 2D tensors, but got shapes {:?} and {:?}",
        x1.shape(),
        x2.shape()
    );
    let [rows, columns, size] = [x1.size(-2), x2.size(-2), x1.size(-1)];
    assert!(
        size == x2.size(-1),
        "{op}: X1 and X2 must have the same number of columns, but the shapes are {:?} and {:?}",
        x1.shape(),
        x2.shape()
    );
    assert!(p >= 0.0, "{op}: only supports non-negative p values, got {p}");
    let batch = |v: &Var| v.shape()[..v.ndim() - 2].to_vec();
    let all = broadcast_for(op, &batch(x1), &batch(x2));
    numel_for(op, &[&all[..], &[rows, columns]].concat());
    let expand = |v: &Var, n: usize| v.expand_to(&[&all[..], &[n, size]].concat());
    let (x1, x2) = (expand(x1, rows), expand(x2, columns));
    let many = rows > 25 || columns > 25;
    if p == 2.0 && (mode == CdistMode::Mm || (mode == CdistMode::MmIfNecessary && many)) {
        return euclidean(&x1, &x2);
    }
    let pairs = Pairs { rows, columns, size };
    let other = x2.tensor().transpose(-2, -1);
    let value = dispatch!(float: x1.dtype(), op, T => {
        let mut out = Tensor::uninit(&[&all[..], &[rows, columns]].concat(), x1.dtype());
        let (a, b) = (x1.tensor().contiguous(), other.contiguous());
        cdist::distances::<T>(pairs, p, slice(&a), slice(&b), out.data_mut());
        out
    });
    note_flops([value.numel(), size].iter().fold(3, |n: u64, &m| n.saturating_mul(m as u64)));
    record_distances(op, &x1, &x2, p, value, true)
}

fn slice<T: tapegrad_tape::Element>(t: &Tensor) -> &[T] {
    t.as_slice().expect("contiguous")
}

/// By the squares of the vectors and their products.
#[track_caller]
fn euclidean(x1: &Var, x2: &Var) -> Var {
    let (a, b) = (x1.detach(), x2.detach());
    let squares = |v: &Var| v.square().sum_keepdim(-1);
    let products = product("cdist", &a, false, &b, true);
    let sum = products * -2.0 + squares(&a) + squares(&b).transpose(-2, -1);
    record_distances("cdist", x1, x2, 2.0, sum.clamp_min(0).sqrt().into_tensor(), false)
}

#[track_caller]
fn record_distances(op: &'static str, x1: &Var, x2: &Var, p: f64, value: Tensor, exact: bool) -> Var {
    let (a, b) = (x1.saved(), x2.saved());
    record_with_output(op, [x1, x2], value, move |c| {
        let (g, d) = (c.grad(), c.output());
        if p == 0.0 {
            return [Some(a.zeros_like()), Some(b.zeros_like())];
        }
        // The power of the distance in the derivative; zero at a distance of zero.
        let weights = if p == 1.0 || p.is_infinite() {
            g.clone()
        } else {
            g.div(d.powf(p - 1.0)).masked_fill(&d.detach().eq(0.0), 0.0)
        };
        if p == 2.0 && (is_grad_enabled() || !exact) {
            let of =
                |x: &Var, y: &Var, w: &Var| x.mul(w.sum_keepdim(-1)) - product("matmul", w, false, y, false);
            return [Some(of(&a, &b, &weights)), Some(of(&b, &a, &weights.transpose(-2, -1)))];
        }
        if is_grad_enabled() {
            let whole = composed(&a, &b, &weights, &d, p);
            return [Some(whole.sum(-2)), Some(-whole.sum(-3))];
        }
        let (wt, dt) = (weights.transpose(-2, -1), d.transpose(-2, -1));
        let first = c.wants(0).then(|| fused(&a, &b, &weights, &d, p));
        [first, c.wants(1).then(|| fused(&b, &a, &wt, &dt, p))]
    })
}

/// The gradient of each difference, `[..., P, R, M]`.
fn composed(x1: &Var, x2: &Var, weights: &Var, d: &Var, p: f64) -> Var {
    let diff = x1.unsqueeze(-2) - x2.unsqueeze(-3);
    let (sign, w) = (diff.detach().sign(), weights.unsqueeze(-1));
    if p == 1.0 {
        return sign.mul(w);
    }
    if p.is_infinite() {
        let extreme = diff.detach().abs().eq(d.detach().unsqueeze(-1)).cast(diff.dtype());
        return sign.mul(extreme).mul(w);
    }
    // Ones in place of zeros: their power would have an infinite derivative.
    let zero = diff.detach().eq(0.0);
    let size = diff.abs().masked_fill(&zero, 1.0);
    sign.mul(size.powf(p - 1.0)).mul(w)
}

fn fused(x: &Var, y: &Var, weights: &Var, d: &Var, p: f64) -> Var {
    let pairs = Pairs { rows: x.size(-2), columns: y.size(-2), size: x.size(-1) };
    let [x, y, w, d] = [x, y, weights, d].map(|v| v.tensor().contiguous());
    let mut out = Tensor::uninit(x.shape(), x.dtype());
    dispatch!(float: x.dtype(), "cdist", T => {
        cdist::gradient::<T>(pairs, p, [slice(&x), slice(&y)], [slice(&w), slice(&d)], out.data_mut());
    });
    Var::from(out)
}

/// The `p`-norm distances of all pairs of rows `i < j` of a matrix, in row-major order (`torch.nn.functional.pdist`;
/// PyTorch's default `p` is 2).
///
/// # Panics
/// If `x` is not a matrix of float32 or float64, or `p` is negative.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![0f64, 1.0, 3.0], &[3, 1]);
/// assert_eq!(tapegrad_ops::pdist(&x).to_vec::<f64>(), [1.0, 3.0, 2.0]);
/// ```
#[track_caller]
pub fn pdist(x: &Var) -> Var {
    pdist_with(x, 2.0)
}

/// [`pdist`] with another norm.
///
/// # Panics
/// Same as [`pdist`].
#[track_caller]
pub fn pdist_with(x: &Var, p: f64) -> Var {
    assert!(x.ndim() == 2, "pdist: only supports 2D tensors, but got shape {:?}", x.shape());
    assert!(
        matches!(x.dtype(), DType::F32 | DType::F64),
        "pdist: expected a tensor of float32 or float64, but got {}",
        x.dtype()
    );
    assert!(p >= 0.0, "pdist: only supports non-negative p values, got {p}");
    let n = x.shape()[0];
    let all = cdist_with(x, x, p, CdistMode::NoMm).flatten(());
    let upper: Vec<i64> = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i * n + j) as i64)).collect();
    let count = upper.len();
    all.index_select(0, &Var::from_vec(upper, &[count]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};

    const ORDERS: [f64; 7] = [0.0, 1.0, 1.5, 2.0, 2.5, 3.0, f64::INFINITY];

    #[test]
    fn distances_are_norms_of_differences() {
        let (x, y) = (parameter(&[2, 1, 40, 3], 1), parameter(&[2, 70, 3], 2));
        let diff = x.unsqueeze(-2) - y.unsqueeze(-3);
        for p in ORDERS {
            for mode in [CdistMode::Mm, CdistMode::NoMm, CdistMode::MmIfNecessary] {
                assert_close(&cdist_with(&x, &y, p, mode), &diff.norm_with(p, -1, false), 1e-7);
            }
        }
    }

    #[test]
    fn derivatives() {
        let both = [parameter(&[2, 3, 2], 1), parameter(&[4, 2], 2)];
        for p in ORDERS {
            for mode in [CdistMode::Mm, CdistMode::NoMm] {
                check_gradients(|v| cdist_with(&v[0], &v[1], p, mode), &both);
            }
            check_gradients(|v| pdist_with(&v[0], p), &[parameter(&[4, 3], 3)]);
        }
    }

    #[test]
    fn equal_vectors_have_a_gradient_of_zero() {
        for p in ORDERS {
            let x = Var::parameter(Tensor::ones_with(&[2, 3], DType::F64));
            cdist_with(&x, &x, p, CdistMode::NoMm).sum_all().backward();
            assert_eq!(x.grad().unwrap().to_vec::<f64>(), [0.0; 6], "p = {p}");
        }
    }

    #[test]
    fn no_pairs() {
        assert_eq!(
            cdist_with(&parameter(&[0, 2], 1), &parameter(&[3, 2], 1), 1.0, CdistMode::NoMm).shape(),
            [0, 3]
        );
        assert_eq!(
            cdist_with(&parameter(&[2, 0], 1), &parameter(&[3, 0], 1), 2.0, CdistMode::Mm).sum_all().item(),
            0.0
        );
        assert_eq!(pdist(&parameter(&[0, 2], 1)).shape(), [0]);
        assert_eq!(pdist(&parameter(&[1, 2], 1)).shape(), [0]);
    }
}
