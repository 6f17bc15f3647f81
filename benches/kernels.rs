//! Times each kernel that matters at the shapes of the models, and prints the fraction of the machine's peak that it
//! reaches:
//!
//! ```text
//! cargo bench --bench kernels                    # all, some minutes
//! cargo bench --bench kernels -- conv2d/resnet18
//! ```
//!
//! Rates count the work by definition: a convolution's products, each as two operations, and each byte that must be
//! transferred between memory and processor. So Winograd's convolutions exceed the peak, and so do kernels whose
//! operands stay in the caches. The peaks are measured first: fused multiplications and additions in registers, and a
//! sum of two arrays larger than any cache.

use criterion::Criterion;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tapegrad::nn::models::{Gpt, GptConfig, ResNet};
use tapegrad::nn::optim::{AdamW, Optimizer, SGD, clip_factor};
use tapegrad::nn::{GRU, LSTM, RNN};
use tapegrad::ops::kernels::gemm::{Finish, View, matmul};
use tapegrad::ops::{BatchNormOptions, ConvOptions};
use tapegrad::prelude::*;
use tapegrad::tape::kernels::arch::{self, Kernel, MAX_LANES, Vector};
use tapegrad::tape::kernels::parallel::{num_threads, parallel_chunks, parallel_for};

fn main() {
    let short = Duration::from_millis(300);
    let criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(short)
        .measurement_time(3 * short)
        .configure_from_args();
    let mut bench = Bench { criterion, peak: [peak_flops(), peak_bytes()] };
    let [flops, bytes] = bench.peak;
    println!("{} threads, at most {flops:.0} GFLOP/s and {bytes:.1} GB/s", num_threads());
    products(&mut bench);
    convolutions(&mut bench);
    recurrent(&mut bench);
    normalization(&mut bench);
    pooling(&mut bench);
    losses(&mut bench);
    elementwise(&mut bench);
    pieces(&mut bench);
    optimizers(&mut bench);
    bench.criterion.final_summary();
}

/// The minimal work of a kernel.
enum Work {
    /// Additions and multiplications.
    Flops(usize),
    /// Bytes that pass between memory and processor.
    Bytes(usize),
}
use Work::{Bytes, Flops};

struct Bench {
    criterion: Criterion,
    /// In billions a second: operations, bytes.
    peak: [f64; 2],
}

impl Bench {
    /// Times a kernel: `run` takes the time of one call.
    fn time(&mut self, name: &str, work: Work, mut run: impl FnMut() -> Duration) {
        let mut least = Duration::MAX;
        self.criterion.bench_function(name, |b| {
            b.iter_custom(|calls| {
                let mut once = || {
                    let time = run();
                    least = least.min(time);
                    time
                };
                (0..calls).map(|_| once()).sum()
            });
        });
        // A filter may have left it out.
        if least < Duration::MAX {
            let (work, unit, peak) = match work {
                Flops(n) => (n, "GFLOP/s", self.peak[0]),
                Bytes(n) => (n, "GB/s", self.peak[1]),
            };
            let (ms, rate) = (least.as_secs_f64() * 1e3, work as f64 / least.as_secs_f64() / 1e9);
            println!(
                "{:24}at best {ms:.4} ms: {rate:.1} {unit}, {:.0}% of the peak",
                "",
                100.0 * rate / peak
            );
        }
    }

    /// Times an operation without recording.
    fn forward(&mut self, name: &str, work: Work, f: impl Fn() -> Var) {
        self.time(&format!("{name}/forward"), work, || no_grad(|| timed(|| drop(black_box(f())))));
    }

    /// Times the backward pass of an operation, which gives the gradients of those operands that require one.
    fn backward(&mut self, name: &str, work: Work, operands: &[&Var], f: impl Fn() -> Var) {
        self.time(name, work, || {
            let y = f();
            let grad = y.detach();
            let time = timed(|| y.backward_with(&grad, Default::default()));
            operands.iter().for_each(|v| v.zero_grad());
            time
        });
    }
}

fn timed(f: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    f();
    begin.elapsed()
}

/// Numbers from -1 to 1.
fn numbers(shape: &[usize]) -> Tensor {
    let n = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..n).map(|i| (i * 7919 % 2003) as f32 / 1001.5 - 1.0).collect();
    Tensor::from_vec(values, shape)
}

/// Images in the memory format that convolutions work in.
fn images(shape: [usize; 4]) -> Tensor {
    numbers(&shape).to_format(MemoryFormat::ChannelsLast)
}

/// Multiplies and adds in registers: twelve vectors, `rounds` times. Returns the number of operations.
struct MultiplyAndAdd(usize);

impl Kernel for MultiplyAndAdd {
    type Output = usize;

    #[inline(always)]
    fn run<V: Vector>(self) -> usize {
        let (by, add) = (V::splat(black_box(0.999)), V::splat(black_box(1e-3)));
        let mut sums = [add; 12];
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = sum.mul_add(by, add);
            }
        }
        let mut out = [0.0; MAX_LANES];
        for sum in sums {
            // SAFETY: the array has room for a vector.
            unsafe { sum.store(out.as_mut_ptr()) };
            black_box(out);
        }
        self.0 * sums.len() * 2 * V::LANES
    }
}

/// Billions of operations a second on all threads.
fn peak_flops() -> f64 {
    let rate = || {
        let operations = AtomicUsize::new(0);
        let time = timed(|| {
            parallel_for(num_threads(), |_| {
                operations.fetch_add(arch::run(MultiplyAndAdd(1_000_000)), Ordering::Relaxed);
            })
        });
        operations.into_inner() as f64 / time.as_secs_f64() / 1e9
    };
    // The threads have to wake up first.
    let begin = Instant::now();
    let mut best = 0.0f64;
    while begin.elapsed() < Duration::from_millis(500) {
        best = best.max(rate());
    }
    best
}

/// Billions of bytes a second on all threads.
fn peak_bytes() -> f64 {
    const LEN: usize = 32 << 20;
    let (a, b, mut c) = (vec![1.0f32; LEN], vec![2.0f32; LEN], vec![0.0f32; LEN]);
    let chunk = 1 << 20;
    let mut run = || {
        timed(|| {
            parallel_chunks(&mut c, chunk, |task, c| {
                let at = task * chunk..task * chunk + c.len();
                for ((c, a), b) in c.iter_mut().zip(&a[at.clone()]).zip(&b[at]) {
                    *c = a + b;
                }
            })
        })
    };
    let least = (0..5).map(|_| run()).min().expect("several runs");
    (LEN * 12) as f64 / least.as_secs_f64() / 1e9
}

/// (name, m, n, k, whether A and B lie by columns): the linear layers of the models.
const PRODUCTS: [(&str, [usize; 3], bool, bool); 10] = [
    ("mlp 784->256 forward", [64, 256, 784], false, true),
    ("mlp 256->128 input grad", [64, 256, 128], false, false),
    ("mlp 784->256 weight grad", [256, 784, 64], true, false),
    ("mlp, one sample, forward", [1, 256, 784], false, true),
    ("lenet 400->120 forward", [64, 120, 400], false, true),
    ("cnn3 8192->500 forward", [50, 500, 8192], false, true),
    ("cnn3 8192->500 input grad", [50, 8192, 500], false, false),
    ("cnn3 8192->500 weight grad", [500, 8192, 50], true, false),
    ("resnet18 512->10 forward", [128, 10, 512], false, true),
    ("square 1024", [1024, 1024, 1024], false, false),
];

fn products(bench: &mut Bench) {
    for (name, [m, n, k], a_columns, b_columns) in PRODUCTS {
        let (a, b) = (numbers(&[m * k]), numbers(&[k * n]));
        let (a, b) = (a.to_vec::<f32>(), b.to_vec::<f32>());
        let a = if a_columns { View::rows(&a, m).transposed() } else { View::rows(&a, k) };
        let b = if b_columns { View::rows(&b, k).transposed() } else { View::rows(&b, n) };
        let mut c = vec![0.0; m * n];
        bench.time(&format!("matmul/{name}"), Flops(2 * m * n * k), || {
            timed(|| matmul([m, n, k], a, b, black_box(&mut c), n, Finish::default()))
        });
    }
}

/// (model, batch, image, channels of the input and the output, kernel, stride, padding): each layer shape once.
const CONVOLUTIONS: [(&str, usize, usize, [usize; 2], [usize; 3]); 18] = [
    ("lenet", 64, 28, [1, 6], [5, 1, 2]),
    ("lenet", 64, 14, [6, 16], [5, 1, 0]),
    ("cnn3", 50, 32, [3, 32], [7, 1, 3]),
    ("vgg11", 128, 32, [3, 64], [3, 1, 1]),
    ("vgg11", 128, 16, [64, 128], [3, 1, 1]),
    ("vgg11", 128, 8, [128, 256], [3, 1, 1]),
    ("vgg11", 128, 8, [256, 256], [3, 1, 1]),
    ("vgg11", 128, 4, [256, 512], [3, 1, 1]),
    ("vgg11", 128, 4, [512, 512], [3, 1, 1]),
    ("vgg11", 128, 2, [512, 512], [3, 1, 1]),
    ("resnet18", 128, 32, [64, 64], [3, 1, 1]),
    ("resnet18", 128, 32, [64, 128], [3, 2, 1]),
    ("resnet18", 128, 32, [64, 128], [1, 2, 0]),
    ("resnet18", 128, 16, [128, 128], [3, 1, 1]),
    ("resnet18", 128, 16, [128, 256], [3, 2, 1]),
    ("resnet18", 128, 16, [128, 256], [1, 2, 0]),
    ("resnet18", 128, 8, [256, 512], [3, 2, 1]),
    ("resnet18", 128, 8, [256, 512], [1, 2, 0]),
];

/// (model, batch, image, channels of the input and the output, groups, [kernel, stride, padding]): convolutions in groups.
const GROUPED: [(&str, usize, usize, [usize; 2], usize, [usize; 3]); 7] = [
    ("mobilenetv2", 8, 56, [96, 96], 96, [3, 1, 1]),
    ("mobilenetv2", 8, 56, [144, 144], 144, [3, 2, 1]),
    ("mobilenetv2", 8, 7, [960, 960], 960, [3, 1, 1]),
    ("efficientnet", 8, 28, [240, 240], 240, [5, 1, 2]),
    ("resnext", 8, 56, [128, 128], 32, [3, 1, 1]),
    ("resnext", 8, 28, [256, 256], 32, [3, 1, 1]),
    ("alexnet", 8, 27, [96, 256], 2, [5, 1, 2]),
];

fn convolutions(bench: &mut Bench) {
    for (model, batch, size, channels, kernel) in CONVOLUTIONS {
        convolution(bench, "conv2d", model, batch, size, channels, 1, kernel);
    }
    for (model, batch, size, channels, groups, kernel) in GROUPED {
        convolution(bench, "grouped", model, batch, size, channels, groups, kernel);
    }
}

#[allow(clippy::too_many_arguments)]
fn convolution(
    bench: &mut Bench,
    kind: &str,
    model: &str,
    batch: usize,
    size: usize,
    [from, to]: [usize; 2],
    groups: usize,
    [kernel, stride, padding]: [usize; 3],
) {
    let in_groups = if groups == 1 { String::new() } else { format!(" in {groups} groups") };
    let name = format!("{kind}/{model} {from}->{to}{in_groups} {kernel}x{kernel} stride {stride} at {size}");
    let options = ConvOptions::<2>::default().stride(stride).padding(padding).groups(groups);
    let (x, w) = (images([batch, from, size, size]), numbers(&[to, from / groups, kernel, kernel]));
    let out = (size + 2 * padding - kernel) / stride + 1;
    let flops = || Flops(2 * batch * out * out * to * from / groups * kernel * kernel);
    let conv = |x: &Var, w: &Var| ops::conv2d_with(x, w, None, options);
    let constants = (Var::from(x.clone()), Var::from(w.clone()));
    bench.forward(&name, flops(), || conv(&constants.0, &constants.1));
    let x = Var::parameter(x);
    // The first layer of a model does not need the gradient of its input.
    if from > 3 {
        bench.backward(&format!("{name}/input grad"), flops(), &[&x], || conv(&x, &constants.1));
    }
    let w = Var::parameter(w);
    bench.backward(&format!("{name}/weight grad"), flops(), &[&w], || conv(&constants.0, &w));
}

/// Recurrent layers: steps, batch, and size of inputs and states.
fn recurrent(bench: &mut Bench) {
    for (steps, batch, hidden) in [(100, 32, 256), (20, 8, 32)] {
        let layers: [(&str, usize, Box<dyn Forward>); 3] = [
            ("rnn", 1, Box::new(RNN::new(hidden, hidden))),
            ("lstm", 4, Box::new(LSTM::new(hidden, hidden))),
            ("gru", 3, Box::new(GRU::new(hidden, hidden))),
        ];
        for (name, blocks, layer) in layers {
            let name = format!("{name}/{steps} steps of [{batch}, {hidden}]");
            // A product of the inputs and one of the states; backward two of each.
            let flops = 4 * steps * batch * hidden * hidden * blocks;
            let x = Var::parameter(numbers(&[steps, batch, hidden]));
            bench.forward(&name, Flops(flops), || layer.forward(&x));
            let parameters = layer.parameters();
            let operands: Vec<&Var> = parameters.iter().chain([&x]).collect();
            bench.backward(&format!("{name}/backward"), Flops(2 * flops), &operands, || layer.forward(&x));
        }
    }
}

fn normalization(bench: &mut Bench) {
    for shape in [[128, 64, 32, 32], [128, 128, 16, 16], [128, 512, 4, 4]] {
        let (n, channels) = (shape.iter().product::<usize>(), shape[1]);
        let x = Var::parameter(images(shape));
        let weight = Var::parameter(Tensor::ones_with(&[channels], DType::F32));
        let bias = Var::parameter(Tensor::zeros_with(&[channels], DType::F32));
        let options = BatchNormOptions::new().training(true);
        let f = || ops::batch_norm_relu(&x, None, Some(&weight), Some(&bias), None, options);
        let name = format!("batch_norm_relu/{shape:?}");
        // Forward: the input twice, the output. Backward: input, output and gradient twice, the result.
        bench.forward(&name, Bytes(12 * n), f);
        bench.backward(&format!("{name}/backward"), Bytes(28 * n), &[&x, &weight, &bias], f);
    }
}

fn pooling(bench: &mut Bench) {
    for shape in [[128, 64, 32, 32], [64, 6, 28, 28]] {
        let n = shape.iter().product::<usize>();
        let x = Var::parameter(images(shape));
        let name = format!("max_pool2d/{shape:?}");
        // For each window a value and its index, of one byte.
        bench.forward(&name, Bytes(4 * n + 5 * n / 4), || ops::max_pool2d(&x, 2));
        bench.backward(&format!("{name}/backward"), Bytes(4 * n + 5 * n / 4), &[&x], || {
            ops::max_pool2d(&x, 2)
        });
    }
}

fn losses(bench: &mut Bench) {
    for shape in [[128, 10], [4096, 1000]] {
        let n = shape[0] * shape[1];
        let x = Var::parameter(numbers(&shape));
        let target = Var::from(Tensor::from_vec((0..shape[0] as i64).map(|i| i % 10).collect(), &shape[..1]));
        let name = format!("cross_entropy/{shape:?}");
        bench.forward(&name, Bytes(4 * n), || ops::cross_entropy(&x, &target));
        bench.backward(&format!("{name}/backward"), Bytes(8 * n), &[&x], || ops::cross_entropy(&x, &target));
    }
}

fn elementwise(bench: &mut Bench) {
    let shape = [128, 64, 32, 32];
    let n = shape.iter().product::<usize>();
    let (x, y) = (Var::parameter(images(shape)), Var::from(images(shape)));
    bench.forward(&format!("add/{shape:?}"), Bytes(12 * n), || &x + &y);
    for (name, f) in [("relu", ops::relu as fn(&Var) -> Var), ("gelu", |x| ops::gelu(x))] {
        let name = format!("{name}/{shape:?}");
        bench.forward(&name, Bytes(8 * n), || f(&x));
        bench.backward(&format!("{name}/backward"), Bytes(12 * n), &[&x], || f(&x));
    }
}

/// Time that grows with the tensor, not with its square.
fn pieces(bench: &mut Bench) {
    for n in [100, 200, 400] {
        let shape = [n, 32, 1024];
        let x = Var::parameter(numbers(&shape));
        let name = format!("unbind/{shape:?}/backward");
        bench.backward(&name, Bytes(8 * x.numel()), &[&x], || {
            x.unbind(0).into_iter().reduce(|a, b| a + b).expect("some pieces")
        });
    }
}

fn optimizers(bench: &mut Bench) {
    let models: [(&str, Box<dyn Forward>); 2] = [
        ("resnet18", Box::new(ResNet::resnet18(10))),
        ("gpt-small", Box::new(Gpt::new(GptConfig::small(65)))),
    ];
    for (name, model) in models {
        let parameters = model.parameters();
        for p in &parameters {
            p.set_grad(Some(Var::from(numbers(p.shape()))));
        }
        let n = model.num_parameters();
        // Parameters, gradients and momentum are read, parameters and momentum written.
        let mut sgd = SGD::new(parameters.clone(), 1e-3).momentum(0.9).weight_decay(5e-4);
        bench.time(&format!("optimizer/SGD with momentum, {name}"), Bytes(20 * n), || timed(|| sgd.step()));
        let mut adam = AdamW::new(parameters.clone(), 1e-3);
        bench.time(&format!("optimizer/AdamW, {name}"), Bytes(28 * n), || timed(|| adam.step()));
        // The norm reads the gradients once more.
        let clipped = |adam: &mut AdamW| adam.step_scaled(clip_factor(&parameters, 1.0, 2.0).1);
        bench.time(&format!("optimizer/AdamW, clipped, {name}"), Bytes(32 * n), || {
            timed(|| clipped(&mut adam))
        });
    }
}
