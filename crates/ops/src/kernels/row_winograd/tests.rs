use super::*;
use crate::kernels::conv_testing::{error, instruction_sets, noise, products};
use proptest::prelude::*;
use tapegrad_tape::kernels::parallel::set_num_threads;

/// The definition, in f64: output and gradient of the weight.
fn naive(s: &Conv2dShape, x: &[f32], w: &[f32], dy: &[f32], bias: Option<&[f32]>) -> [Vec<f64>; 2] {
    let (mut out, mut dw) = (vec![0.0; s.output_len()], vec![0.0; s.weight_len()]);
    products(s, |xi, wi, yi| {
        out[yi] += f64::from(x[xi]) * f64::from(w[wi]);
        dw[wi] += f64::from(x[xi]) * f64::from(dy[yi]);
    });
    for (i, y) in out.iter_mut().enumerate() {
        *y += bias.map_or(0.0, |b| f64::from(b[i % s.c_out]));
    }
    [out, dw]
}

fn shape(
    n: usize,
    (h, w): (usize, usize),
    (c_in, c_out): (usize, usize),
    kh: usize,
    padding: [usize; 2],
) -> Conv2dShape {
    Conv2dShape { n, h, w, c_in, c_out, groups: 1, kh, kw: 7, stride: [1, 1], padding, dilation: [1, 1] }
}

/// Both passes at one set, into memory initialized to NaN.
fn passes(
    set: InstructionSet,
    s: &Conv2dShape,
    x: &[f32],
    w: &[f32],
    dy: &[f32],
    bias: Option<&[f32]>,
) -> [Vec<f32>; 2] {
    let (mut y, mut dw) = (vec![f32::NAN; s.output_len()], vec![f32::NAN; s.weight_len()]);
    forward_at(set, s, x, w, bias, &mut y);
    weight_grad_at(set, s, x, dy, &mut dw);
    [y, dw]
}

/// Errors of both passes with all instruction sets against the definition.
fn errors(s: &Conv2dShape, seed: u64, bias: bool) -> Vec<[f64; 2]> {
    let (x, w) = (noise(s.input_len(), seed), noise(s.weight_len(), seed + 1));
    let (dy, values) = (noise(s.output_len(), seed + 2), noise(s.c_out, seed + 3));
    let bias = bias.then_some(&values[..]);
    let wanted = naive(s, &x, &w, &dy, bias);
    let at = |set: InstructionSet| {
        let got = passes(set, s, &x, &w, &dy, bias);
        std::array::from_fn(|i| error(&got[i], &wanted[i]))
    };
    instruction_sets().into_iter().map(at).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_definition(
        n in 1usize..5,
        size in (1usize..20, 1usize..40),
        channels in (1usize..5, 1usize..71),
        kh in 1usize..8,
        padding in (0usize..5, 0usize..9),
        bias in any::<bool>(),
        seed in 0u64..1000,
    ) {
        let s = shape(n, size, channels, kh, [padding.0, padding.1]);
        for (set, errors) in instruction_sets().iter().zip(errors(&s, seed, bias)) {
            for (pass, error) in ["forward", "weight grad"].iter().zip(errors) {
                prop_assert!(error <= 1e-5, "{pass} of {s:?} at {set:?}: {error:e}");
            }
        }
    }
}

/// Shapes with several groups of images, bands of rows, panels of channels, and chunks of a long line.
fn larger_shapes() -> [Conv2dShape; 6] {
    [
        shape(20, (32, 32), (3, 32), 7, [3, 3]),
        shape(50, (12, 10), (1, 16), 5, [2, 3]),
        shape(3, (17, 30), (4, 40), 7, [0, 2]),
        shape(1, (90, 70), (2, 33), 7, [3, 3]),
        shape(2, (9, 330), (3, 20), 3, [1, 0]),
        shape(2, (14, 14), (20, 70), 7, [3, 3]),
    ]
}

#[test]
fn larger_shapes_agree_with_the_definition() {
    for s in larger_shapes() {
        for (set, errors) in instruction_sets().iter().zip(errors(&s, 7, true)) {
            println!("{set:?} {s:?}: {errors:?}");
            assert!(errors.iter().all(|&e| e <= 1e-5), "{s:?} at {set:?}: {errors:?}");
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for s in larger_shapes() {
        let (x, w) = (noise(s.input_len(), 1), noise(s.weight_len(), 2));
        let (dy, bias) = (noise(s.output_len(), 3), noise(s.c_out, 4));
        let run = |threads| {
            set_num_threads(threads);
            passes(instruction_set(), &s, &x, &w, &dy, Some(&bias))
        };
        let one = run(1);
        for threads in [2, 3] {
            assert!(one == run(threads), "{s:?}");
        }
    }
}

#[test]
fn empty_batches_and_images_are_fine() {
    let s = shape(0, (8, 8), (2, 3), 7, [3, 3]);
    let mut dw = vec![1.0; s.weight_len()];
    weight_grad(&s, &[], &[], &mut dw);
    assert!(dw.iter().all(|&dw| dw == 0.0));
    forward(&s, &[], &dw, None, &mut []);
    // Only padding, so the result is the bias.
    let s = shape(1, (0, 8), (2, 3), 2, [1, 3]);
    let mut y = vec![f32::NAN; s.output_len()];
    forward(&s, &[], &noise(s.weight_len(), 1), Some(&[1.0, 2.0, 3.0]), &mut y);
    assert_eq!(y, [1.0, 2.0, 3.0].repeat(8));
}

#[test]
#[should_panic(expected = "elements of the input")]
fn wrong_lengths_are_refused() {
    let s = shape(1, (8, 8), (1, 1), 7, [3, 3]);
    forward(&s, &[0.0; 63], &[0.0; 49], None, &mut [0.0; 64]);
}

#[test]
fn the_choice_follows_the_measurements() {
    let first = shape(50, (32, 32), (3, 32), 7, [3, 3]);
    assert!(wins(&first));
    assert!(!wins(&Conv2dShape { c_out: 8, ..first }));
    assert!(!wins(&Conv2dShape { w: 7, ..first }));
    assert!(!wins(&Conv2dShape { kh: 1, padding: [0, 3], ..first }));
    // The transforms pay off for an image of 32 by 32, but not of 14 by 14.
    assert!(wins(&Conv2dShape { n: 1, ..first }));
    assert!(!wins(&Conv2dShape { n: 1, h: 14, w: 14, ..first }));
    assert!(!supports(&Conv2dShape { kw: 5, ..first }));
    assert!(!supports(&Conv2dShape { stride: [1, 2], ..first }));
    assert!(!supports(&Conv2dShape { dilation: [2, 1], ..first }));
}
