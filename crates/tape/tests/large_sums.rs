//! The rounding errors of large reductions in F32, held to the bounds that their documentation states.

use tapegrad_tape::{DType, Tensor, Var};

const U: f64 = 1.0 / (1u64 << 24) as f64;

fn tenths(shape: &[usize]) -> Var {
    Var::from(Tensor::full_with(shape, 0.1, DType::F32))
}

fn relative(found: &Var, exact: f64) -> f64 {
    found.to_vec::<f64>().iter().map(|v| (v / exact - 1.0).abs()).fold(0.0, f64::max)
}

const N: usize = 20_000_000;
const TENTH: f64 = 0.1f32 as f64;

#[test]
fn twenty_million_tenths() {
    let exact = TENTH * N as f64;
    let x = tenths(&[N]);
    assert!(relative(&x.sum_all(), exact) <= 128.0 * U);
    assert!(relative(&x.mean_all(), TENTH) <= 129.0 * U);
    assert!(relative(&x.norm_with(1.0, (), false), exact) <= 128.0 * U);
    assert!(relative(&x.norm(), TENTH * (N as f64).sqrt()) <= 65.0 * U);
    let x = x.reshape(&[2, -1]);
    assert!(relative(&x.sum(1), exact / 2.0) <= 128.0 * U);
    // Columns: the summed dimension is not the densest.
    for columns in [2, 100] {
        let rows = N / columns;
        let bound = (128.0 + rows as f64 / 4096.0) * U;
        let x = x.reshape((rows, -1));
        assert!(relative(&x.sum(0), TENTH * rows as f64) <= bound);
        assert!(relative(&x.mean(0), TENTH) <= bound + U);
        // A view whose elements lie apart.
        let apart = x.transpose(0, 1).get(0);
        let bound = (4096.0 + 128.0) * U;
        assert!(relative(&apart.sum_all(), TENTH * rows as f64) <= bound);
    }
}

#[test]
fn other_long_reductions() {
    let n = 1_000_000;
    let zeros = Var::from(Tensor::zeros_with(&[n], DType::F32));
    assert!(relative(&zeros.logsumexp(0), (n as f64).ln()) <= 130.0 * U);
    // Sums are kept in F64 and rounded once.
    let sums = tenths(&[n]).cumsum(0).to_vec::<f64>();
    assert!(sums.iter().enumerate().all(|(i, s)| (s / (TENTH * (i + 1) as f64) - 1.0).abs() <= 1.001 * U));
    let (base, n) = (f64::from(1.0001f32), 100_000);
    let products = Var::from(Tensor::full_with(&[n], base, DType::F32));
    assert!(relative(&products.prod_all(), base.powi(n)) <= n as f64 * U);
    assert!(relative(&products.cumprod(0).select(0, -1), base.powi(n)) <= 1.001 * U);
}
