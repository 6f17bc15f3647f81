//! Every kind of layer in mixed precision, and as a model in BF16.

use tapegrad_nn::{self as nn, Forward, models};
use tapegrad_ops::InterpolateOptions;
use tapegrad_tape::{DType, Var, autocast};

fn check(name: &str, module: &impl Forward, x: &Var) {
    let exact = module.forward(x);
    let y = autocast(DType::BF16, || module.forward(x));
    assert_eq!(y.shape(), exact.shape(), "{name}");
    y.cast(DType::F32).square().mean_all().backward();
    for (parameter, v) in module.named_parameters() {
        assert_eq!(v.grad().map(|g| g.dtype()), Some(DType::F32), "{name}: the gradient of {parameter}");
        v.zero_grad();
    }
    module.to_dtype(DType::BF16);
    let y = module.forward(&if x.dtype() == DType::F32 { x.cast(DType::BF16) } else { x.clone() });
    assert_eq!(y.dtype(), DType::BF16, "{name} in bfloat16");
    y.cast(DType::F32).square().mean_all().backward();
    for (parameter, v) in module.named_parameters() {
        assert_eq!(v.grad().map(|g| g.dtype()), Some(DType::BF16), "{name}: the gradient of {parameter}");
    }
}

#[test]
fn layers_of_images() {
    let x = Var::randn((2, 4, 8, 8));
    let net = nn::sequential![
        nn::Conv2d::new(4, 8, 3).padding(1),
        nn::BatchNorm2d::new(8),
        nn::ReLU::new(),
        nn::MaxPool2d::new(2),
        nn::Conv2d::new(8, 8, 3).padding(1).groups(8),
        nn::GroupNorm::new(2, 8),
        nn::GELU::new(),
        nn::Dropout::new(0.5),
        nn::ConvTranspose2d::new(8, 4, 2).stride(2),
        nn::PReLU::new(1),
        nn::Upsample::new(InterpolateOptions::scale_factor([2.0])),
        nn::AvgPool2d::new(2),
        nn::AdaptiveAvgPool2d::new(2),
        nn::Flatten::new(),
        nn::Linear::new(16, 5),
        nn::LayerNorm::new(5),
        nn::Softmax::new(-1),
    ];
    check("a stack of layers", &net, &x);
    check("Conv1d", &nn::Conv1d::new(4, 3, 3), &Var::randn((2, 4, 8)));
    check("Conv3d", &nn::Conv3d::new(2, 3, 2), &Var::randn((2, 2, 4, 4, 4)));
    check("LeNet", &models::LeNet5::new(10), &Var::randn((2, 1, 28, 28)));
}

#[test]
fn layers_of_sequences() {
    let x = Var::randn((3, 2, 8));
    check("LSTM", &nn::LSTM::new(8, 6).num_layers(2).dropout(0.1), &x);
    check("LSTM with a projection", &nn::LSTM::new(8, 6).proj_size(3), &x);
    check("GRU", &nn::GRU::new(8, 6).bidirectional(true), &x);
    check("RNN", &nn::RNN::new(8, 6), &x);
    check("MultiheadAttention", &nn::MultiheadAttention::new(8, 2), &x);
    check("TransformerEncoderLayer", &nn::TransformerEncoderLayer::new(8, 2), &x);
    let tokens = Var::from_vec(vec![1i64, 2, 0, 3], &[2, 2]);
    check("Embedding", &nn::Embedding::new(5, 4), &tokens);
}
