//! Convolutions against their definition, and their derivatives against finite differences.

use proptest::prelude::*;
use tapegrad_ops::{
    ConvOptions, ConvTransposeOptions, Padding, conv_transpose2d_with, conv1d_with, conv2d, conv2d_with,
    conv3d_with,
};
use tapegrad_tape::{Tensor, Var, gradcheck, gradgradcheck};

/// Numbers that depend on their position alone.
fn values(n: usize, salt: u64) -> Vec<f64> {
    (0..n as u64).map(|i| ((i * 2654435761 + salt * 40503) % 2003) as f64 / 1001.0 - 1.0).collect()
}

fn tensor(shape: &[usize], salt: u64) -> Tensor {
    Tensor::from_vec(values(shape.iter().product(), salt), shape)
}

/// The definition of conv2d, one output at a time.
fn naive(x: &Tensor, w: &Tensor, bias: &[f64], o: &ConvOptions<2>, padding: [usize; 2]) -> Vec<f64> {
    let ([n, c, h, wd], [oc, cg, kh, kw]) = (dims(x), dims(w));
    let size =
        |n: usize, k: usize, d: usize| (n + 2 * padding[d] - o.dilation[d] * (k - 1) - 1) / o.stride[d] + 1;
    let (oh, ow) = (size(h, kh, 0), size(wd, kw, 1));
    let (xs, ws) = (x.to_vec::<f64>(), w.to_vec::<f64>());
    let mut y = Vec::new();
    for i in 0..n {
        for f in 0..oc {
            let first = f / (oc / o.groups) * cg;
            for a in 0..oh {
                for b in 0..ow {
                    let mut sum = bias[f];
                    for q in 0..cg {
                        for u in 0..kh {
                            for v in 0..kw {
                                let r = (a * o.stride[0] + u * o.dilation[0]) as isize - padding[0] as isize;
                                let s = (b * o.stride[1] + v * o.dilation[1]) as isize - padding[1] as isize;
                                if (0..h as isize).contains(&r) && (0..wd as isize).contains(&s) {
                                    let at = ((i * c + first + q) * h + r as usize) * wd + s as usize;
                                    sum += xs[at] * ws[((f * cg + q) * kh + u) * kw + v];
                                }
                            }
                        }
                    }
                    y.push(sum);
                }
            }
        }
    }
    y
}

fn dims(t: &Tensor) -> [usize; 4] {
    t.shape().try_into().expect("four dimensions")
}

fn close(a: &[f64], b: &[f64], tolerance: f64) -> bool {
    let scale = b.iter().fold(1f64, |m, v| m.max(v.abs()));
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| (x - y).abs() <= tolerance * scale)
}

fn options() -> impl Strategy<Value = ConvOptions<2>> {
    let pair = |range: std::ops::Range<usize>| [range.clone(), range];
    (pair(1..4), pair(0..3), pair(1..3)).prop_map(|(stride, padding, dilation)| ConvOptions {
        stride,
        padding: Padding::Explicit(padding),
        dilation,
        groups: 1,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn blocked_is_naive(
        o in options(), groups in 1usize..4, n in 1usize..4, cg in 1usize..5, fg in 1usize..5,
        h in 5usize..20, w in 5usize..20, k in [1usize..4, 1usize..4],
    ) {
        let Padding::Explicit(padding) = o.padding else { unreachable!() };
        let o = ConvOptions { groups, ..o };
        let (x, weight) = (tensor(&[n, cg * groups, h, w], 1), tensor(&[fg * groups, cg, k[0], k[1]], 2));
        let bias = values(fg * groups, 3);
        let expected = naive(&x, &weight, &bias, &o, padding);
        for dtype in [tapegrad_tape::DType::F64, tapegrad_tape::DType::F32] {
            // A channels-last input has to give the same.
            for x in [x.clone(), x.to_format(tapegrad_tape::MemoryFormat::ChannelsLast)] {
                let b = Var::from(Tensor::from_vec(bias.clone(), &[bias.len()]).cast(dtype));
                let y = conv2d_with(&x.cast(dtype).into(), &weight.cast(dtype).into(), Some(&b), o);
                let tolerance = if dtype == tapegrad_tape::DType::F64 { 1e-12 } else { 1e-5 };
                prop_assert!(close(&y.to_vec::<f64>(), &expected, tolerance));
            }
        }
    }

    /// The adjoints, from `<conv(x, w), dy> = <x, dx> = <w, dw>`, in f32 and f64.
    #[test]
    fn gradients_are_adjoint(o in options(), c in 1usize..40, f in 1usize..40, h in 5usize..12, k in 1usize..4) {
        for (dtype, tolerance) in [(tapegrad_tape::DType::F64, 1e-11), (tapegrad_tape::DType::F32, 2e-5)] {
            let x = Var::parameter(tensor(&[2, c, h, h + 1], 4).cast(dtype));
            let w = Var::parameter(tensor(&[f, c, k, k], 5).cast(dtype));
            let y = conv2d_with(&x, &w, None, o);
            let dy = Var::from(tensor(y.shape(), 6).cast(dtype));
            y.backward_with(&dy, Default::default());
            let dot = |a: &Var, b: &Var| (a.detach().cast(tapegrad_tape::DType::F64) * b.detach().cast(tapegrad_tape::DType::F64)).sum_all().item();
            let scale = (y.numel() * c * k * k) as f64;
            let expected = dot(&y, &dy);
            prop_assert!((dot(&x, &x.grad().unwrap()) - expected).abs() <= tolerance * scale);
            prop_assert!((dot(&w, &w.grad().unwrap()) - expected).abs() <= tolerance * scale);
        }
    }

    #[test]
    fn derivatives(o in options(), groups in 1usize..3, k in 1usize..3, transpose in any::<bool>()) {
        let x = Var::parameter(tensor(&[1, 2, 5, 4], 1));
        let o = ConvOptions { groups, ..o };
        let bias = Var::parameter(tensor(&[2], 3));
        let Padding::Explicit(padding) = o.padding else { unreachable!() };
        let f = |v: &[Var]| {
            if transpose {
                let t = ConvTransposeOptions { stride: o.stride, padding: [0, padding[1].min(1)], dilation: o.dilation, groups, ..Default::default() };
                conv_transpose2d_with(&v[0], &v[1], Some(&v[2]), t)
            } else {
                conv2d_with(&v[0], &v[1], Some(&v[2]), o)
            }
        };
        let w = Var::parameter(tensor(&[2, 2 / groups, k, 2], 2));
        gradcheck(f, &[x.clone(), w.clone(), bias.clone()]).unwrap();
        gradgradcheck(f, &[x, w, bias]).unwrap();
    }
}

#[test]
fn one_and_three_dimensions_are_two() {
    let (x, w) = (tensor(&[2, 3, 1, 9], 1), tensor(&[4, 3, 1, 3], 2));
    let flat = |t: &Tensor, shape: &[usize]| Var::from(t.reshape(shape));
    let two = conv2d_with(
        &flat(&x, &[2, 3, 1, 9]),
        &flat(&w, &[4, 3, 1, 3]),
        None,
        ConvOptions::new().stride([1, 2]).padding([0, 1]),
    );
    let one = conv1d_with(
        &flat(&x, &[2, 3, 9]),
        &flat(&w, &[4, 3, 3]),
        None,
        ConvOptions::new().stride(2).padding(1),
    );
    let three = conv3d_with(
        &flat(&x, &[2, 3, 1, 1, 9]),
        &flat(&w, &[4, 3, 1, 1, 3]),
        None,
        ConvOptions::new().stride([1, 1, 2]).padding([0, 0, 1]),
    );
    assert_eq!(one.to_vec::<f64>(), two.to_vec::<f64>());
    assert_eq!(three.to_vec::<f64>(), two.to_vec::<f64>());
}

#[test]
fn same_padding_and_no_batch() {
    let (x, w) = (Var::from(tensor(&[3, 6, 7], 1)), Var::from(tensor(&[2, 3, 4, 3], 2)));
    let y = conv2d_with(&x, &w, None, ConvOptions { padding: Padding::Same, ..Default::default() });
    assert_eq!(y.shape(), [2, 6, 7]);
}

#[test]
fn empty_batches() {
    let x = Var::parameter(tensor(&[0, 3, 6, 7], 1));
    let w = Var::parameter(tensor(&[2, 3, 3, 3], 2));
    let y = conv2d(&x, &w, None);
    assert_eq!(y.shape(), [0, 2, 4, 5]);
    y.sum_all().backward();
    assert_eq!(w.grad().unwrap().to_vec::<f64>(), [0.0; 54]);
}

/// The same bits on one thread and on two.
#[test]
fn threads_do_not_change_the_bits() {
    let run = |threads| {
        tapegrad_tape::set_num_threads(threads);
        let x = Var::parameter(tensor(&[5, 16, 11, 9], 1).cast(tapegrad_tape::DType::F32));
        let w = Var::parameter(tensor(&[24, 16, 3, 3], 2).cast(tapegrad_tape::DType::F32));
        let y = conv2d_with(&x, &w, None, ConvOptions::new().padding(1));
        (&y * &y).sum_all().backward();
        (y.to_vec::<f32>(), x.grad().unwrap().to_vec::<f32>(), w.grad().unwrap().to_vec::<f32>())
    };
    assert_eq!(run(1), run(2));
}
