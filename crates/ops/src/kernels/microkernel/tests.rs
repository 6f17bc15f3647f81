use super::*;
use proptest::prelude::*;

/// Numbers from -1 to 1 that differ from element to element.
fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0).collect()
}

struct Case {
    m: usize,
    n: usize,
    lens: Vec<usize>,
    columns: bool,
    b_step: usize,
    epilogue: (f32, f32, bool, bool),
    scattered: bool,
}

fn check(case: &Case) {
    let Case { m, n, lens, columns, b_step, epilogue, scattered } = case;
    let (m, n, b_step) = (*m, *n, *b_step);
    let k: usize = lens.iter().sum();
    let (a_row, a_step) = if *columns { (1, m + 3) } else { (k + 5, 1) };
    let a = numbers(3 + m * a_row + k * a_step, 1);
    let b = numbers(k * b_step + n, 2);
    let old = numbers(m * (n + 2), 3);
    let biases = numbers(n + m, 4);
    let (alpha, beta, column_bias, row_bias) = *epilogue;
    let offsets: [usize; ROWS] = std::array::from_fn(|i| (m.max(i + 1) - 1 - i) * (n + 2));
    let output = if *scattered { Output::Scattered(&offsets) } else { Output::Strided(n + 2) };
    let mut segments = Vec::new();
    let mut rows = vec![strided_rows(a.as_ptr(), a_row)];
    let mut done = 0;
    for &len in lens {
        // Odd segments have separate tables, even ones share the first.
        let (table, from) = if segments.len() % 2 == 1 { (rows.len(), done) } else { (0, 0) };
        if table > 0 {
            rows.push(strided_rows(a[from * a_step..].as_ptr(), a_row));
        }
        segments.push(Segment { table, a: 2 + (done - from) * a_step, b: done * b_step, len });
        done += len;
    }
    let mut c = old.clone();
    let null = std::ptr::null();
    let tile = Tile {
        m,
        n,
        segments: &segments,
        left: if *columns { Left::Columns(a_step) } else { Left::Rows },
        rows: &rows,
        b: b.as_ptr(),
        b_step,
        ahead: 0,
        c: c.as_mut_ptr(),
        output,
        epilogue: Epilogue {
            alpha,
            beta,
            column_bias: if column_bias { biases.as_ptr() } else { null },
            row_bias: if row_bias { biases[n..].as_ptr() } else { null },
        },
    };
    // SAFETY: every vector is as long as the description says.
    unsafe { tile.run() };
    let mut expected: Vec<f64> = old.iter().map(|&x| x.into()).collect();
    for i in 0..m {
        let row = if *scattered { m - 1 - i } else { i };
        for j in 0..n {
            let product: f64 =
                (0..k).map(|k| f64::from(a[2 + i * a_row + k * a_step]) * f64::from(b[k * b_step + j])).sum();
            let c = &mut expected[row * (n + 2) + j];
            *c = f64::from(alpha) * product + f64::from(beta) * *c;
            *c += if column_bias { f64::from(biases[j]) } else { 0.0 };
            *c += if row_bias { f64::from(biases[n + i]) } else { 0.0 };
        }
    }
    for (i, (c, e)) in c.iter().zip(&expected).enumerate() {
        assert!((f64::from(*c) - e).abs() < 1e-4, "element {i}: {c} instead of {e}");
    }
}

#[test]
fn all_tile_sizes() {
    for m in 1..=ROWS {
        for n in 1..=COLUMNS {
            for columns in [false, true] {
                let epilogue = (1.0, 0.0, false, false);
                check(&Case { m, n, lens: vec![19], columns, b_step: n, epilogue, scattered: false });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn segments_and_epilogues(
        m in 1..=ROWS,
        n in 1..=COLUMNS,
        lens in prop::collection::vec(1..20usize, 0..5),
        columns: bool,
        extra in 0..9usize,
        alpha in prop::sample::select(vec![1.0f32, -0.5, 0.0]),
        beta in prop::sample::select(vec![0.0f32, 1.0, 2.5]),
        biases: (bool, bool),
        scattered: bool,
    ) {
        let epilogue = (alpha, beta, biases.0, biases.1);
        check(&Case { m, n, lens, columns, b_step: n + extra, epilogue, scattered });
    }
}
