//! The gates of a step, forward and backward.

use super::RecurrentCell;
use tapegrad_tape::{Float, multiversion};

/// Rows of a step: `blocks * hidden` contributions of input and state for each, `hidden` elements of the states.
pub(super) struct Forward<'a, T> {
    pub(super) cell: RecurrentCell,
    pub(super) hidden: usize,
    pub(super) inputs: &'a [T],
    pub(super) product: &'a [T],
    pub(super) h_before: &'a [T],
    pub(super) c_before: &'a [T],
    pub(super) y: &'a mut [T],
    pub(super) c: &'a mut [T],
    pub(super) kept: &'a mut [T],
}

pub(super) fn forward<T: Float>(f: Forward<T>) {
    match f.cell {
        RecurrentCell::RnnTanh => tanh_forward(f.inputs, f.product, f.y),
        RecurrentCell::RnnRelu => relu_forward(f.inputs, f.product, f.y),
        RecurrentCell::Lstm => lstm_forward(f.hidden, f.inputs, f.product, f.c_before, f.y, f.c, f.kept),
        RecurrentCell::Gru => gru_forward(f.hidden, f.inputs, f.product, f.h_before, f.y, f.kept),
    }
}

/// The same rows backward: what the forward pass read and wrote, and the gradient of `y` from outside.
pub(super) struct Backward<'a, T> {
    pub(super) cell: RecurrentCell,
    pub(super) hidden: usize,
    pub(super) kept: &'a [T],
    pub(super) y: &'a [T],
    pub(super) c: &'a [T],
    pub(super) h_before: &'a [T],
    pub(super) c_before: &'a [T],
    pub(super) dy: &'a [T],
    /// The gradient of `y` from the steps after; then the part of the state's gradient that does not pass the product.
    pub(super) dh: &'a mut [T],
    /// The gradient of `c` from the steps after; then that of the cell state before.
    pub(super) dc: &'a mut [T],
    /// The gradient of the input's contribution.
    pub(super) inputs: &'a mut [T],
    /// The gradient of the state's contribution, if it is another.
    pub(super) product: &'a mut [T],
}

pub(super) fn backward<T: Float>(b: Backward<T>) {
    match b.cell {
        RecurrentCell::RnnTanh => tanh_backward(b.y, b.dy, b.dh, b.inputs),
        RecurrentCell::RnnRelu => relu_backward(b.y, b.dy, b.dh, b.inputs),
        RecurrentCell::Lstm => lstm_backward(b.hidden, b.kept, b.c, b.c_before, b.dy, b.dh, b.dc, b.inputs),
        RecurrentCell::Gru => gru_backward(b.hidden, b.kept, b.h_before, b.dy, b.dh, b.inputs, b.product),
    }
}

#[inline(always)]
fn sigmoid<T: Float>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

/// The blocks of a row.
#[inline(always)]
fn blocks<T, const N: usize>(row: &[T], hidden: usize) -> [&[T]; N] {
    std::array::from_fn(|i| &row[i * hidden..][..hidden])
}

/// See [`blocks`].
#[inline(always)]
fn blocks_mut<T>(row: &mut [T], hidden: usize) -> [&mut [T]; 4] {
    let (a, rest) = row.split_at_mut(hidden);
    let (b, rest) = rest.split_at_mut(hidden);
    let (c, rest) = rest.split_at_mut(hidden);
    let end = rest.len().min(hidden);
    [a, b, c, &mut rest[..end]]
}

multiversion! {
    vectors of T;
    fn tanh_forward<T: Float>(inputs: &[T], product: &[T], y: &mut [T]) {
        for ((y, &x), &s) in y.iter_mut().zip(inputs).zip(product) {
            *y = (x + s).tanh();
        }
    }
}

multiversion! {
    vectors of T;
    fn tanh_backward<T: Float>(y: &[T], dy: &[T], dh: &[T], inputs: &mut [T]) {
        for (((d, &y), &dy), &dh) in inputs.iter_mut().zip(y).zip(dy).zip(dh) {
            *d = (dy + dh) * (T::ONE - y * y);
        }
    }
}

multiversion! {
    vectors of T;
    fn relu_forward<T: Float>(inputs: &[T], product: &[T], y: &mut [T]) {
        for ((y, &x), &s) in y.iter_mut().zip(inputs).zip(product) {
            *y = (x + s).maximum(T::ZERO);
        }
    }
}

multiversion! {
    vectors of T;
    fn relu_backward<T: Float>(y: &[T], dy: &[T], dh: &[T], inputs: &mut [T]) {
        for (((d, &y), &dy), &dh) in inputs.iter_mut().zip(y).zip(dy).zip(dh) {
            *d = if y <= T::ZERO { T::ZERO } else { dy + dh };
        }
    }
}

multiversion! {
    vectors of T;
    fn lstm_forward<T: Float>(
        hidden: usize,
        inputs: &[T],
        product: &[T],
        c_before: &[T],
        y: &mut [T],
        c: &mut [T],
        kept: &mut [T],
    ) {
        for row in 0..y.len() / hidden {
            let (one, four) = (row * hidden..(row + 1) * hidden, 4 * row * hidden..4 * (row + 1) * hidden);
            let [x0, x1, x2, x3] = blocks(&inputs[four.clone()], hidden);
            let [s0, s1, s2, s3] = blocks(&product[four.clone()], hidden);
            let [k0, k1, k2, k3] = blocks_mut(&mut kept[four], hidden);
            let (before, c, y) = (&c_before[one.clone()], &mut c[one.clone()], &mut y[one]);
            for j in 0..hidden {
                let (input, forget) = (sigmoid(x0[j] + s0[j]), sigmoid(x1[j] + s1[j]));
                let (new, output) = ((x2[j] + s2[j]).tanh(), sigmoid(x3[j] + s3[j]));
                let state = forget * before[j] + input * new;
                c[j] = state;
                y[j] = output * state.tanh();
                (k0[j], k1[j], k2[j], k3[j]) = (input, forget, new, output);
            }
        }
    }
}

multiversion! {
    vectors of T;
    fn lstm_backward<T: Float>(
        hidden: usize,
        kept: &[T],
        c: &[T],
        c_before: &[T],
        dy: &[T],
        dh: &[T],
        dc: &mut [T],
        inputs: &mut [T],
    ) {
        for row in 0..c.len() / hidden {
            let (one, four) = (row * hidden..(row + 1) * hidden, 4 * row * hidden..4 * (row + 1) * hidden);
            let [k0, k1, k2, k3] = blocks(&kept[four.clone()], hidden);
            let [d0, d1, d2, d3] = blocks_mut(&mut inputs[four], hidden);
            let (c, before) = (&c[one.clone()], &c_before[one.clone()]);
            let (dy, dh, dc) = (&dy[one.clone()], &dh[one.clone()], &mut dc[one]);
            for j in 0..hidden {
                let (input, forget, new, output) = (k0[j], k1[j], k2[j], k3[j]);
                let (g, t) = (dy[j] + dh[j], c[j].tanh());
                let state = dc[j] + g * output * (T::ONE - t * t);
                d0[j] = state * new * (input * (T::ONE - input));
                d1[j] = state * before[j] * (forget * (T::ONE - forget));
                d2[j] = state * input * (T::ONE - new * new);
                d3[j] = g * t * (output * (T::ONE - output));
                dc[j] = state * forget;
            }
        }
    }
}

multiversion! {
    vectors of T;
    fn gru_forward<T: Float>(
        hidden: usize,
        inputs: &[T],
        product: &[T],
        h_before: &[T],
        y: &mut [T],
        kept: &mut [T],
    ) {
        for row in 0..y.len() / hidden {
            let (one, three) = (row * hidden..(row + 1) * hidden, 3 * row * hidden..3 * (row + 1) * hidden);
            let [x0, x1, x2] = blocks(&inputs[three.clone()], hidden);
            let [s0, s1, s2] = blocks(&product[three], hidden);
            let [k0, k1, k2, k3] = blocks_mut(&mut kept[4 * row * hidden..4 * (row + 1) * hidden], hidden);
            let (before, y) = (&h_before[one.clone()], &mut y[one]);
            for j in 0..hidden {
                let (reset, update) = (sigmoid(x0[j] + s0[j]), sigmoid(x1[j] + s1[j]));
                let new = (x2[j] + reset * s2[j]).tanh();
                y[j] = new + update * (before[j] - new);
                (k0[j], k1[j], k2[j], k3[j]) = (reset, update, new, s2[j]);
            }
        }
    }
}

multiversion! {
    vectors of T;
    fn gru_backward<T: Float>(
        hidden: usize,
        kept: &[T],
        h_before: &[T],
        dy: &[T],
        dh: &mut [T],
        inputs: &mut [T],
        product: &mut [T],
    ) {
        for row in 0..dy.len() / hidden {
            let (one, three) = (row * hidden..(row + 1) * hidden, 3 * row * hidden..3 * (row + 1) * hidden);
            let [k0, k1, k2, k3] = blocks(&kept[4 * row * hidden..4 * (row + 1) * hidden], hidden);
            let [d0, d1, d2, _] = blocks_mut(&mut inputs[three.clone()], hidden);
            let [e0, e1, e2, _] = blocks_mut(&mut product[three], hidden);
            let (before, dy, dh) = (&h_before[one.clone()], &dy[one.clone()], &mut dh[one]);
            for j in 0..hidden {
                let (reset, update, new) = (k0[j], k1[j], k2[j]);
                let g = dy[j] + dh[j];
                let of_new = g * (T::ONE - update) * (T::ONE - new * new);
                let of_update = g * (before[j] - new) * (update * (T::ONE - update));
                let of_reset = of_new * k3[j] * (reset * (T::ONE - reset));
                (d0[j], d1[j], d2[j]) = (of_reset, of_update, of_new);
                (e0[j], e1[j], e2[j]) = (of_reset, of_update, of_new * reset);
                dh[j] = g * update;
            }
        }
    }
}
