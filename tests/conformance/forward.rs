//! Forward mode: `<g, J v>` against `<J^T g, v>` for every sample with gradients.

use serde_json::Value as Json;
use tapegrad::tape::{DType, Generator, Var, jvp};

use super::attempt::attempt;
use super::call::Call;
use super::data::Store;
use super::{dispatch, ops};

/// Compares the tangent of a call with its gradients, given by the paths of the arguments.
pub fn faults(
    function: &str,
    sample: &Json,
    store: &Store,
    gradients: &[(String, Option<Var>)],
) -> Result<Vec<String>, String> {
    let call = Call::of_function(function, sample, store)?;
    let leaves: Vec<_> = call.leaves.iter().filter(|l| l.requires_grad).collect();
    let xs: Vec<Var> = leaves.iter().map(|l| l.var.detach()).collect();
    let mut random = Generator::manual_seed(1);
    let vs: Vec<Var> =
        xs.iter().map(|x| Var::from(random.normal(x.shape(), 0.0, 1.0)).cast(x.dtype())).collect();
    let (mut expected, mut size) = (0.0, 0.0);
    for (leaf, v) in leaves.iter().zip(&vs) {
        let Some(g) = gradients.iter().find(|(path, _)| *path == leaf.path).and_then(|(_, g)| g.as_ref())
        else {
            continue;
        };
        for (g, v) in g.to_vec::<f64>().iter().zip(v.to_vec::<f64>()) {
            expected += g * v;
            size += (g * v).abs();
        }
    }
    // At a pole both may be anything.
    if !size.is_finite() {
        return Ok(Vec::new());
    }
    let product = |duals: &[Var]| {
        leaves.iter().zip(duals).for_each(|(leaf, dual)| call.replace(&leaf.var, dual));
        let outcome = dispatch::run(&call).expect("it ran before");
        let pairs = ops::differentiable(sample, &outcome, store).expect("they were read before");
        let terms = pairs.iter().map(|(y, g)| (y.cast(DType::F64) * Var::from(g).cast(DType::F64)).sum_all());
        terms.reduce(|a, b| a + b).unwrap_or_else(|| Var::from(0.0))
    };
    let found = match attempt(|| jvp(product, &xs, &vs).1.item()) {
        Err(caught) => return Ok(vec![format!("forward mode: {}", caught.describe())]),
        Ok(found) => found,
    };
    let exact = xs.iter().all(|x| x.dtype() == DType::F64);
    let allowed = if exact { 1e-8 } else { 2e-3 } * (1.0 + size);
    let wrong = (found - expected).is_nan() || (found - expected).abs() > allowed;
    Ok(wrong
        .then(|| format!("forward mode: the tangent is {found}, should be {expected}"))
        .into_iter()
        .collect())
}
