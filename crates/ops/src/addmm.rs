//! `addmm`, `baddbmm`, `addbmm`, `addmv`, `addr`: a product added to something.

use crate::autocast::lowered;
use crate::product::{Addend, check_types, left_gradient, product, product_value, right_gradient};
use tapegrad_tape::{RecordOptions, Scalar, Tensor, Var, record_with};

/// `beta * input + alpha * (a @ b)` for two matrices (`torch.addmm`). `input` is broadcast; with `beta = 0` it is not
/// read, so its NaN and infinities are ignored.
///
/// # Panics
/// If shapes or types do not fit.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![1f32, 2.0], &[1, 2]);
/// let b = Var::from_vec(vec![3f32, 4.0], &[2, 1]);
/// assert_eq!(tapegrad_ops::addmm_with(&Var::from(1.0), &a, &b, 10, 2).item(), 32.0);
/// ```
#[track_caller]
pub fn addmm(input: &Var, a: &Var, b: &Var) -> Var {
    addmm_with(input, a, b, 1, 1)
}

/// [`addmm`] with factors of the two terms.
///
/// # Panics
/// Same as [`addmm`].
#[track_caller]
pub fn addmm_with(input: &Var, a: &Var, b: &Var, beta: impl Into<Scalar>, alpha: impl Into<Scalar>) -> Var {
    lowered([input, a, b], |[input, a, b]| {
        check("addmm", input, [("mat1", a), ("mat2", b)], 2);
        add_product("addmm", input, a, b, beta.into(), alpha.into())
    })
}

/// `beta * input + alpha * (a @ b)` for two batches of equally many matrices (`torch.baddbmm`). `input` is broadcast;
/// with `beta = 0` it is not read.
///
/// # Panics
/// If shapes or types do not fit.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![1f32, 2.0], &[2, 1, 1]);
/// assert_eq!(tapegrad_ops::baddbmm(&Var::from(1.0), &a, &a).to_vec::<f32>(), [2.0, 5.0]);
/// ```
#[track_caller]
pub fn baddbmm(input: &Var, a: &Var, b: &Var) -> Var {
    baddbmm_with(input, a, b, 1, 1)
}

/// [`baddbmm`] with factors of the two terms.
///
/// # Panics
/// Same as [`baddbmm`].
#[track_caller]
pub fn baddbmm_with(input: &Var, a: &Var, b: &Var, beta: impl Into<Scalar>, alpha: impl Into<Scalar>) -> Var {
    lowered([input, a, b], |[input, a, b]| {
        check("baddbmm", input, [("batch1", a), ("batch2", b)], 3);
        assert!(
            a.shape()[0] == b.shape()[0],
            "baddbmm: batch1 and batch2 must have the same number of matrices, got shapes {:?} and {:?}",
            a.shape(),
            b.shape()
        );
        add_product("baddbmm", input, a, b, beta.into(), alpha.into())
    })
}

/// `beta * input + alpha * (a @ x)` for a matrix and a vector (`torch.addmv`). `input` is broadcast; with `beta = 0` it
/// is not read.
///
/// # Panics
/// If shapes or types do not fit.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
/// let x = Var::from_vec(vec![1f32, 1.0], &[2]);
/// assert_eq!(tapegrad_ops::addmv_with(&x, &a, &x, 1, 10).to_vec::<f32>(), [31.0, 71.0]);
/// ```
#[track_caller]
pub fn addmv(input: &Var, a: &Var, x: &Var) -> Var {
    addmv_with(input, a, x, 1, 1)
}

/// [`addmv`] with factors of the two terms.
///
/// # Panics
/// Same as [`addmv`].
#[track_caller]
pub fn addmv_with(input: &Var, a: &Var, x: &Var, beta: impl Into<Scalar>, alpha: impl Into<Scalar>) -> Var {
    assert!(
        a.ndim() == 2 && x.ndim() == 1,
        "addmv: expected a matrix and a vector, but got shapes {:?} and {:?}",
        a.shape(),
        x.shape()
    );
    let (rows, columns) = (a.shape()[0], x.numel() as isize);
    let fits =
        tapegrad_tape::shape::broadcast(input.shape(), &[rows]).is_some_and(|s| s.as_slice() == [rows]);
    assert!(fits, "addmv: input {:?} does not broadcast to the result's shape [{rows}]", input.shape());
    let input = input.expand_to(&[rows]).reshape((rows, 1));
    check("addmv", &input, [("mat", a), ("vec", x)], 2);
    add_product("addmv", &input, a, &x.reshape(&[columns, 1]), beta.into(), alpha.into()).reshape(rows)
}

/// `beta * input + alpha * sum of the products of all pairs` of two batches of equally many matrices (`torch.addbmm`).
/// `input` is broadcast; with `beta = 0` it is not read.
///
/// # Panics
/// If shapes or types do not fit.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![1f32, 2.0], &[2, 1, 1]);
/// assert_eq!(tapegrad_ops::addbmm(&Var::from(1.0), &a, &a).item(), 6.0);
/// ```
#[track_caller]
pub fn addbmm(input: &Var, a: &Var, b: &Var) -> Var {
    addbmm_with(input, a, b, 1, 1)
}

/// [`addbmm`] with factors of the two terms.
///
/// # Panics
/// Same as [`addbmm`].
#[track_caller]
pub fn addbmm_with(input: &Var, a: &Var, b: &Var, beta: impl Into<Scalar>, alpha: impl Into<Scalar>) -> Var {
    lowered([input, a, b], |[input, a, b]| {
        check("addbmm", input, [("batch1", a), ("batch2", b)], 3);
        let ([n, rows, inner], [other, k, columns]) =
            ([0, 1, 2].map(|d| a.shape()[d]), [0, 1, 2].map(|d| b.shape()[d]));
        assert!(
            n == other && inner == k,
            "addbmm: batch1 and batch2 must be as many matrices of sizes that fit, got shapes {:?} and {:?}",
            a.shape(),
            b.shape()
        );
        // The sum is one product: of all matrices side by side with all below one another.
        let [rows, steps, columns] = [rows, n * k, columns].map(|n| n as isize);
        let wide = a.permute(&[1, 0, 2]).reshape(&[rows, steps]);
        add_product("addbmm", input, &wide, &b.reshape(&[steps, columns]), beta.into(), alpha.into())
    })
}

/// `beta * input + alpha * (x outer y)` for two vectors (`torch.addr`). `input` is broadcast; with `beta = 0` it is not
/// read. Types are promoted, as in no other of these products.
///
/// # Panics
/// If the shapes do not fit, or all are Bool.
///
/// ```
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f32, 2.0], &[2]);
/// assert_eq!(tapegrad_ops::addr_with(&Var::from(1.0), &x, &x, 1, 10).to_vec::<f32>(), [11.0, 21.0, 21.0, 41.0]);
/// ```
#[track_caller]
pub fn addr(input: &Var, x: &Var, y: &Var) -> Var {
    addr_with(input, x, y, 1, 1)
}

/// [`addr`] with factors of the two terms.
///
/// # Panics
/// Same as [`addr`].
#[track_caller]
pub fn addr_with(input: &Var, x: &Var, y: &Var, beta: impl Into<Scalar>, alpha: impl Into<Scalar>) -> Var {
    assert!(
        x.ndim() == 1 && y.ndim() == 1,
        "addr: expected two vectors, but got shapes {:?} and {:?}",
        x.shape(),
        y.shape()
    );
    let dtype = input.dtype().promote(x.dtype()).promote(y.dtype());
    check_types("addr", dtype, dtype);
    let [input, x, y] = [input, x, y].map(|v| v.cast(dtype));
    add_product("addr", &input, &x.unsqueeze(1), &y.unsqueeze(0), beta.into(), alpha.into())
}

#[track_caller]
fn check(op: &str, input: &Var, operands: [(&str, &Var); 2], ndim: usize) {
    for (name, v) in operands {
        assert!(
            v.ndim() == ndim || op == "addmv",
            "{op}: {name} must be a {ndim}D tensor, but got shapes {:?} and {:?}",
            operands[0].1.shape(),
            operands[1].1.shape()
        );
        check_types(op, input.dtype(), v.dtype());
    }
}

#[track_caller]
fn add_product(op: &'static str, input: &Var, a: &Var, b: &Var, beta: Scalar, alpha: Scalar) -> Var {
    let dtype = a.dtype();
    let whole = |s: Scalar| matches!(s, Scalar::Int(_) | Scalar::Bool(_));
    assert!(
        dtype.is_float() || (whole(beta) && whole(alpha)),
        "{op}: for {dtype} matrices alpha and beta must not be floating-point numbers"
    );
    let mut shape = a.shape().to_vec();
    *shape.last_mut().expect("a matrix") = *b.shape().last().expect("a matrix");
    let fits = tapegrad_tape::shape::broadcast(input.shape(), &shape).is_some_and(|s| s.as_slice() == shape);
    assert!(fits, "{op}: input {:?} does not broadcast to the result's shape {shape:?}", input.shape());
    let (beta, alpha) = (beta.to_f64(), alpha.to_f64());
    let start = match beta {
        0.0 => Tensor::zeros_with((), dtype),
        1.0 => input.tensor(),
        _ if dtype.is_float() => input.detach().mul(beta).tensor(),
        _ => input.detach().mul(beta as i64).tensor(),
    };
    let value = product_value(op, &a.tensor(), false, &b.tensor(), false, Addend::Scaled(start, alpha));
    let x = b.requires_grad().then(|| a.saved());
    let y = a.requires_grad().then(|| b.saved());
    let terms = |t: &[Option<Var>]| {
        let of_a = t[1].as_ref().map(|t| product(op, t, false, b, false) * alpha);
        let of_b = t[2].as_ref().map(|t| product(op, a, false, t, false) * alpha);
        vec![t[0].as_ref().map(|t| t * beta), of_a, of_b]
    };
    record_with(op, [input, a, b], value, RecordOptions::new().forward(&terms), move |c| {
        let g = c.grad();
        let scaled = |v: Var| if alpha == 1.0 { v } else { v * alpha };
        let kept = "saved, since the other operand requires a gradient";
        [
            c.wants(0).then(|| g * beta),
            c.wants(1).then(|| scaled(left_gradient(op, g, false, y.as_ref().expect(kept), false))),
            c.wants(2).then(|| scaled(right_gradient(op, g, x.as_ref().expect(kept), false, false))),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};

    #[test]
    fn gradients_with_every_broadcast() {
        for shape in [&[][..], &[1], &[4], &[3, 1], &[3, 4]] {
            let inputs = [parameter(shape, 1), parameter(&[3, 2], 2), parameter(&[2, 4], 3)];
            check_gradients(|x| addmm_with(&x[0], &x[1], &x[2], 0.2, 0.6), &inputs);
            let inputs = [parameter(shape, 1), parameter(&[2, 3, 2], 2), parameter(&[2, 2, 4], 3)];
            check_gradients(|x| baddbmm_with(&x[0], &x[1], &x[2], 1, -0.5), &inputs);
            check_gradients(|x| addbmm_with(&x[0], &x[1], &x[2], 0.5, 2), &inputs);
            let inputs = [parameter(shape, 1), parameter(&[3], 2), parameter(&[4], 3)];
            check_gradients(|x| addr_with(&x[0], &x[1], &x[2], 0.2, 0.6), &inputs);
        }
        let inputs = [parameter(&[3], 1), parameter(&[3, 2], 2), parameter(&[2], 3)];
        check_gradients(|x| addmv_with(&x[0], &x[1], &x[2], 0.5, 2), &inputs);
        let [input, a, x] = inputs;
        assert_close(&addmv_with(&input, &a, &x, 0.5, 2), &(crate::mv(&a, &x) * 2.0 + &input * 0.5), 1e-14);
    }

    #[test]
    fn addr_promotes() {
        let (x, y) = (Var::from_vec(vec![1i64, 2], 2), Var::from_vec(vec![0.5f32, 4.0], 2));
        let z = addr(&Var::from_vec(vec![1f64, 2.0], 2), &x, &y);
        assert_eq!((z.dtype(), z.to_vec::<f64>()), (tapegrad_tape::DType::F64, vec![1.5, 6.0, 2.0, 10.0]));
        let w = Var::parameter(y.tensor());
        addr(&x, &x, &w).sum_all().backward();
        assert_eq!(w.grad().unwrap().to_vec::<f32>(), [3.0, 3.0]);
    }

    #[test]
    fn beta_of_zero_hides_the_input() {
        let nan = Var::from(f64::NAN).cast(tapegrad_tape::DType::F64);
        let a = parameter(&[2, 0], 1);
        assert_eq!(addmm_with(&nan, &a, &parameter(&[0, 2], 2), 0, 1).to_vec::<f64>(), [0.0; 4]);
    }

    #[test]
    #[should_panic(expected = "addmm: input [3] does not broadcast to the result's shape [2, 2]")]
    fn an_input_that_does_not_fit() {
        addmm(&parameter(&[3], 1), &parameter(&[2, 2], 1), &parameter(&[2, 2], 1));
    }
}
