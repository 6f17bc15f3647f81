//! The gradients of single samples against those of batches of one.

use tapegrad_ops::{
    BatchNormOptions, ConvOptions, CrossEntropyOptions, EmbeddingOptions, Reduction, batch_norm_with, conv1d,
    conv2d_with, cross_entropy_with, embedding_with, group_norm, instance_norm, layer_norm, linear, matmul,
    max_pool2d, relu, rms_norm,
};
use tapegrad_tape::{DType, Generator, Tensor, Var, per_sample_grads, stack, value_and_grad};

fn normal(shape: &[usize], seed: u64) -> Tensor {
    Generator::manual_seed(seed).normal(shape, 0.0, 1.0).cast(DType::F64)
}

/// Checks the gradients of `f(parameters, batch)`, a vector of losses, for every sample of the batch.
#[track_caller]
fn check(f: impl Fn(&[Var], &[Var]) -> Var, parameters: &[&[usize]], batch: &[Var]) {
    let parameters: Vec<Var> =
        parameters.iter().enumerate().map(|(i, s)| Var::parameter(normal(s, 10 + i as u64))).collect();
    let losses = f(&parameters, batch);
    let found = per_sample_grads(&losses, &parameters.iter().collect::<Vec<_>>());
    // What is asked for one by one is the same: a rule gives the other gradients as usual.
    for (p, g) in parameters.iter().zip(&found) {
        assert_eq!(per_sample_grads(&losses, &[p])[0].to_vec::<f64>(), g.to_vec::<f64>());
    }
    let one = |i: usize| {
        let alone: Vec<Var> = batch.iter().map(|x| x.narrow(0, i, 1)).collect();
        value_and_grad(|p| f(p, &alone).sum_all(), &parameters).1
    };
    let all: Vec<Vec<Var>> = (0..losses.numel()).map(one).collect();
    for (k, found) in found.iter().enumerate() {
        let expected = stack(&all.iter().map(|one| one[k].clone()).collect::<Vec<_>>(), 0);
        assert_eq!((found.shape(), found.requires_grad()), (expected.shape(), false));
        for (a, b) in found.to_vec::<f64>().iter().zip(expected.to_vec::<f64>()) {
            assert!((a - b).abs() <= 1e-10 * (1.0 + b.abs()), "parameter {k}: {a}, should be {b}");
        }
    }
}

/// A loss for each sample.
fn losses(y: &Var) -> Var {
    y.flatten(1).tanh().square().sum(1)
}

#[test]
fn layers() {
    let x = Var::from(normal(&[3, 4], 1));
    check(|p, b| losses(&linear(&b[0], &p[0], Some(&p[1]))), &[&[5, 4], &[5]], std::slice::from_ref(&x));
    let sequence = Var::from(normal(&[3, 2, 6, 4], 2));
    check(|p, b| losses(&linear(&b[0], &p[0], None)), &[&[5, 4]], std::slice::from_ref(&sequence));
    check(
        |p, b| {
            losses(&layer_norm(&b[0], 4, Some(&p[0]), Some(&p[1]))) + losses(&rms_norm(&b[0], 4, Some(&p[2])))
        },
        &[&[4], &[4], &[4]],
        &[sequence],
    );
    let image = Var::from(normal(&[3, 4, 5, 6], 3));
    let options = ConvOptions::new().padding(1).stride(2).groups(2);
    check(
        |p, b| losses(&conv2d_with(&b[0], &p[0], Some(&p[1]), options)),
        &[&[6, 2, 3, 3], &[6]],
        std::slice::from_ref(&image),
    );
    check(
        |p, b| losses(&group_norm(&b[0], 2, Some(&p[0]), Some(&p[1]))),
        &[&[4], &[4]],
        std::slice::from_ref(&image),
    );
    check(
        |p, b| losses(&instance_norm(&b[0], None, Some(&p[0]), Some(&p[1]))),
        &[&[4], &[4]],
        std::slice::from_ref(&image),
    );
    check(|p, b| losses(&conv1d(&b[0].flatten(2), &p[0], None)), &[&[2, 4, 3]], &[image]);
    let words = Var::from_vec(vec![1i64, 1, 0, 4, 2, 2], &[3, 2]);
    for padding in [None, Some(2)] {
        let mut options = EmbeddingOptions::new();
        options.padding_idx = padding;
        check(
            |p, b| losses(&embedding_with(&b[0], &p[0], options)),
            &[&[5, 4]],
            std::slice::from_ref(&words),
        );
    }
}

#[test]
fn operations_on_single_elements_and_shared_parameters() {
    let x = Var::from(normal(&[3, 4], 1));
    check(
        |p, b| {
            let y = (&b[0] * &p[0] + &p[1]) / (p[2].add(&b[0].square()) + 3.0);
            losses(&linear(&relu(&linear(&y, &p[3], None)), &p[3], None)) * &p[4]
        },
        &[&[4], &[1, 4], &[], &[4, 4], &[1]],
        &[x],
    );
}

#[test]
fn a_small_network() {
    let (x, y) = (Var::from(normal(&[4, 1, 8, 8], 1)), Var::from_vec(vec![1i64, 0, 2, 2], &[4]));
    let options = || CrossEntropyOptions::new().reduction(Reduction::None);
    check(
        |p, b| {
            let h =
                relu(&max_pool2d(&conv2d_with(&b[0], &p[0], Some(&p[1]), ConvOptions::new().padding(1)), 2));
            cross_entropy_with(&linear(&h.flatten(1), &p[2], Some(&p[3])), &b[1], options())
        },
        &[&[2, 1, 3, 3], &[2], &[3, 32], &[3]],
        &[x, y],
    );
}

#[test]
fn unused_parameters_have_zeros() {
    let (x, w, other) =
        (normal(&[3, 4], 1), Var::parameter(normal(&[4], 2)), Var::parameter(normal(&[2], 3)));
    let found = per_sample_grads(&(&w * Var::from(x)).sum(1), &[&other, &w]);
    assert_eq!((found[0].shape(), found[0].to_vec::<f64>()), (&[3, 2][..], vec![0.0; 6]));
}

#[test]
#[should_panic(expected = "per_sample_grads: `batch_norm`, recorded at")]
fn operations_that_mix_samples_are_refused() {
    let (x, w) = (Var::from(normal(&[3, 4], 1)), Var::parameter(normal(&[4], 2)));
    let options = BatchNormOptions::new().training(true);
    per_sample_grads(&losses(&batch_norm_with(&x, None, Some(&w), Some(&w), options)), &[&w]);
}

#[test]
#[should_panic(expected = "has the result [4, 2], from a parameter of shape [4, 2]")]
fn parameters_that_are_used_without_the_samples_are_refused() {
    let (x, w) = (Var::from(normal(&[3, 4], 1)), Var::parameter(normal(&[4, 2], 2)));
    per_sample_grads(&losses(&matmul(&x, &w.square())), &[&w]);
}

#[test]
#[should_panic(expected = "parameter 0 of shape [4] is not a leaf")]
fn only_leaves() {
    let w = Var::parameter(normal(&[4], 2)) * 2.0;
    per_sample_grads(&(&w * Var::from(normal(&[3, 4], 1))).sum(1), &[&w]);
}
