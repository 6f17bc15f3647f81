use super::*;
use crate::kernels::conv_testing::{error, instruction_sets, noise, products};
use proptest::prelude::*;
use tapegrad_tape::kernels::parallel::set_num_threads;

fn shape(
    n: usize,
    size: (usize, usize),
    groups: usize,
    per_group: (usize, usize),
    k: (usize, usize),
) -> Conv2dShape {
    Conv2dShape {
        n,
        h: size.0,
        w: size.1,
        c_in: groups * per_group.0,
        c_out: groups * per_group.1,
        groups,
        kh: k.0,
        kw: k.1,
        stride: [1, 1],
        padding: [k.0 / 2, k.1 / 2],
        dilation: [1, 1],
    }
}

/// All three maps against the definition in f64, with each instruction set.
fn check_all(s: &Conv2dShape) {
    let [x, w, dy, bias] =
        [s.input_len(), s.weight_len(), s.output_len(), s.c_out].map(|len| noise(len, len as u64));
    let mut y64: Vec<f64> = (0..s.output_len()).map(|i| bias[i % s.c_out].into()).collect();
    let (mut dx64, mut dw64) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    products(s, |i, j, k| {
        y64[k] += f64::from(x[i]) * f64::from(w[j]);
        dx64[i] += f64::from(dy[k]) * f64::from(w[j]);
        dw64[j] += f64::from(dy[k]) * f64::from(x[i]);
    });
    for set in instruction_sets() {
        let (mut y, mut dx, mut dw) =
            (vec![f32::NAN; y64.len()], vec![f32::NAN; x.len()], vec![f32::NAN; w.len()]);
        forward_at(set, s, &x, &w, Some(&bias), &mut y);
        assert!(error(&y, &y64) < 2e-6, "{set:?} {s:?}: forward {}", error(&y, &y64));
        input_grad_at(set, s, &dy, &w, &mut dx);
        assert!(error(&dx, &dx64) < 2e-6, "{set:?} {s:?}: input gradient {}", error(&dx, &dx64));
        weight_grad_at(set, s, &x, &dy, &mut dw);
        assert!(error(&dw, &dw64) < 2e-6, "{set:?} {s:?}: weight gradient {}", error(&dw, &dw64));
    }
}

#[test]
fn shapes_of_known_models() {
    for s in [
        shape(2, (14, 14), 96, (1, 1), (3, 3)),
        Conv2dShape { stride: [2, 2], ..shape(2, (14, 15), 36, (1, 1), (3, 3)) },
        shape(1, (28, 28), 40, (1, 1), (5, 5)),
        Conv2dShape { stride: [2, 2], ..shape(1, (9, 7), 33, (1, 1), (5, 5)) },
        shape(2, (7, 7), 20, (1, 1), (7, 7)),
        shape(2, (1, 50), 24, (1, 1), (1, 9)),
        shape(2, (14, 14), 8, (8, 8), (3, 3)),
        shape(2, (9, 9), 32, (4, 4), (3, 3)),
        shape(2, (9, 9), 12, (1, 3), (3, 3)),
    ] {
        check_all(&s);
    }
}

#[test]
fn nothing_to_do() {
    for s in [
        shape(0, (5, 5), 3, (1, 1), (3, 3)),
        shape(2, (0, 5), 3, (1, 1), (1, 1)),
        shape(2, (5, 5), 3, (1, 0), (3, 3)),
        shape(2, (5, 5), 3, (1, 1), (0, 3)),
        Conv2dShape { padding: [0, 0], ..shape(2, (2, 2), 3, (2, 2), (3, 3)) },
    ] {
        check_all(&s);
    }
}

#[test]
fn one_and_two_threads_give_the_same_bits() {
    for s in [shape(5, (28, 28), 48, (1, 1), (3, 3)), shape(5, (28, 28), 16, (4, 4), (3, 3))] {
        let (x, w, dy) = (noise(s.input_len(), 1), noise(s.weight_len(), 2), noise(s.output_len(), 3));
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

#[test]
#[should_panic(expected = "elements of the weight")]
fn wrong_lengths_are_refused() {
    let s = shape(1, (4, 4), 3, (1, 1), (3, 3));
    forward(&s, &[0.0; 48], &[0.0; 28], None, &mut [0.0; 48]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn any_shape(
        n in 0..4usize,
        size in (0..14usize, 0..14usize),
        groups in 1..40usize,
        per_group in prop_oneof![2 => Just((1, 1)), 2 => (1..4usize, 0..6usize), 1 => (1..20usize, 1..20usize)],
        kernel in (0..6usize, 0..6usize),
        stride in (1..4usize, 1..4usize),
        padding in (0..4usize, 0..4usize),
        dilation in (1..4usize, 1..4usize),
    ) {
        check_all(&Conv2dShape {
            stride: stride.into(),
            padding: padding.into(),
            dilation: dilation.into(),
            ..shape(n, size, groups, per_group, kernel)
        });
    }
}
