//! `linear`: the affine map of a fully connected layer.

use crate::autocast::lowered_with_bias;
use crate::matmul::rows;
use crate::product::{Addend, check_types, left_gradient, product, product_value, right_gradient};
use tapegrad_tape::shape::Dims;
use tapegrad_tape::{RecordOptions, Var, record_with};

/// `x W^T + b` along the last dimension (`torch.nn.functional.linear`).
///
/// `x` is `[..., in]`, `weight` `[out, in]`, `bias` `[out]`; the result is `[..., out]`. A weight of shape `[in]`
/// removes the last dimension. The bias is added in the product's last pass.
///
/// # Panics
/// If the sizes do not fit or the element types differ.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f32, 2.0], &[1, 2]);
/// let w = Var::from_vec(vec![1f32, 0.0, 0.0, 1.0, 1.0, 1.0], &[3, 2]);
/// let b = Var::from_vec(vec![0.5f32, 0.5, 0.5], &[3]);
/// assert_eq!(tapegrad_ops::linear(&x, &w, Some(&b)).to_vec::<f32>(), [1.5, 2.5, 3.5]);
/// ```
#[track_caller]
pub fn linear<'a>(x: &Var, weight: &Var, bias: impl Into<Option<&'a Var>>) -> Var {
    lowered_with_bias([x, weight], bias.into(), affine)
}

#[track_caller]
fn affine(x: &Var, weight: &Var, bias: Option<&Var>) -> Var {
    check("linear", x, weight, bias);
    let (n, vector) = (weight.shape()[0], weight.ndim() == 1);
    if vector {
        let y = crate::matmul(x, weight);
        return bias.map_or_else(|| y.clone(), |b| y.add(b));
    }
    let mut shape = Dims::from_slice(x.shape());
    shape[x.ndim() - 1] = n;
    let (w, x_rows) = (weight.tensor(), flat(x));
    let addend = bias.map_or(Addend::Nothing, |b| Addend::Bias(b.tensor()));
    let value = product_value("linear", &x_rows.tensor(), false, &w, true, addend);
    let value = if x.ndim() == 2 { value } else { value.reshape(&shape) };
    let saved_x = weight.requires_grad().then(|| x.saved());
    let saved_w = x.requires_grad().then(|| weight.saved());
    let gradients = move |g: &Var, wants: [bool; 2], by_sample: bool| {
        let dx = wants[0].then(|| {
            let w = saved_w.as_ref().expect("saved, since x requires a gradient");
            let dx = left_gradient("linear", &flat(g), false, w, true);
            if g.ndim() == 2 {
                return dx;
            }
            let mut shape = Dims::from_slice(g.shape());
            *shape.last_mut().expect("checked") = w.shape()[1];
            dx.reshape(&shape)
        });
        let dw = wants[1].then(|| {
            let x = saved_x.as_ref().expect("saved, since the weight requires a gradient");
            if by_sample {
                // A product for each sample, of all that lies between the first and the last dimension.
                let rows = |v: &Var| v.reshape((v.size(0), -1, v.size(-1)));
                return product("linear", &rows(g), true, &rows(x), false);
            }
            right_gradient("linear", &flat(g), &flat(x), false, true)
        });
        [dx, dw]
    };
    let terms = |t: &[Option<Var>]| {
        let of_x = t[0].as_ref().map(|t| linear(t, weight, None));
        let (tw, tb) = (t[1].as_ref(), t[2].as_ref());
        vec![of_x, tw.map(|t| linear(x, t, tb)), tb.filter(|_| tw.is_none()).cloned()]
    };
    let options = RecordOptions::new().forward(&terms).by_sample(x.ndim() > 1);
    record_with("linear", [Some(x), Some(weight), bias], value, options, move |c| {
        let [dx, dw] = gradients(c.grad(), [c.wants(0), c.wants(1)], c.by_sample(1));
        // The backward pass sums the gradient to the bias's shape.
        [dx, dw, c.wants(2).then(|| c.grad().clone())]
    })
}

/// All rows as one matrix.
fn flat(v: &Var) -> Var {
    if v.ndim() == 2 {
        return v.clone();
    }
    v.reshape(&[rows(v.shape()), *v.shape().last().expect("checked") as isize])
}

/// Checks the operands of a linear layer.
#[track_caller]
pub(crate) fn check(op: &str, x: &Var, weight: &Var, bias: Option<&Var>) {
    let (sx, sw) = (x.shape(), weight.shape());
    assert!(
        !sx.is_empty() && (1..=2).contains(&sw.len()),
        "{op}: input {sx:?} and weight {sw:?} do not fit: the input is [..., in], the weight [out, in] or [in]"
    );
    let (have, want) = (sx[sx.len() - 1], sw[sw.len() - 1]);
    assert!(
        have == want,
        "{op}: input {sx:?} has {have} features but weight {sw:?} expects {want} (mat1 and mat2 shapes cannot be \
         multiplied)"
    );
    check_types(op, x.dtype(), weight.dtype());
    if let Some(b) = bias {
        let out: &[usize] = if sw.len() == 2 { &sw[..1] } else { &[] };
        let fits = b.ndim() <= 1
            && tapegrad_tape::shape::broadcast(b.shape(), out).is_some_and(|s| s.as_slice() == out);
        assert!(fits, "{op}: bias {:?} does not fit weight {sw:?}, which makes {out:?} features", b.shape());
        check_types(op, x.dtype(), b.dtype());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn gradients(lead in proptest::collection::vec(1usize..3, 0..3), i in 1usize..4, o in 1usize..4, seed: u64) {
            let mut shape = lead;
            shape.push(i);
            let inputs = [parameter(&shape, seed), parameter(&[o, i], seed ^ 1), parameter(&[o], seed ^ 2)];
            check_gradients(|x| linear(&x[0], &x[1], Some(&x[2])), &inputs);
            check_gradients(|x| linear(&x[0], &x[1], None), &inputs[..2]);
        }
    }

    #[test]
    fn one_row_does_not_write_into_the_bias() {
        let (x, w, b) = (parameter(&[1, 3], 1), parameter(&[2, 3], 2), parameter(&[2], 3));
        let before = b.to_vec::<f64>();
        let composed = crate::matmul(&x, &Var::from(w.tensor().transpose(0, 1))).add(&b);
        assert_close(&linear(&x, &w, Some(&b)), &composed, 1e-14);
        assert_eq!(b.to_vec::<f64>(), before);
    }

    #[test]
    #[should_panic(expected = "linear: input [2, 3] has 3 features but weight [4, 5] expects 5")]
    fn features_that_do_not_fit() {
        linear(&parameter(&[2, 3], 1), &parameter(&[4, 5], 2), None);
    }
}
