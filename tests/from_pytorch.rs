//! The right-hand column of the tables in `docs/from-pytorch.md`, as programs: the guide names nothing that is not there.

use datasets::{DataLoader, Dataset, random_split, synthetic};
use nn::init::{self, FanMode, Nonlinearity};
use nn::lr_scheduler::{Schedule, StepLR};
use nn::optim::{self, Optimizer, SGD, SGDOptions};
use nn::{Fields, Module};
use ops::{
    Approximate, AttentionOptions, BatchNormOptions, ConvOptions, CrossEntropyOptions, EmbeddingOptions,
    InterpolateMode, InterpolateOptions, MaxPoolOptions, Padding, Reduction, VarOps,
};
use std::sync::Arc;
use tape::{
    BackwardOptions, DType, Generator, GradCheck, GradOptions, Index, MemoryFormat, PadMode, Slice, Tensor,
    Var, checkpoint, detect_anomaly, enable_grad, grad, gradcheck, hessian, jacobian, jvp, manual_seed,
    no_grad, set_grad_enabled, trace, vjp, with_default_generator,
};

fn matrix() -> Var {
    Var::from_vec((0..6).map(f64::from).collect(), &[2, 3])
}

#[test]
fn tensors() {
    assert_eq!(Tensor::from_vec(vec![1f32, 2., 3., 4.], &[2, 2]).dtype(), DType::F32);
    assert_eq!(Tensor::scalar(3.0).dtype(), DType::F32);
    assert_eq!(Tensor::zeros(&[2, 3], DType::F32).to_vec::<f32>(), [0.0; 6]);
    assert_eq!(Tensor::ones(&[2, 3], DType::F32).to_vec::<f32>(), [1.0; 6]);
    assert_eq!(Tensor::full(&[2, 3], 7.0, DType::F32).to_vec::<f32>(), [7.0; 6]);
    let x = Var::parameter(Tensor::ones(&[2, 3], DType::F32));
    assert_eq!(x.zeros_like().to_vec::<f32>(), [0.0; 6]);
    assert_eq!(Tensor::arange(0, 5).to_vec::<i64>(), [0, 1, 2, 3, 4]);
    manual_seed(0);
    let normal = with_default_generator(|g| g.normal(&[2, 3], 0.0, 1.0));
    let uniform = with_default_generator(|g| g.uniform(&[2, 3], 0.0, 1.0));
    assert_eq!(normal.shape(), uniform.shape());
    assert_eq!(with_default_generator(|g| g.permutation(10)).numel(), 10);
    assert_eq!(Generator::manual_seed(0).normal(&[2, 3], 0.0, 1.0).to_vec::<f32>(), normal.to_vec::<f32>());
    assert_eq!((Var::from_vec(vec![1f32, 2.], &[2]).numel(), Var::from(3.0).ndim()), (2, 0));
    assert_eq!((x.shape(), x.size(-1), x.ndim(), x.numel(), x.dtype()), (&[2, 3][..], 3, 2, 6, DType::F32));
    assert_eq!(x.cast(DType::F64).dtype(), DType::F64);
    assert_eq!((Var::from(3.0).item(), x.to_vec::<f32>()), (3.0, vec![1.0; 6]));
    let picture = Tensor::zeros(&[1, 2, 3, 3], DType::F32).to_format(MemoryFormat::ChannelsLast);
    assert!(picture.is_contiguous_in(MemoryFormat::ChannelsLast) && picture.as_slice::<f32>().is_none());
    assert!(format!("{x}").starts_with("tensor("));
}

#[test]
fn arithmetic_shapes_indexing() {
    let a = matrix();
    let b = &a * 0.5 + 1.0;
    assert_eq!((&a + &b).get((1, 2)).item(), 8.5);
    assert_eq!((2.0 * &a).sum_all().item(), -(-&a * 2).sum_all().item());
    assert_eq!(a.matmul(&b.t()).shape(), [2, 2]);
    assert_eq!(a.unsqueeze(0).bmm(&b.t().unsqueeze(0)).shape(), [1, 2, 2]);
    assert_eq!(Var::from(0.0).cast(DType::F64).addmm(&a, &b.t(), 0.5, 1).shape(), [2, 2]);
    let (x, y) = (a.unsqueeze(0), b.unsqueeze(0));
    assert_eq!(ops::einsum("bij,bkj->bik", &[&x, &y]).to_vec::<f64>(), a.matmul(&b.t()).to_vec::<f64>());
    assert_eq!(ops::tensordot(&a, &b.t(), ([1], [0])).to_vec::<f64>(), a.matmul(&b.t()).to_vec::<f64>());
    assert_eq!(a.pow(2).get((1, 2)).item(), 25.0);
    assert_eq!(a.pow(&b).get((0, 2)).item(), 4.0);
    assert_eq!(tape::pow(2.0, &a).get((1, 2)).item(), 32.0);
    assert_eq!(a.exp().log().tanh().sigmoid().shape(), [2, 3]);
    assert_eq!(a.eq(&b).to_vec::<bool>(), [false, false, true, false, false, false]);
    let mask = a.gt(0);
    assert_eq!(a.clamp(0, 1).sum_all().item(), 5.0);
    assert_eq!(a.clamp_min(0).maximum(&b).get((0, 0)).item(), 1.0);
    assert_eq!(tape::where_(&mask, &a, 0.0).sum_all().item(), 15.0);
    assert_eq!(a.masked_fill(&mask, 0.0).sum_all().item(), 0.0);
    assert_eq!(a.sum(&[1], true).to_vec::<f64>(), [3.0, 12.0]);
    assert_eq!((a.mean_all().item(), a.mean(&[0, 1], false).item()), (2.5, 2.5));
    assert_eq!(a.var(&[1], 1.0, false).to_vec::<f64>(), [1.0, 1.0]);
    assert_eq!(a.std(&[1], 0.0, false).shape(), [2]);
    assert_eq!((a.max_all().item(), a.amax(&[1], false).to_vec::<f64>()), (5.0, vec![2.0, 5.0]));
    assert_eq!(a.max(1, false).1.to_vec::<i64>(), a.argmax(1, false).to_vec::<i64>());
    assert_eq!(a.argmax_all().item(), 5.0);
    assert_eq!(a.sort(1, false).0.to_vec::<f64>(), a.to_vec::<f64>());
    assert_eq!(a.topk(2, 1, true, true).1.to_vec::<i64>(), [2, 1, 2, 1]);
    assert_eq!(a.cumsum(1).to_vec::<f64>(), [0.0, 1.0, 3.0, 3.0, 7.0, 12.0]);
    assert_eq!(a.logsumexp(&[1], false).shape(), [2]);
    assert!((a.norm(2.0, &[], false).item() - 55f64.sqrt()).abs() < 1e-12);
    assert_eq!((a.view(&[2, -1]).shape(), a.reshape(&[-1]).shape()), (&[2, 3][..], &[6][..]));
    assert_eq!(a.unsqueeze(0).flatten(1, -1).shape(), [1, 6]);
    assert_eq!(a.permute(&[1, 0]).to_vec::<f64>(), a.transpose(0, 1).to_vec::<f64>());
    assert_eq!(a.unsqueeze(0).squeeze(0).squeeze_all().shape(), [2, 3]);
    assert_eq!(a.expand(&[3, -1, -1]).shape(), [3, 2, 3]);
    assert_eq!(a.repeat(&[2, 1]).shape(), [4, 3]);
    assert_eq!(tape::cat(&[&a, &b], 1).shape(), [2, 6]);
    assert_eq!(tape::stack(&[&a, &b], 0).shape(), [2, 2, 3]);
    assert_eq!((a.chunk(2, 1).len(), a.split(2, 1)[1].shape()), (2, &[2, 1][..]));
    assert_eq!(a.pad(&[1, 1], PadMode::Constant(0.0)).shape(), [2, 5]);
    assert_eq!((a.get(0).shape(), a.get(-1).get(-1).item()), (&[3][..], 5.0));
    assert_eq!(a.get((.., 1..3)).to_vec::<f64>(), [1.0, 2.0, 4.0, 5.0]);
    assert_eq!(a.get((Index::Ellipsis, Slice::from(..).step(2))).to_vec::<f64>(), [0.0, 2.0, 3.0, 5.0]);
    assert_eq!(a.get((.., Index::NewAxis)).shape(), [2, 1, 3]);
    let rows = Var::from_vec(vec![1i64, 0], &[2]);
    assert_eq!(a.get(&rows).to_vec::<f64>(), [3.0, 4.0, 5.0, 0.0, 1.0, 2.0]);
    assert_eq!(a.get(&mask).shape(), [5]);
    let i = Var::from_vec(vec![2i64, 0], &[2, 1]);
    assert_eq!(a.gather(1, &i).to_vec::<f64>(), [2.0, 3.0]);
    let s = Var::from_vec(vec![10f64, 20.0], &[2, 1]);
    assert_eq!(a.scatter_add(1, &i, &s).to_vec::<f64>(), [0.0, 1.0, 12.0, 23.0, 4.0, 5.0]);
    assert_eq!(rows.one_hot(Some(10)).shape(), [2, 10]);
}

#[test]
fn gradients() {
    let x = Var::parameter(matrix().tensor());
    let y = x.square();
    y.retain_grad();
    let hook = y.register_hook(|g| Some(2.0 * g));
    let g = y.ones_like();
    y.backward_with(Some(&g), BackwardOptions { retain_graph: true, ..Default::default() });
    y.sum_all().backward();
    hook.remove();
    assert_eq!(x.grad().unwrap().get((0, 1)).item(), 8.0);
    x.zero_grad();
    assert!(x.grad().is_none());
    let y = x.pow(3).sum_all();
    let first = grad(&[&y], &[&x], GradOptions { create_graph: true, ..Default::default() });
    assert!(first[0].as_ref().is_some_and(Var::requires_grad));
    assert!(no_grad(|| enable_grad(|| &x * 2.0)).requires_grad());
    {
        let _guard = set_grad_enabled(false);
        assert!(!(&x * 2.0).requires_grad());
    }
    assert!(!x.detach().requires_grad());
    x.set_requires_grad(false);
    assert!(!(&x * 2.0).requires_grad());
    x.set_requires_grad(true);

    let f = |x: &[Var]| x[0].sin();
    assert_eq!(checkpoint(f, &[&x]).to_vec::<f64>(), detect_anomaly(|| x.sin()).to_vec::<f64>());
    gradcheck(f, std::slice::from_ref(&x), GradCheck::default()).unwrap();
    let (x, v) = (x.detach(), x.ones_like());
    assert_eq!(jacobian(|x| x.sin(), &x).shape(), [2, 3, 2, 3]);
    assert_eq!(hessian(|x| x.sin().sum_all(), &x).shape(), [2, 3, 2, 3]);
    let product = vjp(f, std::slice::from_ref(&x), &v).1.remove(0);
    assert_eq!(product.to_vec::<f64>(), jvp(f, &[x], &[v]).1.to_vec::<f64>());
}

nn::module! {
    struct Net {
        layer: nn::Linear,
        mean: nn::Buffer,
        training: nn::Training,
    }
}

impl Module for Net {
    fn forward(&self, x: &Var) -> Var {
        self.layer.forward(x) - &*self.mean
    }
}

#[test]
fn layers_and_functions() {
    let (x, w, b) =
        (matrix(), Var::from(Tensor::ones(&[4, 3], DType::F64)), Var::from(Tensor::ones(&[4], DType::F64)));
    assert_eq!(ops::linear(&x, &w, Some(&b)).to_vec::<f64>(), [[4.0; 4], [13.0; 4]].concat());
    let x = Var::from(Tensor::ones(&[1, 3, 8, 8], DType::F32));
    let w = Var::from(Tensor::ones(&[16, 3, 3, 3], DType::F32));
    let b = Var::from(Tensor::ones(&[16], DType::F32));
    let y = ops::conv2d(&x, &w, Some(&b), ConvOptions::default().stride(2).padding(1));
    assert_eq!(y.shape(), [1, 16, 4, 4]);
    assert!(
        y.tensor().is_contiguous_in(MemoryFormat::ChannelsLast) && y.tensor().as_slice::<f32>().is_none()
    );
    assert_eq!(ops::max_pool2d(&y, 2).shape(), [1, 16, 2, 2]);
    assert_eq!(ops::max_pool2d(&y, MaxPoolOptions::new(3).stride(2).padding(1)).shape(), [1, 16, 2, 2]);
    assert_eq!(ops::max_pool2d_with_indices(&y, 2).1.dtype(), DType::I64);
    assert_eq!(y.softmax(-1).to_vec::<f32>(), ops::softmax(&y, -1, None).to_vec::<f32>());

    let x10 = Var::from(with_default_generator(|g| g.normal(&[4, 10], 0.0, 1.0)));
    assert_eq!(ops::relu(&x10).to_vec::<f32>(), ops::relu_(&x10 * 1.0).to_vec::<f32>());
    assert_eq!(ops::gelu(&x10, Approximate::Tanh).shape(), [4, 10]);
    assert_eq!(ops::dropout(&x10, 0.5, true).shape(), [4, 10]);
    let (w, b) = (Var::from(Tensor::ones(&[10], DType::F32)), Var::from(Tensor::zeros(&[10], DType::F32)));
    assert_eq!(ops::layer_norm(&x10, &[10], Some(&w), Some(&b), 1e-5).shape(), [4, 10]);
    assert_eq!(ops::group_norm(&x10, 2, Some(&w), Some(&b), 1e-5).shape(), [4, 10]);
    let q = x10.reshape(&[1, 4, 10]);
    let options = AttentionOptions { is_causal: true, ..Default::default() };
    assert_eq!(ops::scaled_dot_product_attention(&q, &q, &q, options).shape(), [1, 4, 10]);
    let i = Var::from_vec(vec![0i64, 3], &[2]);
    let options = EmbeddingOptions { padding_idx: Some(0), ..Default::default() };
    assert_eq!(ops::embedding(&i, &x10, options).shape(), [2, 10]);
    let options = InterpolateOptions::scale_factor([2.0]).mode(InterpolateMode::Bilinear);
    assert_eq!(ops::interpolate(&x, options).shape(), [1, 3, 16, 16]);
    let (m, v) = (Var::buffer(b.tensor()), Var::buffer(w.tensor()));
    let options = BatchNormOptions { training: true, ..Default::default() };
    assert_eq!(ops::batch_norm(&x10, Some((&m, &v)), Some(&w), Some(&b), options).shape(), [4, 10]);
    let y = Var::from_vec(vec![1i64, 2, 3, 4], &[4]);
    let plain = ops::cross_entropy(&x10, &y, Default::default()).item();
    let options = CrossEntropyOptions { label_smoothing: 0.1, ..Default::default() };
    assert!(ops::cross_entropy(&x10, &y, options).item() != plain);
    assert_eq!(ops::mse_loss(&w, &b, Reduction::Sum).item(), 10.0);

    assert!(nn::Linear::new(784, 10).bias(false).bias.is_none());
    let conv = nn::Conv2d::new(3, 16, 3).padding(Padding::Same);
    let model = nn::sequential![conv, nn::MaxPool2d::new(2), nn::AdaptiveAvgPool2d::new(1)];
    assert_eq!(model.forward(&x).shape(), [1, 16, 1, 1]);
    assert_eq!(nn::Sequential::new().add(nn::MaxPool2d::new(2)).add(nn::Flatten::new()).len(), 2);

    let layers = nn::sequential![
        nn::Conv2d::new(3, 64, 3),
        nn::BatchNorm2d::new(64).momentum(0.2),
        nn::ReLU::new(),
        nn::Dropout::new(0.5),
    ];
    assert_eq!(layers.forward(&x).shape(), [1, 64, 6, 6]);
    assert_eq!(nn::LayerNorm::new(&[10]).forward(&x10).shape(), [4, 10]);
    let lstm = nn::LSTM::new(10, 20).batch_first(true);
    let (output, (h, c)) = lstm.forward_with_state(&x10.unsqueeze(0), None);
    assert_eq!((output.shape(), h.shape(), c.shape()), (&[1, 4, 20][..], &[1, 1, 20][..], &[1, 1, 20][..]));
    let smoothed = nn::CrossEntropyLoss::new().label_smoothing(0.1).forward(&x10, &y);
    assert!(smoothed.item() != plain);
    assert_eq!(nn::models::ResNet::resnet18(10).named_parameters()[0].0, "conv1.weight");

    let mean = nn::Buffer::new(Tensor::zeros(&[2], DType::F32));
    let net = Net { layer: nn::Linear::new(3, 2), mean, training: nn::Training::default() };
    init::kaiming_uniform_(&net.layer.weight, FanMode::FanIn, Nonlinearity::ReLU);
    assert_eq!((net.parameters().len(), net.named_parameters()[0].0.as_str()), (2, "layer.weight"));
    net.eval();
    assert!(!net.training.get());
    net.train();
    assert!(net.training.get());
    net.apply(&mut |module| assert_eq!(module.class(), "Linear"));
    let dir = tempfile::tempdir().unwrap();
    net.state_dict().save(dir.path().join("net.safetensors")).unwrap();
    let state = nn::StateDict::load(dir.path().join("net.safetensors")).unwrap();
    net.load_state_dict(&state, true).unwrap();
    net.to_dtype(DType::F64);
    assert_eq!(net.forward(&matrix()).dtype(), DType::F64);
}

#[test]
fn training() {
    let (model, frozen) = (nn::Linear::new(3, 2), nn::Linear::new(3, 2));
    let options = SGDOptions { lr: 0.01, ..Default::default() };
    let mut optimizer = SGD::new(model.parameters(), 0.1).momentum(0.9).group(frozen.parameters(), options);
    let mut scheduler = StepLR::new(30).gamma(0.1).attach(&mut optimizer);
    let x = Var::from(Tensor::ones(&[4, 3], DType::F32));
    optimizer.zero_grad();
    tape::set_profiling(true);
    let loss = model.forward(&x).square().sum_all();
    loss.backward();
    tape::set_profiling(false);
    assert!(trace(&loss).rows.len() > 3);
    optim::clip_grad_norm_(&model.parameters(), 1.0, 2.0, false);
    optimizer.step();
    scheduler.step(&mut optimizer);
    optimizer.set_lr(0, 0.05);
    let before = optimizer.step_with(&mut || {
        model.zero_grad();
        let loss = model.forward(&x).square().sum_all();
        loss.backward();
        loss
    });
    assert!(before < loss.item());
    assert_eq!([optimizer.lr(0), optimizer.lr(1)], [0.05, 0.01]);

    let [train, rest] = random_split(Arc::new(synthetic::digits(60, 0)), [50, 10], 0);
    assert_eq!(rest.len(), 10);
    let loader = DataLoader::new(train).batch_size(64).shuffle(true).workers(1);
    assert_eq!(loader.iter().map(|batch| batch.len()).sum::<usize>(), 50);
    tape::set_num_threads(2);
    assert_eq!(tape::num_threads(), 2);
}
