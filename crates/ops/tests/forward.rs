//! Forward mode of layers, against two backward passes; and over a backward pass, against one over another.

use tapegrad_ops::{
    BatchNormOptions, ConvOptions, RecurrentCell, addmm_with, avg_pool2d, batch_norm_with, conv_transpose2d,
    conv2d_with, cross_entropy, ctc_loss, embedding, grid_sample, group_norm, layer_norm, linear,
    log_softmax, matmul, max_pool2d, recurrent, scaled_dot_product_attention,
};
use tapegrad_tape::{DType, Generator, GradOptions, Tensor, Var, grad_with, jvp, value_and_grad};

fn normal(shape: &[usize], seed: u64) -> Var {
    Var::from(Generator::manual_seed(seed).normal(shape, 0.0, 1.0).cast(DType::F64))
}

#[track_caller]
fn close(a: &Var, b: &Var) {
    assert_eq!(a.shape(), b.shape());
    for (x, y) in a.to_vec::<f64>().iter().zip(&b.to_vec::<f64>()) {
        assert!((x - y).abs() <= 1e-9 * (1.0 + y.abs()), "{x} and {y}");
    }
}

/// The derivative of `f` along `v` by two backward passes.
fn by_two_passes(f: impl Fn(&[Var]) -> Var, xs: &[Var], v: &[Var]) -> Var {
    let leaves: Vec<Var> = xs.iter().map(|x| Var::parameter(x.tensor())).collect();
    let y = f(&leaves);
    let u = Var::parameter(Tensor::zeros_with(y.shape(), y.dtype()));
    let options = GradOptions::new().grad_outputs(vec![u.clone()]).create_graph(true);
    let rows = grad_with(&[&y], &leaves.iter().collect::<Vec<_>>(), options);
    let product = rows.iter().zip(v).map(|(g, v)| (g.as_ref().expect("a gradient") * v).sum_all());
    grad_with(&[&product.reduce(|a, b| a + b).expect("inputs")], &[&u], GradOptions::new())
        .remove(0)
        .expect("linear")
}

/// Checks first and second derivatives of a function of inputs of these shapes.
#[track_caller]
fn check(f: impl Fn(&[Var]) -> Var, shapes: &[&[usize]], twice: bool) {
    let xs: Vec<Var> = shapes.iter().zip(1..).map(|(s, seed)| normal(s, seed)).collect();
    let v: Vec<Var> = shapes.iter().zip(11..).map(|(s, seed)| normal(s, seed)).collect();
    close(&jvp(&f, &xs, &v).1, &by_two_passes(&f, &xs, &v));
    // One input alone: the others have no tangents.
    for i in 0..xs.len() {
        let one = |x: &[Var]| f(&[&xs[..i], x, &xs[i + 1..]].concat());
        close(&jvp(one, &xs[i..=i], &v[i..=i]).1, &by_two_passes(one, &xs[i..=i], &v[i..=i]));
    }
    if twice {
        let gradient = |x: &[Var]| {
            let g = value_and_grad(|x| f(x).square().sum_all(), x).1;
            g.iter().map(|g| g.sin().sum_all()).reduce(|a, b| a + b).expect("inputs")
        };
        close(&jvp(gradient, &xs, &v).1, &by_two_passes(gradient, &xs, &v));
    }
}

#[test]
fn products_and_convolutions() {
    check(|x| linear(&x[0], &x[1], Some(&x[2])), &[&[2, 3, 4], &[5, 4], &[5]], true);
    check(|x| matmul(&x[0], &x[1]), &[&[3, 4], &[2, 4, 5]], true);
    check(|x| addmm_with(&x[0], &x[1], &x[2], 0.5, 2), &[&[5], &[3, 4], &[4, 5]], true);
    let options = ConvOptions::new().padding(1).stride(2).groups(2);
    let conv = |x: &[Var]| conv2d_with(&x[0], &x[1], Some(&x[2]), options);
    check(conv, &[&[2, 4, 5, 6], &[6, 2, 3, 3], &[6]], true);
    check(|x| conv_transpose2d(&x[0], &x[1], Some(&x[2])), &[&[2, 3, 4, 4], &[3, 2, 3, 3], &[2]], true);
    check(|x| max_pool2d(&x[0], 2) * avg_pool2d(&x[0], 2), &[&[2, 3, 4, 6]], true);
}

#[test]
fn layers_by_the_transpose_of_their_rules() {
    check(|x| layer_norm(&x[0], 4, Some(&x[1]), Some(&x[2])), &[&[2, 3, 4], &[4], &[4]], true);
    check(|x| group_norm(&x[0], 2, Some(&x[1]), Some(&x[2])), &[&[2, 4, 3], &[4], &[4]], true);
    check(
        |x| batch_norm_with(&x[0], None, Some(&x[1]), Some(&x[2]), BatchNormOptions::new().training(true)),
        &[&[5, 3], &[3], &[3]],
        true,
    );
    check(|x| scaled_dot_product_attention(&x[0], &x[1], &x[2]), &[&[2, 3, 4], &[2, 5, 4], &[2, 5, 4]], true);
    check(|x| grid_sample(&x[0], &x[1].tanh()), &[&[1, 2, 4, 4], &[1, 3, 3, 2]], true);
    let target = Var::from_vec(vec![1i64, 0, 2], &[3]);
    check(|x| cross_entropy(&x[0], &target), &[&[3, 4]], true);
    check(|x| embedding(&target, &x[0]), &[&[4, 2]], true);
    check(|x| ctc_loss(&log_softmax(&x[0], 2), &target, &[6], &[3]), &[&[6, 1, 4]], false);
    for cell in [RecurrentCell::RnnTanh, RecurrentCell::Gru, RecurrentCell::Lstm] {
        let gates = cell.blocks() * 2;
        let shapes: [&[usize]; 5] = [&[3, 2, gates], &[gates, 2], &[gates], &[2, 2], &[2, 2]];
        let count = if cell == RecurrentCell::Lstm { 5 } else { 4 };
        let f = |x: &[Var]| recurrent(cell, &x[0], &x[1], Some(&x[2]), &x[3], x.get(4), false).0;
        check(f, &shapes[..count], true);
    }
}
