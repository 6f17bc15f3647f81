//! Forward mode: against finite differences and two backward passes, nested in every order, and without traces.

use proptest::prelude::*;
use tapegrad_tape::{
    DType, Generator, GradOptions, Tensor, Var, checkpoint, grad, grad_with, hessian, hvp, is_grad_enabled,
    jacfwd, jacobian, jacrev, jvp, no_grad, record, record_with_output, value_and_grad, vjp, where_,
};

fn normal(shape: &[usize], seed: u64) -> Var {
    Generator::manual_seed(seed).normal(shape, 0.0, 1.0).cast(DType::F64).into()
}

#[track_caller]
fn close(a: &Var, b: &Var, tolerance: f64) {
    assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
    for (x, y) in a.to_vec::<f64>().iter().zip(&b.to_vec::<f64>()) {
        assert!((x - y).abs() <= tolerance * (1.0 + y.abs()), "{x} and {y}");
    }
}

/// The product of the Jacobian with `v` by two backward passes: the derivative of `u J v` for `u`.
fn by_two_passes(f: impl Fn(&[Var]) -> Var, xs: &[Var], v: &[Var]) -> Var {
    let leaves: Vec<Var> = xs.iter().map(|x| Var::parameter(x.tensor())).collect();
    let y = f(&leaves);
    if !y.requires_grad() {
        return y * 0.0;
    }
    let u = Var::parameter(Tensor::zeros_with(y.shape(), y.dtype()));
    let options = GradOptions::new().grad_outputs(vec![u.clone()]).create_graph(true);
    let rows = grad_with(&[&y], &leaves.iter().collect::<Vec<_>>(), options);
    let product =
        rows.iter().zip(v).filter_map(|(g, v)| Some((g.as_ref()? * v).sum_all())).reduce(|a, b| a + b);
    grad(&product.expect("a gradient"), &u)
}

fn by_differences(f: impl Fn(&[Var]) -> Var, xs: &[Var], v: &[Var]) -> Var {
    let h = 1e-5;
    let at = |s: f64| f(&xs.iter().zip(v).map(|(x, v)| x + v * s).collect::<Vec<_>>());
    (at(h) - at(-h)) / (2.0 * h)
}

/// A few functions of two matrices that go through every kind of rule.
fn functions() -> Vec<(&'static str, fn(&Var, &Var) -> Var)> {
    vec![
        ("arithmetic", |a, b| (a * b + a / (b * b + 1.0) - b * 3.0) / 2.0),
        ("broadcast", |a, b| a * b.sum_keepdim(0) + b.mean_keepdim(1) - a.mean(())),
        ("pointwise", |a, b| a.exp() * b.tanh() + (a * a + 1.5).log().sqrt() + b.sigmoid() * a.sin()),
        ("binary", |a, b| a.maximum(b) + a.atan2(b) + a.hypot(b) * a.logaddexp(b)),
        ("pow", |a, b| (a * a + 0.1).pow(b) + a.pow(3)),
        ("chosen", |a, b| where_(&a.gt(b), a * a, b).clamp(-0.7, 1.2) + a.masked_fill(&b.gt(0.0), 2.0)),
        ("movement", |a, b| {
            let c = a.transpose(0, 1).reshape(&[-1]).narrow(0, 1, 4).unsqueeze(0).expand(&[2, 4]);
            tapegrad_tape::cat(&[c.flip(&[1]), b.reshape(&[-1]).narrow(0, 0, 4).reshape(&[1, 4]) * 1.0], 0)
                .triu()
        }),
        ("reduction", |a, b| a.logsumexp(0) * b.prod(0) + a.var(0) + b.std(0) + a.amax(0) * a.norm()),
        ("scan", |a, b| a.cumsum(0) * b.cumprod(1) + a.logcumsumexp(1)),
        ("index", |a, b| {
            let i = Var::from_vec(vec![1i64, 0, 1], &[3]);
            a.index_select(0, &i) * b.index_select(0, &i).sort(1).0
                + a.gather(0, &Var::from_vec(vec![0i64, 1, 1], &[3, 1]))
        }),
        ("scatter", |a, b| {
            let i = Var::from_vec(vec![1i64, 0, 1, 1, 0, 0], &[2, 3]);
            a.scatter_add(0, &i, b) * b.scatter(0, &i, a)
        }),
        ("one", |a, _| a.clone()),
        ("none", |a, b| (a + b).detach() * 2.0),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn tangents(seed in 0u64..1000) {
        let (xs, v) = ([normal(&[2, 3], seed), normal(&[2, 3], seed ^ 1)], [normal(&[2, 3], seed ^ 2), normal(&[2, 3], seed ^ 3)]);
        for (name, f) in functions() {
            let f = |x: &[Var]| f(&x[0], &x[1]);
            println!("{name}");
            for _ in 0..2 {
                let (y, t) = jvp(f, &xs, &v);
                close(&y, &f(&xs), 0.0);
                close(&t, &by_two_passes(f, &xs, &v), 1e-12);
                if name != "none" {
                    close(&t, &by_differences(f, &xs, &v), 1e-5);
                }
                prop_assert!(!y.requires_grad() && !t.requires_grad());
                let unrecorded = no_grad(|| jvp(f, &xs, &v)).1;
                close(&t, &unrecorded, 0.0);
            }
        }
    }

    #[test]
    fn jacobians_and_hessians(seed in 0u64..1000) {
        let (x, b) = (normal(&[2, 3], seed), normal(&[2, 3], seed ^ 1));
        for (name, f) in functions() {
            println!("{name}");
            let g = |x: &Var| f(x, &(&b + x * 0.1));
            let (forward, reverse) = (jacfwd(g, &x), jacrev(g, &x));
            close(&forward, &reverse, 1e-12);
            close(&jacobian(g, &x), &reverse, 1e-12);
            let scalar = |x: &Var| (g(x) * g(x)).sum_all();
            let h = hessian(scalar, &x);
            close(&h, &jacrev(|x| value_and_grad(|x| scalar(&x[0]), std::slice::from_ref(x)).1.remove(0), &x), 1e-10);
            close(&h, &jacfwd(|x| jacfwd(scalar, x), &x), 1e-10);
            let v = normal(&[2, 3], seed ^ 2);
            let (first, product) = hvp(scalar, &x, &v);
            close(&first, &jacrev(scalar, &x), 1e-10);
            close(&product, &h.reshape(&[6, 6]).mul(&v.reshape(&[1, 6])).sum(1).reshape(&[2, 3]), 1e-10);
        }
    }
}

/// `sin(x)` in every way in which an operation can be recorded, with the derivatives of any order.
fn sines() -> Vec<fn(&Var) -> Var> {
    fn composed(x: &Var) -> Var {
        let saved = x.saved();
        record("sine", [x], x.detach().sin().tensor(), move |c| [Some(c.grad() * saved.cos())])
    }
    fn of_output(x: &Var) -> Var {
        // sin = tan / sqrt(1 + tan^2); the derivative of the tangent is a function of its result.
        let tan = record_with_output("tangent", [x], x.detach().tan().tensor(), |c| {
            [Some(c.grad() * (c.output().square() + 1.0))]
        });
        &tan / (tan.square() + 1.0).sqrt()
    }
    vec![|x| x.sin(), composed, of_output, |x| checkpoint(|x| x[0].sin(), &[x])]
}

fn along(f: impl Fn(&Var) -> Var, x: &Var) -> Var {
    jvp(|x| f(&x[0]), std::slice::from_ref(x), &[x.ones_like().detach()]).1
}

fn back(f: impl Fn(&Var) -> Var, x: &Var) -> Var {
    value_and_grad(|x| f(&x[0]).sum_all(), std::slice::from_ref(x)).1.remove(0)
}

#[test]
fn modes_nest_in_every_order() {
    let x = Var::from_vec(vec![0.4f64, -0.3], &[2]);
    let expected = [x.cos(), -x.sin(), -x.cos(), x.sin()];
    for sine in sines() {
        // Each bit of a mask is one derivative, forward or backward.
        fn derive(f: fn(&Var) -> Var, x: &Var, order: u32, mask: u32) -> Var {
            match order {
                0 => f(x),
                _ if mask & 1 == 1 => along(|x| derive(f, x, order - 1, mask >> 1), x),
                _ => back(|x| derive(f, x, order - 1, mask >> 1), x),
            }
        }
        for order in 1..=4 {
            for mask in 0..1 << order {
                let d = derive(sine, &x, order, mask);
                close(&d, &expected[order as usize - 1], 1e-12);
                assert!(!d.requires_grad());
                close(&no_grad(|| derive(sine, &x, order, mask)), &d, 0.0);
            }
        }
    }
}

#[test]
fn tangents_of_different_levels_are_not_confused() {
    // The derivative of x * d/dy (x + y) for x is 1, not 2.
    let x = Var::from(1.0);
    let d = along(|x| x * along(|y| x + y, x), &x);
    assert_eq!(d.item(), 1.0);
    // d/dx of x * d/dy (x y) = d/dx x^2.
    assert_eq!(along(|x| x * along(|y| x * y, &Var::from(5.0)), &Var::from(3.0)).item(), 6.0);
    assert_eq!(back(|x| x * along(|y| x * y, &Var::from(5.0)), &Var::from(3.0)).item(), 6.0);
    assert_eq!(along(|x| x * back(|y| x * y, &Var::from(5.0)), &Var::from(3.0)).item(), 6.0);
    // A captured variable has no tangent of the inner level.
    assert_eq!(along(|x| along(|_| x.square(), x), &Var::from(3.0)).item(), 0.0);
}

#[test]
fn a_tangent_is_differentiable_for_what_the_function_uses() {
    let (x, w) = (Var::parameter(Tensor::scalar(0.5)), Var::parameter(Tensor::scalar(2.0)));
    let v = Var::parameter(Tensor::scalar(3.0));
    // t = v w cos(w x)
    let (y, t) = jvp(|x| (&w * &x[0]).sin(), std::slice::from_ref(&x), std::slice::from_ref(&v));
    (y + &t).backward();
    let (c, s) = (1f64.cos(), 1f64.sin());
    for (p, expected) in [(&x, 2.0 * c - 12.0 * s), (&w, 0.5 * c + 3.0 * c - 3.0 * s), (&v, 2.0 * c)] {
        assert!((p.grad().unwrap().item() - expected).abs() < 1e-6);
    }
    // So is a gradient.
    x.zero_grad();
    let g = value_and_grad(|z| (&w * &z[0]).sin(), std::slice::from_ref(&x)).1.remove(0);
    assert!((grad(&g, &x).item() + 4.0 * s).abs() < 1e-6);
    let h = hessian(|z| (&w * z).sin(), &x);
    // d/dw of -w^2 sin(w x)
    assert!((grad(&h.sum_all(), &w).item() + 4.0 * s + 2.0 * c).abs() < 1e-6);
    // Without recording there is no graph.
    assert!(
        !no_grad(|| jvp(|x| &w * &x[0], std::slice::from_ref(&x), std::slice::from_ref(&v)))
            .1
            .requires_grad()
    );
    assert!(!no_grad(|| vjp(|x| &w * &x[0], std::slice::from_ref(&x), &v)).0.requires_grad());
}

#[test]
fn nothing_is_left_of_a_level() {
    let x = Var::from_vec(vec![1f64, 2.0], &[2]);
    let kept = std::cell::RefCell::new(None);
    let (y, _) = jvp(
        |x| {
            *kept.borrow_mut() = Some(x[0].exp());
            assert!(x[0].requires_grad() && is_grad_enabled());
            x[0].exp()
        },
        std::slice::from_ref(&x),
        std::slice::from_ref(&x),
    );
    let kept = kept.take().unwrap();
    assert!(!kept.requires_grad() && !(&kept * 2.0).requires_grad() && !y.requires_grad());
    // Nor if the function panics.
    let panics = || jvp(|_| panic!("other"), std::slice::from_ref(&x), std::slice::from_ref(&x));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
    assert_eq!(along(|x| x * &kept, &x).to_vec::<f64>(), kept.to_vec::<f64>());
}

#[test]
fn types_and_other_threads() {
    let x = Var::from_vec(vec![1f32, 2.0], &[2]);
    let (y, t) = jvp(|x| x[0].cast(DType::F64) * 3.0, std::slice::from_ref(&x), &[x.cast(DType::F64)]);
    assert_eq!((y.dtype(), t.dtype(), t.to_vec::<f64>()), (DType::F64, DType::F64, vec![3.0, 6.0]));
    let half = along(|x| x.square(), &x.cast(DType::BF16));
    assert_eq!((half.dtype(), half.to_vec::<f64>()), (DType::BF16, vec![2.0, 4.0]));
    let elsewhere = along(|x| std::thread::scope(|s| s.spawn(|| x.square()).join().unwrap()), &x);
    assert_eq!(elsewhere.to_vec::<f64>(), [2.0, 4.0]);
}

#[test]
fn gradients_inside_keep_their_tangents_when_added() {
    // The parts of x are read one by one: their gradients are added in place without a level.
    let x = Var::from_vec(vec![0.3f64, -0.7, 1.1], &[3]);
    let f = |x: &Var| (0..3).map(|i| x.get(i).exp() * x.get((i + 1) % 3)).reduce(|a, b| a + b).unwrap();
    let v = Var::from_vec(vec![1f64, 2.0, -1.0], &[3]);
    let h = hessian(f, &x);
    close(&hvp(f, &x, &v).1, &(&h * v.reshape(&[1, 3])).sum(1), 1e-14);
    close(&h, &jacrev(|x| back(f, x), &x), 1e-14);
}

#[test]
fn empty_and_constant() {
    let x = Var::from(Tensor::zeros_with(&[0], DType::F64));
    assert_eq!(jacfwd(|x| x * 2.0, &x).shape(), [0, 0]);
    assert_eq!(hessian(|x| x.sum_all(), &x).shape(), [0, 0]);
    let x = Var::from_vec(vec![1f64, 2.0], &[2]);
    assert_eq!(jacfwd(|_| Var::from(3.0), &x).to_vec::<f64>(), [0.0, 0.0]);
    assert_eq!(hessian(|_| Var::from(3.0), &x).to_vec::<f64>(), [0.0; 4]);
    // More directions than are taken at once.
    let x = normal(&[70], 1);
    close(&jacfwd(|x| x.square(), &x), &(&x * 2.0).diag(), 1e-15);
}

#[test]
#[should_panic(expected = "jvp: input 0 is int64, which has no tangents")]
fn integers_have_no_tangents() {
    let x = Var::from_vec(vec![1i64], &[1]);
    jvp(|x| x[0].clone(), std::slice::from_ref(&x), std::slice::from_ref(&x));
}
