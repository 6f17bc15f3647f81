//! Weights exchanged with PyTorch: see `tests/interop/weights.py`, which calls for this test.
//!
//! `TAPEGRAD_INTEROP` names the directory with PyTorch's files. Without it the test says so and passes.

use std::path::Path;
use tapegrad::nn::StateDict;
use tapegrad::nn::models::{LeNet5, MobileNetV2, ResNet};
use tapegrad::prelude::*;

fn exchange(folder: &Path, name: &str, model: &dyn Forward) {
    let file = |what: &str| folder.join(format!("{name}.{what}.safetensors"));
    let load = |what: &str| StateDict::load(file(what)).unwrap_or_else(|e| panic!("{e}"));
    let logits = |x: &Tensor| {
        model.eval();
        no_grad(|| model.forward(&Var::from(x))).tensor()
    };

    let pair = load("torch.logits");
    let [x, want] = ["input", "logits"].map(|key| pair.get(key).expect("written by the script").clone());
    let weights = load("torch");
    for what in ["torch", "legacy"] {
        let own = folder.join(format!("{name}.{what}.pt"));
        let own = StateDict::load(own).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(own.len(), weights.len());
        for (key, t) in own.iter() {
            assert_eq!(
                t.to_vec::<f64>(),
                weights.get(key).expect("in both").to_vec::<f64>(),
                "{key} of {what}"
            );
        }
    }
    model.load_state_dict(&weights).unwrap_or_else(|e| panic!("{e}"));
    let off = logits(&x)
        .to_vec::<f64>()
        .iter()
        .zip(want.to_vec::<f64>())
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max);
    println!("{name}: logits differ by {off:.2e} at most");
    assert!(off < 1e-4);

    // Other weights, back to PyTorch.
    for p in model.parameters().iter().filter(|p| p.ndim() > 1) {
        nn::init::kaiming_normal_with(p, nn::init::FanMode::FanIn, nn::init::Nonlinearity::ReLU);
    }
    model.state_dict().save(file("tapegrad")).unwrap_or_else(|e| panic!("{e}"));
    model.state_dict().save(folder.join(format!("{name}.tapegrad.pt"))).unwrap_or_else(|e| panic!("{e}"));
    let pair: StateDict = [("input".into(), x.clone()), ("logits".into(), logits(&x))].into_iter().collect();
    pair.save(file("tapegrad.logits")).unwrap_or_else(|e| panic!("{e}"));
}

nn::module! {
    struct Tied {
        wte: nn::Embedding,
        head: nn::Linear,
    }
}

/// A weight of two names is read from files that hold it once, and written once.
fn exchange_tied(folder: &Path) {
    let wte = nn::Embedding::new(50, 8);
    let mut head = nn::Linear::new(8, 50).bias(false);
    head.weight = wte.weight.clone();
    let model = Tied { wte, head };
    let mut weights = Vec::new();
    for file in ["tied.torch.safetensors", "tied.torch.pt"] {
        let state = StateDict::load(folder.join(file)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(state.len(), 2, "{file}");
        model.load_state_dict(&state).unwrap_or_else(|e| panic!("{e}"));
        weights.push(model.wte.weight.to_vec::<f32>());
        assert_eq!(model.head.weight.to_vec::<f32>(), weights[0]);
    }
    assert_eq!(weights[0], weights[1]);
    nn::init::constant_(&model.wte.weight, 2.0);
    for file in ["tied.tapegrad.safetensors", "tied.tapegrad.pt"] {
        model.state_dict().save(folder.join(file)).unwrap_or_else(|e| panic!("{e}"));
        assert!(std::fs::metadata(folder.join(file)).is_ok_and(|m| m.len() < 50 * 8 * 4 + 1500), "{file}");
    }
}

#[test]
fn weights_go_both_ways() {
    let Ok(folder) = std::env::var("TAPEGRAD_INTEROP") else {
        println!("skipped: TAPEGRAD_INTEROP does not name a directory of tests/interop/weights.py");
        return;
    };
    manual_seed(1);
    exchange_tied(folder.as_ref());
    exchange(folder.as_ref(), "lenet5", &LeNet5::new(10));
    exchange(folder.as_ref(), "resnet18", &ResNet::resnet18(10));
    exchange(folder.as_ref(), "resnet50", &ResNet::resnet50(1000));
    exchange(folder.as_ref(), "mobilenetv2", &MobileNetV2::new(1000));
}
