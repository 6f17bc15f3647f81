//! The identities behind backpropagation, for any shapes and values: closed forms by plain loops against the tape.

use proptest::prelude::*;
use tapegrad::prelude::*;

#[path = "../examples/backpropagation/lessons.rs"]
mod lessons;

use lessons::Lesson;

fn check(lesson: &Lesson) -> Result<(), TestCaseError> {
    for (name, closed, tape) in &lesson.gradients {
        prop_assert_eq!(closed.shape(), tape.shape());
        for (c, t) in closed.to_vec::<f64>().into_iter().zip(tape.to_vec::<f64>()) {
            prop_assert!(
                (c - t).abs() <= 1e-9 * (1.0 + c.abs()),
                "{}, {}: {} and {}",
                lesson.title,
                name,
                c,
                t
            );
        }
    }
    Ok(())
}

fn tensor(shape: &[usize]) -> impl Strategy<Value = Var> + use<> {
    let shape = shape.to_vec();
    proptest::collection::vec(-2.0f64..2.0, tape::shape::numel(&shape))
        .prop_map(move |values| Var::parameter(Tensor::from_vec(values, &shape)))
}

fn labels(n: usize, classes: usize) -> impl Strategy<Value = Var> {
    proptest::collection::vec(0..classes as i64, n).prop_map(move |labels| Var::from_vec(labels, &[n]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_gradient_of_softmax_cross_entropy_is_o_minus_y(
        (z, y) in (1usize..6, 1usize..7).prop_flat_map(|(n, c)| (tensor(&[n, c]), tensor(&[n, c])))
    ) {
        check(&lessons::softmax_cross_entropy(&z, &y.softmax(1).detach()))?;
    }

    #[test]
    fn two_layers_in_closed_form(
        (x, w1, b1, w2, b2, labels) in (1usize..5, 1usize..5, 1usize..6, 1usize..5).prop_flat_map(|(n, d, h, c)| {
            (tensor(&[n, d]), tensor(&[h, d]), tensor(&[h]), tensor(&[c, h]), tensor(&[c]), labels(n, c))
        })
    ) {
        check(&lessons::two_layers(&x, [(&w1, &b1), (&w2, &b2)], &labels))?;
    }

    #[test]
    fn one_step_by_hand(
        x in tensor(&[1, 2]), w in tensor(&[2, 2]), label in labels(1, 2), rate in 0.0f64..2.0
    ) {
        check(&lessons::one_step(&x, &w, &label, rate))?;
    }

    #[test]
    fn convolution_sigmoid_and_average_pooling(
        (x, k, g) in (1usize..5, 1usize..5, 2usize..9, 2usize..9).prop_flat_map(|(kh, kw, ch, cw)| {
            (tensor(&[1, 1, ch + kh - 1, cw + kw - 1]), tensor(&[1, 1, kh, kw]), tensor(&[1, 1, ch / 2, cw / 2]))
        })
    ) {
        check(&lessons::convolution_and_pooling(&x, &k, &g.detach()))?;
    }

    #[test]
    fn gradients_of_the_full_convolution_are_filters(
        (x, w, g) in (1usize..7, 1usize..7, 1usize..5, 1usize..5).prop_flat_map(|(h, w, kh, kw)| {
            (tensor(&[1, 1, h, w]), tensor(&[1, 1, kh, kw]), tensor(&[1, 1, h + kh - 1, w + kw - 1]))
        })
    ) {
        check(&lessons::full_convolution(&x, &w, &g.detach()))?;
    }

    #[test]
    fn batch_norm_in_closed_form(
        (x, gamma, beta, g) in (2usize..9, 1usize..6).prop_flat_map(|(n, c)| {
            (tensor(&[n, c]), tensor(&[c]), tensor(&[c]), tensor(&[n, c]))
        })
    ) {
        check(&lessons::batch_norm(&x, &gamma, &beta, &g.detach()))?;
    }
}

/// The guide shows the tapes of the samples as the program prints them.
#[test]
fn the_guide_shows_these_tapes() {
    let page = include_str!("../docs/backpropagation.md");
    let shown: Vec<&str> = page.lines().map(str::trim_end).collect();
    for lesson in lessons::samples(0) {
        check(&lesson).unwrap();
        let table = trace(&lesson.loss).to_string();
        let table: Vec<&str> = table.lines().map(str::trim_end).collect();
        let found = shown.windows(table.len()).any(|lines| lines == table);
        assert!(found, "docs/backpropagation.md does not show this tape:\n{}", table.join("\n"));
    }
}
