//! Recurrent cells over whole sequences.
//!
//! The contributions of the inputs are given. A step is one product of the state with a weight that is packed once for
//! all steps, and one pass over the gates. Backward, the steps write the gradients of the gates of all steps, so that
//! the weight's gradient is one product.

mod cells;
mod packed;

use super::gemm::{Finish, View, matmul};
use cells::{Backward, Forward};
use packed::Packed;
pub(crate) use packed::Steps;
use tapegrad_tape::kernels::parallel::parallel_blocks;
use tapegrad_tape::kernels::shared::SharedSlice;

/// Units of a cell that are worth a task of their own.
const GRAIN: usize = 1 << 11;

/// What a cell computes in a step from the contribution x of the input, the contribution s of the state, and the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecurrentCell {
    /// `tanh(x + s)`
    RnnTanh,
    /// `relu(x + s)`
    RnnRelu,
    /// Long short-term memory: input gate, forget gate, cell and output gate.
    Lstm,
    /// Gated recurrent unit: reset gate, update gate and new state.
    Gru,
}

impl RecurrentCell {
    /// How many blocks of the hidden size the contributions have.
    pub fn blocks(self) -> usize {
        match self {
            RecurrentCell::RnnTanh | RecurrentCell::RnnRelu => 1,
            RecurrentCell::Lstm => 4,
            RecurrentCell::Gru => 3,
        }
    }

    /// Values that the backward pass needs of each unit besides the states.
    pub(crate) fn kept(self) -> usize {
        match self {
            RecurrentCell::RnnTanh | RecurrentCell::RnnRelu => 0,
            RecurrentCell::Lstm | RecurrentCell::Gru => 4,
        }
    }

    /// Whether the contributions of input and state have different gradients.
    pub(crate) fn state_differs(self) -> bool {
        self == RecurrentCell::Gru
    }
}

/// The sizes of a sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence {
    pub(crate) cell: RecurrentCell,
    pub(crate) steps: usize,
    pub(crate) n: usize,
    pub(crate) hidden: usize,
    /// Whether the last step is the first one computed.
    pub(crate) reverse: bool,
}

impl Sequence {
    /// Elements of a state.
    pub(crate) fn state(&self) -> usize {
        self.n * self.hidden
    }

    /// Elements of a contribution to all gates of a step.
    fn gates(&self) -> usize {
        self.cell.blocks() * self.state()
    }

    /// The step that is computed as number k, and the one before it.
    fn times(&self, k: usize) -> (usize, Option<usize>) {
        let time = |k: usize| if self.reverse { self.steps - 1 - k } else { k };
        (time(k), k.checked_sub(1).map(time))
    }
}

/// What both passes read, row-major: the contributions `[steps, n, blocks * hidden]` of the inputs, the weight
/// `[blocks * hidden, hidden]` of the state and its bias, the first states.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a, T> {
    pub(crate) inputs: &'a [T],
    pub(crate) weight: &'a [T],
    pub(crate) bias: Option<&'a [T]>,
    pub(crate) h: &'a [T],
    /// Empty if the cell has none.
    pub(crate) c: &'a [T],
}

/// What the forward pass writes: the hidden states of all steps, the cell states of all steps, if there are any, and
/// what the backward pass needs of each step, or of one step if there will be none.
pub(crate) struct Written<'a, T> {
    pub(crate) y: &'a mut [T],
    pub(crate) c: &'a mut [T],
    pub(crate) kept: &'a mut [T],
}

/// One of the states of all steps, or the first one.
fn state_before<'a, T>(first: &'a [T], all: &'a [T], size: usize, time: Option<usize>) -> &'a [T] {
    time.map_or(first, |t| &all[t * size..][..size])
}

/// Elements `start .. start + len` of [`state_before`].
///
/// # Safety
/// While the result lives, no task may write them.
unsafe fn rows_before<'a, T>(
    first: &'a [T],
    all: &'a SharedSlice<T>,
    size: usize,
    time: Option<usize>,
    start: usize,
    len: usize,
) -> &'a [T] {
    match time {
        // SAFETY: as the caller promises.
        Some(t) => unsafe { all.part(t * size + start, len) },
        None => &first[start..start + len],
    }
}

pub(crate) fn forward<T: Steps>(q: &Sequence, from: Operands<T>, to: Written<T>) {
    let (size, gates, hidden) = (q.state(), q.gates(), q.hidden);
    let (rows, columns) = (hidden, q.cell.blocks() * hidden);
    let weight = Packed::new(View::rows(from.weight, rows).transposed(), rows, columns);
    let mut product = vec![T::ZERO; gates];
    let kept_step = q.cell.kept() * size;
    let has_c = !from.c.is_empty();
    for k in 0..q.steps {
        let (t, before) = q.times(k);
        weight.multiply(q.n, state_before(from.h, to.y, size, before), from.bias, false, &mut product);
        // Its own place if each step has one.
        let kept_at = if to.kept.len() > kept_step { t * kept_step } else { 0 };
        let [y, c, kept] = [&mut *to.y, &mut *to.c, &mut *to.kept].map(SharedSlice::new);
        let (inputs, product) = (&from.inputs[t * gates..][..gates], &product);
        parallel_blocks(q.n, GRAIN / hidden, |start, end| {
            let (a, b) = (start * hidden, (end - start) * hidden);
            let blocks = q.cell.blocks();
            // SAFETY: each task has rows of its own, and step `before` is another one than t.
            unsafe {
                let h_before = rows_before(from.h, &y, size, before, a, b);
                let c_before = if has_c { rows_before(from.c, &c, size, before, a, b) } else { &[] };
                cells::forward(Forward {
                    cell: q.cell,
                    hidden,
                    inputs: &inputs[blocks * a..][..blocks * b],
                    product: &product[blocks * a..][..blocks * b],
                    h_before,
                    c_before,
                    y: y.part(t * size + a, b),
                    c: if has_c { c.part(t * size + a, b) } else { &mut [] },
                    kept: kept.part(kept_at + q.cell.kept() * a, q.cell.kept() * b),
                });
            }
        });
    }
}

/// The gradients that the backward pass writes: of the inputs' contributions, of the state's (empty if they are the
/// same), and of the first states. Before, those of the first states hold the gradients of the last.
pub(crate) struct Gradients<'a, T> {
    pub(crate) inputs: &'a mut [T],
    pub(crate) product: &'a mut [T],
    pub(crate) h: &'a mut [T],
    pub(crate) c: &'a mut [T],
}

/// `dy` are the gradients of the hidden states of all steps; `y`, `c` and `kept` are what the forward pass wrote.
pub(crate) fn backward<T: Steps>(
    q: &Sequence,
    from: Operands<T>,
    [y, c, kept, dy]: [&[T]; 4],
    to: Gradients<T>,
) {
    let (size, gates, hidden, blocks) = (q.state(), q.gates(), q.hidden, q.cell.blocks());
    let weight = Packed::new(View::rows(from.weight, hidden), blocks * hidden, hidden);
    let (kept_of, has_c, differs) = (q.cell.kept(), !from.c.is_empty(), q.cell.state_differs());
    for k in (0..q.steps).rev() {
        let (t, before) = q.times(k);
        let h_before = state_before(from.h, y, size, before);
        let c_before = if has_c { state_before(from.c, c, size, before) } else { &[] };
        let [dx, ds, dh, dc] =
            [&mut *to.inputs, &mut *to.product, &mut *to.h, &mut *to.c].map(SharedSlice::new);
        parallel_blocks(q.n, GRAIN / hidden, |start, end| {
            let (a, b) = (start * hidden, (end - start) * hidden);
            let at = t * size + a;
            // SAFETY: each task has rows of its own.
            unsafe {
                cells::backward(Backward {
                    cell: q.cell,
                    hidden,
                    kept: &kept[kept_of * at..][..kept_of * b],
                    y: &y[at..][..b],
                    c: if has_c { &c[at..][..b] } else { &[] },
                    h_before: &h_before[a..][..b],
                    c_before: if has_c { &c_before[a..][..b] } else { &[] },
                    dy: &dy[at..][..b],
                    dh: dh.part(a, b),
                    dc: if has_c { dc.part(a, b) } else { &mut [] },
                    inputs: dx.part(blocks * at, blocks * b),
                    product: if differs { ds.part(blocks * at, blocks * b) } else { &mut [] },
                });
            }
        });
        let gradient = if differs { &*to.product } else { &*to.inputs };
        weight.multiply(q.n, &gradient[t * gates..][..gates], None, differs, to.h);
    }
}

/// The gradient of the weight, from those of the state's contributions at all steps: one product, and one for the first
/// state.
pub(crate) fn weight_grad<T: Steps>(q: &Sequence, h: &[T], y: &[T], gradient: &[T], dw: &mut [T]) {
    let (rows, hidden) = (q.cell.blocks() * q.hidden, q.hidden);
    let (size, gates) = (q.state(), q.gates());
    // All steps but the first one computed, and the states before them.
    let (first, rest, states) = if q.reverse { (q.steps - 1, 0, 1) } else { (0, 1, 0) };
    let mut add = |gradient: &[T], state: &[T], samples: usize, beta: T| {
        let gradient = View::rows(gradient, rows).transposed();
        let finish = Finish { beta, ..Finish::default() };
        matmul([rows, hidden, samples], gradient, View::rows(state, hidden), dw, hidden, finish);
    };
    add(&gradient[first * gates..][..gates], h, q.n, T::ZERO);
    if q.steps > 1 {
        let count = q.steps - 1;
        let (gradient, states) =
            (&gradient[rest * gates..][..count * gates], &y[states * size..][..count * size]);
        add(gradient, states, count * q.n, T::ONE);
    }
}
