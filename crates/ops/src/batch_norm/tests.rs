use super::*;
use crate::testing::{assert_close, check_gradients, parameter};
use proptest::prelude::*;
use tapegrad_tape::BackwardOptions;

fn training() -> BatchNormOptions {
    BatchNormOptions { training: true, momentum: 0.3, eps: 1e-3 }
}

fn buffers(channels: usize) -> (Var, Var) {
    let mean = Tensor::from_vec(crate::testing::numbers(channels, 5), &[channels]);
    let var = crate::testing::numbers(channels, 6).into_iter().map(|v| v + 1.5).collect();
    (Var::buffer(mean), Var::buffer(Tensor::from_vec::<f64>(var, &[channels])))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn gradients_in_every_layout(
        n in 2usize..4, c in 1usize..4, space in proptest::collection::vec(1usize..4, 0..3),
        last: bool, train: bool, affine: bool, seed: u64,
    ) {
        let mut shape = vec![n, c];
        shape.extend(space);
        let format = if last { MemoryFormat::ChannelsLast } else { MemoryFormat::Contiguous };
        let x = Var::parameter(parameter(&shape, seed).tensor().to_format(format));
        let (w, b) = (parameter(&[c], seed ^ 1), parameter(&[c], seed ^ 2));
        let options = BatchNormOptions { training: train, momentum: 0.0, ..training() };
        let (mean, var) = buffers(c);
        let f = |v: &[Var]| batch_norm_with(&v[0], Some((&mean, &var)), v.get(1), v.get(2), options);
        let inputs = if affine { vec![x.clone(), w, b] } else { vec![x.clone()] };
        check_gradients(f, &inputs);
        prop_assert_eq!(f(&inputs).tensor().is_contiguous_in(format), true);
        let seed = parameter(&shape, seed ^ 3).detach();
        let gradients = |create_graph| -> Vec<Var> {
            inputs.iter().for_each(Var::zero_grad);
            f(&inputs).backward_with(&seed, BackwardOptions { create_graph, ..Default::default() });
            inputs.iter().map(|v| v.grad().unwrap().detach()).collect()
        };
        for (fused, composed) in gradients(false).iter().zip(&gradients(true)) {
            assert_close(fused, composed, 1e-10);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn with_a_relu_as_composed(
        n in 2usize..4, c in 1usize..4, space in proptest::collection::vec(1usize..4, 0..3),
        last: bool, train: bool, affine: bool, residual: bool, six: bool, seed: u64,
    ) {
        let mut shape = vec![n, c];
        shape.extend(space);
        let format = if last { MemoryFormat::ChannelsLast } else { MemoryFormat::Contiguous };
        let inputs: Vec<Var> = [&shape[..], &[c], &[c], &shape]
            .iter()
            .enumerate()
            .map(|(i, s)| Var::parameter(parameter(s, seed ^ i as u64).tensor().to_format(format)))
            .collect();
        let options = BatchNormOptions { training: train, momentum: 0.0, ..training() };
        let (mean, var) = buffers(c);
        let fused = |v: &[Var]| {
            let (w, b) = if affine { (Some(&v[1]), Some(&v[2])) } else { (None, None) };
            if six {
                // Some of the values are above six.
                return batch_norm_relu6(&(&v[0] * 8.0), Some((&mean, &var)), w, b, options);
            }
            batch_norm_relu(&v[0], Some((&mean, &var)), w, b, residual.then_some(&v[3]), options)
        };
        let apart = |v: &[Var]| {
            let (w, b) = if affine { (Some(&v[1]), Some(&v[2])) } else { (None, None) };
            if six {
                return crate::relu6(&batch_norm_with(&(&v[0] * 8.0), Some((&mean, &var)), w, b, options));
            }
            let y = batch_norm_with(&v[0], Some((&mean, &var)), w, b, options);
            crate::relu(&if residual { &y + &v[3] } else { y })
        };
        let seed = parameter(&shape, seed ^ 9).detach();
        let run = |f: &dyn Fn(&[Var]) -> Var, create_graph| -> Vec<Option<Var>> {
            inputs.iter().for_each(Var::zero_grad);
            let y = f(&inputs);
            y.backward_with(&seed, BackwardOptions { create_graph, ..Default::default() });
            inputs.iter().map(|v| v.grad().map(|g| g.detach())).chain([Some(y.detach())]).collect()
        };
        let want = run(&apart, false);
        for got in [run(&fused, false), run(&fused, true)] {
            for (got, want) in got.iter().zip(&want) {
                prop_assert_eq!(got.is_some(), want.is_some());
                if let (Some(got), Some(want)) = (got, want) {
                    assert_close(got, want, 1e-10);
                }
            }
        }
    }
}

#[test]
fn both_formats_agree_in_f32() {
    let x = parameter(&[8, 40, 7, 9], 1).cast(DType::F32).detach();
    let g = parameter(&[8, 40, 7, 9], 2).cast(DType::F32).detach();
    let results = [MemoryFormat::Contiguous, MemoryFormat::ChannelsLast].map(|format| {
        let x = Var::parameter(x.tensor().to_format(format));
        let y = batch_norm_with(&x, None, None, None, training());
        y.backward_with(&g, BackwardOptions::default());
        (y.detach(), x.grad().unwrap())
    });
    assert_close(&results[0].0, &results[1].0, 1e-5);
    assert_close(&results[0].1, &results[1].1, 1e-5);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let before = tapegrad_tape::num_threads();
    let x = parameter(&[8, 48, 16, 16], 1).cast(DType::F32).tensor();
    for format in [MemoryFormat::Contiguous, MemoryFormat::ChannelsLast] {
        let x = x.to_format(format);
        let bits = [1, 3].map(|threads| {
            tapegrad_tape::set_num_threads(threads);
            let x = Var::parameter(x.clone());
            let y = batch_norm_with(&x, None, None, None, training());
            y.backward_with(&y.detach(), BackwardOptions::default());
            (y.to_vec::<f32>(), x.grad().unwrap().to_vec::<f32>())
        });
        assert!(bits[0] == bits[1]);
    }
    tapegrad_tape::set_num_threads(before);
}

#[test]
fn running_statistics_move_by_the_momentum() {
    let (mean, var) = buffers(1);
    let (m, v) = (mean.item(), var.item());
    let x = Var::from_vec(vec![1.0f64, 2.0, 6.0], &[3, 1]);
    batch_norm_with(&x, Some((&mean, &var)), None, None, training());
    assert!((mean.item() - (0.7 * m + 0.3 * 3.0)).abs() < 1e-12);
    // The unbiased variance of 1, 2, 6 is 7.
    assert!((var.item() - (0.7 * v + 0.3 * 7.0)).abs() < 1e-12);
}

#[test]
#[should_panic(expected = "batch_norm: expected more than 1 value per channel when training")]
fn one_value_has_no_variance() {
    batch_norm_with(&parameter(&[1, 3], 1), None, None, None, training());
}

#[test]
#[should_panic(expected = "batch_norm: input [2, 3] needs a weight of shape [3], but got [4]")]
fn a_weight_that_does_not_fit() {
    batch_norm_with(&parameter(&[2, 3], 1), None, Some(&parameter(&[4], 1)), None, training());
}
