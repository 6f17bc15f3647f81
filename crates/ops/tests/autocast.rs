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

/// Sums are in F32: a product of BF16 matrices is off by the last rounding, and by no more than F32 sums are.
#[test]
fn products_are_rounded_once_on_any_number_of_threads() {
    for [m, n, k] in [[3, 5, 7], [1, 64, 64], [130, 200, 300], [128, 128, 512]] {
        let short = |shape: &[usize], seed| random(shape, seed).cast(LOWER);
        let (a, b) = (short(&[m, k], 1), short(&[n, k], 2));
        let [x, y] = [&a, &b].map(|v| v.cast(DType::F64));
        let exact = ops::linear(&x, &y, None).to_vec::<f64>();
        let size = ops::linear(&x.abs(), &y.abs(), None).to_vec::<f64>();
        let results = [1, 2].map(|threads| {
            set_num_threads(threads);
            ops::linear(&a, &b, None).to_vec::<bf16>()
        });
        assert!(results[0] == results[1], "{m} {n} {k}");
        for ((z, exact), size) in results[0].iter().zip(exact).zip(size) {
            let allowed = exact.abs() / 256.0 + size * (k as f64).sqrt() * 2f64.powi(-23);
            assert!((z.to_f64() - exact).abs() <= allowed, "{m} {n} {k}: {z} instead of {exact}");
        }
    }
}

/// Outside of autocast the result has the type of the operands, and so have the gradients.
#[test]
fn operations_without_kernels_for_bf16_compute_in_f32() {
    type Op<'a> = &'a dyn Fn(&Var) -> Var;
    let target = Var::from_vec(vec![1i64, 2], 2);
    let shares = Var::from_vec(vec![0.25f32; 8], &[2, 4]);
    let grid = random(&[2, 3, 3, 2], 5) * 0.5;
    let bags = Var::from_vec(vec![0i64, 1, 1, 0], &[2, 2]);
    let image: &[usize] = &[2, 3, 8, 8];
    let (w, h) = (random(&[16, 4], 6) * 0.3, random(&[2, 4], 7));
    let ops: [(&str, &[usize], Op); 12] = [
        ("max_pool2d", image, &|x| ops::max_pool2d(x, 2)),
        ("max_pool2d_with_indices", image, &|x| ops::max_pool2d_with_indices(x, 2).0),
        ("avg_pool2d", image, &|x| ops::avg_pool2d(x, 2)),
        ("adaptive_avg_pool2d", image, &|x| ops::adaptive_avg_pool2d(x, [3, 2])),
        ("adaptive_max_pool2d", image, &|x| ops::adaptive_max_pool2d(x, [3, 2])),
        ("cross_entropy", &[2, 4], &|x| ops::cross_entropy(x, &target)),
        ("cross_entropy of shares", &[2, 4], &|x| ops::cross_entropy(x, &shares.cast(x.dtype()))),
        ("binary_cross_entropy", &[2, 4], &|x| {
            ops::binary_cross_entropy(&x.sigmoid(), &shares.cast(x.dtype()))
        }),
        ("grid_sample", image, &|x| ops::grid_sample(x, &grid.cast(x.dtype()))),
        ("embedding_bag", &[2, 4], &|x| ops::embedding_bag(&bags, x)),
        ("recurrent", &[3, 2, 16], &|x| {
            let [w, h] = [&w, &h].map(|v| v.cast(x.dtype()));
            ops::recurrent(ops::RecurrentCell::Lstm, x, &w, None, &h, Some(&h), false).0
        }),
        ("unbind", &[2, 4], &|x| &x.unbind(0)[0] * &x.unbind(0)[1]),
    ];
    for (name, shape, op) in ops {
        let x = parameter(shape, 3);
        let short = Var::parameter(x.cast(LOWER).tensor());
        let (y, wanted) = (op(&short), op(&x));
        assert_eq!(y.dtype(), LOWER, "{name}");
        assert!(error(&y, &wanted) < 0.02, "{name}");
        y.sum_all().backward();
        wanted.sum_all().backward();
        let [got, wanted] = [&short, &x].map(|v| v.grad().unwrap());
        assert_eq!(got.dtype(), LOWER, "{name}");
        assert!(error(&got, &wanted) < 0.02, "{name}");
    }
}
