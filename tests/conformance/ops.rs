//! The suite of operations: outputs, gradients, second-order gradients, changed buffers.

use serde_json::Value as Json;
use tapegrad::tape::{DType, GradOptions, Tensor, Var, grad_with};

use super::attempt::attempt;
use super::call::Call;
use super::check::{Tolerance, difference, is_zero};
use super::data::{Leaf, Store};
use super::outcome::{Out, Outcome};
use super::report::Verdict;
use super::{Settings, dispatch, forward};

/// Tolerances of a sample: for outputs, for gradients.
pub fn tolerances(sample: &Json) -> Result<(Tolerance, Tolerance), String> {
    let number = |key: &str| sample.get(key).and_then(Json::as_f64).ok_or_else(|| format!("no {key}"));
    let outputs = Tolerance { rtol: number("rtol")?, atol: number("atol")? };
    let gradients = Tolerance { rtol: number("grad_rtol")?, atol: number("grad_atol")? };
    Ok((outputs, gradients))
}

/// Runs a sample.
pub fn run(function: &str, sample: &Json, store: &Store, settings: &Settings) -> Result<Verdict, String> {
    let call = Call::of_function(function, sample, store)?;
    let outcome = match attempt(|| dispatch::run(&call)) {
        Err(caught) => return Ok(Verdict::Failed(caught.describe())),
        Ok(None) => return Ok(Verdict::Missing),
        Ok(Some(outcome)) => outcome,
    };
    let unused = call.unused();
    if !unused.is_empty() {
        return Ok(Verdict::Failed(format!("argument {} not used", unused.join(", "))));
    }
    let (tolerance, gradient_tolerance) = tolerances(sample)?;
    let mut faults = compare_outputs(sample, &outcome, store, tolerance)?;
    let reordered = !faults.is_empty() && is_tie(&call, sample, &outcome, store)?;
    if reordered {
        faults.clear();
    }
    faults.extend(compare_after(sample, &call, store, tolerance)?);
    if !faults.is_empty() || reordered {
        return Ok(Verdict::of(faults));
    }
    let (wrong, gradients) = first_order(sample, &call, &outcome, store, gradient_tolerance, settings)?;
    faults.extend(wrong);
    if faults.is_empty() && sample.get("second").is_some() {
        faults.extend(second_order(function, sample, store, gradient_tolerance)?);
    }
    if faults.is_empty() && !gradients.is_empty() {
        faults.extend(forward::faults(function, sample, store, &gradients)?);
    }
    Ok(Verdict::of(faults))
}

/// Compares the outputs with those of the sample.
pub fn compare_outputs(
    sample: &Json,
    outcome: &Outcome,
    store: &Store,
    tolerance: Tolerance,
) -> Result<Vec<String>, String> {
    let wanted = sample.get("outputs").and_then(Json::as_array).ok_or("no outputs")?;
    if wanted.len() != outcome.0.len() {
        return Ok(vec![format!("{} outputs, should be {}", outcome.0.len(), wanted.len())]);
    }
    let mut faults = Vec::new();
    for (i, (got, want)) in outcome.0.iter().zip(wanted).enumerate() {
        let what = format!("output {i}");
        let wrong = |got: &str| Some(format!("{what}: {got}, should be {want}"));
        let fault = match (got, want) {
            (Out::Var(v), Json::Object(o)) if o.contains_key("tensor") => {
                let key = o["tensor"].as_str().ok_or("tensor key is no string")?;
                difference(&what, &v.tensor(), &store.tensor(key)?, tolerance)
            }
            (Out::None, Json::Null) => None,
            (Out::Var(_), _) => wrong("a tensor"),
            (Out::None, _) => wrong("None"),
        };
        faults.extend(fault);
    }
    Ok(faults)
}

/// `sort` without `stable=True`, `topk` and the operations that choose one of several equal values leave open which: the
/// values must agree, and the indices must name them, each once.
fn is_tie(call: &Call, sample: &Json, outcome: &Outcome, store: &Store) -> Result<bool, String> {
    let open = match call.op() {
        "topk" | "kthvalue" | "median" | "nanmedian" => true,
        "sort" => !call.bool_or("stable", false),
        _ => false,
    };
    let [Out::Var(values), Out::Var(indices)] = &outcome.0[..] else { return Ok(false) };
    if !open {
        return Ok(false);
    }
    let key = |i: usize| sample["outputs"][i]["tensor"].as_str().ok_or("no tensor");
    let exact = Tolerance { rtol: 0.0, atol: 0.0 };
    let want_indices = store.tensor(key(1)?)?;
    if difference("values", &values.tensor(), &store.tensor(key(0)?)?, exact).is_some()
        || indices.shape() != want_indices.shape()
        || indices.dtype() != want_indices.dtype()
    {
        return Ok(false);
    }
    let input = call.var("input").tensor();
    let (mut shape, n) = (indices.shape().to_vec(), input.ndim());
    let dim = call.dim_or("dim", -1).rem_euclid(n.max(1) as isize) as usize;
    if shape.len() < n {
        shape.insert(dim, 1);
    }
    let (source, values, at) =
        (input.to_vec::<f64>(), values.tensor().to_vec::<f64>(), indices.tensor().to_vec::<i64>());
    let mut seen = std::collections::HashSet::new();
    for (flat, (&v, &i)) in values.iter().zip(&at).enumerate() {
        // The element of the input at the same position, but `i` along `dim`.
        let (mut rest, mut offset, mut stride) = (flat, 0, 1);
        for d in (0..n).rev() {
            let here = if d == dim { i as usize } else { rest % shape[d] };
            rest /= shape[d];
            offset += here * stride;
            stride *= input.shape()[d];
        }
        let same = source.get(offset).is_some_and(|s| *s == v || (s.is_nan() && v.is_nan()));
        if !same || !seen.insert(offset) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn compare_after(
    sample: &Json,
    call: &Call,
    store: &Store,
    tolerance: Tolerance,
) -> Result<Vec<String>, String> {
    let mut faults = Vec::new();
    let changed = call.changed();
    let expected = sample.get("after").and_then(Json::as_object);
    for (path, got) in changed.iter().filter(|(p, _)| expected.is_none_or(|e| !e.contains_key(p))) {
        let before = call.leaves.iter().find(|l| l.path == *path).ok_or("a change of no argument")?;
        faults.extend(difference(&format!("{path} after the call"), got, &before.var.tensor(), tolerance));
    }
    for (path, key) in expected.into_iter().flatten() {
        let want = store.tensor(key.as_str().ok_or("key is no string")?)?;
        match changed.iter().find(|(p, _)| p == path) {
            None => faults.push(format!("{path} should have changed")),
            Some((_, got)) => {
                faults.extend(difference(&format!("{path} after the call"), got, &want, tolerance))
            }
        }
    }
    Ok(faults)
}

/// The outputs that have a cotangent, and their cotangents.
pub fn differentiable(sample: &Json, outcome: &Outcome, store: &Store) -> Result<Vec<(Var, Tensor)>, String> {
    let mut pairs = Vec::new();
    for (i, key) in sample.get("cotangents").and_then(Json::as_array).into_iter().flatten().enumerate() {
        if let (Some(key), Some(Out::Var(v))) = (key.as_str(), outcome.0.get(i)) {
            pairs.push((v.clone(), store.tensor(key)?));
        }
    }
    Ok(pairs)
}

/// Compares a gradient, where `None` stands for `None`.
pub fn compare_gradient(
    what: &str,
    got: Option<&Var>,
    key: Option<&str>,
    store: &Store,
    tolerance: Tolerance,
) -> Result<Option<String>, String> {
    Ok(match (got, key) {
        (None, None) => None,
        (Some(_), None) => Some(format!("{what}: a gradient, should be none")),
        (None, Some(_)) => Some(format!("{what}: no gradient")),
        (Some(g), Some(key)) => difference(what, &g.tensor(), &store.tensor(key)?, tolerance),
    })
}

/// Gradients of `sum(output * cotangent)`.
pub fn gradients(pairs: &[(Var, Var)], inputs: &[Var], create_graph: bool) -> Vec<Option<Var>> {
    let outputs: Vec<&Var> = pairs.iter().map(|p| &p.0).collect();
    let inputs: Vec<&Var> = inputs.iter().collect();
    let grad_outputs = Some(pairs.iter().map(|p| p.1.clone()).collect());
    grad_with(&outputs, &inputs, GradOptions { grad_outputs, create_graph, ..Default::default() })
}

fn wanting(call: &Call) -> Vec<&Leaf> {
    call.leaves.iter().filter(|l| l.requires_grad).collect()
}

/// Outputs that have a gradient although PyTorch gives them none, or the other way round.
pub fn compare_differentiability(sample: &Json, outcome: &Outcome) -> Vec<String> {
    let mut faults = Vec::new();
    for (i, out) in outcome.0.iter().enumerate() {
        let should = sample["cotangents"].get(i).is_some_and(|c| !c.is_null());
        if let Out::Var(v) = out
            && v.requires_grad() != should
        {
            let said = if should { "has no gradient" } else { "has a gradient, PyTorch gives it none" };
            faults.push(format!("output {i} {said}"));
        }
    }
    faults
}

/// The gradients of arguments, by their paths.
type Gradients = Vec<(String, Option<Var>)>;

fn first_order(
    sample: &Json,
    call: &Call,
    outcome: &Outcome,
    store: &Store,
    tolerance: Tolerance,
    settings: &Settings,
) -> Result<(Vec<String>, Gradients), String> {
    let leaves = wanting(call);
    let wanted = sample.get("grads").and_then(Json::as_object).ok_or("no grads")?;
    let mut faults = compare_differentiability(sample, outcome);
    if wanted.is_empty() || !faults.is_empty() {
        return Ok((faults, Vec::new()));
    }
    let pairs: Vec<(Var, Var)> =
        differentiable(sample, outcome, store)?.into_iter().map(|(v, t)| (v, Var::from(t))).collect();
    if settings.poison {
        for leaf in &leaves {
            leaf.var.update(|t| match t.dtype() {
                DType::F64 => t.make_mut::<f64>().fill(f64::NAN),
                DType::F32 => t.make_mut::<f32>().fill(f32::NAN),
                _ => {}
            });
        }
    }
    let inputs: Vec<Var> = leaves.iter().map(|l| l.var.clone()).collect();
    let got = match attempt(|| gradients(&pairs, &inputs, false)) {
        Err(caught) => return Ok((vec![format!("backward: {}", caught.describe())], Vec::new())),
        Ok(got) => got,
    };
    for (leaf, g) in leaves.iter().zip(&got) {
        let Some(key) = wanted.get(&leaf.path) else { continue };
        let what = format!("gradient of {}", leaf.path);
        faults.extend(compare_gradient(&what, g.as_ref(), key.as_str(), store, tolerance)?);
    }
    Ok((faults, leaves.iter().map(|l| l.path.clone()).zip(got).collect()))
}

fn second_order(
    function: &str,
    sample: &Json,
    store: &Store,
    tolerance: Tolerance,
) -> Result<Vec<String>, String> {
    let second = &sample["second"];
    let call = Call::of_function(function, sample, store)?;
    let leaves = wanting(&call);
    let mut inputs: Vec<Var> = leaves.iter().map(|l| l.var.clone()).collect();
    let leaf_count = inputs.len();
    let weights: Vec<Option<Tensor>> = leaves
        .iter()
        .map(|l| second["v"].get(&l.path).and_then(Json::as_str).map(|key| store.tensor(key)).transpose())
        .collect::<Result<_, _>>()?;
    let mut pairs = Vec::new();
    let got = attempt(|| -> Result<Option<Vec<Option<Var>>>, String> {
        let outcome = dispatch::run(&call).ok_or("no such operation")?;
        pairs = differentiable(sample, &outcome, store)?
            .into_iter()
            .map(|(v, t)| (v, Var::parameter(t)))
            .collect();
        let first = gradients(&pairs, &inputs, true);
        inputs.extend(pairs.iter().map(|p| p.1.clone()));
        let terms: Vec<(Var, Var)> = first
            .into_iter()
            .zip(&weights)
            .filter_map(|(g, w)| Some((g.filter(Var::requires_grad)?, Var::from(w.clone()?))))
            .collect();
        Ok((!terms.is_empty()).then(|| gradients(&terms, &inputs, false)))
    });
    let got = match got {
        Err(caught) => return Ok(vec![format!("second order: {}", caught.describe())]),
        Ok(got) => got?.unwrap_or_else(|| vec![None; inputs.len()]),
    };
    let mut faults = Vec::new();
    let mut compare = |what: String, got: Option<&Var>, key: Option<&str>| -> Result<(), String> {
        // A derivative that is zero everywhere may be absent on either side.
        let fault = match (got, key) {
            (None, None) => None,
            (Some(g), None) if is_zero(&g.tensor()) => None,
            (None, Some(key)) if is_zero(&store.tensor(key)?) => None,
            _ => compare_gradient(&what, got, key, store, tolerance)?,
        };
        faults.extend(fault);
        Ok(())
    };
    for (leaf, g) in leaves.iter().zip(&got) {
        let key = second["grads"].get(&leaf.path).and_then(Json::as_str);
        compare(format!("second-order gradient of {}", leaf.path), g.as_ref(), key)?;
    }
    let keys: Vec<Option<&str>> = second["cotangent_grads"]
        .as_array()
        .into_iter()
        .flatten()
        .zip(sample["cotangents"].as_array().into_iter().flatten())
        .filter(|(_, cotangent)| !cotangent.is_null())
        .map(|(key, _)| key.as_str())
        .collect();
    for (i, g) in got[leaf_count.min(got.len())..].iter().enumerate() {
        let key = keys.get(i).copied().flatten();
        compare(format!("second-order gradient of cotangent {i}"), g.as_ref(), key)?;
    }
    Ok(faults)
}
