use super::*;
use crate::kernels::conv_testing::products;
use proptest::prelude::*;
use tapegrad_tape::kernels::parallel::set_num_threads;

/// Pseudorandom numbers from -1 to 1.
fn numbers(len: usize, seed: usize) -> Vec<f32> {
    let hash = |i: usize| {
        let x = ((i * 8 + seed) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let x = (x ^ (x >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        (x ^ (x >> 32)) & 0xFF_FFFF
    };
    (0..len).map(|i| hash(i) as f32 / (1 << 23) as f32 - 1.0).collect()
}

#[track_caller]
fn close(what: &str, s: &Conv2dShape, got: &[f32], expected: &[f64], terms: usize) {
    let tolerance = 2e-6 + 1e-7 * terms as f64;
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((f64::from(*g) - e).abs() < tolerance, "{what} {s:?}: element {i} is {g} instead of {e}");
    }
}

fn check_all(s: &Conv2dShape) {
    let x = numbers(s.input_len(), 1);
    let w = numbers(s.weight_len(), 2);
    let dy = numbers(s.output_len(), 3);
    let bias = numbers(s.c_out, 4);
    let mut y64: Vec<f64> = (0..s.output_len()).map(|i| bias[i % s.c_out].into()).collect();
    let mut dx64 = vec![0.0; x.len()];
    let mut dw64 = vec![0.0; w.len()];
    products(s, |i, j, k| {
        y64[k] += f64::from(x[i]) * f64::from(w[j]);
        dx64[i] += f64::from(dy[k]) * f64::from(w[j]);
        dw64[j] += f64::from(dy[k]) * f64::from(x[i]);
    });
    let mut y = vec![f32::NAN; y64.len()];
    forward(s, &x, &w, Some(&bias), &mut y);
    close("forward", s, &y, &y64, s.c_in * s.kh * s.kw);
    let mut dx = vec![f32::NAN; dx64.len()];
    input_grad(s, &dy, &w, &mut dx);
    close("input gradient", s, &dx, &dx64, s.c_out * s.kh * s.kw);
    let mut dw = vec![f32::NAN; dw64.len()];
    weight_grad(s, &x, &dy, &mut dw);
    close("weight gradient", s, &dw, &dw64, s.n * s.out_h() * s.out_w());
}

fn square(
    n: usize,
    size: usize,
    c_in: usize,
    c_out: usize,
    k: usize,
    stride: usize,
    padding: usize,
) -> Conv2dShape {
    Conv2dShape {
        n,
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
    }
}

/// A product of matrices that is large enough for tile registers.
#[test]
fn pixels_of_many_channels() {
    check_all(&square(2, 12, 136, 250, 1, 1, 0));
    check_all(&square(1, 9, 250, 240, 1, 1, 0));
}

#[test]
fn shapes_of_known_models() {
    for s in [
        square(4, 28, 1, 6, 5, 1, 2),
        square(5, 14, 6, 16, 5, 1, 0),
        square(3, 9, 7, 9, 3, 1, 1),
        square(2, 31, 4, 20, 5, 1, 2),
        square(2, 7, 8, 11, 4, 1, 7),
        square(2, 32, 3, 64, 3, 1, 1),
        square(2, 17, 3, 32, 7, 1, 3),
        square(1, 65, 3, 8, 7, 2, 3),
        square(2, 16, 64, 48, 3, 2, 1),
        square(2, 16, 20, 40, 1, 2, 0),
        square(30, 4, 40, 36, 3, 1, 1),
        square(25, 2, 33, 35, 3, 1, 1),
        square(26, 8, 24, 17, 3, 2, 1),
        square(1, 80, 4, 3, 3, 1, 1),
    ] {
        check_all(&s);
    }
}

#[test]
fn nothing_to_do() {
    for s in [
        square(0, 5, 3, 4, 3, 1, 1),
        square(2, 5, 0, 4, 3, 1, 1),
        square(2, 5, 3, 0, 3, 1, 1),
        square(2, 2, 3, 4, 3, 1, 0),
        square(2, 0, 3, 4, 1, 1, 0),
        square(2, 3, 3, 4, 0, 1, 0),
    ] {
        check_all(&s);
    }
}

#[test]
#[should_panic(expected = "elements of the input")]
fn a_short_input_is_refused() {
    let s = square(1, 4, 2, 2, 3, 1, 1);
    forward(&s, &[0.0; 31], &[0.0; 36], None, &mut [0.0; 32]);
}

#[test]
fn one_and_two_threads_give_the_same_bits() {
    for s in [square(16, 16, 32, 32, 3, 2, 1), square(64, 28, 1, 6, 5, 1, 2), square(40, 4, 64, 64, 3, 1, 1)]
    {
        let (x, w, dy) = (numbers(s.input_len(), 1), numbers(s.weight_len(), 2), numbers(s.output_len(), 3));
        let results = [1, 2].map(|threads| {
            set_num_threads(threads);
            let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
            forward(&s, &x, &w, None, &mut y);
            input_grad(&s, &dy, &w, &mut dx);
            weight_grad(&s, &x, &dy, &mut dw);
            [y, dx, dw].map(|v| v.into_iter().map(f32::to_bits).collect::<Vec<u32>>())
        });
        assert!(results[0] == results[1], "{s:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn any_shape(
        n in 0..4usize,
        size in (0..9usize, 0..9usize),
        channels in (0..70usize, 0..70usize),
        kernel in (0..5usize, 0..5usize),
        stride in (1..4usize, 1..4usize),
        padding in (0..3usize, 0..3usize),
        dilation in (1..3usize, 1..3usize),
    ) {
        check_all(&Conv2dShape {
            n,
            h: size.0,
            w: size.1,
            c_in: channels.0,
            c_out: channels.1,
            groups: 1,
            kh: kernel.0,
            kw: kernel.1,
            stride: stride.into(),
            padding: padding.into(),
            dilation: dilation.into(),
        });
    }

    #[test]
    fn kernels_of_one_pixel(n in 0..4usize, size in 0..9usize, channels in (0..70usize, 0..70usize)) {
        check_all(&square(n, size, channels.0, channels.1, 1, 1, 0));
    }

    #[test]
    fn small_images_in_large_batches(
        n in 8..40usize,
        size in 1..6usize,
        channels in (1..40usize, 1..40usize),
        kernel in 1..4usize,
        stride in 1..4usize,
        padding in 0..3usize,
    ) {
        check_all(&square(n, size, channels.0, channels.1, kernel, stride, padding));
    }

    #[test]
    fn few_channels(
        n in 1..4usize,
        size in 8..20usize,
        channels in (1..5usize, 1..17usize),
        kernel in (1..6usize, 1..6usize),
        stride in prop_oneof![Just((1, 1)), (1..4usize, 1..4usize)],
        padding in (0..3usize, 0..3usize),
        dilation in prop_oneof![Just((1, 1)), (1..3usize, 1..3usize)],
    ) {
        check_all(&Conv2dShape {
            n,
            h: size,
            w: size + 1,
            c_in: channels.0,
            c_out: channels.1,
            groups: 1,
            kh: kernel.0,
            kw: kernel.1,
            stride: stride.into(),
            padding: padding.into(),
            dilation: dilation.into(),
        });
    }
}
