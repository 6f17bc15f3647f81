//! Operations that subtract a mean, in F32, checked against F64 on data far from zero.
//!
//! # The bound
//!
//! Let `u = 2^-24` be the rounding of F32, `m` and `s` the exact mean and deviation of a group, `z = (x - m) / s`, `e`
//! the distance of the center `c` that the kernels subtract from `m`, and `n` the most F32 additions on an element's
//! way into a sum (`TERMS`; above them sums are F64).
//!
//! - `x - c` is exact where `c` is near the elements, and else within `u`.
//! - The squares `(x - c)^2` sum to `count (s^2 + e^2)`, within `(n + 3) u` of that; taking off `count e^2` leaves the
//!   variance within `F (n + 3) u`, relatively, where `F = 1 + (e / s)^2`, and `1 / s` within half of it, `E`.
//! - The mean of `x - c`, by which `c` is corrected, is within `(n + 1) u sqrt(F) s`.
//! - So `z` is within `Z = E |z| + ((n + 1) sqrt(F) + 4) u`, whatever the offset.
//! - The gradient for `x`, with `G` the largest `|g w|`, is `(g w - mean(g w) - z mean(g w z)) / s`. Its three parts are
//!   within `E`, `n u` and `n u + Z` of `G / s`, the last times `1 + |z|`.
//! - The gradients for weight and bias are sums of `g z` and `g`: within `Z + n u |z|` and `n u` of the sum of `G`.
//!
//! `e` is the rounding of the mean, `u |m|`, or the distance of a group's first element, of which no more than 8
//! deviations are let pass (more make a second pass). Under `create_graph` it is the error of a mean that was summed
//! in F32, `(n + 1) u |m|`.

use proptest::prelude::*;
use tapegrad_ops::BatchNormOptions;
use tapegrad_tape::{BackwardOptions, DType, MemoryFormat, Tensor, Var};

const U: f64 = 1.0 / (1u64 << 24) as f64;
const TERMS: f64 = 144.0;

/// An operation on an input, a weight and a bias.
struct Case {
    name: &'static str,
    f: Box<dyn Fn(&Var, &Var, &Var) -> Var>,
    shape: Vec<usize>,
    /// The number of elements of weight and bias.
    affine: usize,
    /// What is normalized together with an element, and the place of its weight.
    place: Box<dyn Fn(usize) -> (usize, usize)>,
    format: MemoryFormat,
}

fn cases() -> Vec<Case> {
    let batch_norm = |x: &Var, w: &Var, b: &Var| {
        let options = BatchNormOptions::new().training(true);
        tapegrad_ops::batch_norm_with(x, None, Some(w), Some(b), options)
    };
    let image = vec![3, 4, 5, 7];
    let channel = |i: usize| (i / 35 % 4, i / 35 % 4);
    let format = MemoryFormat::Contiguous;
    let case = |name, f, shape, affine, place| Case { name, f, shape, affine, place, format };
    vec![
        case(
            "layer_norm",
            Box::new(|x, w, b| tapegrad_ops::layer_norm(x, &[50], Some(w), Some(b))),
            vec![5, 50],
            50,
            Box::new(|i| (i / 50, i % 50)),
        ),
        case(
            "group_norm",
            Box::new(|x, w, b| tapegrad_ops::group_norm(x, 2, Some(w), Some(b))),
            image.clone(),
            4,
            Box::new(|i| (i / 70, i / 35 % 4)),
        ),
        case(
            "instance_norm",
            Box::new(|x, w, b| tapegrad_ops::instance_norm(x, None, Some(w), Some(b))),
            image.clone(),
            4,
            Box::new(|i| (i / 35, i / 35 % 4)),
        ),
        case("batch_norm", Box::new(batch_norm), image.clone(), 4, Box::new(channel)),
        Case {
            format: MemoryFormat::ChannelsLast,
            ..case("batch_norm, channels last", Box::new(batch_norm), image.clone(), 4, Box::new(channel))
        },
        case("batch_norm of vectors", Box::new(batch_norm), vec![60, 4], 4, Box::new(|i| (i % 4, i % 4))),
        case(
            "batch_norm_relu",
            Box::new(|x, w, b| {
                // The bias keeps all elements on one side of the corner.
                let options = BatchNormOptions::new().training(true);
                tapegrad_ops::batch_norm_relu(x, None, Some(w), Some(&(b + 100.0)), None, options)
            }),
            image,
            4,
            Box::new(channel),
        ),
    ]
}

/// Numbers between -1 and 1.
fn noise(n: usize, seed: u64) -> Vec<f64> {
    let mut g = tapegrad_tape::Generator::manual_seed(seed);
    g.uniform(&[n], -1.0, 1.0).to_vec::<f64>()
}

/// Elements around an offset for each group, up to `10^power` away from zero on either side.
fn data(case: &Case, power: f64, spread: f64, seed: u64) -> Tensor {
    let n: usize = case.shape.iter().product();
    let (values, offsets) = (noise(n, seed), noise(n, seed ^ 1));
    let value = |i: usize| {
        let offset = offsets[(case.place)(i).0];
        (offset.signum() * 10f64.powf(power * offset.abs()) + spread * values[i]) as f32
    };
    Tensor::from_vec((0..n).map(value).collect(), &case.shape).to_format(case.format)
}

struct Results {
    y: Vec<f64>,
    gradients: [Vec<f64>; 3],
}

/// The value and the gradients for all three, in a type.
fn results(case: &Case, inputs: &[Tensor; 4], dtype: DType, create_graph: bool) -> Results {
    let [x, w, b, g] = inputs.each_ref().map(|t| t.cast(dtype));
    let [x, w, b] = [x, w, b].map(Var::parameter);
    let y = (case.f)(&x, &w, &b);
    y.backward_with(&Var::from(g), BackwardOptions::new().create_graph(create_graph));
    Results { y: y.to_vec::<f64>(), gradients: [x, w, b].map(|v| v.grad().unwrap().to_vec::<f64>()) }
}

/// Mean, and deviation with `eps` in it, of each group.
fn statistics(case: &Case, x: &[f64], eps: f64) -> Vec<(f64, f64)> {
    let mut groups: Vec<Vec<f64>> = vec![];
    for (i, &x) in x.iter().enumerate() {
        let group = (case.place)(i).0;
        groups.resize(groups.len().max(group + 1), vec![]);
        groups[group].push(x);
    }
    let of = |x: &Vec<f64>| {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        (mean, (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n + eps).sqrt())
    };
    groups.iter().map(of).collect()
}

/// The bounds of the module's text: `E`, and `Z` for an element.
fn bounds(z: f64, largest: f64, off: f64) -> (f64, f64) {
    let factor = 1.0 + largest.powi(2).min(63.0) + off.powi(2);
    let e = factor * (TERMS + 3.0) / 2.0 * U;
    (e, e * z.abs() + ((TERMS + 1.0) * factor.sqrt() + 4.0) * U)
}

fn check(case: &Case, power: f64, spread: f64, seed: u64, create_graph: bool) {
    let x = data(case, power, spread, seed);
    let affine = |seed| Tensor::from_vec::<f64>(noise(case.affine, seed), &[case.affine]).cast(DType::F32);
    let g = Tensor::from_vec::<f64>(noise(x.numel(), seed ^ 4), &case.shape).cast(DType::F32);
    let inputs = [x, affine(seed ^ 2), affine(seed ^ 3), g];
    let exact = results(case, &inputs, DType::F64, create_graph);
    let found = results(case, &inputs, DType::F32, create_graph);

    let [x, w, b, g] = inputs.each_ref().map(|t| t.to_vec::<f64>());
    let groups = statistics(case, &x, 1e-5);
    let z = |i: usize| {
        let (mean, deviation) = groups[(case.place)(i).0];
        (x[i] - mean) / deviation
    };
    let largest = (0..x.len()).map(|i| z(i).abs()).fold(0.0, f64::max);
    let magnitude = g.iter().fold(0.0, |a: f64, g| a.max(g.abs()));
    let mut sums = vec![0.0; case.affine];
    let rounding = if create_graph { (TERMS + 1.0) * U } else { U };
    for i in 0..x.len() {
        let (group, channel) = (case.place)(i);
        let (mean, deviation) = groups[group];
        let off = rounding * mean.abs() / deviation;
        // The value never depends on a graph.
        let (_, near) = bounds(z(i), largest, U * mean.abs() / deviation);
        let error = (found.y[i] - exact.y[i]).abs();
        let bound = near * w[channel].abs() + 2.0 * U * (b[channel].abs() + exact.y[i].abs());
        assert!(error <= bound, "{} of {}: error {error:e}, bound {bound:e}", case.name, x[i]);

        let (e, worst) = bounds(largest, largest, off);
        let per = magnitude / deviation;
        let bound = per * (1.0 + largest) * (2.0 * e + 2.0 * TERMS * U + 2.0 * worst);
        let error = (found.gradients[0][i] - exact.gradients[0][i]).abs();
        assert!(
            error <= bound,
            "the gradient of {} at {}: error {error:e}, bound {bound:e}",
            case.name,
            x[i]
        );
        sums[channel] += magnitude * (worst + TERMS * U * (1.0 + largest));
    }
    for (which, name) in [(1, "weight"), (2, "bias")] {
        for c in 0..case.affine {
            let error = (found.gradients[which][c] - exact.gradients[which][c]).abs();
            assert!(error <= sums[c], "{}, {name}: error {error:e}, bound {:e}", case.name, sums[c]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn normalizations(power in 0f64..6.0, spread in -3f64..1.0, seed: u64) {
        for case in cases() {
            for create_graph in [false, true] {
                check(&case, power, 10f64.powf(spread), seed, create_graph);
            }
        }
    }

    /// The variance is within `F (n + 3) u + 2 u`, relatively, the deviation within half of that. The mean is rounded once, and
    /// within `(n + 1) u` of the mean distance from the first element, at most `1 + sqrt(count)` deviations. The gradient of the
    /// variance, `2 g (x - m) / (count - 1)`, has six roundings and what the mean is off by; that of the deviation has the error
    /// of the deviation besides.
    #[test]
    fn variances(power in 0f64..6.0, spread in -3f64..1.0, seed: u64, dim in 0usize..2) {
        let case = Case {
            name: "var",
            f: Box::new(|x, _, _| x.clone()),
            shape: vec![40, 30],
            affine: 1,
            place: Box::new(move |i| (if dim == 0 { i % 30 } else { i / 30 }, 0)),
            format: MemoryFormat::Contiguous,
        };
        let x = data(&case, power, 10f64.powf(spread), seed);
        let dims = [dim as isize];
        let n = x.shape()[dim] as f64;
        let groups = statistics(&case, &x.to_vec::<f64>(), 0.0);
        for create_graph in [false, true] {
            let gradient = |f: &dyn Fn(&Var) -> Var, dtype| {
                let x = Var::parameter(x.cast(dtype));
                let y = f(&x);
                let options = BackwardOptions::new().create_graph(create_graph);
                y.backward_with(&Var::from(Tensor::ones_with(y.shape(), dtype)), options);
                (y.to_vec::<f64>(), x.grad().unwrap().to_vec::<f64>())
            };
            for root in [false, true] {
                let f = |x: &Var| if root { x.std_mean(&dims).0 } else { x.var(&dims) };
                let ((y, dx), (exact, exact_dx)) = (gradient(&f, DType::F32), gradient(&f, DType::F64));
                for (c, (mean, deviation)) in groups.iter().enumerate() {
                    if *deviation == 0.0 {
                        // Rounding has made all elements equal.
                        let gradients = (0..dx.len()).filter(|&i| (case.place)(i).0 == c).map(|i| dx[i]);
                        prop_assert!(y[c] == 0.0 && gradients.into_iter().all(|g| g == 0.0));
                        continue;
                    }
                    let factor = 1.0 + (U * mean.abs() / deviation).powi(2);
                    let relative = (factor * (TERMS + 3.0) + 2.0) * U;
                    let bound = relative * exact[c] * if root { 0.5 } else { 1.0 };
                    prop_assert!((y[c] - exact[c]).abs() <= bound, "{} {} {bound:e}", y[c], exact[c]);
                    let elements = (0..dx.len()).filter(|&i| (case.place)(i).0 == c);
                    let largest = elements.clone().fold(0.0, |a: f64, i| a.max(exact_dx[i].abs()));
                    // The mean is found by the distances from the first element, or from the rounded mean.
                    let reach = if create_graph { factor.sqrt() } else { 1.0 + n.sqrt() };
                    let off = (TERMS + 1.0) * U * reach;
                    let per = if root { 1.0 / (n - 1.0) } else { 2.0 * deviation / (n - 1.0) };
                    let bound = (6.0 * U + if root { relative } else { 0.0 }) * largest + off * per;
                    for i in elements {
                        let error = (dx[i] - exact_dx[i]).abs();
                        prop_assert!(error <= bound, "root {root}, graph {create_graph}: {error:e} > {bound:e}");
                    }
                }
            }
        }
        let means = Var::from(x.clone()).var_mean(&dims).1.to_vec::<f64>();
        for ((mean, deviation), found) in groups.iter().zip(means) {
            // Rounded once, and the mean of distances from the first element, at most `sqrt(count)` deviations away.
            let bound = U * mean.abs() + (TERMS + 2.0) * U * deviation * (1.0 + n.sqrt());
            prop_assert!((mean - found).abs() <= bound);
        }
    }
}

/// The exact first elements of normalized rows `offset + i / 1000`, `i < 16`, as rounded to F32.
#[test]
fn a_row_of_thousandths() {
    for (offset, exact) in [(0.0, -1.341641), (1e3, -1.341508), (1e4, -1.331333)] {
        let row = |sign: f32| (0..16).map(|i| sign * (offset + i as f32 / 1000.0)).collect::<Vec<f32>>();
        let x = Var::from_vec([row(1.0), row(-1.0)].concat(), &[2, 16]);
        let y = tapegrad_ops::layer_norm(&x, &[16], None, None).select(1, 0).to_vec::<f64>();
        assert!((y[0] - exact).abs() < 1e-5 && (y[1] + exact).abs() < 1e-5, "{offset}: {y:?}");
    }
}

/// A first element far from all others: its distance must not become the scale of the rounding errors.
#[test]
fn a_first_element_unlike_the_others() {
    let n = 1 << 16;
    for format in [MemoryFormat::Contiguous, MemoryFormat::ChannelsLast] {
        let mut values: Vec<f32> = noise(n, 1).iter().map(|v| 3000.0 + *v as f32).collect();
        values[0] = 0.0;
        let x = Var::from(Tensor::from_vec(values, &[1, 1, 256, 256]).to_format(format));
        let options = BatchNormOptions::new().training(true);
        let of = |x: &Var| tapegrad_ops::batch_norm_with(x, None, None, None, options).to_vec::<f64>();
        for (found, exact) in of(&x).iter().zip(of(&x.cast(DType::F64))) {
            assert!((found - exact).abs() <= 1e-5 * (1.0 + exact.abs()), "{found} {exact}");
        }
    }
}
