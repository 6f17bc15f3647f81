//! `torch.nn.utils.prune`, step by step.

use crate::{close, get, samples};
use tapegrad_nn::utils::parametrize::Parametrized;
use tapegrad_nn::utils::prune;
use tapegrad_nn::{Conv2d, Linear, Module, Sequential, sequential};
use tapegrad_tape::{DType, Var};

#[track_caller]
fn compare(model: &Parametrized<Sequential>, step: &str) {
    let (state, want) = (model.state_dict(), samples("prune").part(step));
    let mut keys: Vec<&str> = state.keys().collect();
    let mut wanted: Vec<&str> = want.keys().collect();
    keys.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(keys, wanted, "{step}");
    want.iter().for_each(|(key, want)| close(get(&state, key), want, &format!("{step}: {key}")));
}

#[test]
fn masks_are_pytorchs() {
    let samples = samples("prune");
    let net = sequential![Conv2d::new(2, 4, 3), Linear::new(6, 5)];
    net.to_dtype(DType::F64);
    net.load_state_dict(&samples.part("start")).unwrap();
    let mut net = Parametrized::new(net);
    prune::l1_unstructured(&mut net, "1.weight", 0.3);
    compare(&net, "l1");
    prune::l1_unstructured_with(&mut net, "1.weight", 5, get(&samples, "scores"));
    compare(&net, "l1_scores");
    prune::ln_structured(&mut net, "0.weight", 1, 2.0, 0);
    compare(&net, "ln");
    prune::ln_structured(&mut net, "1.weight", 0.5, f64::INFINITY, 1);
    compare(&net, "ln_columns");
    prune::custom_from_mask(&mut net, "1.weight", get(&samples, "mask"));
    compare(&net, "custom");
    prune::global_unstructured(&mut net, &["0.weight", "1.weight", "1.bias"], prune::Method::L1, 0.4);
    compare(&net, "global");
    let linear = |net: &Sequential| net.iter().nth(1).unwrap().forward(&Var::from(get(&samples, "x")));
    let y = net.run(linear);
    close(&y.tensor(), get(&samples, "y"), "y");
    y.square().sum_all().backward();
    let weight = net.inner().iter().nth(1).unwrap().parameters().remove(0);
    close(&weight.grad().unwrap().tensor(), get(&samples, "grad"), "grad");
    prune::remove(&mut net, "1.weight");
    compare(&net, "removed");
}
