//! Times the convolution kernels at the layers of VGG-11 and ResNet-18 on 32x32 images.
//!
//! `cargo bench -p tapegrad-ops --bench conv_kernels -- [batch] [filter]` prints the least time of several runs for
//! forward, input gradient and weight gradient, and the rate in GFLOP/s as the direct method counts them. `-- choice`
//! compares both kernels at small shapes instead, on which `winograd::wins` is based. `-- rows` compares those for
//! kernels seven taps wide, on which `row_winograd::wins` is based. With `TAPEGRAD_NUM_THREADS=1` it counts the time of
//! the thread on its core (on Linux), so that a busy machine disturbs it little.

use std::time::{Duration, Instant};
use tapegrad_ops::kernels::{direct_conv, geometry::Conv2dShape, row_winograd, winograd};
use tapegrad_tape::Tensor;
use tapegrad_tape::kernels::parallel::num_threads;

/// Input channels, output channels, size of the image, of the 3x3 layers with stride 1 and padding 1.
const LAYERS: [(usize, usize, usize); 8] = [
    (64, 64, 32),
    (64, 128, 16),
    (128, 128, 16),
    (128, 256, 8),
    (256, 256, 8),
    (256, 512, 4),
    (512, 512, 4),
    (512, 512, 2),
];

/// The least time of several calls, in milliseconds, or the least mean of several series on one thread.
fn least_ms(mut call: impl FnMut()) -> f64 {
    let alone = num_threads() == 1 && on_core().is_some();
    let (series, least_calls) = if alone { (Duration::from_millis(150), 2) } else { (Duration::ZERO, 1) };
    let time = |clock: Instant, core: Option<Duration>| match (alone, core, on_core()) {
        (true, Some(before), Some(after)) => after - before,
        _ => clock.elapsed(),
    };
    let start = Instant::now();
    let mut least = f64::INFINITY;
    call();
    while start.elapsed() < series.max(Duration::from_millis(200)) {
        let (clock, core) = (Instant::now(), on_core());
        let mut calls = 0;
        while calls < least_calls || time(clock, core) < series {
            call();
            calls += 1;
        }
        least = least.min(time(clock, core).as_secs_f64() * 1e3 / f64::from(calls));
    }
    least
}

/// How long this thread has been running on a core.
fn on_core() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// Pseudorandom numbers between -1 and 1, in memory as tensors have it.
fn noise(len: usize) -> Tensor {
    let next = |s: &mut u64| {
        *s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        Some((*s >> 40) as f32 / (1 << 23) as f32 - 1.0)
    };
    let mut state = len as u64;
    Tensor::from_vec(std::iter::from_fn(|| next(&mut state)).take(len).collect::<Vec<f32>>(), &[len])
}

/// Times a convolution in milliseconds: forward, input gradient and weight gradient, by both kernels.
fn times(s: &Conv2dShape) -> [[f64; 3]; 2] {
    let (x, w, dy) = (noise(s.input_len()), noise(s.weight_len()), noise(s.output_len()));
    let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
    let [x, w, dy] = [&x, &w, &dy].map(|t| t.as_slice::<f32>().expect("contiguous"));
    let [y, dx, dw] = [&mut y, &mut dx, &mut dw].map(|t| t.make_mut::<f32>());
    [
        [
            least_ms(|| winograd::forward(s, x, w, None, y)),
            least_ms(|| winograd::input_grad(s, dy, w, dx)),
            least_ms(|| winograd::weight_grad(s, x, dy, dw)),
        ],
        [
            least_ms(|| direct_conv::forward(s, x, w, None, y)),
            least_ms(|| direct_conv::input_grad(s, dy, w, dx)),
            least_ms(|| direct_conv::weight_grad(s, x, dy, dw)),
        ],
    ]
}

fn shape(n: usize, (c_in, c_out): (usize, usize), size: usize) -> Conv2dShape {
    let (stride, padding, dilation) = ([1, 1], [1, 1], [1, 1]);
    Conv2dShape { n, h: size, w: size, c_in, c_out, groups: 1, kh: 3, kw: 3, stride, padding, dilation }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if args.first().is_some_and(|a| a == "choice") {
        return choice();
    }
    if args.first().is_some_and(|a| a == "rows") {
        return rows(args.get(1).map_or("", |a| a.as_str()));
    }
    let batch = args.first().and_then(|a| a.parse().ok()).unwrap_or(128);
    let filter = args.get(1).map_or("", |a| a.as_str());
    println!("{:>16} {:>9} {:>25} {:>25} {:>25}", "layer", "kernel", "forward", "input grad", "weight grad");
    for (c_in, c_out, size) in LAYERS {
        let name = format!("{c_in}->{c_out} @{size}");
        if !name.contains(filter) {
            continue;
        }
        let s = shape(batch, (c_in, c_out), size);
        for (kernel, times) in ["winograd", "direct"].iter().zip(times(&s)) {
            let cell = |ms: f64| format!("{ms:.2} ms {:.0} GFLOP/s", s.flops() as f64 / ms / 1e6);
            let [fwd, dx, dw] = times.map(cell);
            println!("{name:>16} {kernel:>9} {fwd:>25} {dx:>25} {dw:>25}");
        }
    }
}

/// How many times as fast as the direct kernels Winograd is at small shapes, and whether it is chosen.
fn choice() {
    println!(
        "{:>6} {:>9} {:>5} {:>8} {:>8} {:>8} {:>8}",
        "batch", "channels", "size", "fwd", "dx", "dw", "chosen"
    );
    for (batch, c) in [1, 32].into_iter().flat_map(|n| [8, 16, 32, 64].map(|c| (n, c))) {
        for size in [2, 3, 4, 5, 7, 8, 14] {
            let s = shape(batch, (c, c), size);
            let [winograd, direct] = times(&s);
            let [fwd, dx, dw] = [0, 1, 2].map(|i| direct[i] / winograd[i]);
            println!("{batch:>6} {c:>9} {size:>5} {fwd:>8.2} {dx:>8.2} {dw:>8.2} {:>8}", winograd::wins(&s));
        }
    }
}

/// Milliseconds of forward and weight gradient with 7x7 kernels and padding 3, by rows and directly.
fn rows(filter: &str) {
    println!(
        "{:>6} {:>9} {:>5} {:>17} {:>17} {:>8}",
        "batch", "channels", "size", "fwd rows direct", "dw rows direct", "chosen"
    );
    for (n, size) in [(50, 32), (50, 12), (64, 8), (64, 5), (1, 32), (1, 14), (4, 112)] {
        for (c_in, c_out) in [(3, 32), (3, 16), (3, 8), (1, 32), (1, 16), (4, 64), (8, 32), (32, 32)] {
            let name = format!("{n} {c_in}->{c_out} @{size}");
            if !name.contains(filter) {
                continue;
            }
            let s = Conv2dShape { kh: 7, kw: 7, padding: [3, 3], ..shape(n, (c_in, c_out), size) };
            let (x, w, dy) = (noise(s.input_len()), noise(s.weight_len()), noise(s.output_len()));
            let (mut y, mut dw) = (dy.clone(), w.clone());
            let [x, w, dy] = [&x, &w, &dy].map(|t| t.as_slice::<f32>().expect("contiguous"));
            let [y, dw] = [&mut y, &mut dw].map(|t| t.make_mut::<f32>());
            let [fwd, direct_fwd] = [row_winograd::forward, direct_conv::forward]
                .map(|forward| least_ms(|| forward(&s, x, w, None, y)));
            let [grad, direct_grad] = [row_winograd::weight_grad, direct_conv::weight_grad]
                .map(|weight_grad| least_ms(|| weight_grad(&s, x, dy, dw)));
            println!(
                "{n:>6} {:>9} {size:>5} {fwd:>8.3} {direct_fwd:>8.3} {grad:>8.3} {direct_grad:>8.3} {:>8}",
                format!("{c_in}->{c_out}"),
                row_winograd::wins(&s)
            );
        }
    }
}
