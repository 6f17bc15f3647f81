use super::*;
use proptest::prelude::*;
use tapegrad_tape::kernels::parallel::set_num_threads;

/// Pseudorandom numbers from -1 to 1.
fn numbers(len: usize, seed: usize) -> Vec<f32> {
    let hash = |i: usize| {
        let x = ((i * 8 + seed) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let x = (x ^ (x >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        (x ^ (x >> 32)) & 0xFF_FFFF
    };
    (0..len).map(|i| hash(i) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// How an operand is stored: by rows, by columns, or with gaps both ways; with a longer row or not.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Rows(usize),
    Columns(usize),
    Apart,
}

fn strides(layout: Layout, rows: usize, columns: usize) -> (usize, usize) {
    match layout {
        Layout::Rows(gap) => (columns + gap, 1),
        Layout::Columns(gap) => (1, rows + gap),
        Layout::Apart => (2 * columns + 1, 2),
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    size: [usize; 3],
    a: Layout,
    b: Layout,
    gap: usize,
    alpha: f32,
    beta: f32,
    bias: u8,
}

impl Case {
    fn new(m: usize, n: usize, k: usize) -> Case {
        let rows = Layout::Rows(0);
        Case { size: [m, n, k], a: rows, b: rows, gap: 0, alpha: 1.0, beta: 0.0, bias: 0 }
    }

    fn run<T: Real>(&self, of: impl Fn(f32) -> T) -> Vec<T> {
        let [m, n, k] = self.size;
        let fill = |len: usize, seed: usize| numbers(len, seed).into_iter().map(&of).collect::<Vec<T>>();
        let ((ar, ac), (br, bc)) = (strides(self.a, m, k), strides(self.b, k, n));
        let (a, b) = (fill(m * k * 2 + m * ar + k * ac, 1), fill(k * n * 2 + k * br + n * bc, 2));
        let bias = fill(m.max(n), 3);
        let mut c = fill(m * (n + self.gap), 4);
        let finish = Finish {
            alpha: of(self.alpha),
            beta: of(self.beta),
            bias: match self.bias {
                0 => Bias::None,
                1 => Bias::Columns(&bias[..n]),
                _ => Bias::Rows(&bias[..m]),
            },
        };
        let (a, b) = (View { data: &a, row: ar, column: ac }, View { data: &b, row: br, column: bc });
        matmul(self.size, a, b, &mut c, n + self.gap, finish);
        c
    }

    /// What the definition gives, in `f64`.
    fn naive(&self) -> Vec<f64> {
        let [m, n, k] = self.size;
        let fill =
            |len: usize, seed: usize| numbers(len, seed).into_iter().map(f64::from).collect::<Vec<f64>>();
        let ((ar, ac), (br, bc)) = (strides(self.a, m, k), strides(self.b, k, n));
        let (a, b) = (fill(m * k * 2 + m * ar + k * ac, 1), fill(k * n * 2 + k * br + n * bc, 2));
        let bias = fill(m.max(n), 3);
        let mut c = fill(m * (n + self.gap), 4);
        for i in 0..m {
            for j in 0..n {
                let product: f64 = (0..k).map(|k| a[i * ar + k * ac] * b[k * br + j * bc]).sum();
                let at = i * (n + self.gap) + j;
                let x = f64::from(self.alpha) * product + f64::from(self.beta) * c[at];
                c[at] = x + [0.0, bias[j], bias[i]][usize::from(self.bias)];
            }
        }
        c
    }

    fn check(&self) {
        let expected = self.naive();
        let tolerance = (2e-7 * self.size[2] as f64 + 3e-6) * f64::from(self.alpha.abs().max(1.0));
        for (i, (c, e)) in self.run(|x| x).iter().zip(&expected).enumerate() {
            assert!((f64::from(*c) - e).abs() < tolerance, "{self:?}: element {i} is {c} instead of {e}");
        }
        for (i, (c, e)) in self.run(f64::from).iter().zip(&expected).enumerate() {
            assert!((c - e).abs() < tolerance * 1e-6, "{self:?} in f64: element {i} is {c} instead of {e}");
        }
    }
}

#[test]
fn layers_of_known_models() {
    use Layout::{Columns, Rows};
    for (m, n, k, a, b) in [
        (64, 256, 784, Rows(0), Columns(0)),
        (64, 10, 128, Rows(0), Columns(0)),
        (64, 784, 256, Rows(0), Rows(0)),
        (256, 784, 64, Columns(0), Rows(0)),
        (1, 256, 784, Rows(0), Columns(0)),
        (1, 784, 256, Rows(0), Rows(0)),
        (256, 784, 1, Columns(0), Rows(0)),
        (50, 100, 3000, Rows(0), Columns(0)),
        (300, 290, 310, Rows(0), Rows(0)),
        (300, 290, 310, Columns(0), Columns(0)),
    ] {
        for bias in [0, 1] {
            Case { a, b, bias, ..Case::new(m, n, k) }.check();
        }
    }
}

#[test]
fn an_empty_sum_is_zero_or_the_bias() {
    for bias in 0..3 {
        for (m, n) in [(0, 3), (3, 0), (1, 5), (5, 1), (3, 40), (20, 1)] {
            Case { bias, ..Case::new(m, n, 0) }.check();
            Case { bias, beta: 0.5, ..Case::new(m, n, 0) }.check();
        }
    }
}

#[test]
fn one_and_two_threads_give_the_same_bits() {
    for (m, n, k, b) in [
        (300, 500, 200, Layout::Rows(0)),
        (64, 512, 700, Layout::Columns(0)),
        (50, 300, 5000, Layout::Columns(0)),
        (1, 2000, 900, Layout::Columns(0)),
    ] {
        let case = Case { b, ..Case::new(m, n, k) };
        let results = [1, 2].map(|threads| {
            set_num_threads(threads);
            (case.run(|x| x), case.run(f64::from))
        });
        assert!(results[0] == results[1], "{case:?}");
    }
}

#[test]
fn long_rows_end_with_their_slices() {
    for (m, n) in [(5, 5), (8, 50), (50, 8), (7, 6)] {
        let k = 3000;
        let (a, b) = (vec![1.0f32; m * k], vec![0.5f32; n * k]);
        let mut c = vec![f32::NAN; m * n];
        matmul([m, n, k], View::rows(&a, k), View::rows(&b, k).transposed(), &mut c, n, Finish::default());
        assert!(c.iter().all(|&c| c == 1500.0), "{m} by {n}");
    }
}

#[test]
#[should_panic(expected = "needs 12 elements, not 11")]
fn a_short_operand_is_refused() {
    let (a, b) = ([0.0f32; 11], [0.0f32; 8]);
    matmul([3, 2, 4], View::rows(&a, 4), View::rows(&b, 2), &mut [0.0; 6], 2, Finish::default());
}

fn layout() -> impl Strategy<Value = Layout> {
    prop_oneof![
        (0..3usize).prop_map(Layout::Rows),
        (0..3usize).prop_map(Layout::Columns),
        Just(Layout::Apart)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_product(
        size in (0..90usize, 0..90usize, 0..90usize),
        a in layout(),
        b in layout(),
        gap in 0..3usize,
        alpha in prop::sample::select(vec![1.0f32, 0.5, -2.0]),
        beta in prop::sample::select(vec![0.0f32, 1.0, 0.5]),
        bias in 0..3u8,
    ) {
        Case { size: size.into(), a, b, gap, alpha, beta, bias }.check();
    }

    #[test]
    fn thin_products(
        thin in 1..3usize,
        other in 1..300usize,
        k in 0..1500usize,
        turned: bool,
        a in layout(),
        b in layout(),
        bias in 0..3u8,
    ) {
        let (m, n) = if turned { (other, thin) } else { (thin, other) };
        Case { a, b, bias, ..Case::new(m, n, k) }.check();
    }

    #[test]
    fn long_products(
        size in (3..40usize, 3..40usize, 1000..2600usize),
        gaps in (0..3usize, 0..3usize),
        gap in 0..2usize,
        beta in prop::sample::select(vec![0.0f32, 0.5]),
        bias in 0..3u8,
    ) {
        let (a, b) = (Layout::Rows(gaps.0), Layout::Columns(gaps.1));
        Case { size: size.into(), a, b, gap, alpha: -2.0, beta, bias }.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Both operands are packed; some have more steps than a block.
    #[test]
    fn large_products(
        size in (128..300usize, 128..260usize, prop_oneof![257..300usize, 1020..1100usize]),
        a in layout(),
        b in layout(),
        gap in 0..2usize,
        alpha in prop::sample::select(vec![1.0f32, -2.0]),
        beta in prop::sample::select(vec![0.0f32, 0.5]),
        bias in 0..3u8,
    ) {
        Case { size: size.into(), a, b, gap, alpha, beta, bias }.check();
    }
}
