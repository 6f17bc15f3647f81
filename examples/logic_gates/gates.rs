//! The smallest networks that compute logic gates: with given weights, and with trained weights.

use tapegrad::nn::Linear;
use tapegrad::nn::optim::Adam;
use tapegrad::prelude::*;

/// A gate: its truth table and the exact weights of a network of threshold units.
#[derive(Clone, Copy)]
pub(crate) struct Gate {
    pub(crate) name: &'static str,
    /// The result for each input: for 0 and 1, or for 00, 10, 01 and 11.
    pub(crate) truth: &'static [f32],
    /// One row per hidden unit: its weights, then its bias.
    hidden: &'static [&'static [f32]],
    /// The same for the output. Its inputs are the hidden units if there are any, otherwise the inputs.
    output: &'static [f32],
    /// The output also receives the inputs.
    shortcut: bool,
}

const OR: &[f32] = &[1.0, 1.0, -0.5];
const AND: &[f32] = &[1.0, 1.0, -1.5];

/// XOR and XNOR are not separable by a line, so they need a hidden layer: OR and AND, since XOR is the first but not
/// the second. With a shortcut from the inputs one hidden unit is enough: AND subtracts the excess of two active inputs.
#[rustfmt::skip]
pub(crate) const GATES: [Gate; 6] = [
    Gate { name: "NOT", truth: &[1.0, 0.0], hidden: &[], output: &[-1.0, 0.5], shortcut: false },
    Gate { name: "AND", truth: &[0.0, 0.0, 0.0, 1.0], hidden: &[], output: AND, shortcut: false },
    Gate { name: "OR", truth: &[0.0, 1.0, 1.0, 1.0], hidden: &[], output: OR, shortcut: false },
    Gate { name: "XOR", truth: &[0.0, 1.0, 1.0, 0.0], hidden: &[OR, AND], output: &[1.0, -1.0, -0.5], shortcut: false },
    Gate { name: "XNOR", truth: &[1.0, 0.0, 0.0, 1.0], hidden: &[OR, AND], output: &[-1.0, 1.0, 0.5], shortcut: false },
    Gate { name: "XOR, shortcut", truth: &[0.0, 1.0, 1.0, 0.0], hidden: &[AND], output: &[1.0, 1.0, -2.0, -0.5], shortcut: true },
];

/// XOR by one unit without a hidden layer, which is impossible; its weights are those of OR.
pub(crate) const ONE_UNIT: Gate =
    Gate { name: "XOR, one unit", truth: &[0.0, 1.0, 1.0, 0.0], hidden: &[], output: OR, shortcut: false };

nn::module! {
    /// No hidden layer or one, and one output, which is above zero for true.
    pub(crate) struct Network {
        pub(crate) hidden: Option<Linear>,
        pub(crate) output: Linear,
        shortcut: bool,
        steps: bool,
    }
}

impl Forward for Network {
    fn forward(&self, x: &Var) -> Var {
        let Some(hidden) = &self.hidden else { return self.output.forward(x) };
        let z = hidden.forward(x);
        let h = if self.steps { z.gt(0).cast(z.dtype()) } else { z.sigmoid() };
        self.output.forward(&if self.shortcut { tape::cat(&[x, &h], 1) } else { h })
    }
}

impl Network {
    /// The truth of the inputs: 0 or 1.
    pub(crate) fn decide(&self, x: &Var) -> Vec<f32> {
        no_grad(|| self.forward(x).gt(0).cast(DType::F32)).to_vec()
    }
}

impl Gate {
    pub(crate) fn inputs(&self) -> Var {
        match self.truth.len() {
            2 => Var::from_vec(vec![0f32, 1.0], (2, 1)),
            _ => Var::from_vec(vec![0f32, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0], (4, 2)),
        }
    }

    /// A network of this gate's shape with sigmoid units and random weights.
    pub(crate) fn network(&self) -> Network {
        let layer = |rows: &[&[f32]]| Linear::new(rows[0].len() - 1, rows.len());
        Network {
            hidden: (!self.hidden.is_empty()).then(|| layer(self.hidden)),
            output: layer(&[self.output]),
            shortcut: self.shortcut,
            steps: false,
        }
    }

    /// The network of threshold units with the exact weights.
    pub(crate) fn exact(&self) -> Network {
        let network = Network { steps: true, ..self.network() };
        if let Some(hidden) = &network.hidden {
            put(hidden, self.hidden);
        }
        put(&network.output, &[self.output]);
        network
    }

    /// Trains a network of this shape on the truth table; returns the losses, too.
    pub(crate) fn train(&self, steps: usize) -> (Network, Vec<f64>) {
        let network = self.network();
        let mut optimizer = Adam::new(network.parameters(), 0.1);
        let (x, target) = (self.inputs(), Var::from_vec(self.truth.to_vec(), (self.truth.len(), 1)));
        let losses = (0..steps).map(|_| {
            optimizer.zero_grad();
            let logits = network.forward(&x);
            let loss = ops::binary_cross_entropy_with_logits(&logits, &target);
            loss.backward();
            optimizer.step();
            loss.item()
        });
        let losses = losses.collect();
        (network, losses)
    }
}

fn put(layer: &Linear, rows: &[&[f32]]) {
    let inputs = rows[0].len() - 1;
    let weights = rows.iter().flat_map(|row| &row[..inputs]).copied().collect();
    layer.weight.set_value(Tensor::from_vec(weights, (rows.len(), inputs)));
    let bias = layer.bias.as_ref().expect("a layer with a bias");
    bias.set_value(Tensor::from_vec(rows.iter().map(|row| row[inputs]).collect(), rows.len()));
}
