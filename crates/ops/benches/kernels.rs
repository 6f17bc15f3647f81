//! Times the kernels at the shapes that training steps use: `cargo bench -p tapegrad-ops -- [section]...`
//!
//! Sections: `tile` (the register tile at each height), `conv` (direct convolution at the layers of VGG, ResNet, LeNet
//! and a small three-layer network), `gemm` (matrix products, F32 next to the `gemm` crate). A number sets the batch of
//! the large layers. Each figure is the best of many runs, so a busy machine disturbs it little.

use std::time::Instant;
use tapegrad_ops::kernels::direct_conv;
use tapegrad_ops::kernels::gemm::{Finish, Real, View, matmul};
use tapegrad_ops::kernels::geometry::Conv2dShape;
use tapegrad_ops::kernels::microkernel::{
    COLUMNS, Epilogue, Left, Output, ROWS, Segment, Tile, strided_rows,
};
use tapegrad_tape::kernels::parallel::{num_threads, parallel_chunks};

fn main() {
    let sections: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let batch = sections.iter().find_map(|s| s.parse().ok()).unwrap_or(128);
    let wanted = |name: &str| sections.is_empty() || sections.iter().any(|s| s == name);
    if wanted("tile") {
        tiles();
    }
    if wanted("conv") {
        convolutions(batch);
    }
    if wanted("gemm") {
        products();
    }
}

/// The best time of `f` in seconds, over at least 5 runs and 0.1 seconds.
fn best(mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    let mut runs = 0;
    while runs < 5 || start.elapsed().as_secs_f64() < 0.1 {
        let run = seconds();
        f();
        best = best.min(seconds() - run);
        runs += 1;
    }
    best
}

/// A clock. With one thread it is the time that this thread has computed, so that other programs on the machine
/// count less.
fn seconds() -> f64 {
    let clock = if num_threads() == 1 { libc::CLOCK_THREAD_CPUTIME_ID } else { libc::CLOCK_MONOTONIC };
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists and the result has its place.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 2003) as f32 / 1001.5 - 1.0).collect()
}

/// GFLOP/s of each tile height, its operands in the first cache levels.
fn tiles() {
    println!("tile: GFLOP/s at k = 576");
    println!(
        "{:>6} {:>10} {:>10} {:>12} {:>12}",
        "height", "rows x 32", "rows x 16", "columns x 32", "columns x 16"
    );
    let k = 576;
    let a = numbers(ROWS * k);
    let b = numbers(k * COLUMNS);
    let mut c = vec![0.0f32; ROWS * COLUMNS];
    for m in 1..=ROWS {
        let mut line = format!("{m:>6}");
        for left in [Left::Rows, Left::Columns(ROWS)] {
            for n in [32, 16] {
                let stride = if left == Left::Rows { k } else { 1 };
                let tile = Tile {
                    m,
                    n,
                    segments: &[Segment::whole(k)],
                    left,
                    rows: &[strided_rows(a.as_ptr(), stride)],
                    b: b.as_ptr(),
                    b_step: COLUMNS,
                    ahead: 0,
                    c: c.as_mut_ptr(),
                    output: Output::Strided(COLUMNS),
                    epilogue: Epilogue::STORE,
                };
                let seconds = best(|| {
                    for _ in 0..100 {
                        // SAFETY: the vectors hold 12 rows, 32 columns and k steps.
                        unsafe { tile.run() };
                    }
                });
                line += &format!(" {:>10.1}", (100 * 2 * m * n * k) as f64 / seconds / 1e9);
            }
        }
        println!("{line}");
    }
}

/// (name, batch, image size, input channels, output channels, kernel, stride, padding)
type Layer = (&'static str, usize, usize, usize, usize, usize, usize, usize);

const LAYERS: &[Layer] = &[
    ("3->64 @32", 128, 32, 3, 64, 3, 1, 1),
    ("3->32 7x7 @32", 50, 32, 3, 32, 7, 1, 3),
    ("1->6 5x5 @28", 64, 28, 1, 6, 5, 1, 2),
    ("6->16 5x5 @14", 64, 14, 6, 16, 5, 1, 0),
    ("64->64 @32", 128, 32, 64, 64, 3, 1, 1),
    ("128->128 @16", 128, 16, 128, 128, 3, 1, 1),
    ("256->256 @8", 128, 8, 256, 256, 3, 1, 1),
    ("512->512 @4", 128, 4, 512, 512, 3, 1, 1),
    ("512->512 @2", 128, 2, 512, 512, 3, 1, 1),
    ("64->128 @32 s2", 128, 32, 64, 128, 3, 2, 1),
    ("128->256 @16 s2", 128, 16, 128, 256, 3, 2, 1),
    ("256->512 @8 s2", 128, 8, 256, 512, 3, 2, 1),
    ("64->128 1x1 @32 s2", 128, 32, 64, 128, 1, 2, 0),
    ("128->256 1x1 @16 s2", 128, 16, 128, 256, 1, 2, 0),
    ("256->512 1x1 @8 s2", 128, 8, 256, 512, 1, 2, 0),
];

/// Milliseconds and GFLOP/s (padding counted as work) of each pass of each layer.
fn convolutions(batch: usize) {
    println!("direct convolution: ms (GFLOP/s), {} threads", num_threads());
    println!("{:>20} {:>16} {:>16} {:>16}", "layer", "forward", "input gradient", "weight gradient");
    for &(name, n, size, c_in, c_out, k, stride, padding) in LAYERS {
        let s = Conv2dShape {
            n: if n == 128 { batch } else { n },
            h: size,
            w: size,
            c_in,
            c_out,
            groups: 1,
            kh: k,
            kw: k,
            stride: [stride; 2],
            padding: [padding; 2],
            dilation: [1; 2],
        };
        let (x, w, dy) = (numbers(s.input_len()), numbers(s.weight_len()), numbers(s.output_len()));
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        let times = [
            best(|| direct_conv::forward(&s, &x, &w, None, &mut y)),
            best(|| direct_conv::input_grad(&s, &dy, &w, &mut dx)),
            best(|| direct_conv::weight_grad(&s, &x, &dy, &mut dw)),
        ];
        let cells = times.map(|t| format!("{:>8.3} ({:>5.0})", t * 1e3, s.flops() as f64 / t / 1e9));
        println!("{name:>20} {}", cells.join(" "));
    }
}

/// (name, m, n, k, whether A and B lie by columns)
type Product = (&'static str, [usize; 3], bool, bool);

const PRODUCTS: &[Product] = &[
    ("mlp 1 forward", [64, 256, 784], false, true),
    ("mlp 2 forward", [64, 128, 256], false, true),
    ("mlp 3 forward", [64, 10, 128], false, true),
    ("mlp 2 input grad", [64, 256, 128], false, false),
    ("mlp 3 input grad", [64, 128, 10], false, false),
    ("mlp 1 weight grad", [256, 784, 64], true, false),
    ("mlp 2 weight grad", [128, 256, 64], true, false),
    ("mlp 3 weight grad", [10, 128, 64], true, false),
    ("batch 1 forward 1", [1, 256, 784], false, true),
    ("batch 1 forward 2", [1, 128, 256], false, true),
    ("batch 1 input grad", [1, 256, 128], false, false),
    ("batch 1 weight grad", [256, 784, 1], true, false),
    ("lenet 1 forward", [64, 120, 400], false, true),
    ("lenet 1 input grad", [64, 400, 120], false, false),
    ("lenet 1 weight grad", [120, 400, 64], true, false),
    ("cnn3 1 forward", [50, 500, 8192], false, true),
    ("cnn3 1 input grad", [50, 8192, 500], false, false),
    ("cnn3 1 weight grad", [500, 8192, 50], true, false),
    ("vgg classifier", [128, 512, 512], false, true),
    ("square 256", [256, 256, 256], false, false),
    ("square 500", [500, 500, 500], false, false),
    ("square 1024", [1024, 1024, 1024], false, false),
    ("square 1024 A B^T", [1024, 1024, 1024], false, true),
    ("square 1024 A^T B", [1024, 1024, 1024], true, false),
    ("tall 16384x64x64", [16384, 64, 64], false, false),
    ("transformer up", [2048, 1536, 384], false, true),
    ("transformer down", [2048, 384, 1536], false, true),
    ("up, input grad", [2048, 384, 1536], false, false),
    ("up, weight grad", [1536, 384, 2048], true, false),
    ("short batch up", [512, 1536, 384], false, true),
    ("bert up", [4096, 3072, 768], false, true),
    ("projection", [384, 384, 384], false, true),
    ("attention scores", [128, 128, 64], false, true),
    ("attention values", [128, 64, 128], false, false),
    ("one token up", [1, 1536, 384], false, true),
    ("one token down", [1, 384, 1536], false, true),
];

/// Microseconds and GFLOP/s of products; those in F32 next to those of the crate `gemm`.
fn products() {
    println!("matrix products: microseconds (GFLOP/s), {} threads", num_threads());
    println!(
        "{:>20} {:>18} {:>20} {:>20} {:>6} {:>20}",
        "", "m x n x k", "f32", "gemm-f32", "ratio", "f64 (gemm-f64)"
    );
    for &(name, [m, n, k], a_columns, b_columns) in PRODUCTS {
        let (a, b) = (numbers(m * k), numbers(k * n));
        let by_columns = (a_columns, b_columns);
        let own = time_product([m, n, k], &a, &b, by_columns);
        let of_crate = time_crate([m, n, k], &a, &b, by_columns);
        let double = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let double = time_product([m, n, k], &double(&a), &double(&b), by_columns);
        let show = |time: f64| format!("{:>12.1} ({:>5.0})", time * 1e6, (2 * m * n * k) as f64 / time / 1e9);
        let (size, ratio) = (format!("{m}x{n}x{k}"), own / of_crate);
        let [own, of_crate, double] = [own, of_crate, double].map(show);
        println!("{name:>20} {size:>18} {own:>20} {of_crate:>20} {ratio:>6.2} {double:>20}");
    }
}

fn operands<'a, T>(
    [m, n, k]: [usize; 3],
    a: &'a [T],
    b: &'a [T],
    by_columns: (bool, bool),
) -> [View<'a, T>; 2] {
    let view = |data, rows, columns, by_columns| match by_columns {
        true => View::rows(data, rows).transposed(),
        false => View::rows(data, columns),
    };
    [view(a, m, k, by_columns.0), view(b, k, n, by_columns.1)]
}

fn time_product<T: Real>(size: [usize; 3], a: &[T], b: &[T], by_columns: (bool, bool)) -> f64 {
    let [m, n, _] = size;
    let [a, b] = operands(size, a, b, by_columns);
    let mut c = vec![T::ZERO; m * n];
    best(|| matmul(size, a, b, &mut c, n, Finish::default()))
}

/// The crate's product, its rows cut between threads as its own would be. It stores columns, so it is asked for the
/// transposed product.
fn time_crate(size: [usize; 3], a: &[f32], b: &[f32], by_columns: (bool, bool)) -> f64 {
    let [m, n, k] = size;
    let [a, b] = operands(size, a, b, by_columns);
    let mut c = vec![0.0f32; m * n];
    let gemm = gemm_f32::gemm::f32::get_gemm_fn();
    let share = m.div_ceil(num_threads()).next_multiple_of(8);
    best(|| {
        parallel_chunks(&mut c, share * n, |task, c| {
            let rows = c.len() / n;
            // SAFETY: the matrices have the sizes that their strides say, and each task has its own rows of C.
            unsafe {
                gemm(
                    n,
                    rows,
                    k,
                    c.as_mut_ptr(),
                    n as isize,
                    1,
                    false,
                    b.data.as_ptr(),
                    b.row as isize,
                    b.column as isize,
                    a.data.as_ptr().add(task * share * a.row),
                    a.row as isize,
                    a.column as isize,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    gemm_common::Parallelism::None,
                );
            }
        });
    })
}
