//! Weights exchanged with PyTorch: see `tests/interop/weights.py`, which calls for this test.
//!
//! `TAPEGRAD_INTEROP` names the directory with PyTorch's files. Without it the test says so and passes.

use std::path::Path;
use tapegrad::nn::StateDict;
use tapegrad::nn::models::{Gpt, GptConfig, LeNet5, MobileNetV2, ResNet};
use tapegrad::prelude::*;

fn close(name: &str, logits: &Tensor, want: &Tensor) {
    assert_eq!(logits.shape(), want.shape(), "{name}");
    let pairs = logits.to_vec::<f64>().into_iter().zip(want.to_vec::<f64>());
    let off = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!("{name}: logits differ by {off:.2e} at most");
    assert!(off < 1e-4);
}

fn exchange(folder: &Path, name: &str, model: &dyn Forward) {
    let file = |what: &str| folder.join(format!("{name}.{what}.safetensors"));
    let load = |what: &str| StateDict::load(file(what)).unwrap_or_else(|e| panic!("{e}"));
    let logits = |x: &Tensor| {
        model.eval();
        no_grad(|| model.forward(&Var::from(x))).tensor()
    };

    let [x, want] = pair(folder, name);
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
    close(name, &logits(&x), &want);

    // Other weights, back to PyTorch.
    for p in model.parameters().iter().filter(|p| p.ndim() > 1) {
        nn::init::kaiming_normal_with(p, nn::init::FanMode::FanIn, nn::init::Nonlinearity::ReLU);
    }
    model.state_dict().save(file("tapegrad")).unwrap_or_else(|e| panic!("{e}"));
    model.state_dict().save(folder.join(format!("{name}.tapegrad.pt"))).unwrap_or_else(|e| panic!("{e}"));
    let pair: StateDict = [("input".into(), x.clone()), ("logits".into(), logits(&x))].into_iter().collect();
    pair.save(file("tapegrad.logits")).unwrap_or_else(|e| panic!("{e}"));
}

const GPT: GptConfig = GptConfig { vocab: 50, block: 16, layers: 2, heads: 2, embd: 128 };

/// The inputs and the logits of PyTorch's model of this name.
fn pair(folder: &Path, name: &str) -> [Tensor; 2] {
    let pair = StateDict::load(folder.join(format!("{name}.torch.logits.safetensors"))).unwrap();
    ["input", "logits"].map(|key| pair.get(key).expect("written by the script").clone())
}

fn gpt_logits(model: &Gpt, tokens: &Tensor) -> Tensor {
    no_grad(|| model.forward(&Var::from(tokens))).flatten((0, 1)).tensor()
}

/// A weight of two names is read from files that hold it once, and written once.
fn exchange_tied(folder: &Path) {
    let model = Gpt::new(GPT).tie_weights();
    let [tokens, want] = pair(folder, "gpt");
    for file in ["gpt.torch.safetensors", "gpt.torch.pt"] {
        model.parameters().iter().for_each(|p| nn::init::constant_(p, 0.0));
        let state = StateDict::load(folder.join(file)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(state.len(), model.state_dict().len(), "{file}");
        model.load_state_dict(&state).unwrap_or_else(|e| panic!("{e}"));
        close(file, &gpt_logits(&model, &tokens), &want);
    }
    // Other weights, back to PyTorch.
    model.parameters().iter().for_each(|p| nn::init::normal_(p, 0.0, 0.1));
    let bytes: usize = model.parameters().iter().map(|p| p.tensor().bytes()).sum();
    for file in ["gpt.tapegrad.safetensors", "gpt.tapegrad.pt"] {
        model.state_dict().save(folder.join(file)).unwrap_or_else(|e| panic!("{e}"));
        let written = std::fs::metadata(folder.join(file)).unwrap().len() as usize;
        assert!(written < bytes + GPT.vocab * GPT.embd * 4, "{file}: {written} for {bytes}");
    }
    let logits = gpt_logits(&model, &tokens);
    let pair: StateDict = [("input".into(), tokens), ("logits".into(), logits)].into_iter().collect();
    pair.save(folder.join("gpt.tapegrad.logits.safetensors")).unwrap_or_else(|e| panic!("{e}"));
}

/// GPT-2 by its published names, into models with one weight for the embeddings and the head, and with two.
fn read_gpt2(folder: &Path) {
    let [tokens, want] = pair(folder, "gpt2");
    for file in ["gpt2.torch.safetensors", "gpt2.torch.pt"] {
        let state = StateDict::load(folder.join(file)).unwrap_or_else(|e| panic!("{e}"));
        let config = GptConfig::of_gpt2(&state).expect("a GPT-2");
        for model in [Gpt::new(config).tie_weights(), Gpt::new(config)] {
            model.load_gpt2(&state).unwrap_or_else(|e| panic!("{e}"));
            close(file, &gpt_logits(&model, &tokens), &want);
        }
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
    read_gpt2(folder.as_ref());
    exchange(folder.as_ref(), "lenet5", &LeNet5::new(10));
    exchange(folder.as_ref(), "resnet18", &ResNet::resnet18(10));
    exchange(folder.as_ref(), "resnet50", &ResNet::resnet50(1000));
    exchange(folder.as_ref(), "mobilenetv2", &MobileNetV2::new(1000));
}
