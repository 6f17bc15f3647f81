//! Every loss at its edges: all targets ignored, zero weights, one class, infinities, corners and empty batches, for
//! every reduction. Values, gradients by the fused and by the composed rules, and second derivatives are PyTorch's,
//! as `tools/loss_edges.py` prints them into `loss_edges.txt`.

use tapegrad_ops::*;
use tapegrad_tape::{DType, GradOptions, Tensor, Var, grad_with};

const INF: f64 = f64::INFINITY;
const ROW: [f64; 3] = [0.25, 0.0, -1.0];

fn rows(rows: &[[f64; 3]]) -> Var {
    Var::from(Tensor::from_vec(rows.concat(), &[rows.len(), 3]))
}

fn column(values: &[f64]) -> Var {
    Var::from_vec(values.to_vec(), &[values.len(), 1])
}

fn classes(numbers: &[i64]) -> Var {
    Var::from_vec(numbers.to_vec(), &[numbers.len()])
}

fn factors(values: [f64; 3]) -> Option<Var> {
    Some(Var::from_vec(values.to_vec(), &[3]))
}

/// The input that a case starts with.
fn input(loss: &str, case: &str) -> Var {
    let case = case.trim_start_matches("p 1, ").trim_start_matches("p 2, ");
    match (loss, case) {
        (_, "empty batch") => Var::from(Tensor::zeros_with(&[0, 3], DType::F64)),
        (_, "one class") => column(&[3.0, -1.0]),
        ("binary_cross_entropy", "certain and right") => rows(&[[0.0, 1.0, 0.5]]),
        ("binary_cross_entropy", "certain and wrong") => rows(&[[1.0, 0.0, 0.5]]),
        ("binary_cross_entropy", _) => rows(&[[0.25, 1.0, 0.5]]),
        ("kl_div" | "kl_div, log_target", "down") => rows(&[[-1.0, -INF, 0.0], [-1.0; 3]]),
        ("cosine_embedding_loss", "zero vector") => rows(&[[0.0; 3], [1.0, 1.0, 0.0]]),
        (_, "at the corner") => rows(&[[1.0, 1.0, 0.0]]),
        _ if case.starts_with("up") => rows(&[[INF, -2.0, 0.5], ROW]),
        _ if case.starts_with("down") || case == "one ignored, infinite" => rows(&[[-INF, -2.0, 0.5], ROW]),
        _ => rows(&[[1.0, -2.0, 0.5], ROW]),
    }
}

/// A loss with class numbers.
fn of_classes(loss: &str, case: &str, x: &Var, reduction: Reduction) -> Var {
    let (p, case) = match case.strip_prefix("p ") {
        Some(rest) => (rest[..1].parse().unwrap(), &rest[3..]),
        None => (1, case),
    };
    let weight = match case {
        "zero weights" => factors([0.0; 3]),
        "one zero weight" | "all ignored, weights" => factors([0.0, 1.0, 2.0]),
        _ => None,
    };
    let target = match case {
        "all ignored" | "all ignored, weights" => classes(&[-100, -100]),
        "one ignored" | "one ignored, infinite" => classes(&[-100, 1]),
        "one class" => classes(&[0, 0]),
        "up, beside the target" | "down, beside the target" | "up" | "down" => classes(&[1, 2]),
        "empty batch" => classes(&[]),
        _ => classes(&[0, 2]),
    };
    match loss {
        "nll_loss" => nll_loss_with(x, &target, NllLossOptions { weight, reduction, ..Default::default() }),
        "multi_margin_loss" => multi_margin_loss_with(
            x,
            &target,
            MultiMarginOptions { p, weight, reduction, ..Default::default() },
        ),
        _ => {
            let label_smoothing = if loss == "cross_entropy, smoothed" { 0.5 } else { 0.0 };
            let options = CrossEntropyOptions { weight, reduction, label_smoothing, ..Default::default() };
            cross_entropy_with(x, &target, options)
        }
    }
}

fn of_probabilities(case: &str, x: &Var, reduction: Reduction) -> Var {
    let target = match case {
        "one class" => column(&[1.0, 1.0]),
        "empty batch" => x.detach(),
        _ => rows(&[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]),
    };
    let weight = if case == "zero weights" { factors([0.0; 3]) } else { None };
    cross_entropy_with(x, &target, CrossEntropyOptions { weight, reduction, ..Default::default() })
}

fn of_logits(case: &str, x: &Var, reduction: Reduction) -> Var {
    let target = rows(&[[0.0, 1.0, 0.5], [1.0, 0.0, 1.0]]);
    let target = match case {
        "empty batch" => x.detach(),
        "up, right" | "down, wrong" => 1.0 - target,
        _ => target,
    };
    let mut options = BceWithLogitsOptions::new().reduction(reduction);
    match case {
        "zero weights" => options.weight = factors([0.0; 3]),
        "zero pos_weight" => options.pos_weight = factors([0.0; 3]),
        "up, pos_weight" => options.pos_weight = factors([2.0; 3]),
        _ => {}
    }
    binary_cross_entropy_with_logits_with(x, &target, options)
}

/// A loss of two tensors of one shape.
fn of_pairs(loss: &str, case: &str, x: &Var, reduction: Reduction) -> Var {
    let empty = case == "empty batch";
    let other = |of: Var| if empty { x.detach() } else { of };
    let pairs = || match case {
        "equal" => x.detach(),
        _ => other(rows(&[[0.5, 1.0, 0.0], [1.0, 0.0, 0.25]])),
    };
    let signs = || {
        let all = [[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]];
        other(if case == "at the corner" { rows(&all[..1]) } else { rows(&all) })
    };
    match loss {
        "mse_loss" => mse_loss_with(x, &pairs(), reduction),
        "l1_loss" => l1_loss_with(x, &pairs(), reduction),
        "smooth_l1_loss" => smooth_l1_loss_with(x, &pairs(), 1.0, reduction),
        "huber_loss" => huber_loss_with(x, &pairs(), 1.0, reduction),
        "soft_margin_loss" => soft_margin_loss_with(x, &signs(), reduction),
        "hinge_embedding_loss" => hinge_embedding_loss_with(x, &signs(), 1.0, reduction),
        "margin_ranking_loss" => margin_ranking_loss_with(x, &(1.0 - x.detach()), &signs(), 0.5, reduction),
        "binary_cross_entropy" => {
            let weight = if case == "zero weights" { factors([0.0; 3]) } else { None };
            binary_cross_entropy_with(x, &other(rows(&[[0.0, 1.0, 0.5]])), weight.as_ref(), reduction)
        }
        "kl_div" | "kl_div, log_target" => {
            let log = loss != "kl_div";
            let p = rows(&[[0.0, 1.0, 0.5], [0.25, 0.5, 0.25]]);
            let target = other(if log { p.log() } else { p });
            let reduction = match reduction {
                Reduction::None => KlDivReduction::None,
                Reduction::Mean => KlDivReduction::Mean,
                Reduction::Sum => KlDivReduction::Sum,
            };
            kl_div_with(x, &target, reduction, log)
        }
        "cosine_embedding_loss" => {
            let target = Var::from_vec(if empty { vec![] } else { vec![1.0, -1.0] }, &[x.shape()[0]]);
            let other = other(rows(&[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]));
            cosine_embedding_loss_with(x, &other, &target, 0.0, reduction)
        }
        _ => panic!("no loss {loss}"),
    }
}

fn value(loss: &str, case: &str, x: &Var, reduction: Reduction) -> Var {
    match loss {
        "cross_entropy, probabilities" => of_probabilities(case, x, reduction),
        "cross_entropy" | "cross_entropy, smoothed" | "nll_loss" | "multi_margin_loss" => {
            of_classes(loss, case, x, reduction)
        }
        "binary_cross_entropy_with_logits" => of_logits(case, x, reduction),
        _ => of_pairs(loss, case, x, reduction),
    }
}

fn same(a: &[f64], b: &[f64]) -> bool {
    let near =
        |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-8 * b.abs().max(1e-2);
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(*a, *b))
}

/// Where Tapegrad differs, as `docs/edge-semantics.md` says.
const DIFFERENT: &[(&str, &str, &str)] = &[
    ("binary_cross_entropy", "certain and right", "second derivative"),
    ("binary_cross_entropy", "certain and wrong", "second derivative"),
    ("soft_margin_loss", "down", "fused gradient"),
    ("soft_margin_loss", "down", "composed gradient"),
    ("soft_margin_loss", "down", "second derivative"),
];

#[test]
fn all_are_pytorchs() {
    let mut wrong = vec![];
    for line in include_str!("loss_edges.txt").lines() {
        let [loss, case, reduction, expected @ ..] = &line.split('|').map(str::trim).collect::<Vec<_>>()[..]
        else {
            panic!("no row: {line}");
        };
        let reduction = match *reduction {
            "none" => Reduction::None,
            "mean" => Reduction::Mean,
            _ => Reduction::Sum,
        };
        let numbers = |s: &str| s.split_whitespace().map(|v| v.parse().unwrap()).collect::<Vec<f64>>();
        let x = Var::parameter(input(loss, case).tensor());
        let y = value(loss, case, &x, reduction);
        let gradient = |of: &Var, create_graph| {
            let options = GradOptions::new().create_graph(create_graph).retain_graph(true);
            grad_with(&[&of.sum_all()], &[&x], options)[0].clone()
        };
        let fused = gradient(&y, false).expect("it depends on x").to_vec::<f64>();
        let composed = gradient(&y, true).expect("it depends on x");
        let mut found = vec![("value", y.to_vec::<f64>(), expected[0])];
        found.push(("fused gradient", fused, expected[1]));
        found.push(("composed gradient", composed.to_vec::<f64>(), expected[1]));
        if expected[2] != "-" {
            let shape: Vec<isize> = x.shape().iter().map(|&n| n as isize).collect();
            let order = Var::from(Tensor::arange(1, x.numel() as i64 + 1)).cast(DType::F64).reshape(&shape);
            let second = composed.requires_grad().then(|| gradient(&(&composed * &order), false)).flatten();
            let second = second.map_or_else(|| vec![0.0; x.numel()], |h| h.to_vec::<f64>());
            found.push(("second derivative", second, expected[2]));
        }
        for (what, found, expected) in found {
            if DIFFERENT.contains(&(*loss, *case, what)) {
                continue;
            }
            if !same(&found, &numbers(expected)) {
                wrong.push(format!(
                    "{loss}, {case}, {reduction:?}, {what}: {found:?}, PyTorch has {expected}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
