//! Mixed precision: the types that PyTorch 2.15 gives on the CPU, and values close to those in F32.

use tapegrad_ops as ops;
use tapegrad_tape::{DType, Generator, Tensor, Var, autocast, bf16, set_num_threads};

const LOWER: DType = DType::BF16;

fn random(shape: &[usize], seed: u64) -> Var {
    Var::from(Generator::manual_seed(seed).normal(shape, 0.0, 1.0))
}

fn parameter(shape: &[usize], seed: u64) -> Var {
    Var::parameter(random(shape, seed).tensor())
}

/// The largest difference, relative to the largest value.
fn error(a: &Var, b: &Var) -> f64 {
    let (a, b) = (a.to_vec::<f64>(), b.to_vec::<f64>());
    let largest = b.iter().fold(0f64, |m, x| m.max(x.abs()));
    a.iter().zip(&b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max) / largest
}

#[test]
fn types_are_those_of_pytorch() {
    let (x, w, b) = (random(&[4, 8], 1), random(&[6, 8], 2), random(&[6], 3));
    let (image, kernel) = (random(&[2, 3, 8, 8], 4), random(&[5, 3, 3, 3], 5));
    let q = random(&[1, 2, 4, 8], 6);
    let target = Var::from_vec(vec![1i64, 2, 0, 3], 4);
    let part = Var::from_vec(vec![0.5f32; 24], &[4, 6]);
    autocast(LOWER, || {
        let h = ops::linear(&x, &w, &b);
        let conv = ops::conv2d(&image, &kernel, None);
        let row = |v: &Var| v.narrow(0, 0, 1).reshape(8);
        let one = |n: usize| Var::from(Tensor::ones(n));
        let types = [
            ("linear", h.clone(), LOWER),
            ("matmul", ops::matmul(&x, &w.t()), LOWER),
            ("mm", ops::mm(&x, &w.t()), LOWER),
            ("bmm", ops::bmm(&x.unsqueeze(0), &w.t().unsqueeze(0)), LOWER),
            ("addmm", ops::addmm(&b, &x, &w.t()), LOWER),
            ("einsum", ops::einsum("ij,kj->ik", &[&x, &w]), LOWER),
            ("mv", ops::mv(&x, &row(&x)), DType::F32),
            ("dot", ops::dot(&row(&x), &row(&x)), DType::F32),
            ("outer", ops::outer(&row(&x), &row(&x)), DType::F32),
            ("conv2d", conv.clone(), LOWER),
            ("conv_transpose2d", ops::conv_transpose2d(&conv, &kernel, None), LOWER),
            ("attention", ops::scaled_dot_product_attention(&q, &q, &q), LOWER),
            ("prelu", ops::prelu(&x, &one(1)), LOWER),
            ("relu", ops::relu(&h), LOWER),
            ("softmax", ops::softmax(&h, -1), LOWER),
            ("layer_norm", ops::layer_norm(&h, 6, Some(&one(6)), Some(&one(6))), LOWER),
            ("layer_norm of F32", ops::layer_norm(&x, 8, Some(&one(8)), Some(&one(8))), DType::F32),
            ("cross_entropy", ops::cross_entropy(&h, &target), DType::F32),
            ("nll_loss", ops::nll_loss(&h, &target), DType::F32),
            ("mse_loss", ops::mse_loss(&h, &part), DType::F32),
            ("l1_loss", ops::l1_loss(&h, &h), DType::F32),
            ("huber_loss", ops::huber_loss(&h, &h), DType::F32),
            ("smooth_l1_loss", ops::smooth_l1_loss(&h, &h), DType::F32),
            ("bce", ops::binary_cross_entropy(&h.sigmoid(), &part), DType::F32),
            ("bce with logits", ops::binary_cross_entropy_with_logits(&h, &part), DType::F32),
            ("cdist", ops::cdist(&h, &h), DType::F32),
            ("add", &h + &part, DType::F32),
            ("sum", h.sum_all(), LOWER),
            ("linear of F64", ops::linear(&x.cast(DType::F64), &w.cast(DType::F64), None), DType::F64),
        ];
        for (name, value, dtype) in types {
            assert_eq!(value.dtype(), dtype, "{name}");
        }
    });
    assert_eq!(ops::linear(&x, &w, &b).dtype(), DType::F32);
}

#[test]
fn gradients_are_close_to_those_in_f32_and_have_the_parameters_type() {
    let forward = |x: &Var, w: &Var, v: &Var| {
        let h = ops::relu(&ops::linear(x, w, None));
        let h = ops::scaled_dot_product_attention(&h, &h, &h);
        ops::mse_loss(&ops::matmul(&h, v), &Var::from(Tensor::zeros((2, 9, 5))))
    };
    let (x, w, v) = (random(&[2, 9, 16], 1), parameter(&[12, 16], 2), parameter(&[12, 5], 3));
    let run = |lower: bool| {
        let loss = if lower { autocast(LOWER, || forward(&x, &w, &v)) } else { forward(&x, &w, &v) };
        loss.backward();
        [Some(loss), w.take_grad(), v.take_grad()].map(|g| g.expect("computed"))
    };
    for (lower, exact) in run(true).iter().zip(&run(false)) {
        assert_eq!(lower.dtype(), DType::F32);
        let error = error(lower, exact);
        assert!(error > 0.0 && error < 0.02, "{error}");
    }
}

#[test]
fn convolutions_are_converted_at_their_edges() {
    let (x, w, b) = (parameter(&[2, 3, 9, 9], 1), parameter(&[4, 3, 3, 3], 2), parameter(&[4], 3));
    let run = |dtype: DType| {
        let y = ops::conv2d(&x.cast(dtype), &w.cast(dtype), Some(&b.cast(dtype)));
        assert_eq!(y.dtype(), dtype);
        y.cast(DType::F32).square().mean_all().backward();
        [Some(y), x.take_grad(), w.take_grad(), b.take_grad()].map(|v| v.expect("computed"))
    };
    for (lower, exact) in run(LOWER).iter().zip(&run(DType::F32)) {
        assert!(error(lower, exact) < 0.02);
    }
}

/// Sums are in F32: a product of BF16 matrices is that of the widened ones, rounded once.
#[test]
fn products_are_rounded_once_on_any_number_of_threads() {
    for [m, n, k] in [[3, 5, 7], [1, 64, 64], [130, 200, 300], [128, 128, 512]] {
        let short = |shape: &[usize], seed| random(shape, seed).cast(LOWER);
        let (a, b) = (short(&[m, k], 1), short(&[n, k], 2));
        let wide = ops::linear(&a.cast(DType::F32), &b.cast(DType::F32), None);
        let expected: Vec<bf16> = wide.to_vec::<f32>().into_iter().map(bf16::from_f32).collect();
        for threads in [1, 2] {
            set_num_threads(threads);
            assert!(ops::linear(&a, &b, None).to_vec::<bf16>() == expected, "{m} {n} {k}");
        }
    }
}
