//! Loss curves of PyTorch, reproduced: the same weights, the same batch, the same optimizer, nothing random.
//!
//! `TAPEGRAD_REFERENCE` names the directory that holds `parity.json`, which `tools/curves.py` writes, with the
//! losses, gradient norms and final logits that PyTorch computes for each model in both types. Without it these tests
//! say so and pass.

mod formula;

use formula::{fill, numbers, reference};
use tapegrad::nn::models::{LeNet5, ResNet, ThreeLayerConvNet, Vgg, mlp};
use tapegrad::nn::optim::SGD;
use tapegrad::prelude::*;

/// The tolerance for a difference from PyTorch.
#[derive(Clone, Copy)]
struct Tolerance {
    rtol: f64,
    atol: f64,
}

impl Tolerance {
    #[track_caller]
    fn check(self, what: &str, got: f64, want: f64) {
        let (off, allowed) = ((got - want).abs(), self.atol + self.rtol * want.abs());
        assert!(
            off <= allowed,
            "{what}: {got:e}, PyTorch has {want:e}: off by {off:.2e}, allowed {allowed:.2e}"
        );
    }
}

struct Limits {
    losses: [Tolerance; 2],
    norms: [Tolerance; 2],
}

const fn tolerance(rtol: f64, atol: f64) -> Tolerance {
    Tolerance { rtol, atol }
}

/// In F64 and in F32.
const SMALL: Limits = Limits {
    losses: [tolerance(1e-9, 1e-12), tolerance(1e-4, 1e-5)],
    norms: [tolerance(1e-6, 1e-6), tolerance(1e-3, 1e-6)],
};
/// A bias before a batch norm has the gradient zero, and only rounding errors as its norm.
const LARGE: Limits = Limits {
    losses: [tolerance(1e-8, 1e-12), tolerance(1e-3, 1e-4)],
    norms: [tolerance(1e-6, 1e-5), tolerance(1e-2, 1e-5)],
};

fn reproduce(name: &str, build: impl Fn() -> Box<dyn Forward>, shape: &[usize], limits: &Limits) {
    let Some(reference) = reference("parity.json") else { return };
    for (i, dtype) in [DType::F64, DType::F32].into_iter().enumerate() {
        let expected = &reference[name][dtype.to_string().as_str()];
        let batch = expected["batch"].as_u64().expect("the size of the batch") as usize;
        let model = build();
        model.to_dtype(dtype);
        for (k, (key, p)) in model.named_parameters().into_iter().enumerate() {
            if p.ndim() >= 2 {
                let fan_in = p.numel() as f64 / p.shape()[0] as f64;
                p.set_value(fill(p.shape(), k as u64, (3.0 / fan_in).sqrt()).cast(dtype));
            } else {
                nn::init::constant_(&p, if key.ends_with("weight") { 1.0 } else { 0.0 });
            }
        }
        let x = Var::from(fill(&[&[batch], shape].concat(), 1000, 1.732).cast(dtype));
        let target = Var::from_vec((0..batch as i64).map(|i| i % 10).collect::<Vec<_>>(), &[batch]);
        let mut optimizer = SGD::new(model.parameters(), 0.01).momentum(0.9).weight_decay(5e-4);
        for (step, want) in numbers(&expected["losses"]).into_iter().enumerate() {
            optimizer.zero_grad();
            let loss = ops::cross_entropy(&model.forward(&x), &target);
            loss.backward();
            if step == 0 {
                let norms = expected["grad_norms"].as_object().expect("norms by name");
                let parameters = model.named_parameters();
                assert_eq!(norms.len(), parameters.len(), "{name}: the number of parameters");
                for (key, p) in parameters {
                    let g = p.grad().unwrap_or_else(|| panic!("{name}: {key} has no gradient"));
                    let norm = g.to_vec::<f64>().iter().map(|g| g * g).sum::<f64>().sqrt();
                    let want = norms[&key].as_f64().expect("a number");
                    limits.norms[i].check(&format!("{name} {dtype}: gradient norm of {key}"), norm, want);
                }
            }
            optimizer.step();
            limits.losses[i].check(&format!("{name} {dtype}: loss of step {step}"), loss.item(), want);
        }
        model.eval();
        let sum = no_grad(|| model.forward(&x)).to_vec::<f64>().iter().sum::<f64>();
        // A sum of logits that nearly cancel is as uncertain as its terms.
        let sum_limit = Tolerance { rtol: limits.losses[i].rtol * 10.0, atol: limits.losses[i].rtol * 10.0 };
        sum_limit.check(
            &format!("{name} {dtype}: sum of the logits"),
            sum,
            expected["logits_sum"].as_f64().expect("a number"),
        );
    }
}

#[test]
fn mlp_curve() {
    reproduce("mlp", || Box::new(mlp(&[784, 256, 128, 10])), &[784], &SMALL);
}

#[test]
fn lenet_curve() {
    reproduce("lenet", || Box::new(LeNet5::new(10)), &[1, 28, 28], &SMALL);
}

#[test]
fn cnn3_curve() {
    reproduce("cnn3", || Box::new(ThreeLayerConvNet::new(10)), &[3, 32, 32], &SMALL);
}

#[test]
fn vgg11_curve() {
    reproduce("vgg11", || Box::new(Vgg::vgg11(10)), &[3, 32, 32], &LARGE);
}

#[test]
fn resnet18_curve() {
    reproduce("resnet18", || Box::new(ResNet::resnet18(10)), &[3, 32, 32], &LARGE);
}
