//! The product by tiles; where there is no AMX, by their portable form.

use super::*;
use crate::kernels::gemm::Bias;
use crate::kernels::gemm::sgemm::by_vectors;
use proptest::prelude::*;
use tapegrad_tape::kernels::parallel::set_num_threads;
use tapegrad_tape::{Generator, bf16};

fn numbers(len: usize, seed: u64) -> Vec<f32> {
    Generator::manual_seed(seed).normal(&[len], 0.0, 1.0).to_vec()
}

/// A matrix by rows, by columns, or with gaps both ways.
fn view<T>(data: &[T], rows: usize, columns: usize, layout: usize) -> View<'_, T> {
    match layout {
        0 => View::rows(data, columns + 1),
        1 => View::rows(data, rows + 2).transposed(),
        _ => View { data, row: 2 * columns + 1, column: 2 },
    }
}

fn room(rows: usize, columns: usize) -> usize {
    2 * (rows + 2) * (columns + 2)
}

/// The product by tiles, its rows one element apart.
fn by_tiles(size: [usize; 3], a: View<f32>, b: View<f32>, c: &mut [f32], finish: Finish<f32>) {
    product(size, a, b, c, size[1] + 1, finish, Some(by_vectors));
}

/// The product in F64, and the sum of the magnitudes of its terms.
fn exact<T: Copy>(a: View<T>, b: View<T>, k: usize, i: usize, j: usize, f: impl Fn(T) -> f64) -> (f64, f64) {
    let term = |l: usize| f(a.data[i * a.row + l * a.column]) * f(b.data[l * b.row + j * b.column]);
    (0..k).map(term).fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if is_available() { 100 } else { 12 }))]
    #[test]
    fn any_product(
        size in (1..150usize, 1..150usize, 1..600usize),
        layouts: (u8, u8),
        seed: u64,
        alpha in prop::sample::select(vec![1.0f32, -2.0]),
        beta in prop::sample::select(vec![0.0f32, 0.5]),
        bias in 0..3usize,
    ) {
        let (m, n, k) = size;
        let (a, b) = (numbers(room(m, k), seed), numbers(room(k, n), seed ^ 1));
        let (a, b) = (view(&a, m, k, layouts.0 as usize % 3), view(&b, k, n, layouts.1 as usize % 3));
        let (old, terms) = (numbers(m * (n + 1), seed ^ 2), numbers(m.max(n), seed ^ 3));
        let bias = [Bias::None, Bias::Columns(&terms[..n]), Bias::Rows(&terms[..m])][bias];
        let mut c = old.clone();
        by_tiles([m, n, k], a, b, &mut c, Finish { alpha, beta, bias });
        for (at, (&c, &old)) in c.iter().zip(&old).enumerate() {
            let (i, j) = (at / (n + 1), at % (n + 1));
            if j == n {
                prop_assert_eq!(c.to_bits(), old.to_bits(), "between the rows");
                continue;
            }
            let (sum, size) = exact(a, b, k, i, j, f64::from);
            let term = match bias {
                Bias::None => 0.0,
                Bias::Columns(bias) => bias[j],
                Bias::Rows(bias) => bias[i],
            };
            let want = f64::from(alpha) * sum + f64::from(beta * old) + f64::from(term);
            // The rounding of F32 sums, at most half a unit for each term.
            let bound = (size * 2.0 + 4.0) * 2f64.powi(-24) * (2.0 + (k as f64).sqrt());
            prop_assert!((f64::from(c) - want).abs() <= bound, "({i}, {j}): {c} instead of {want}");
        }
    }

    #[test]
    fn bf16_products(size in (1..100usize, 1..100usize, 1..300usize), layouts: (u8, u8), seed: u64) {
        let (m, n, k) = size;
        let short = |len, seed| numbers(len, seed).into_iter().map(bf16::from_f32).collect::<Vec<_>>();
        let (a, b) = (short(room(m, k), seed), short(room(k, n), seed ^ 1));
        let (a, b) = (view(&a, m, k, layouts.0 as usize % 3), view(&b, k, n, layouts.1 as usize % 3));
        let mut c = vec![f32::NAN; m * n];
        product([m, n, k], a, b, &mut c, n, Finish::default(), None);
        for (at, &c) in c.iter().enumerate() {
            let (sum, size) = exact(a, b, k, at / n, at % n, f64::from);
            prop_assert!((f64::from(c) - sum).abs() <= size * 2f64.powi(-23) * (2.0 + (k as f64).sqrt()));
        }
    }
}

/// The mean error relative to the magnitude of the terms, by tiles and by vectors.
#[test]
fn errors_are_those_of_vectors() {
    let [m, n, k] = [96, 64, 768];
    let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
    let (a, b) = (View::rows(&a, k), View::rows(&b, n));
    let mut results = [vec![0.0; m * n], vec![0.0; m * n]];
    product([m, n, k], a, b, &mut results[0], n, Finish::default(), Some(by_vectors));
    by_vectors([m, n, k], a, b, &mut results[1], n, Finish::default());
    let [tiles, vectors] = results.map(|c| {
        let error = |(at, &c): (usize, &f32)| {
            let (sum, size) = exact(a, b, k, at / n, at % n, f64::from);
            (f64::from(c) - sum).abs() / size
        };
        c.iter().enumerate().map(error).sum::<f64>() / (m * n) as f64
    });
    assert!(tiles < 2.0 * vectors && tiles < 1e-7, "by tiles {tiles:e}, by vectors {vectors:e}");
}

#[test]
fn infinities_and_nan_are_those_of_vectors() {
    let [m, n, k] = [40, 70, 90];
    let (mut a, mut b) = (numbers(m * k, 1), numbers(k * n, 2));
    a[3 * k + 5] = f32::INFINITY;
    a[7 * k + 80] = f32::NAN;
    // Rounds to infinity as a BF16.
    a[33 * k] = f32::MAX;
    b[20 * n + 65] = f32::NEG_INFINITY;
    b[66] = 0.0;
    let (a, b) = (View::rows(&a, k), View::rows(&b, n));
    let (mut c, mut want) = (vec![0.0; m * n], vec![0.0; m * n]);
    product([m, n, k], a, b, &mut c, n, Finish::default(), Some(by_vectors));
    by_vectors([m, n, k], a, b, &mut want, n, Finish::default());
    for (at, (c, w)) in c.iter().zip(&want).enumerate() {
        let close = (c - w).abs() <= 1e-4 * (1.0 + w.abs());
        assert!(close || c == w || c.is_nan() && w.is_nan(), "({}, {}): {c}, {w}", at / n, at % n);
    }
    assert!(want[33 * n..34 * n].iter().any(|w| w.is_finite() && w.abs() > 1e37));
}

#[test]
fn tiny_operands_keep_their_precision() {
    for (of_a, of_b) in [(1e-36, 1.0), (1.0, 1e-37), (1e-14, 1e-14), (1e-30, 1e30), (0.0, 1.0)] {
        let [m, n, k] = [33, 40, 64];
        let scaled = |len, seed, by: f32| numbers(len, seed).iter().map(|x| x * by).collect::<Vec<_>>();
        let (a, b) = (scaled(m * k, 1, of_a), scaled(k * n, 2, of_b));
        let (a, b) = (View::rows(&a, k), View::rows(&b, n));
        let mut c = vec![0.0; m * n];
        product([m, n, k], a, b, &mut c, n, Finish::default(), Some(by_vectors));
        for (at, &c) in c.iter().enumerate() {
            let (sum, size) = exact(a, b, k, at / n, at % n, f64::from);
            assert!((f64::from(c) - sum).abs() <= 1e-6 * size, "{of_a}, {of_b}: {c:e} instead of {sum:e}");
        }
    }
}

#[test]
fn blocks_and_threads_do_not_change_bits() {
    // More strips than a block has, and more steps.
    let [m, n, k] = if is_available() { [2100, 1500, 300] } else { [70, 70, 300] };
    let (a, b) = (numbers(m * k, 1), numbers(n * k, 2));
    let (a, b) = (View::rows(&a, k), View::rows(&b, k).transposed());
    let results = [1, 2, 3].map(|threads| {
        set_num_threads(threads);
        let mut c = vec![f32::NAN; m * n];
        product([m, n, k], a, b, &mut c, n, Finish::default(), Some(by_vectors));
        c
    });
    assert!(results[0] == results[1] && results[0] == results[2]);
    for (i, j) in [(0, 0), (m - 1, n - 1), (m / 2, 3), (5, n / 2)] {
        let (sum, size) = exact(a, b, k, i, j, f64::from);
        assert!((f64::from(results[0][i * n + j]) - sum).abs() < 1e-6 * size);
    }
}
