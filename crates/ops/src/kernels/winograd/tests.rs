use super::*;
use crate::kernels::conv_testing::{error, instruction_sets, noise, products};
use proptest::prelude::*;
use tapegrad_tape::kernels::parallel::set_num_threads;

/// The definition, in f64: the gradients of a convolution, or its output where `x` and `w` are given.
#[derive(Clone, Copy)]
enum Pass {
    Forward,
    InputGrad,
    WeightGrad,
}

/// The definition of a pass.
fn naive(s: &Conv2dShape, pass: Pass, a: &[f32], b: &[f32], bias: Option<&[f32]>) -> Vec<f64> {
    let mut out = match pass {
        Pass::Forward => vec![0.0; s.output_len()],
        Pass::InputGrad => vec![0.0; s.input_len()],
        Pass::WeightGrad => vec![0.0; s.weight_len()],
    };
    if let Some(bias) = bias {
        out.iter_mut().zip(bias.iter().cycle()).for_each(|(y, &b)| *y = f64::from(b));
    }
    products(s, |xi, wi, yi| {
        let (i, j, k) = match pass {
            Pass::Forward => (xi, wi, yi),
            Pass::InputGrad => (yi, wi, xi),
            Pass::WeightGrad => (xi, yi, wi),
        };
        out[k] += f64::from(a[i]) * f64::from(b[j]);
    });
    out
}

fn shape(
    n: usize,
    (h, w): (usize, usize),
    (c_in, c_out): (usize, usize),
    padding: [usize; 2],
) -> Conv2dShape {
    Conv2dShape { n, h, w, c_in, c_out, groups: 1, kh: 3, kw: 3, stride: [1, 1], padding, dilation: [1, 1] }
}

/// The same with stride 2 and padding 1.
fn strided(n: usize, size: (usize, usize), channels: (usize, usize)) -> Conv2dShape {
    Conv2dShape { stride: [2, 2], ..shape(n, size, channels, [1, 1]) }
}

/// A 4x4 kernel with stride 2 and padding 1.
fn four_taps(n: usize, size: (usize, usize), channels: (usize, usize)) -> Conv2dShape {
    Conv2dShape { kh: 4, kw: 4, ..strided(n, size, channels) }
}

/// The three passes at one set, into memory initialized to NaN.
fn passes(
    set: InstructionSet,
    s: &Conv2dShape,
    x: &[f32],
    w: &[f32],
    dy: &[f32],
    bias: &[f32],
) -> [Vec<f32>; 3] {
    let mut y = vec![f32::NAN; s.output_len()];
    let mut dx = vec![f32::NAN; s.input_len()];
    let mut dw = vec![f32::NAN; s.weight_len()];
    forward_at(set, s, x, w, Some(bias), &mut y);
    input_grad_at(set, s, dy, w, &mut dx);
    weight_grad_at(set, s, x, dy, &mut dw);
    [y, dx, dw]
}

/// Errors of the three passes with the given instruction sets against the definition.
fn errors(s: &Conv2dShape, seed: u64, sets: &[InstructionSet]) -> Vec<[f64; 3]> {
    let (x, w) = (noise(s.input_len(), seed), noise(s.weight_len(), seed + 1));
    let (dy, bias) = (noise(s.output_len(), seed + 2), noise(s.c_out, seed + 3));
    let wanted = [
        naive(s, Pass::Forward, &x, &w, Some(&bias)),
        naive(s, Pass::InputGrad, &dy, &w, None),
        naive(s, Pass::WeightGrad, &x, &dy, None),
    ];
    let at = |&set: &InstructionSet| {
        let got = passes(set, s, &x, &w, &dy, &bias);
        std::array::from_fn(|i| error(&got[i], &wanted[i]))
    };
    sets.iter().map(at).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_definition(
        n in 1usize..4,
        size in (1usize..20, 1usize..20),
        channels in (1usize..71, 1usize..71),
        padding in (0usize..3, 0usize..3),
        kind in 0..3,
        seed in 0u64..1000,
    ) {
        let s = match kind {
            0 => shape(n, size, channels, [padding.0, padding.1]),
            1 => strided(n, size, channels),
            _ => four_taps(n, size, channels),
        };
        for (set, errors) in instruction_sets().iter().zip(errors(&s, seed, &instruction_sets())) {
            for (pass, error) in ["forward", "input grad", "weight grad"].iter().zip(errors) {
                prop_assert!(error <= 1e-5, "{pass} of {s:?} at {set:?}: {error:e}");
            }
        }
    }
}

/// Shapes for each loop order, several parts, and more than one panel and chunk of channels.
fn larger_shapes() -> [Conv2dShape; 16] {
    [
        shape(9, (30, 31), (5, 40), [1, 1]),
        shape(5, (32, 32), (16, 16), [1, 1]),
        shape(20, (13, 9), (48, 33), [1, 1]),
        shape(3, (17, 30), (64, 40), [0, 2]),
        shape(2, (14, 14), (100, 130), [1, 1]),
        shape(6, (4, 4), (150, 96), [1, 1]),
        shape(40, (2, 2), (64, 96), [1, 1]),
        shape(300, (2, 2), (33, 17), [1, 1]),
        strided(3, (32, 32), (64, 70)),
        strided(20, (13, 9), (48, 33)),
        strided(5, (8, 8), (150, 96)),
        strided(2, (17, 30), (33, 130)),
        four_taps(3, (32, 32), (64, 70)),
        four_taps(20, (13, 10), (48, 33)),
        four_taps(5, (8, 8), (150, 96)),
        four_taps(2, (17, 30), (33, 130)),
    ]
}

#[test]
fn larger_shapes_agree_with_the_definition() {
    for s in larger_shapes() {
        for (set, errors) in instruction_sets().iter().zip(errors(&s, 7, &instruction_sets())) {
            println!("{set:?} {s:?}: {errors:?}");
            assert!(errors.iter().all(|&e| e <= 1e-5), "{s:?} at {set:?}: {errors:?}");
        }
    }
}

#[test]
fn few_channels_take_the_accurate_tiles() {
    for channels in [(1, 1), (2, 4), (15, 70), (40, 3)] {
        let s = shape(2, (9, 14), channels, [2, 1]);
        for (set, errors) in instruction_sets().iter().zip(errors(&s, 3, &instruction_sets())) {
            println!("{set:?} {s:?}: {errors:?}");
            assert!(errors.iter().all(|&e| e <= 7e-7), "{s:?} at {set:?}: {errors:?}");
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
            passes(instruction_set(), &s, &x, &w, &dy, &bias)
        };
        let one = run(1);
        for threads in [2, 3] {
            assert!(one == run(threads), "{s:?}");
        }
    }
}

#[test]
fn empty_batches_and_images_are_fine() {
    let mut dw = [1.0; 9 * 6];
    weight_grad(&shape(0, (4, 4), (2, 3), [1, 1]), &[], &[], &mut dw);
    assert_eq!(dw, [0.0; 9 * 6]);
    forward(&shape(0, (4, 4), (2, 3), [1, 1]), &[], &dw, None, &mut []);
    // The kernel does not fit: no outputs, and no gradient.
    let mut dx = [1.0; 8];
    input_grad(&shape(1, (2, 2), (2, 3), [0, 0]), &[], &dw, &mut dx);
    assert_eq!(dx, [0.0; 8]);
}

#[test]
#[should_panic(expected = "elements of the input")]
fn wrong_lengths_are_refused() {
    forward(&shape(1, (4, 4), (2, 3), [1, 1]), &[0.0; 31], &[0.0; 54], None, &mut [0.0; 48]);
}

#[test]
fn the_choice_follows_the_saved_products() {
    let square = |size, channels| shape(1, (size, size), (channels, channels), [1, 1]);
    // The layers of VGG-11 and ResNet-18 but for the first.
    for (size, channels) in [(32, 64), (16, 128), (8, 256), (4, 512), (2, 512)] {
        assert!(wins(&square(size, channels)));
    }
    // 13 x 13 taps in the image by 4 tiles of 36; too few channels; one output of a tile of 16.
    for s in [square(5, 64), square(32, 8), square(1, 64)] {
        assert!(!wins(&s));
    }
    // The strided layers of ResNet-18; one output of a tile of 16; another padding.
    for (size, channels) in [(32, 64), (16, 128), (8, 256)] {
        assert!(wins(&strided(1, (size, size), (channels, 2 * channels))));
    }
    assert!(!wins(&strided(1, (2, 2), (64, 64))));
    // The layers of DCGAN.
    for (size, channels) in [(32, 64), (16, 128), (8, 256)] {
        assert!(wins(&four_taps(1, (size, size), (channels, 2 * channels))));
    }
    assert!(!wins(&four_taps(1, (64, 64), (3, 64))));
    assert!(!supports(&Conv2dShape { padding: [0, 0], ..strided(1, (32, 32), (64, 64)) }));
    // Nothing to compute.
    assert!(!wins(&shape(1, (2, 2), (64, 64), [0, 0])));
}
