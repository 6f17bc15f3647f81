//! `triplet_margin_loss`, `triplet_margin_with_distance_loss`.

use super::Reduction;
use crate::autocast::in_f32;
use crate::distance::pairwise_distance_with;
use crate::options::setters;
use tapegrad_tape::Var;
use tapegrad_tape::shape::broadcast_for;

/// The options of [`triplet_margin_loss`], with PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TripletMarginOptions {
    /// How much farther the negative has to be.
    pub margin: f64,
    /// The norm that is the distance.
    pub p: f64,
    /// Added to each difference.
    pub eps: f64,
    /// Whether the distance of positive and negative counts where it is the smaller one (Balntas et al. 2016).
    pub swap: bool,
    /// How the losses of single triplets are reduced.
    pub reduction: Reduction,
}

impl TripletMarginOptions {
    setters! { margin: f64, p: f64, eps: f64, swap: bool, reduction: Reduction }
}

impl Default for TripletMarginOptions {
    fn default() -> TripletMarginOptions {
        TripletMarginOptions { margin: 1.0, p: 2.0, eps: 1e-6, swap: false, reduction: Reduction::Mean }
    }
}

/// `max(0, margin + distance(anchor, positive) - distance(anchor, negative))` along the last dimension
/// (`torch.nn.functional.triplet_margin_loss`). The shapes broadcast.
///
/// # Panics
/// If the tensors have different numbers of dimensions, the shapes do not broadcast, or the margin is not positive.
///
/// ```
/// use tapegrad_tape::Var;
/// let [a, p, n] = [0.0, 1.0, 1.5].map(|x| Var::from_vec(vec![x], &[1, 1]));
/// let loss = tapegrad_ops::triplet_margin_loss(&a, &p, &n);
/// assert!((loss.item() - 0.5).abs() < 1e-6);
/// ```
#[track_caller]
pub fn triplet_margin_loss(anchor: &Var, positive: &Var, negative: &Var) -> Var {
    triplet_margin_loss_with(anchor, positive, negative, Default::default())
}

/// [`triplet_margin_loss`] with options.
///
/// # Panics
/// Same as [`triplet_margin_loss`].
#[track_caller]
pub fn triplet_margin_loss_with(
    anchor: &Var,
    positive: &Var,
    negative: &Var,
    options: TripletMarginOptions,
) -> Var {
    let (anchor, positive, negative) = (in_f32(anchor), in_f32(positive), in_f32(negative));
    let (anchor, positive, negative) = (&*anchor, &*positive, &*negative);
    let TripletMarginOptions { margin, p, eps, swap, reduction } = options;
    let distance = |a: &Var, b: &Var| pairwise_distance_with(a, b, p, eps, false);
    loss("triplet_margin_loss", [anchor, positive, negative], distance, margin, swap, reduction)
}

/// [`triplet_margin_loss`] with any distance, a function of two tensors
/// (`torch.nn.functional.triplet_margin_with_distance_loss`; PyTorch's defaults are a margin of 1, no swap, and
/// [`pairwise_distance`](crate::pairwise_distance)).
///
/// # Panics
/// Same as [`triplet_margin_loss`].
///
/// ```
/// use tapegrad_ops::{Reduction, cosine_similarity, triplet_margin_with_distance_loss};
/// use tapegrad_tape::Var;
/// let [a, p, n] = [[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]].map(|x| Var::from_vec(x.to_vec(), &[1, 2]));
/// let distance = |a: &Var, b: &Var| 1.0 - cosine_similarity(a, b);
/// let loss = triplet_margin_with_distance_loss(&a, &p, &n, distance);
/// assert!((loss.item() - (1.0 - 0.5f64.sqrt())).abs() < 1e-6);
/// ```
#[track_caller]
pub fn triplet_margin_with_distance_loss(
    anchor: &Var,
    positive: &Var,
    negative: &Var,
    distance: impl Fn(&Var, &Var) -> Var,
) -> Var {
    triplet_margin_with_distance_loss_with(anchor, positive, negative, distance, 1.0, false, Reduction::Mean)
}

/// [`triplet_margin_with_distance_loss`] with another margin, with swaps, or another reduction.
///
/// # Panics
/// Same as [`triplet_margin_with_distance_loss`].
#[track_caller]
pub fn triplet_margin_with_distance_loss_with(
    anchor: &Var,
    positive: &Var,
    negative: &Var,
    distance: impl Fn(&Var, &Var) -> Var,
    margin: f64,
    swap: bool,
    reduction: Reduction,
) -> Var {
    let op = "triplet_margin_with_distance_loss";
    loss(op, [anchor, positive, negative], distance, margin, swap, reduction)
}

#[track_caller]
fn loss(
    op: &str,
    [anchor, positive, negative]: [&Var; 3],
    distance: impl Fn(&Var, &Var) -> Var,
    margin: f64,
    swap: bool,
    reduction: Reduction,
) -> Var {
    assert!(margin > 0.0, "{op}: margin must be greater than 0, got {margin}");
    let [a, p, n] = [anchor, positive, negative].map(|v| v.ndim());
    assert!(
        a == p && a == n,
        "{op}: the anchor, positive, and negative tensors are expected to have the same number of dimensions, but got: \
         anchor {a}D, positive {p}D, and negative {n}D inputs"
    );
    broadcast_for(op, anchor.shape(), positive.shape());
    broadcast_for(op, anchor.shape(), negative.shape());
    if swap {
        broadcast_for(op, positive.shape(), negative.shape());
    }
    let (near, mut far) = (distance(anchor, positive), distance(anchor, negative));
    if swap {
        far = far.minimum(&distance(positive, negative));
    }
    reduction.apply((margin + near - far).clamp_min(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, parameter};

    #[test]
    fn derivatives_with_every_option() {
        let triplet = [parameter(&[3, 4], 1), parameter(&[3, 4], 2), parameter(&[1, 4], 3)];
        for (swap, p) in [(false, 2.0), (true, 2.0), (true, 3.0)] {
            let options = TripletMarginOptions::new().swap(swap).p(p).margin(1.5);
            check_gradients(|v| triplet_margin_loss_with(&v[0], &v[1], &v[2], options), &triplet);
        }
    }

    #[test]
    #[should_panic(expected = "triplet_margin_loss: margin must be greater than 0, got -1")]
    fn a_negative_margin() {
        let x = parameter(&[1, 2], 1);
        triplet_margin_loss_with(&x, &x, &x, TripletMarginOptions::new().margin(-1.0));
    }
}
