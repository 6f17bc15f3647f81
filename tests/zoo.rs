//! Models with the keys of torchvision, Hugging Face and PyTorch's tutorials give their outputs and gradients for the same
//! weights.
//!
//! `zoo.json` has small configurations, by `tools/zoo.py`. The full-size models are compared if the directory that
//! `TAPEGRAD_REFERENCE` names has a `zoo.json` by `tools/zoo.py --full`.

mod formula;

use formula::{fill, numbers, reference};
use serde_json::Value as Json;
use tapegrad::nn::StateDict;
use tapegrad::nn::models::{
    ConvNeXt, DcganDiscriminator, DcganGenerator, Gpt, GptConfig, UNet, VisionTransformer, VitConfig,
};
use tapegrad::prelude::*;

fn sizes(v: &Json) -> Vec<usize> {
    numbers(v).into_iter().map(|n| n as usize).collect()
}

/// The state dict with the names and shapes of the file, by the formula of `tools/zoo.py`.
fn state(expected: &Json) -> StateDict {
    // A list, since the file's order counts.
    let entries = expected["state"].as_array().expect("names and shapes");
    let tensors = entries.iter().enumerate().map(|(k, entry)| {
        let key = entry[0].as_str().expect("a name");
        let shape = sizes(&entry[1]);
        let t = if shape.len() >= 2 {
            fill(&shape, k as u64, (3.0 * shape[0] as f64 / shape.iter().product::<usize>() as f64).sqrt())
        } else if shape.is_empty() {
            Tensor::scalar(0i64)
        } else {
            let around = f64::from(key.ends_with("weight") || key.ends_with("running_var"));
            Var::from(fill(&shape, k as u64, 0.2)).add(around).tensor()
        };
        (key.to_string(), t)
    });
    tensors.collect()
}

/// The largest difference, and the largest magnitude.
fn compare(got: impl IntoIterator<Item = f64>, want: &[f64]) -> (f64, f64) {
    let differences = got.into_iter().zip(want).map(|(a, b)| (a - b).abs());
    (differences.fold(0.0, f64::max), want.iter().fold(0.0, |m: f64, w| m.max(w.abs())))
}

/// Compares outputs and the norms of gradients in a type, to `limit` of the largest output and of each norm.
fn check<M: Forward>(name: &str, model: &M, load: impl Fn(&M, &StateDict), expected: &Json, dtype: DType) {
    let limit = if dtype == DType::F64 { 1e-8 } else { 1e-4 };
    model.to_dtype(dtype);
    load(model, &state(expected));
    let shape = sizes(&expected["input"]);
    let x = match expected["vocab"].as_u64() {
        None => fill(&shape, 1000, 1.732).cast(dtype),
        Some(vocab) => {
            let n = shape.iter().product::<usize>() as i64;
            Tensor::from_vec((0..n).map(|i| i * 7 % vocab as i64).collect::<Vec<_>>(), &shape[..])
        }
    };
    model.eval();
    let y = no_grad(|| model.forward(&x.clone().into()));
    assert_eq!(y.shape(), sizes(&expected["output"]), "{name}");
    let every = expected["every"].as_u64().expect("a number") as usize;
    let (off, magnitude) =
        compare(y.to_vec::<f64>().into_iter().step_by(every), &numbers(&expected["values"]));
    assert!(off <= limit * magnitude, "{name} {dtype}: output of up to {magnitude} is off by {off:e}");
    println!("{name} {dtype}: outputs of up to {magnitude:.3} differ by at most {off:.1e}");

    model.train();
    let y = model.forward(&x.into());
    (&y * Var::from(fill(y.shape(), 2000, 1.0).cast(dtype))).sum_all().backward();
    let norms = expected["norms"].as_object().expect("norms by name");
    let parameters = model.named_parameters();
    assert_eq!(norms.len(), parameters.len(), "{name}: the number of parameters");
    let largest = norms.values().map(|n| n.as_f64().expect("a number")).fold(0.0, f64::max);
    for (key, norm) in norms {
        let own = if name == "gpt2" { gpt2_name(key) } else { key.clone() };
        let p = parameters.iter().find(|(k, _)| *k == own).unwrap_or_else(|| panic!("{name}: no {own}"));
        let g = p.1.grad().unwrap_or_else(|| panic!("{name}: {own} has no gradient")).to_vec::<f64>();
        let (got, want) = (g.iter().map(|g| g * g).sum::<f64>().sqrt(), norm.as_f64().expect("a number"));
        let off = (got - want).abs();
        // What a bias before a batch norm gets is zero but for rounding, which many batch norms amplify.
        let allowed = 50.0 * limit * want + limit * 0.1 * largest;
        assert!(off <= allowed, "{name} {dtype}: gradient of {key}: {got}, PyTorch has {want}");
    }
}

fn gpt2_name(key: &str) -> String {
    key.replace(".attn.", ".").replace(".mlp.c_fc.", ".c_fc.").replace(".mlp.c_proj.", ".c_out.")
}

fn load<M: Forward>(model: &M, state: &StateDict) {
    model.load_state_dict(state).unwrap_or_else(|e| panic!("{e}"));
}

fn load_gpt2(model: &Gpt, state: &StateDict) {
    model.load_gpt2(state).unwrap_or_else(|e| panic!("{e}"));
}

fn small(name: &str) -> Json {
    let mut all: Json = serde_json::from_str(include_str!("zoo.json")).expect("a table of models");
    all[name].take()
}

const TYPES: [DType; 2] = [DType::F64, DType::F32];

#[test]
fn vision_transformer() {
    let (image_size, patch_size, num_layers, num_heads, hidden_dim, mlp_dim) = (16, 4, 2, 3, 12, 20);
    let config =
        VitConfig { image_size, patch_size, num_layers, num_heads, hidden_dim, mlp_dim, dropout: 0.0 };
    for dtype in TYPES {
        check("vit", &VisionTransformer::new(config, 5), load, &small("vit"), dtype);
    }
}

#[test]
fn convnext() {
    for dtype in TYPES {
        check("convnext", &ConvNeXt::new(&[(8, 1), (12, 2)], 0.0, 5), load, &small("convnext"), dtype);
    }
}

#[test]
fn unet() {
    for dtype in TYPES {
        check("unet", &UNet::with_sizes(2, 3, 4, 2), load, &small("unet"), dtype);
    }
}

#[test]
fn dcgan() {
    for dtype in TYPES {
        check("generator", &DcganGenerator::new(5, 1, 2), load, &small("dcgan-generator"), dtype);
        check("discriminator", &DcganDiscriminator::new(2, 1), load, &small("dcgan-discriminator"), dtype);
    }
}

#[test]
fn gpt2() {
    let config = GptConfig { vocab: 11, block: 9, layers: 2, heads: 3, embd: 12 };
    for dtype in TYPES {
        check("gpt2", &Gpt::new(config).tie_weights(), load_gpt2, &small("gpt2"), dtype);
    }
}

/// In F32, one after the other: they are large.
#[test]
fn full_size() {
    let folder = std::env::var_os("TAPEGRAD_REFERENCE").unwrap_or_default();
    if !std::path::Path::new(&folder).join("zoo.json").exists() {
        println!(
            "skipped: there is no zoo.json, of tools/zoo.py --full, in the directory TAPEGRAD_REFERENCE"
        );
        return;
    }
    let all = reference("zoo.json").expect("it exists");
    let classes = 1000;
    check("vit", &VisionTransformer::vit_b_16(classes), load, &all["vit"], DType::F32);
    let channels = [(96, 3), (192, 3), (384, 9), (768, 3)];
    check("convnext", &ConvNeXt::new(&channels, 0.0, classes), load, &all["convnext"], DType::F32);
    check("unet", &UNet::new(3, 2), load, &all["unet"], DType::F32);
    check("generator", &DcganGenerator::new(100, 64, 3), load, &all["dcgan-generator"], DType::F32);
    check("discriminator", &DcganDiscriminator::new(3, 64), load, &all["dcgan-discriminator"], DType::F32);
    let config = GptConfig::of_gpt2(&state(&all["gpt2"])).expect("GPT-2's names");
    assert_eq!(config, GptConfig::gpt2(50257));
    check("gpt2", &Gpt::new(config).tie_weights(), load_gpt2, &all["gpt2"], DType::F32);
}
