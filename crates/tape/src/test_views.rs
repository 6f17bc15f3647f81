//! Gradient checks over tensors of many memory layouts.

use crate::{Outputs, Slice, Tensor, Var, gradcheck, gradgradcheck};

/// Distinct values between -1.5 and 1.5, none near zero, in an order that depends on the seed.
pub(crate) fn values(n: usize, seed: u64) -> Vec<f64> {
    let mut list: Vec<f64> = (0..n)
        .map(|i| (0.1 + 1.4 * (i as f64 + 0.5) / n as f64) * if i % 2 == 0 { 1.0 } else { -1.0 })
        .collect();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for i in (1..n).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        list.swap(i, (state >> 33) as usize % (i + 1));
    }
    list
}

/// A parameter, and a view of it as a tensor of `shape` with strides that depend on the seed: row-major, permuted, with
/// gaps, expanded, channels last.
pub(crate) fn strided(shape: &[usize], seed: u64) -> (Var, impl Fn(&Var) -> Var + Clone + use<>) {
    let kind = if shape.is_empty() { 0 } else { seed % 5 };
    let n = shape.len();
    let mut order: Vec<isize> = (0..n as isize).collect();
    let mut base = shape.to_vec();
    match kind {
        1 => order.reverse(),
        2 => base.iter_mut().for_each(|n| *n = *n * 2 + 1),
        3 => base[0] = base[0].min(1),
        4 if n > 2 => order[1..].rotate_right(1),
        _ => {}
    }
    if kind == 1 || kind == 4 {
        // The dimensions of the base are in the order that `order` undoes.
        base = vec![0; n];
        for (d, &o) in order.iter().enumerate() {
            base[o as usize] = shape[d];
        }
    }
    let to = shape.to_vec();
    let see = move |x: &Var| match kind {
        1 | 4 => x.permute(&order),
        2 => (0..to.len()).fold(x.clone(), |x, d| {
            x.slice(d as isize, Slice { start: Some(1), end: Some(1 + 2 * to[d] as isize), step: 2 })
        }),
        3 => x.expand_to(&to),
        _ => x.clone(),
    };
    let count = base.iter().product();
    (Var::parameter(Tensor::from_vec(values(count, seed), &base)), see)
}

/// First and second derivatives of a function of one tensor of `shape`, against finite differences.
#[track_caller]
pub(crate) fn check<O: Outputs>(shape: &[usize], seed: u64, f: impl Fn(&Var) -> O) {
    let (x, see) = strided(shape, seed);
    let f = |x: &[Var]| f(&see(&x[0]));
    let inputs = [x];
    gradcheck(f, &inputs).unwrap_or_else(|e| panic!("{e}"));
    gradgradcheck(f, &inputs).unwrap_or_else(|e| panic!("second order: {e}"));
}

/// The same for two tensors.
#[track_caller]
pub(crate) fn check2<O: Outputs>(shapes: [&[usize]; 2], seed: u64, f: impl Fn(&Var, &Var) -> O) {
    let (x, see_x) = strided(shapes[0], seed);
    let (y, see_y) = strided(shapes[1], seed / 5);
    let f = |v: &[Var]| f(&see_x(&v[0]), &see_y(&v[1]));
    let inputs = [x, y];
    gradcheck(f, &inputs).unwrap_or_else(|e| panic!("{e}"));
    gradgradcheck(f, &inputs).unwrap_or_else(|e| panic!("second order: {e}"));
}
