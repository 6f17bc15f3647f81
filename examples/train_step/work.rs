//! What is timed: models with their data, losses and optimizers. `tools/bench_torch.py` has the same in PyTorch.

use clap::ValueEnum;
use tapegrad::nn::models::{
    DcganDiscriminator, DcganGenerator, Gpt, GptConfig, KeyValues, LeNet5, MobileNetV2, ResNet, SpeedNet,
    ThreeLayerConvNet, UNet, Vgg, VisionTransformer, mlp,
};
use tapegrad::nn::optim::{Adam, AdamW, Optimizer, SGD, clip_factor};
use tapegrad::nn::{Forward, LSTM, Linear, Module, ReLU, Sequential, Tanh, sequential};
use tapegrad::prelude::*;
use tapegrad::tape::GradOptions;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum Model {
    Mlp,
    Lenet,
    Cnn3,
    Vgg11,
    Resnet18,
    Resnet9,
    #[value(name = "resnet18-224")]
    Resnet18Large,
    #[value(name = "resnet50-224")]
    Resnet50Large,
    #[value(name = "mobilenetv2-224")]
    MobileNetV2,
    Lstm,
    GptTiny,
    GptSmall,
    /// A vision transformer for 32x32
    Vit,
    /// U-Net, 32 wide, for 64x64
    Unet,
    /// Both networks of DCGAN, each by its own loss
    Dcgan,
    /// Deep Q-learning: an action for one state, and a step on a batch of transitions
    Cartpole,
    /// The heat equation: second derivatives of a network by its inputs
    Pinn,
    #[value(name = "pinn-f64")]
    PinnF64,
}

/// What is timed. A step returns its loss, if it has one.
pub(crate) struct Work {
    pub(crate) name: String,
    pub(crate) batch: usize,
    pub(crate) step: Box<dyn FnMut() -> Option<Var>>,
}

/// The work of a model: training steps, or with `eval` forward passes.
pub(crate) fn work(model: Model, batch: Option<usize>, eval: bool) -> Work {
    let name = model.to_possible_value().expect("no model is hidden").get_name().to_string();
    let batch = batch.unwrap_or(if eval { 1 } else { default_batch(model) });
    let step = match model {
        Model::GptTiny => language(GptConfig::tiny(65), batch, eval),
        Model::GptSmall => language(GptConfig::small(65), batch, eval),
        Model::Dcgan => dcgan(batch, eval),
        Model::Cartpole => cartpole(batch, eval),
        Model::Pinn => pinn(batch, DType::F32, eval),
        Model::PinnF64 => pinn(batch, DType::F64, eval),
        _ => images(model, batch, eval),
    };
    Work { name, batch, step }
}

fn default_batch(model: Model) -> usize {
    match model {
        Model::Mlp | Model::Lenet => 64,
        Model::Cnn3 => 50,
        Model::Vgg11 | Model::Resnet18 => 128,
        Model::Resnet9 => 1024,
        Model::Resnet18Large | Model::Resnet50Large | Model::MobileNetV2 => 8,
        Model::GptSmall | Model::Unet => 8,
        Model::GptTiny => 12,
        Model::Lstm | Model::Vit | Model::Dcgan | Model::Cartpole => 32,
        Model::Pinn | Model::PinnF64 => 256,
    }
}

pub(crate) type Step = Box<dyn FnMut() -> Option<Var>>;

/// Forward passes without recording.
fn forward(model: impl Forward, x: Var) -> Step {
    model.eval();
    Box::new(move || {
        no_grad(|| model.forward(&x));
        None
    })
}

fn normal(shape: &[usize]) -> Var {
    Var::from(with_default_generator(|g| g.normal(shape, 0.0, 1.0)))
}

/// Integers by a rule.
fn integers(shape: &[usize], f: impl Fn(i64) -> i64) -> Var {
    Var::from_vec((0..shape.iter().product::<usize>() as i64).map(f).collect::<Vec<_>>(), shape)
}

tapegrad::nn::module! {
    /// A classifier of sequences by the last output of an LSTM.
    struct LastOutput {
        lstm: LSTM,
        fc: Linear,
    }
}

impl Forward for LastOutput {
    fn forward(&self, x: &Var) -> Var {
        self.fc.forward(&self.lstm.forward(x).select(1, -1))
    }
}

/// Classification with SGD, of images, sequences, or the pixels of images.
fn images(model: Model, batch: usize, eval: bool) -> Step {
    let (net, shape): (Box<dyn Forward>, &[usize]) = match model {
        Model::Mlp => (Box::new(mlp(&[784, 256, 128, 10])), &[784]),
        Model::Lenet => (Box::new(LeNet5::new(10)), &[1, 28, 28]),
        Model::Cnn3 => (Box::new(ThreeLayerConvNet::new(10)), &[3, 32, 32]),
        Model::Vgg11 => (Box::new(Vgg::vgg11(10)), &[3, 32, 32]),
        Model::Resnet9 => (Box::new(SpeedNet::new(10)), &[3, 32, 32]),
        Model::Resnet18Large => (Box::new(ResNet::new([2, 2, 2, 2], true, 1000)), &[3, 224, 224]),
        Model::Resnet50Large => (Box::new(ResNet::resnet50(1000)), &[3, 224, 224]),
        Model::MobileNetV2 => (Box::new(MobileNetV2::new(1000)), &[3, 224, 224]),
        Model::Vit => (Box::new(VisionTransformer::vit_tiny(10)), &[3, 32, 32]),
        Model::Unet => (Box::new(UNet::with_sizes(3, 2, 32, 4)), &[3, 64, 64]),
        Model::Lstm => {
            let lstm = LSTM::new(256, 256).batch_first(true);
            (Box::new(LastOutput { lstm, fc: Linear::new(256, 10) }), &[100, 256])
        }
        _ => (Box::new(ResNet::resnet18(10)), &[3, 32, 32]),
    };
    let x = normal(&[&[batch], shape].concat());
    if eval {
        return forward(net, x);
    }
    let target = match model {
        Model::Unet => integers(&[batch, 64, 64], |i| i / 7 % 2),
        _ => integers(&[batch], |i| i % 10),
    };
    let mut optimizer: Box<dyn Optimizer> = match model {
        Model::Vit => Box::new(AdamW::new(net.parameters(), 1e-3)),
        Model::Unet => Box::new(Adam::new(net.parameters(), 1e-3)),
        _ => Box::new(SGD::new(net.parameters(), 0.01).momentum(0.9).weight_decay(5e-4)),
    };
    Box::new(move || {
        optimizer.zero_grad();
        let loss = ops::cross_entropy(&net.forward(&x), &target);
        loss.backward();
        optimizer.step();
        Some(loss)
    })
}

/// Characters that follow one another by a rule, with clipped gradients and AdamW.
fn language(config: GptConfig, batch: usize, eval: bool) -> Step {
    let model = Gpt::new(config);
    let x = integers(&[batch, config.block], |i| (i * 7 + i / 3) % 65);
    if eval {
        let mut past: Vec<KeyValues> = Vec::new();
        no_grad(|| model.next(&x.narrow(1, 0, config.block / 2), &mut past));
        let token = Var::from(x.narrow(1, config.block / 2, 1).tensor().contiguous());
        return Box::new(move || {
            no_grad(|| model.next(&token, &mut past.clone()));
            None
        });
    }
    let mut optimizer = AdamW::new(model.parameters(), 1e-3);
    let target = integers(&[batch * config.block], |i| (i * 5 + i / 7) % 65);
    Box::new(move || {
        optimizer.zero_grad();
        let loss = ops::cross_entropy(&model.forward(&x).flatten((0, 1)), &target);
        loss.backward();
        let (_, factor) = clip_factor(&optimizer.parameters(), 1.0, 2.0);
        optimizer.step_scaled(factor);
        Some(loss)
    })
}

/// The step of PyTorch's tutorial: the discriminator on real and on generated images, then the generator.
fn dcgan(batch: usize, eval: bool) -> Step {
    let generator = DcganGenerator::new(100, 64, 3);
    let noise = normal(&[batch, 100, 1, 1]);
    if eval {
        return forward(generator, noise);
    }
    let discriminator = DcganDiscriminator::new(3, 64);
    let adam = |p| Adam::new(p, 2e-4).betas((0.5, 0.999));
    let (mut of_d, mut of_g) = (adam(discriminator.parameters()), adam(generator.parameters()));
    let (real, ones, zeros) = (normal(&[batch, 3, 64, 64]), Var::ones(batch), Var::zeros(batch));
    Box::new(move || {
        let loss = |images: &Var, labels: &Var| {
            let y = discriminator.forward(images).flatten(());
            ops::binary_cross_entropy(&y, labels)
        };
        of_d.zero_grad();
        loss(&real, &ones).backward();
        let fake = generator.forward(&noise);
        loss(&fake.detach(), &zeros).backward();
        of_d.step();
        of_g.zero_grad();
        let error = loss(&fake, &ones);
        error.backward();
        of_g.step();
        Some(error)
    })
}

fn q_network() -> Sequential {
    sequential![Linear::new(4, 64), ReLU::new(), Linear::new(64, 64), ReLU::new(), Linear::new(64, 2)]
}

/// A step of deep Q-learning: the best action for one state, then a batch of transitions.
fn cartpole(batch: usize, eval: bool) -> Step {
    let (net, state) = (q_network(), normal(&[1, 4]));
    if eval {
        return forward(net, normal(&[batch, 4]));
    }
    let target_net = q_network();
    target_net.load_state_dict(&net.state_dict()).expect("the same network");
    let (states, next, reward) = (normal(&[batch, 4]), normal(&[batch, 4]), normal(&[batch]));
    let actions = integers(&[batch, 1], |i| i % 2);
    let goes_on =
        Var::from_vec((0..batch).map(|i| f32::from(u8::from(i % 8 != 0))).collect::<Vec<_>>(), batch);
    let mut optimizer = Adam::new(net.parameters(), 1e-3);
    Box::new(move || {
        no_grad(|| net.forward(&state).argmax(1).item());
        let target = no_grad(|| &reward + 0.99 * target_net.forward(&next).max(1).0 * &goes_on);
        optimizer.zero_grad();
        let q = net.forward(&states).gather(1, &actions).squeeze(1);
        let loss = ops::smooth_l1_loss(&q, &target);
        loss.backward();
        optimizer.step();
        Some(loss)
    })
}

/// The heat equation `u_t = u_xx / 10`, for a network of `(x, t)`, at random points; at as many points the values are known.
fn pinn(batch: usize, dtype: DType, eval: bool) -> Step {
    let net =
        sequential![Linear::new(2, 32), Tanh::new(), Linear::new(32, 32), Tanh::new(), Linear::new(32, 1)];
    net.to_dtype(dtype);
    let uniform = || Var::parameter(with_default_generator(|g| g.uniform(&[batch, 2], 0.0, 1.0)).cast(dtype));
    let (points, border) = (uniform(), uniform().detach());
    if eval {
        return forward(net, border);
    }
    let values = (border.narrow(1, 0, 1) * std::f64::consts::PI).sin();
    let mut optimizer = Adam::new(net.parameters(), 1e-3);
    let derivative = |of: &Var, by: &Var| {
        grad_with(&[&of.sum_all()], &[by], GradOptions::new().create_graph(true))
            .pop()
            .flatten()
            .expect("it depends")
    };
    Box::new(move || {
        optimizer.zero_grad();
        let first = derivative(&net.forward(&points), &points);
        let second = derivative(&first.narrow(1, 0, 1), &points).narrow(1, 0, 1);
        let loss = (first.narrow(1, 1, 1) - second * 0.1).square().mean_all()
            + ops::mse_loss(&net.forward(&border), &values);
        loss.backward();
        optimizer.step();
        Some(loss)
    })
}
