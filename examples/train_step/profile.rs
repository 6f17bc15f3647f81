//! A table of the tape of one step.

use std::time::Instant;
use tapegrad::prelude::*;

/// One more step with each operation timed.
pub(crate) fn profile(step: &mut dyn FnMut() -> Option<Var>) {
    // A warm-up step first: during printing, the workers have returned to rayon.
    step();
    set_profiling(true);
    let start = Instant::now();
    let loss = step();
    let total = start.elapsed().as_secs_f64() * 1e3;
    set_profiling(false);
    let Some(loss) = loss else { return };
    let trace = trace(&loss);
    println!(
        "{:<26} {:<20} {:>10} {:>10} {:>9} {:>9} {:>10} {:>7}",
        "operation", "shape", "fwd ms", "bwd ms", "GFLOP/s", "GB/s", "saved MB", "share"
    );
    let ms = |d: std::time::Duration| d.as_secs_f64() * 1e3;
    for r in trace.rows.iter().filter(|r| r.op != "leaf") {
        let (forward, backward) = (ms(r.forward), ms(r.backward));
        // A product's backward pass is two products.
        let rate =
            r.flops as f64 * if backward > 0.0 { 3.0 } else { 1.0 } / ((forward + backward) * 1e6).max(1e-9);
        let bytes = r.shape.iter().product::<usize>() * r.dtype.size();
        let throughput = 2.0 * bytes as f64 / (forward * 1e6).max(1e-9);
        let rate = if r.flops > 0 { format!("{rate:.1}") } else { "-".into() };
        println!(
            "{:<26} {:<20} {forward:>10.3} {backward:>10.3} {rate:>9} {throughput:>9.1} {:>10.2} {:>6.1}%",
            r.op,
            format!("{:?}", r.shape),
            r.saved_bytes as f64 / 1e6,
            (forward + backward) / total * 100.0
        );
    }
    let (forward, backward) =
        trace.rows.iter().fold((0.0, 0.0), |(f, b), r| (f + ms(r.forward), b + ms(r.backward)));
    println!(
        "forward {forward:.3} ms, backward {backward:.3} ms, the rest (optimizer, bookkeeping) {:.3} ms",
        total - forward - backward
    );
}
