//! `bilinear`.

use crate::product::{check_types, product};
use tapegrad_tape::Var;

/// `y[o] = sum over i, j of x1[i] weight[o, i, j] x2[j] + bias[o]` along the last dimensions
/// (`torch.nn.functional.bilinear`).
///
/// # Panics
/// If shapes or types do not fit.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f32, 2.0], &[2]);
/// let w = Var::from_vec(vec![1f32, 0.0, 0.0, 1.0], &[1, 2, 2]);
/// assert_eq!(tapegrad_ops::bilinear(&x, &x, &w, None).to_vec::<f32>(), [5.0]);
/// ```
#[track_caller]
pub fn bilinear<'a>(x1: &Var, x2: &Var, weight: &Var, bias: impl Into<Option<&'a Var>>) -> Var {
    let bias = bias.into();
    let (s1, s2, sw) = (x1.shape(), x2.shape(), weight.shape());
    assert!(
        sw.len() == 3 && !s1.is_empty() && s1.len() == s2.len() && s1[..s1.len() - 1] == s2[..s2.len() - 1],
        "bilinear: inputs {s1:?} and {s2:?} with weight {sw:?} do not fit: they are [..., in1], [..., in2] and \
         [out, in1, in2]"
    );
    let (i, j) = (s1[s1.len() - 1], s2[s2.len() - 1]);
    assert!(
        sw[1..] == [i, j],
        "bilinear: weight {sw:?} expects inputs of {} and {} features, but they are {s1:?} and {s2:?}",
        sw[1],
        sw[2]
    );
    check_types("bilinear", x1.dtype(), x2.dtype());
    check_types("bilinear", x1.dtype(), weight.dtype());
    if let Some(b) = bias {
        assert!(b.shape() == [sw[0]], "bilinear: bias {:?} does not fit weight {sw:?}", b.shape());
    }
    let (n, out) = (crate::matmul::rows(s1), sw[0] as isize);
    let (i, j) = (i as isize, j as isize);
    let side = weight.permute(&[1, 0, 2]).reshape(&[i, out * j]);
    let half = product("bilinear", &x1.reshape(&[n, i]), false, &side, false).reshape(&[n, out, j]);
    let y = product("bilinear", &half, false, &x2.reshape(&[n, j, 1]), false);
    let mut shape: Vec<isize> = s1.iter().map(|&n| n as isize).collect();
    *shape.last_mut().expect("checked") = out;
    let y = y.reshape(&shape);
    bias.map_or_else(|| y.clone(), |b| y.add(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::einsum;
    use crate::testing::{assert_close, check_gradients, parameter};

    #[test]
    fn gradients() {
        let inputs =
            [parameter(&[4, 2], 1), parameter(&[4, 3], 2), parameter(&[2, 2, 3], 3), parameter(&[2], 4)];
        check_gradients(|x| bilinear(&x[0], &x[1], &x[2], Some(&x[3])), &inputs);
        let by_einsum = einsum("ni,oij,nj->no", &[&inputs[0], &inputs[2], &inputs[1]]) + &inputs[3];
        assert_close(&bilinear(&inputs[0], &inputs[1], &inputs[2], Some(&inputs[3])), &by_einsum, 1e-12);
    }
}
