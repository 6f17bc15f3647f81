//! The guarantees of the tape: order, snapshots, modes, errors.

use tapegrad_tape::{
    BackwardOptions, DType, GradOptions, HookHandle, Tensor, Var, detect_anomaly, enable_grad, grad_with,
    no_grad, record,
};

fn parameter(values: &[f64]) -> Var {
    Var::parameter(Tensor::from_slice(values, &[values.len()]))
}

fn message(f: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let panic = std::panic::catch_unwind(f).expect_err("the call is refused");
    panic
        .downcast_ref::<String>()
        .cloned()
        .unwrap_or_else(|| panic.downcast_ref::<&str>().unwrap_or(&"").to_string())
}

#[test]
fn saved_values_are_snapshots() {
    let w = parameter(&[2.0, 3.0]);
    let y = (&w * &w).sum_all();
    w.update(|v| v.make_mut::<f64>().fill(100.0));
    y.backward();
    assert_eq!(w.grad().unwrap().to_vec::<f64>(), [4.0, 6.0]);
    assert_eq!(w.to_vec::<f64>(), [100.0, 100.0]);
}

#[test]
fn gradients_accumulate_until_they_are_cleared() {
    let w = parameter(&[1.0, 2.0]);
    (&w * 3.0).sum_all().backward();
    let first = w.grad().unwrap();
    (&w * 4.0).sum_all().backward();
    assert_eq!(w.grad().unwrap().to_vec::<f64>(), [7.0, 7.0]);
    assert_eq!(first.to_vec::<f64>(), [3.0, 3.0], "a gradient that the user holds does not change");
    w.zero_grad();
    assert!(w.grad().is_none());
}

#[test]
fn a_freed_graph_is_refused_and_a_retained_one_is_not() {
    let x = parameter(&[2.0]);
    let y = x.exp().sum_all();
    let retain = BackwardOptions::new().retain_graph(true);
    y.backward_with(None, retain);
    y.backward();
    let twice = x.grad().unwrap().item();
    assert!((twice - 2.0 * 2f64.exp()).abs() < 1e-12);
    let text = message(std::panic::AssertUnwindSafe(|| y.backward()));
    assert!(
        text.contains("was freed by an earlier backward") && text.contains("retain_graph = true"),
        "{text}"
    );
}

#[test]
fn wrong_calls_tell_what_to_do() {
    let x = parameter(&[1.0, 2.0]);
    let text = message(std::panic::AssertUnwindSafe(|| x.exp().backward()));
    assert!(text.contains("shape [2]") && text.contains("sum first"), "{text}");
    let text = message(|| Var::from(1.0).backward());
    assert!(text.contains("does not require a gradient"), "{text}");
    let text = message(|| {
        Var::parameter(Tensor::arange(0, 3));
    });
    assert!(text.contains("int64"), "{text}");
}

#[test]
fn unwanted_gradients_are_not_computed() {
    let (x, w) = (Var::from_vec(vec![1.0f64], &[1]), parameter(&[2.0]));
    let y = record("probe", [&x, &w], Tensor::from_vec(vec![2.0f64], &[1]), |c| {
        assert!(!c.wants(0) && c.wants(1));
        [None, Some(c.grad().clone())]
    });
    y.sum_all().backward();
    assert_eq!(w.grad().unwrap().item(), 1.0);
    // Only what leads to the asked input is walked.
    let a = parameter(&[3.0]);
    let untouched =
        record("untouched", [&a], Tensor::from_vec(vec![1.0f64], &[1]), |_| panic!("not on the way"));
    let z = &untouched * &w;
    assert_eq!(grad_with(&[&z], &[&w], GradOptions::new())[0].as_ref().unwrap().item(), 1.0);
}

#[test]
fn modes_nest() {
    let x = parameter(&[1.0]);
    no_grad(|| {
        assert!(!x.exp().requires_grad());
        enable_grad(|| assert!(x.exp().requires_grad()));
        assert!(!x.exp().requires_grad());
    });
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| no_grad(|| panic!("inside"))));
    assert!(caught.is_err() && x.exp().requires_grad(), "a panic puts the mode back");
    assert!(!x.detach().exp().requires_grad());
}

#[test]
fn frozen_parameters() {
    let (a, b) = (parameter(&[2.0]), parameter(&[3.0]));
    a.set_requires_grad(false);
    (&a * &b).sum_all().backward();
    assert!(a.grad().is_none());
    assert_eq!(b.grad().unwrap().item(), 2.0);
}

#[test]
fn hooks_and_retained_gradients() {
    let x = parameter(&[2.0]);
    let y = &x * 3.0;
    y.retain_grad();
    let hook = y.register_hook(|g| Some(g * 10.0));
    let z = (&y * &y).sum_all();
    z.backward_with(None, BackwardOptions::new().retain_graph(true));
    assert_eq!((y.grad().unwrap().item(), x.grad().unwrap().item()), (120.0, 360.0));
    hook.remove();
    y.zero_grad();
    x.zero_grad();
    z.backward();
    assert_eq!((y.grad().unwrap().item(), x.grad().unwrap().item()), (12.0, 36.0));
}

/// `x w`, which notes its backward pass.
fn noted(x: &Var, w: &Var, name: &'static str, log: &Log) -> Var {
    let log = log.clone();
    record("noted", [x, w], (x.detach() * w.detach()).tensor(), {
        let (x, w) = (x.saved(), w.saved());
        move |c| {
            log.lock().unwrap().push(format!("backward of {name}"));
            [c.wants(0).then(|| c.grad() * &w), c.wants(1).then(|| c.grad() * &x)]
        }
    })
}

type Log = std::sync::Arc<std::sync::Mutex<Vec<String>>>;

fn notes(log: &Log, text: &'static str) -> impl Fn(&Var) + Send + Sync + 'static {
    let log = log.clone();
    move |w: &Var| log.lock().unwrap().push(format!("{text} has {}", w.grad().unwrap().item()))
}

#[test]
fn a_leaf_gets_its_gradient_as_soon_as_nothing_uses_it() {
    let log = Log::default();
    let (first, shared, last) = (parameter(&[2.0]), parameter(&[3.0]), parameter(&[5.0]));
    for (v, text) in [(&first, "first"), (&shared, "shared"), (&last, "last")] {
        v.register_post_accumulate_grad_hook(notes(&log, text));
    }
    let x = Var::from_vec(vec![1f64], &[1]);
    let a = noted(&x, &first, "first", &log);
    let b = noted(&a, &shared, "shared, early", &log);
    let c = noted(&b, &shared, "shared, late", &log);
    noted(&c, &last, "last", &log).sum_all().backward();
    let expected = [
        "backward of last",
        "last has 18",
        "backward of shared, late",
        "backward of shared, early",
        "shared has 60",
        "backward of first",
        "first has 45",
    ];
    assert_eq!(*log.lock().unwrap(), expected);
}

#[test]
fn a_step_inside_backward_changes_no_gradient() {
    let (a, b) = (parameter(&[2.0]), parameter(&[3.0]));
    let step = |w: &Var| {
        let g = w.take_grad().unwrap();
        w.set_value((w.detach() - g).tensor());
    };
    let hooks = [&a, &b].map(|w| w.register_post_accumulate_grad_hook(step));
    (&a * &b).square().sum_all().backward();
    assert_eq!((a.item(), b.item()), (2.0 - 36.0, 3.0 - 24.0));
    assert!(a.grad().is_none() && b.grad().is_none());
    hooks.into_iter().for_each(HookHandle::remove);
    (&a * 1.0).sum_all().backward();
    assert_eq!((a.item(), a.grad().unwrap().item()), (-34.0, 1.0), "the hook is gone");
}

/// A rule may withhold a gradient, so that an operation that was counted never runs.
#[test]
fn leaves_behind_withheld_gradients_are_not_forgotten() {
    let w = parameter(&[2.0]);
    let hidden = &w * 5.0;
    let withheld = record("withheld", [&hidden, &w], w.tensor(), |c| [None, Some(c.grad().clone())]);
    withheld.sum_all().backward();
    assert_eq!(w.grad().unwrap().item(), 1.0);
    // The hook of a leaf belongs to `backward`: `grad` accumulates nothing.
    w.register_post_accumulate_grad_hook(|_| panic!("nothing is accumulated"));
    assert_eq!(grad_with(&[&(&w * 3.0)], &[&w], GradOptions::default())[0].as_ref().unwrap().item(), 3.0);
    let text = message(|| drop(parameter(&[1.0]).exp().register_post_accumulate_grad_hook(|_| {})));
    assert!(text.contains("see register_hook"), "{text}");
}

#[test]
fn an_absent_input_keeps_its_place() {
    let add = |a: Option<&Var>, b: &Var, c: Option<&Var>| {
        record("places", [a, Some(b), c], Tensor::from_vec(vec![0f64], &[1]), |c| {
            let g = |i: usize| c.wants(i).then(|| c.grad() * (i + 1) as f64);
            [g(0), g(1), g(2)]
        })
    };
    let (a, b, c) = (parameter(&[1.0]), parameter(&[1.0]), parameter(&[1.0]));
    add(None, &b, Some(&c)).sum_all().backward();
    assert_eq!((b.grad().unwrap().item(), c.grad().unwrap().item()), (2.0, 3.0));
    let places = [Some(&a), None];
    let y = record("list", &places[..], a.tensor(), |c| vec![c.wants(0).then(|| c.grad().clone()), None]);
    y.sum_all().backward();
    assert_eq!(a.grad().unwrap().item(), 1.0);
    let short = record("short", &vec![&a, &b], a.tensor(), |_| vec![None]).sum_all();
    let text = message(std::panic::AssertUnwindSafe(|| short.backward()));
    assert!(text.contains("short: its rule gave 1 gradients for 2 inputs"), "{text}");
}

#[test]
fn the_first_nan_is_named() {
    let x = parameter(&[-1.0, 1.0]);
    let text = message(std::panic::AssertUnwindSafe(|| {
        detect_anomaly(|| x.exp().mul(-1.0).log());
    }));
    assert!(text.starts_with("log: made the first NaN") && text.contains("engine.rs"), "{text}");
    let text = message(std::panic::AssertUnwindSafe(|| {
        detect_anomaly(|| {
            let y = record("bad_rule", [&x], x.tensor(), |_| {
                [Some(Tensor::full_with(&[2], f64::NAN, DType::F64).into())]
            });
            y.sum_all().backward();
        });
    }));
    assert!(text.contains("`bad_rule`") && text.contains("first NaN gradient"), "{text}");
}

#[test]
fn gradients_of_inner_variables_and_of_none() {
    let (x, unrelated) = (parameter(&[2.0]), parameter(&[1.0]));
    let y = x.exp();
    let z = (&y * &y).sum_all();
    let g = grad_with(&[&z], &[&y, &unrelated, &x], GradOptions::new());
    assert!((g[0].as_ref().unwrap().item() - 2.0 * 2f64.exp()).abs() < 1e-12);
    assert!(g[1].is_none());
    assert!((g[2].as_ref().unwrap().item() - 2.0 * 4f64.exp()).abs() < 1e-9);
    assert!(x.grad().is_none(), "nothing is accumulated");
}

#[test]
fn variables_cross_threads() {
    let w = parameter(&[1.0]);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| (0..100).for_each(|_| no_grad(|| assert_eq!((&w + 1.0).item(), 2.0))));
        }
    });
    let y = std::thread::scope(|s| s.spawn(|| (&w * 5.0).sum_all()).join().unwrap());
    y.backward();
    assert_eq!(w.grad().unwrap().item(), 5.0);
}

/// The gradient of `w` after `threads` threads have each run `backward` of `w * factor` repeatedly, with the thread's
/// index as factor.
fn from_threads(w: &Var, threads: usize, times: usize) -> f64 {
    let start = std::sync::Barrier::new(threads);
    std::thread::scope(|s| {
        for thread in 1..=threads {
            let start = &start;
            s.spawn(move || {
                start.wait();
                (0..times).for_each(|_| (w * thread as f64).sum_all().backward());
            });
        }
    });
    w.take_grad().expect("a gradient").item()
}

#[test]
fn no_thread_loses_a_gradient() {
    // Sums of integers are exact in any order.
    for dtype in [DType::F32, DType::F64] {
        let w = Var::parameter(Tensor::full_with(&[1], 2.0, dtype));
        assert_eq!(from_threads(&w, 8, 1000), 36_000.0);
    }
    // These types go another way through the addition. All sums can be represented.
    let w = Var::parameter(Tensor::full_with(&[1], 2.0, DType::F16));
    assert_eq!(from_threads(&w, 8, 50), 1800.0);
}

#[test]
fn no_thread_loses_a_retained_gradient() {
    let w = parameter(&[2.0]);
    let shared = &w * 1.0;
    shared.retain_grad();
    std::thread::scope(|s| {
        for _ in 0..8 {
            s.spawn(|| {
                let options = BackwardOptions::new().retain_graph(true);
                (0..200).for_each(|_| (&shared * 3.0).sum_all().backward_with(None, options));
            });
        }
    });
    assert_eq!((shared.grad().unwrap().item(), w.grad().unwrap().item()), (4800.0, 4800.0));
}

#[test]
fn a_gradient_is_cleared_or_added_to_but_never_half() {
    // What is taken out while others add, and what remains, sum to everything that was added.
    let w = parameter(&[1.0, 2.0]);
    let taken = std::thread::scope(|s| {
        let adders: Vec<_> =
            (0..4).map(|_| s.spawn(|| (0..500).for_each(|_| (&w * 1.0).sum_all().backward()))).collect();
        let mut taken = 0.0;
        while !adders.iter().all(|a| a.is_finished()) {
            taken += w.take_grad().map_or(0.0, |g| g.to_vec::<f64>()[1]);
        }
        taken
    });
    assert_eq!(taken + w.grad().map_or(0.0, |g| g.to_vec::<f64>()[1]), 2000.0);
}

#[test]
fn four_threads_compute_the_gradient_of_one() {
    // Integers, so that the sum over the parts of a batch is the sum over the batch to the last bit.
    let weights: Vec<f64> = (0..40 * 30).map(|i| f64::from(i % 7 - 3)).collect();
    let (w, b) = (Var::parameter(Tensor::from_slice(&weights, &[40, 30])), parameter(&[1.0; 30]));
    let part = |k: usize| {
        let x: Vec<f64> = (0..8 * 40).map(|i| ((i * 5 + k * 11) % 9) as f64 - 4.0).collect();
        Var::from_vec(x, &[8, 40, 1])
    };
    let loss = &|k: usize| {
        let y = (&part(k) * &w.unsqueeze(0)).sum(1) + &b;
        (&y * &y).sum_all()
    };
    for k in 0..4 {
        loss(k).backward();
    }
    let alone = [w.take_grad().unwrap(), b.take_grad().unwrap()].map(|g| g.to_vec::<f64>());
    for _ in 0..100 {
        std::thread::scope(|s| (0..4).for_each(|k| drop(s.spawn(move || loss(k).backward()))));
        let together = [w.take_grad().unwrap(), b.take_grad().unwrap()].map(|g| g.to_vec::<f64>());
        assert!(alone == together);
    }
}
