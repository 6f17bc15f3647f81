//! Rows of logits: the logarithms of their sums of exponentials, and the gradients of their losses.

use super::fold::fold;
use tapegrad_tape::Float;
use tapegrad_tape::kernels::parallel::parallel_blocks;
use tapegrad_tape::kernels::shared::SharedSlice;

/// The fewest elements in a task.
const GRAIN: usize = 1 << 13;

/// The logarithm of each row's sum of exponentials.
pub(crate) fn log_sums<T: Float>(logs: &mut [T], logits: &[T], classes: usize) {
    assert_eq!(logits.len(), logs.len() * classes);
    let (rows, logs) = (logs.len(), SharedSlice::new(logs));
    parallel_blocks(rows, GRAIN.div_ceil(classes.max(1)), |start, end| {
        // SAFETY: each row belongs to one task.
        let logs = unsafe { logs.part(start, end - start) };
        sums_of_rows(logs, &logits[start * classes..end * classes], classes);
    });
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn sums_of_rows<T: Float>(logs: &mut [T], logits: &[T], classes: usize) {
        for (log, x) in logs.iter_mut().zip(logits.chunks_exact(classes)) {
            let max = fold(x, -T::INFINITY, |_, x| x, |a, b| if b > a { b } else { a });
            let sum = fold(x, T::ZERO, |_, x| (x - max).exp(), |a, b| a + b);
            *log = max + sum.ln();
        }
    }
}

/// Replaces logits by `(softmax - one_hot) * g`; rows of the class that is ignored by zeros.
pub(crate) fn logit_gradients<T: Float>(
    logits: &mut [T],
    logs: &[T],
    targets: &[i64],
    ignore_index: i64,
    g: T,
) {
    let rows = logs.len();
    let classes = logits.len() / rows.max(1);
    assert!(targets.len() == rows && logits.len() == rows * classes);
    let logits = SharedSlice::new(logits);
    parallel_blocks(rows, GRAIN.div_ceil(classes.max(1)), |start, end| {
        for row in start..end {
            // SAFETY: each row belongs to one task.
            let logits = unsafe { logits.part(row * classes, classes) };
            if targets[row] == ignore_index {
                logits.fill(T::ZERO);
                continue;
            }
            scaled_softmax(logits, logs[row], g);
            let hit = &mut logits[targets[row] as usize];
            *hit = *hit - g;
        }
    });
}

tapegrad_tape::multiversion! {
    vectors of T;
    fn scaled_softmax<T: Float>(x: &mut [T], log: T, g: T) {
        for x in x.iter_mut() {
            *x = (*x - log).exp() * g;
        }
    }
}
