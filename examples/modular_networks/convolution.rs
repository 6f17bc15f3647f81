//! A naive convolution, loop by loop, compared with the library's.

use crate::Course;
use crate::common::course::difference;
use std::time::Instant;
use tapegrad::prelude::*;

const PADDING: usize = 3;

/// The result, and the gradients for input and weight given that for the result.
struct Passes {
    y: Var,
    dx: Var,
    dw: Var,
}

/// Every product in the definition, one by one; sums in F64.
fn naive(x: &Var, w: &Var, dy: &Var) -> Passes {
    let [n, c, h, width] = [0, 1, 2, 3].map(|d| x.size(d));
    let [filters, k] = [w.size(0), w.size(2)];
    let (xs, ws, dys) = (x.to_vec::<f64>(), w.to_vec::<f64>(), dy.to_vec::<f64>());
    let [mut y, mut dx, mut dw] = [&dys, &xs, &ws].map(|v| vec![0.0; v.len()]);
    for i in 0..n {
        for f in 0..filters {
            for (oy, ox) in (0..h).flat_map(|oy| (0..width).map(move |ox| (oy, ox))) {
                let out = ((i * filters + f) * h + oy) * width + ox;
                for channel in 0..c {
                    for (ky, kx) in (0..k).flat_map(|ky| (0..k).map(move |kx| (ky, kx))) {
                        let (iy, ix) = (oy + ky, ox + kx);
                        if iy < PADDING || ix < PADDING || iy - PADDING >= h || ix - PADDING >= width {
                            continue;
                        }
                        let input = ((i * c + channel) * h + iy - PADDING) * width + ix - PADDING;
                        let weight = ((f * c + channel) * k + ky) * k + kx;
                        y[out] += xs[input] * ws[weight];
                        dx[input] += dys[out] * ws[weight];
                        dw[weight] += dys[out] * xs[input];
                    }
                }
            }
        }
    }
    Passes {
        y: Var::from_vec(y, dy.shape()),
        dx: Var::from_vec(dx, x.shape()),
        dw: Var::from_vec(dw, w.shape()),
    }
}

fn fast(x: &Var, w: &Var, dy: &Var) -> Passes {
    let (x, w) = (Var::parameter(x.tensor()), Var::parameter(w.tensor()));
    let y = ops::conv2d_with(&x, &w, None, ops::ConvOptions::new().padding(PADDING));
    let options = tape::GradOptions::new().grad_outputs(vec![dy.clone()]);
    let [dx, dw] = <[_; 2]>::try_from(grad_with(&[&y], &[&x, &w], options)).expect("two inputs");
    Passes { y: y.detach(), dx: dx.expect("x is a parameter"), dw: dw.expect("w is a parameter") }
}

pub(crate) fn compare(course: &Course) {
    let images = course.common.either(50, 10);
    let mut random = Generator::manual_seed(course.common.seed);
    let x = Var::from(random.normal(&[images, 3, 32, 32], 0.0, 1.0));
    let w = Var::from(random.normal(&[32, 3, 7, 7], 0.0, 0.1));
    let dy = Var::from(random.normal(&[images, 32, 32, 32], 0.0, 1.0));
    println!("{images} images 3x32x32, 32 filters 7x7; forward and both gradients");
    let start = Instant::now();
    let slow = naive(&x, &w, &dy);
    let slow_ms = start.elapsed().as_secs_f64() * 1e3;
    // Once to warm up, then the fastest of some: other programs may be running.
    fast(&x, &w, &dy);
    let mut fast_ms = f64::INFINITY;
    for _ in 0..10 {
        let start = Instant::now();
        fast(&x, &w, &dy);
        fast_ms = fast_ms.min(start.elapsed().as_secs_f64() * 1e3);
    }
    let quick = fast(&x, &w, &dy);
    println!("naive {slow_ms:.1} ms, fast {fast_ms:.2} ms: {:.0} times as fast", slow_ms / fast_ms);
    println!("largest difference (largest value), the fast one in F32:");
    for (name, a, b) in [
        ("output", &slow.y, &quick.y),
        ("input gradient", &slow.dx, &quick.dx),
        ("weight gradient", &slow.dw, &quick.dw),
    ] {
        println!("  {name:<16} {:.1e} ({:.1})", difference(a, b), a.abs().max_all().item());
    }
}
