//! PyTorch's edge semantics, as `tools/edge_semantics.py` prints them: ties, zeros, NaN, infinities, kinks, nothing.
//! `docs/edge-semantics.md` says the same in words, and where Tapegrad differs.

use std::panic::catch_unwind;
use tapegrad_ops::VarOps;
use tapegrad_tape::{Tensor, Var, pow, where_};

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

/// An expression of `x`; the elements of `x`; the result; the gradient of the result's sum, if there is one.
type Row = (&'static str, &'static [f64], &'static [f64], Option<&'static [f64]>);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("max", &[2.0, 1.0, 2.0], &[2.0], Some(&[0.5, 0.0, 0.5])),
    ("max(0)", &[2.0, 1.0, 2.0], &[2.0], Some(&[1.0, 0.0, 0.0])),
    ("amax", &[2.0, 1.0, 2.0], &[2.0], Some(&[0.5, 0.0, 0.5])),
    ("amax, nan", &[1.0, NAN, NAN], &[NAN], Some(&[NAN, NAN, NAN])),
    ("max, nan", &[1.0, NAN, NAN], &[NAN], Some(&[0.0, 0.5, 0.5])),
    ("min(0), nan", &[1.0, NAN, NAN], &[NAN], Some(&[0.0, 1.0, 0.0])),
    ("maximum(1)", &[1.0, 0.0, 2.0, NAN], &[1.0, 1.0, 2.0, NAN], Some(&[0.5, 0.0, 1.0, 1.0])),
    ("minimum(1)", &[1.0, 0.0, 2.0, NAN], &[1.0, 0.0, 1.0, NAN], Some(&[0.5, 1.0, 0.0, 1.0])),
    ("clamp(0, 1)", &[0.0, 1.0, -1.0, 2.0, NAN], &[0.0, 1.0, 0.0, 1.0, NAN], Some(&[0.0, 0.0, 0.0, 0.0, 0.0])),
    ("clamp_min(0)", &[0.0, -1.0, 1.0, NAN], &[0.0, 0.0, 1.0, NAN], Some(&[0.0, 0.0, 1.0, 0.0])),
    ("clamp(1, 0)", &[0.0, 0.5, 2.0], &[0.0, 0.0, 0.0], Some(&[0.0, 0.0, 0.0])),
    ("pow(0)", &[0.0, 2.0, NAN, INF], &[1.0, 1.0, 1.0, 1.0], Some(&[0.0, 0.0, 0.0, 0.0])),
    ("pow(1)", &[0.0, 2.0], &[0.0, 2.0], Some(&[1.0, 1.0])),
    ("pow(0.5)", &[0.0, 4.0], &[0.0, 2.0], Some(&[INF, 0.25])),
    ("pow(-1)", &[0.0, 2.0], &[INF, 0.5], Some(&[-INF, -0.25])),
    ("pow([0, 2])", &[0.0, 0.0], &[1.0, 0.0], Some(&[0.0, 0.0])),
    ("0^x", &[0.0, 2.0, -1.0], &[1.0, 0.0, INF], Some(&[0.0, 0.0, -INF])),
    ("1^x", &[0.0, NAN, INF], &[1.0, 1.0, 1.0], Some(&[0.0, 0.0, 0.0])),
    ("norm(0)", &[0.0, 0.0, 3.0], &[1.0], Some(&[0.0, 0.0, 0.0])),
    ("norm(0.5)", &[0.0, 0.0], &[0.0], Some(&[0.0, 0.0])),
    ("norm(1)", &[0.0, 0.0], &[0.0], Some(&[0.0, 0.0])),
    ("norm(1.5)", &[0.0, 0.0], &[0.0], Some(&[0.0, 0.0])),
    ("norm(2)", &[0.0, 0.0], &[0.0], Some(&[0.0, 0.0])),
    ("norm(3)", &[0.0, 0.0], &[0.0], Some(&[0.0, 0.0])),
    ("norm(inf)", &[0.0, 0.0], &[0.0], Some(&[0.0, 0.0])),
    ("norm(-inf)", &[0.0, 0.0], &[0.0], Some(&[0.0, 0.0])),
    ("norm(-1)", &[0.0, 0.0], &[0.0], Some(&[0.0, 0.0])),
    ("norm(inf), ties", &[-3.0, 3.0, 1.0], &[3.0], Some(&[-0.5, 0.5, 0.0])),
    ("where(x > 0, x, 0)", &[1.0, NAN, -1.0, INF], &[1.0, 0.0, 0.0, INF], Some(&[1.0, 0.0, 0.0, 1.0])),
    ("where(x > 0, sqrt, 0)", &[4.0, 0.0, -1.0], &[2.0, 0.0, 0.0], Some(&[0.25, NAN, NAN])),
    ("prod", &[2.0, 0.0, 3.0], &[0.0], Some(&[0.0, 6.0, 0.0])),
    ("prod, two zeros", &[2.0, 0.0, 0.0], &[0.0], Some(&[0.0, 0.0, 0.0])),
    ("prod(0)", &[2.0, 0.0, 3.0], &[0.0], Some(&[0.0, 6.0, 0.0])),
    ("cumprod(0)", &[2.0, 0.0, 3.0], &[2.0, 0.0, 0.0], Some(&[1.0, 8.0, 0.0])),
    ("sqrt", &[0.0, -1.0], &[0.0, NAN], Some(&[INF, NAN])),
    ("rsqrt", &[0.0, 4.0], &[INF, 0.5], Some(&[-INF, -0.0625])),
    ("log", &[0.0, -1.0], &[-INF, NAN], Some(&[INF, -1.0])),
    ("xlogy(0)", &[0.0, 2.0, NAN], &[0.0, -INF, NAN], Some(&[0.0, -INF, -INF])),
    ("abs", &[0.0, -2.0, NAN], &[0.0, 2.0, NAN], Some(&[0.0, -1.0, 0.0])),
    ("sign", &[0.0, -2.0, NAN], &[0.0, -1.0, 0.0], Some(&[0.0, 0.0, 0.0])),
    ("relu", &[0.0, -2.0, 3.0, NAN], &[0.0, 0.0, 3.0, NAN], Some(&[0.0, 0.0, 1.0, 1.0])),
    ("leaky_relu(0.1)", &[0.0, -2.0, NAN], &[0.0, -0.2, NAN], Some(&[0.1, 0.1, 0.1])),
    ("hardtanh(-1, 1)", &[-1.0, 1.0, 0.0, 2.0, NAN], &[-1.0, 1.0, 0.0, 1.0, NAN], Some(&[0.0, 0.0, 1.0, 0.0, 1.0])),
    ("relu6", &[0.0, 6.0, 3.0, 7.0, NAN], &[0.0, 6.0, 3.0, 6.0, NAN], Some(&[0.0, 0.0, 1.0, 0.0, 1.0])),
    ("elu", &[0.0, -INF, NAN], &[0.0, -1.0, NAN], Some(&[1.0, 0.0, 1.0])),
    ("softplus", &[0.0, 30.0, INF, -INF], &[std::f64::consts::LN_2, 30.0, INF, 0.0], Some(&[0.5, 1.0, 1.0, 0.0])),
    ("sort, ties", &[2.0, 1.0, 2.0, 1.0, NAN], &[1.0, 1.0, 2.0, 2.0, NAN], Some(&[1.0, 1.0, 1.0, 1.0, 1.0])),
    ("argsort, ties", &[2.0, 1.0, 2.0, 1.0, NAN], &[1.0, 3.0, 0.0, 2.0, 4.0], None),
    ("argsort, descending", &[2.0, 1.0, 2.0, 1.0, NAN], &[4.0, 0.0, 2.0, 1.0, 3.0], None),
    ("argmax, ties", &[1.0, 2.0, 2.0], &[1.0], None),
    ("argmax, nan", &[1.0, NAN, 2.0, NAN], &[1.0], None),
    ("argmin, nan", &[1.0, NAN, 2.0, NAN], &[1.0], None),
    ("topk(2), nan", &[1.0, NAN, 3.0], &[NAN, 3.0], Some(&[0.0, 1.0, 1.0])),
    ("topk(2), smallest, nan", &[1.0, NAN, 3.0], &[1.0, 3.0], Some(&[1.0, 0.0, 1.0])),
    ("median", &[3.0, 1.0, 2.0, 4.0], &[2.0], Some(&[0.0, 0.0, 1.0, 0.0])),
    ("median, nan", &[3.0, NAN, 1.0], &[NAN], Some(&[0.0, 1.0, 0.0])),
    ("median(0), nan", &[3.0, NAN, 1.0], &[NAN], Some(&[0.0, 1.0, 0.0])),
    ("logsumexp(0)", &[-INF, -INF], &[-INF], Some(&[NAN, NAN])),
    ("logsumexp(0), inf", &[INF, 1.0], &[INF], Some(&[NAN, 0.0])),
    ("logsumexp(0), one -inf", &[-INF, 1.0], &[1.0], Some(&[0.0, 1.0])),
    ("softmax(0)", &[-INF, -INF], &[NAN, NAN], Some(&[NAN, NAN])),
    ("softmax(0), one -inf", &[-INF, 0.0], &[0.0, 1.0], Some(&[0.0, 0.0])),
    ("log_softmax(0)", &[-INF, -INF], &[NAN, NAN], Some(&[NAN, NAN])),
    ("log_softmax(0), one -inf", &[-INF, 0.0], &[-INF, 0.0], Some(&[1.0, -1.0])),
    ("x / 0", &[1.0, 0.0, -1.0], &[INF, NAN, -INF], Some(&[INF, INF, INF])),
    ("1 / x", &[0.0, -0.0, INF], &[INF, -INF, 0.0], Some(&[-INF, -INF, -0.0])),
    ("div, floor", &[7.0, -7.0], &[3.0, -4.0], Some(&[0.0, 0.0])),
    ("div, trunc", &[7.0, -7.0], &[3.0, -3.0], Some(&[0.0, 0.0])),
    ("round", &[0.5, 1.5, 2.5, -0.5, -1.5], &[0.0, 2.0, 2.0, -0.0, -2.0], Some(&[0.0, 0.0, 0.0, 0.0, 0.0])),
    ("sum of nothing", &[], &[0.0], Some(&[])),
    ("prod of nothing", &[], &[1.0], Some(&[])),
    ("mean of nothing", &[], &[NAN], Some(&[])),
    ("var of one", &[3.0], &[NAN], Some(&[NAN])),
    ("std of one", &[3.0], &[NAN], Some(&[NAN])),
    ("std of equals", &[3.0, 3.0], &[0.0], Some(&[0.0, 0.0])),
    ("var, correction 0", &[3.0], &[0.0], Some(&[0.0])),
    ("atan2(0, 0)", &[0.0], &[0.0], Some(&[0.0])),
];

fn of(values: &[f64]) -> Var {
    Var::from_vec(values.to_vec(), &[values.len()])
}

fn powers_and_norms(name: &str, x: &Var) -> Option<Var> {
    let norm = |p| x.vector_norm_with(p, (), false);
    Some(match name {
        "pow(0)" => x.pow(0),
        "pow(1)" => x.pow(1),
        "pow(0.5)" => x.pow(0.5),
        "pow(-1)" => x.pow(-1.0),
        "pow([0, 2])" => x.pow(of(&[0.0, 2.0])),
        "0^x" => pow(0.0, x),
        "1^x" => pow(1.0, x),
        "norm(0)" => norm(0.0),
        "norm(0.5)" => norm(0.5),
        "norm(1)" => norm(1.0),
        "norm(1.5)" => norm(1.5),
        "norm(2)" => norm(2.0),
        "norm(3)" => norm(3.0),
        "norm(inf)" | "norm(inf), ties" => norm(INF),
        "norm(-inf)" => norm(-INF),
        "norm(-1)" => norm(-1.0),
        _ => return None,
    })
}

fn orders(name: &str, x: &Var) -> Option<Var> {
    Some(match name {
        "max" | "max, nan" => x.max_all(),
        "max(0)" => x.max(0).0,
        "amax" | "amax, nan" => x.amax(()),
        "min(0), nan" => x.min(0).0,
        "maximum(1)" => x.maximum(&of(&[1.0; 4])),
        "minimum(1)" => x.minimum(&of(&[1.0; 4])),
        "clamp(0, 1)" => x.clamp(0, 1),
        "clamp_min(0)" => x.clamp_min(0),
        "clamp(1, 0)" => x.clamp(1, 0),
        "sort, ties" => x.sort(0).0,
        "argsort, ties" => x.argsort(0),
        "argsort, descending" => x.argsort_with(0, true),
        "argmax, ties" | "argmax, nan" => x.argmax_all(),
        "argmin, nan" => x.argmin_all(),
        "topk(2), nan" => x.topk(2, 0).0,
        "topk(2), smallest, nan" => x.topk_with(2, 0, false, true).0,
        "median" | "median, nan" => x.median_all(),
        "median(0), nan" => x.median(0).0,
        _ => return None,
    })
}

fn reductions(name: &str, x: &Var) -> Option<Var> {
    Some(match name {
        "prod" | "prod, two zeros" | "prod of nothing" => x.prod_all(),
        "prod(0)" => x.prod(0),
        "cumprod(0)" => x.cumprod(0),
        "sum of nothing" => x.sum_all(),
        "mean of nothing" => x.mean_all(),
        "var of one" => x.var(()),
        "std of one" | "std of equals" => x.std(()),
        "var, correction 0" => x.var_with((), 0.0, false),
        _ if name.starts_with("logsumexp") => x.logsumexp(0),
        _ if name.starts_with("softmax") => x.softmax(0),
        _ if name.starts_with("log_softmax") => x.log_softmax(0),
        _ => return None,
    })
}

fn pointwise(name: &str, x: &Var) -> Option<Var> {
    Some(match name {
        "where(x > 0, x, 0)" => where_(&x.gt(0), x, 0.0),
        "where(x > 0, sqrt, 0)" => where_(&x.gt(0), x.sqrt(), 0.0),
        "sqrt" => x.sqrt(),
        "rsqrt" => x.rsqrt(),
        "log" => x.log(),
        "xlogy(0)" => x.xlogy(of(&[0.0; 3])),
        "abs" => x.abs(),
        "sign" => x.sign(),
        "relu" => tapegrad_ops::relu(x),
        "leaky_relu(0.1)" => tapegrad_ops::leaky_relu_with(x, 0.1),
        "hardtanh(-1, 1)" => tapegrad_ops::hardtanh(x),
        "relu6" => tapegrad_ops::relu6(x),
        "elu" => tapegrad_ops::elu(x),
        "softplus" => tapegrad_ops::softplus(x),
        "x / 0" => x / of(&[0.0; 3]),
        "1 / x" => 1.0 / x,
        "div, floor" => x.div_rounded(2, tapegrad_tape::RoundingMode::Floor),
        "div, trunc" => x.div_rounded(2, tapegrad_tape::RoundingMode::Trunc),
        "round" => x.round(),
        "atan2(0, 0)" => x.atan2(&of(&[0.0])),
        _ => return None,
    })
}

fn same(a: &[f64], b: &[f64]) -> bool {
    let near = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-12 * b.abs();
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(*a, *b))
}

#[test]
fn the_table() {
    let mut wrong = vec![];
    for &(name, values, expected, gradient) in TABLE {
        let x = Var::parameter(of(values).tensor());
        let families = [powers_and_norms, orders, reductions, pointwise];
        let y = families.iter().find_map(|f| f(name, &x)).unwrap_or_else(|| panic!("no operation {name}"));
        if !same(&y.to_vec::<f64>(), expected) {
            wrong.push(format!("{name}: {:?}, PyTorch has {expected:?}", y.to_vec::<f64>()));
        }
        let found = y.requires_grad().then(|| {
            y.sum_all().backward();
            x.grad().map_or_else(|| vec![0.0; values.len()], |g| g.to_vec::<f64>())
        });
        match (gradient, found) {
            (Some(expected), Some(found)) if same(&found, expected) => {}
            (None, None) => {}
            (expected, found) => {
                wrong.push(format!("the gradient of {name}: {found:?}, PyTorch has {expected:?}"))
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// What PyTorch raises an error for panics.
#[test]
fn errors() {
    let zero = || Var::from_vec(vec![0i64], &[1]);
    let one = || Var::from_vec(vec![1i64], &[1]);
    let floor = tapegrad_tape::RoundingMode::Floor;
    assert!(catch_unwind(|| one().div_rounded(zero(), floor)).is_err());
    assert!(
        catch_unwind(|| Var::from(Tensor::zeros_with(&[0], tapegrad_tape::DType::F32)).max_all()).is_err()
    );
}
