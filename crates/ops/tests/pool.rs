//! Pooling against its definition, and its derivatives against finite differences.

use proptest::prelude::*;
use tapegrad_ops::{
    AvgPoolOptions, MaxPoolOptions, adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d,
    max_pool2d_with_indices,
};
use tapegrad_tape::{DType, MemoryFormat, Tensor, Var, gradcheck, gradgradcheck};

/// Numbers that are all different, in an order that depends on the salt.
fn tensor(shape: &[usize], salt: u64) -> Tensor {
    let n: usize = shape.iter().product();
    let mut order: Vec<usize> = (0..n).collect();
    tapegrad_tape::Generator::manual_seed(salt).shuffle(&mut order);
    Tensor::from_vec(order.into_iter().map(|v| v as f64 / 10.0 - 3.0).collect(), shape)
}

/// The definition: for each output, the inputs of its window with their flat index, and the count with padding.
fn windows(h: usize, w: usize, o: &MaxPoolOptions<2>) -> (Vec<(Vec<usize>, usize)>, [usize; 2]) {
    let size = |n: usize, d: usize| {
        let room = n + 2 * o.padding[d] - o.dilation[d] * (o.kernel_size[d] - 1) - 1;
        let mut out = if o.ceil_mode { room.div_ceil(o.stride[d]) } else { room / o.stride[d] } + 1;
        if o.ceil_mode && (out - 1) * o.stride[d] >= n + o.padding[d] {
            out -= 1;
        }
        out
    };
    let (oh, ow) = (size(h, 0), size(w, 1));
    let mut all = Vec::new();
    for a in 0..oh {
        for b in 0..ow {
            let mut taps = Vec::new();
            let mut padded = 0;
            for u in 0..o.kernel_size[0] {
                for v in 0..o.kernel_size[1] {
                    let r = (a * o.stride[0] + u * o.dilation[0]) as isize - o.padding[0] as isize;
                    let s = (b * o.stride[1] + v * o.dilation[1]) as isize - o.padding[1] as isize;
                    if r < (h + o.padding[0]) as isize && s < (w + o.padding[1]) as isize {
                        padded += 1;
                    }
                    if (0..h as isize).contains(&r) && (0..w as isize).contains(&s) {
                        taps.push(r as usize * w + s as usize);
                    }
                }
            }
            all.push((taps, padded));
        }
    }
    (all, [oh, ow])
}

fn options() -> impl Strategy<Value = MaxPoolOptions<2>> {
    ([1usize..4, 1usize..4], [1usize..4, 1usize..4], [1usize..3, 1usize..3], any::<[bool; 3]>()).prop_map(
        |(kernel_size, stride, dilation, [a, b, ceil_mode])| MaxPoolOptions {
            kernel_size,
            stride,
            dilation,
            padding: [if a { kernel_size[0] / 2 } else { 0 }, if b { kernel_size[1] / 2 } else { 0 }],
            ceil_mode,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn max_pool_is_its_definition(o in options(), n in 1usize..3, c in 1usize..20, h in 5usize..9, w in 5usize..9, last in any::<bool>()) {
        let mut x = tensor(&[n, c, h, w], 1);
        if last {
            x = x.to_format(MemoryFormat::ChannelsLast);
        }
        let (windows, [oh, ow]) = windows(h, w, &o);
        let (y, index) = max_pool2d_with_indices(&x.clone().into(), o);
        prop_assert_eq!(y.shape(), &[n, c, oh, ow][..]);
        let (xs, ys, index) = (x.to_vec::<f64>(), y.to_vec::<f64>(), index.to_vec::<i64>());
        for (k, (&y, &i)) in ys.iter().zip(&index).enumerate() {
            let plane = &xs[k / (oh * ow) * h * w..][..h * w];
            let (taps, _) = &windows[k % (oh * ow)];
            let max = taps.iter().map(|&t| plane[t]).fold(f64::NEG_INFINITY, f64::max);
            prop_assert_eq!((y, plane[i as usize]), (max, max));
        }
        // The gradient goes where the index points, in both types: they lie in vectors differently.
        for dtype in [DType::F64, DType::F32] {
            let leaf = Var::parameter(x.cast(dtype));
            let g = tensor(&[n, c, oh, ow], 5);
            (max_pool2d(&leaf, o) * Var::from(g.cast(dtype))).sum_all().backward();
            let mut expected = vec![0.0; n * c * h * w];
            for (k, (g, &i)) in g.to_vec::<f64>().iter().zip(&index).enumerate() {
                expected[k / (oh * ow) * h * w + i as usize] += g;
            }
            let dx = leaf.grad().unwrap().to_vec::<f64>();
            prop_assert!(dx.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-3));
        }
        let half = max_pool2d(&x.cast(DType::F32).into(), o).to_vec::<f32>();
        prop_assert!(half.iter().zip(&ys).all(|(&a, &b)| a == b as f32));
    }

    #[test]
    fn avg_pool_is_its_definition(o in options(), c in 1usize..20, h in 5usize..9, w in 5usize..9, include in any::<bool>(), divisor in 0usize..4) {
        let o = MaxPoolOptions { dilation: [1, 1], ..o };
        let options = AvgPoolOptions {
            count_include_pad: include,
            divisor_override: (divisor > 0).then_some(divisor as isize),
            ceil_mode: o.ceil_mode,
            padding: o.padding,
            stride: o.stride,
            kernel_size: o.kernel_size,
        };
        let x = tensor(&[2, c, h, w], 2);
        let (windows, [oh, ow]) = windows(h, w, &o);
        let y = avg_pool2d(&x.clone().into(), options);
        prop_assert_eq!(y.shape(), &[2, c, oh, ow][..]);
        let xs = x.to_vec::<f64>();
        for (k, y) in y.to_vec::<f64>().into_iter().enumerate() {
            let plane = &xs[k / (oh * ow) * h * w..][..h * w];
            let (taps, padded) = &windows[k % (oh * ow)];
            let sum: f64 = taps.iter().map(|&t| plane[t]).sum();
            let count = if divisor > 0 { divisor } else if include { *padded } else { taps.len() };
            prop_assert!((y - sum / count as f64).abs() < 1e-12);
        }
    }

    #[test]
    fn derivatives(o in options(), sizes in [1usize..4, 1usize..4], which in 0..4) {
        let x = Var::parameter(tensor(&[1, 2, 5, 4], 3));
        let o = MaxPoolOptions { dilation: [1, 1], ..o };
        let avg = AvgPoolOptions { padding: o.padding, stride: o.stride, ..AvgPoolOptions::new(o.kernel_size) };
        let output = sizes.map(Some);
        let f = |v: &[Var]| match which {
            0 => max_pool2d(&v[0], o),
            1 => avg_pool2d(&v[0], avg),
            2 => adaptive_avg_pool2d(&v[0], output),
            _ => adaptive_max_pool2d(&v[0], output),
        };
        gradcheck(f, std::slice::from_ref(&x)).unwrap();
        // Squared, since pooling itself is linear between its kinks.
        gradgradcheck(|v: &[Var]| { let y = f(v); &y * &y }, &[x]).unwrap();
    }
}

#[test]
fn not_a_number_is_the_maximum() {
    let x = Var::from_vec(vec![1f32, f32::NAN, 2.0, 3.0], &[1, 2, 2]);
    let (y, index) = max_pool2d_with_indices(&x, 2);
    assert!(y.item().is_nan());
    assert_eq!(index.to_vec::<i64>(), [1]);
}

#[test]
#[should_panic(
    expected = "max_pool2d: pad should be at most half of effective kernel size, but got pad=2, kernel_size=2 and dilation=1"
)]
fn padding_that_does_not_fit() {
    max_pool2d(&Var::from(Tensor::zeros_with(&[1, 1, 4, 4], DType::F32)), MaxPoolOptions::new(2).padding(2));
}

#[test]
#[should_panic(
    expected = "avg_pool2d: expected 3D or 4D (batch mode) tensor with optional 0 dim batch size for input, but got shape [1, 0, 4]"
)]
fn an_empty_image() {
    avg_pool2d(&Var::from(Tensor::zeros_with(&[1, 0, 4], DType::F32)), 2);
}
