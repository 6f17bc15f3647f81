//! The forward-backward algorithm of connectionist temporal classification.

use tapegrad_tape::kernels::parallel::parallel_chunks;

/// A sequence: its number of steps, the blank and the classes of its target.
pub(crate) struct Lattice {
    pub(crate) steps: usize,
    pub(crate) blank: usize,
    pub(crate) target: Vec<usize>,
}

/// The loss of each sequence, and its gradient for the normalized logarithms of probabilities `p`, of which each sequence
/// has `size`, `classes` a step.
pub(crate) fn losses(
    p: &[f64],
    classes: usize,
    lattices: &[Lattice],
    values: &mut [f64],
    gradient: &mut [f64],
    size: usize,
) {
    let mut both: Vec<(f64, &mut [f64])> = if size == 0 {
        values.iter().map(|_| (0.0, &mut [][..])).collect()
    } else {
        gradient.chunks_exact_mut(size).map(|g| (0.0, g)).collect()
    };
    parallel_chunks(&mut both, 1, |i, out| {
        let (value, gradient) = &mut out[0];
        *value = lattices[i].loss(&p[i * size..][..size], classes, gradient);
    });
    values.iter_mut().zip(both).for_each(|(value, (loss, _))| *value = loss);
}

impl Lattice {
    /// The states: the target's classes with blanks around them.
    fn class(&self, state: usize) -> usize {
        if state.is_multiple_of(2) { self.blank } else { self.target[state / 2] }
    }

    /// Whether a path may go to a state from the one before the last, past a blank.
    fn skips(&self, state: usize) -> bool {
        state >= 2 && self.class(state) != self.class(state - 2)
    }

    fn loss(&self, p: &[f64], classes: usize, gradient: &mut [f64]) -> f64 {
        let states = 2 * self.target.len() + 1;
        if self.steps == 0 {
            return if self.target.is_empty() { 0.0 } else { f64::INFINITY };
        }
        let at = |t: usize, s: usize| p[t * classes + self.class(s)];
        // Logarithms of the probabilities of all paths up to a step that end in a state, and from there on.
        let mut alpha = vec![f64::NEG_INFINITY; self.steps * states];
        let mut beta = alpha.clone();
        for s in 0..states.min(2) {
            alpha[s] = at(0, s);
        }
        for t in 1..self.steps {
            for s in 0..states {
                let from = |back: usize| {
                    if s >= back { alpha[(t - 1) * states + s - back] } else { f64::NEG_INFINITY }
                };
                let skip = if self.skips(s) { from(2) } else { f64::NEG_INFINITY };
                alpha[t * states + s] = log_sum([from(0), from(1), skip]) + at(t, s);
            }
        }
        let last = self.steps - 1;
        for s in states.saturating_sub(2)..states {
            beta[last * states + s] = at(last, s);
        }
        for t in (0..last).rev() {
            for s in 0..states {
                let to = |on: usize| {
                    if s + on < states { beta[(t + 1) * states + s + on] } else { f64::NEG_INFINITY }
                };
                let skip = if s + 2 < states && self.skips(s + 2) { to(2) } else { f64::NEG_INFINITY };
                beta[t * states + s] = log_sum([to(0), to(1), skip]) + at(t, s);
            }
        }
        let end = |back: usize| {
            if states >= back { alpha[last * states + states - back] } else { f64::NEG_INFINITY }
        };
        let loss = -log_sum([end(1), end(2), f64::NEG_INFINITY]);
        let mut sums = vec![f64::NEG_INFINITY; classes];
        for t in 0..self.steps {
            sums.fill(f64::NEG_INFINITY);
            for s in 0..states {
                let sum = &mut sums[self.class(s)];
                *sum = log_sum([*sum, alpha[t * states + s] + beta[t * states + s], f64::NEG_INFINITY]);
            }
            for c in 0..classes {
                let i = t * classes + c;
                gradient[i] = p[i].exp() - (sums[c] + loss - p[i]).exp();
            }
        }
        loss
    }
}

/// The logarithm of a sum of exponentials.
fn log_sum(x: [f64; 3]) -> f64 {
    let most = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY {
        return most;
    }
    most + x.iter().map(|x| (x - most).exp()).sum::<f64>().ln()
}
