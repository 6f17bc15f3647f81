//! `torch.optim.swa_utils`.

use crate::{close, get, samples};
use tapegrad_nn::train::{WeightAverage, update_bn};
use tapegrad_nn::{BatchNorm1d, Forward, Linear, Module, StateDict, module};
use tapegrad_tape::{DType, Tensor, Var};

module! {
    struct Net {
        fc: Linear,
        bn: BatchNorm1d,
    }
}

impl Forward for Net {
    fn forward(&self, x: &Var) -> Var {
        self.bn.forward(&self.fc.forward(x))
    }
}

fn net(samples: &StateDict) -> Net {
    let net = Net { fc: Linear::new(3, 2), bn: BatchNorm1d::new(2) };
    net.to_dtype(DType::F64);
    net.load_state_dict(&samples.part("start")).unwrap();
    net
}

fn batches(samples: &StateDict) -> Vec<Var> {
    (0..4).map(|i| Var::from(get(samples, "x").select(0, i))).collect()
}

/// The model changes in five steps; the average goes on from its saved state after two.
fn run(name: &str, options: impl Fn(WeightAverage) -> WeightAverage) -> (Net, WeightAverage) {
    let samples = samples("average");
    let net = net(&samples);
    let batches = batches(&samples);
    let mut average = options(WeightAverage::new(&net));
    for step in 0..5 {
        net.forward(&batches[step % 4]);
        for p in net.parameters() {
            p.set_value((p.detach() + (p.detach() * 3.0 + step as f64).sin()).tensor());
        }
        average.update_parameters();
        if step == 1 {
            let state = average.state_dict();
            average = options(WeightAverage::new(&net));
            average.load_state_dict(&state).unwrap();
        }
    }
    assert_eq!(average.n_averaged(), 5);
    let state = average.state_dict();
    let want = samples.part(name);
    assert_eq!(state.len(), want.len() + 1);
    want.iter().for_each(|(key, want)| close(get(&state, key), want, key));
    (net, average)
}

#[test]
fn averages() {
    run("equal", |a| a.use_buffers(false));
    run("equal_buffers", |a| a);
    run("ema", |a| a.ema(0.9).use_buffers(false));
    run("ema_buffers", |a| a.ema(0.9));
}

#[test]
fn running_statistics_of_averaged_weights() {
    let samples = samples("average");
    let (net, mut average) = run("equal", |a| a.use_buffers(false));
    average.swap();
    net.eval();
    update_bn(&net, batches(&samples), |x| net.forward(&x));
    assert!(!net.is_training());
    let want = samples.part("update_bn");
    assert_eq!(want.len(), 2);
    want.iter().for_each(|(key, want)| close(get(&net.state_dict(), key), want, key));
    assert_eq!(get(&net.state_dict(), "bn.num_batches_tracked").item::<i64>(), 4);
    // Outside of the call, batch norms have their momentum again.
    net.train();
    let before = net.bn.running_mean.as_ref().unwrap().tensor();
    net.forward(&batches(&samples)[0]);
    let moved = net.bn.running_mean.as_ref().unwrap().tensor();
    let batch = net.fc.forward(&batches(&samples)[0]).mean(0).tensor();
    let want = Var::from(before) * 0.9 + Var::from(batch) * 0.1;
    close(&moved, &want.tensor(), "one more batch");
}

#[test]
fn a_state_without_a_count_loads() {
    let net = Linear::new(2, 1);
    let mut average = WeightAverage::new(&net);
    average.load_state_dict(&net.state_dict()).unwrap();
    assert_eq!(average.n_averaged(), 1);
    let mut state = net.state_dict();
    state.insert("weight", Tensor::zeros(3));
    assert!(average.load_state_dict(&state).is_err());
}
