//! Times the kernels at the shapes that training steps use: `cargo bench -p tapegrad-ops -- [section]...`
//!
//! Sections: `tile` (the register tile at each height). Each figure is the best of many runs, so a
//! busy machine disturbs it little.

use ops::kernels::microkernel::{COLUMNS, Epilogue, Left, Output, ROWS, Segment, Tile, strided_rows};
use std::time::Instant;

fn main() {
    let sections: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wanted = |name: &str| sections.is_empty() || sections.iter().any(|s| s == name);
    if wanted("tile") {
        tiles();
    }
}

/// The best time of `f` in seconds, over at least 5 runs and 0.1 seconds.
fn best(mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    let mut runs = 0;
    while runs < 5 || start.elapsed().as_secs_f64() < 0.1 {
        let run = Instant::now();
        f();
        best = best.min(run.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 2003) as f32 / 1001.5 - 1.0).collect()
}

/// GFLOP/s of each tile height, its operands in the first cache levels.
fn tiles() {
    println!("tile: GFLOP/s at k = 576");
    println!(
        "{:>6} {:>10} {:>10} {:>12} {:>12}",
        "height", "rows x 32", "rows x 16", "columns x 32", "columns x 16"
    );
    let k = 576;
    let a = numbers(ROWS * k);
    let b = numbers(k * COLUMNS);
    let mut c = vec![0.0f32; ROWS * COLUMNS];
    for m in 1..=ROWS {
        let mut line = format!("{m:>6}");
        for left in [Left::Rows, Left::Columns(ROWS)] {
            for n in [32, 16] {
                let stride = if left == Left::Rows { k } else { 1 };
                let tile = Tile {
                    m,
                    n,
                    segments: &[Segment::whole(k)],
                    left,
                    rows: &[strided_rows(a.as_ptr(), stride)],
                    b: b.as_ptr(),
                    b_step: COLUMNS,
                    c: c.as_mut_ptr(),
                    output: Output::Strided(COLUMNS),
                    epilogue: Epilogue::STORE,
                };
                let seconds = best(|| {
                    for _ in 0..100 {
                        // SAFETY: the vectors hold 12 rows, 32 columns and k steps.
                        unsafe { tile.run() };
                    }
                });
                line += &format!(" {:>10.1}", (100 * 2 * m * n * k) as f64 / seconds / 1e9);
            }
        }
        println!("{line}");
    }
}
