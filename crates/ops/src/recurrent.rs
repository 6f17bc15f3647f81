//! `recurrent`: a cell over all steps of a sequence.

use crate::kernels::recurrent::{Gradients, Operands, RecurrentCell, Sequence, Steps, Written};
use crate::kernels::recurrent::{backward, forward, weight_grad};
use crate::normalization::is_half;
use tapegrad_tape::{
    Cotangent, DType, Tensor, Var, cat, dispatch, is_grad_enabled, note_flops, note_saved,
    record_with_output, stack, vjp,
};

impl RecurrentCell {
    /// One step, from the contribution `[..., blocks * hidden]` of the input, that of the state, and the state
    /// `[..., hidden]`: the new hidden state, and the new cell state where there is one.
    ///
    /// # Panics
    /// If the shapes do not fit, or an LSTM has no cell state.
    #[track_caller]
    pub fn step(self, input: &Var, state: &Var, h: &Var, c: Option<&Var>) -> (Var, Option<Var>) {
        match self {
            RecurrentCell::RnnTanh => ((input + state).tanh(), None),
            RecurrentCell::RnnRelu => (crate::relu_(input + state), None),
            RecurrentCell::Lstm => {
                let gates = (input + state).chunk(4, -1);
                let c = gates[1].sigmoid() * c.expect("an LSTM has a cell state")
                    + gates[0].sigmoid() * gates[2].tanh();
                (gates[3].sigmoid() * c.tanh(), Some(c))
            }
            RecurrentCell::Gru => {
                let (x, s) = (input.chunk(3, -1), state.chunk(3, -1));
                let reset = (&x[0] + &s[0]).sigmoid();
                let update = (&x[1] + &s[1]).sigmoid();
                let new = (&x[2] + reset * &s[2]).tanh();
                (&new + update * (h - &new), None)
            }
        }
    }
}

/// Runs a cell over all steps of a sequence: the loop of `torch.nn.RNN`, `LSTM` and `GRU` for one layer and direction.
///
/// `inputs` are the contributions `[steps, N, blocks * hidden]` of the inputs, one product for all steps; `weight`
/// `[blocks * hidden, hidden]` and `bias` `[blocks * hidden]` make that of the state; `h` and, for an LSTM, `c` are the
/// first states `[N, hidden]`. With `reverse`, the last step comes first. Returns the hidden states
/// `[steps, N, hidden]` of all steps and, for an LSTM, the cell state `[N, hidden]` after the last one computed.
///
/// # Panics
/// If there is no step, shapes or types do not fit, or `c` is not given exactly for an LSTM.
///
/// ```
/// use tapegrad_ops::{RecurrentCell, recurrent};
/// use tapegrad_tape::Var;
/// // h = relu(x + h / 2)
/// let x = Var::from_vec(vec![1f32, 1.0, 0.0], &[3, 1, 1]);
/// let (w, h) = (Var::from_vec(vec![0.5f32], &[1, 1]), Var::from_vec(vec![0f32], &[1, 1]));
/// let (y, _) = recurrent(RecurrentCell::RnnRelu, &x, &w, None, &h, None, false);
/// assert_eq!(y.to_vec::<f32>(), [1.0, 1.5, 0.75]);
/// ```
#[track_caller]
pub fn recurrent(
    cell: RecurrentCell,
    inputs: &Var,
    weight: &Var,
    bias: Option<&Var>,
    h: &Var,
    c: Option<&Var>,
    reverse: bool,
) -> (Var, Option<Var>) {
    if [Some(inputs), Some(weight), bias, Some(h), c].into_iter().flatten().any(|v| is_half(v.dtype())) {
        // In F32, with results in the type of the weight: in autocast only the product of the inputs is in a shorter type.
        let wide = |v: &Var| if is_half(v.dtype()) { v.cast(DType::F32) } else { v.clone() };
        let (bias, c) = (bias.map(wide), c.map(wide));
        let (y, c) =
            recurrent(cell, &wide(inputs), &wide(weight), bias.as_ref(), &wide(h), c.as_ref(), reverse);
        return (y.cast(weight.dtype()), c.map(|c| c.cast(weight.dtype())));
    }
    let q = check(cell, inputs, weight, bias, h, c, reverse);
    let all: Vec<&Var> = [inputs, weight].into_iter().chain(bias).chain([h]).chain(c).collect();
    let keep = is_grad_enabled() && all.iter().any(|v| v.requires_grad());
    let values: Vec<Tensor> = all.iter().map(|v| v.tensor().contiguous()).collect();
    let (y, kept) = dispatch!(float: inputs.dtype(), "recurrent", T => run_forward::<T>(&q, &values, bias.is_some(), keep));
    note_flops(2 * (q.cell.blocks() * q.hidden * q.steps) as u64 * q.state() as u64);
    note_saved(kept.iter().map(|t| t.numel() * t.dtype().size()).sum());
    let saved: Vec<Var> = all.iter().map(|v| v.saved()).collect();
    let has_bias = bias.is_some();
    let y = record_with_output("recurrent", &all, y, move |cot| {
        if is_grad_enabled() {
            return composed_gradients(&q, &saved, has_bias, &cot);
        }
        let values: Vec<Tensor> = saved.iter().map(|v| v.tensor().contiguous()).collect();
        dispatch!(float: cot.grad().dtype(), "recurrent", T => run_backward::<T>(&q, &values, has_bias, &kept, &cot))
    });
    if c.is_none() {
        return (y, None);
    }
    (y.narrow(0, 0, q.steps), Some(y.narrow(0, q.steps, 1).squeeze(0)))
}

#[track_caller]
fn check(
    cell: RecurrentCell,
    inputs: &Var,
    weight: &Var,
    bias: Option<&Var>,
    h: &Var,
    c: Option<&Var>,
    reverse: bool,
) -> Sequence {
    let (x, w, s) = (inputs.shape(), weight.shape(), h.shape());
    let blocks = cell.blocks();
    assert!(
        x.len() == 3 && s.len() == 2 && s[0] == x[1] && s[1].checked_mul(blocks) == Some(x[2]),
        "recurrent: inputs {x:?} and state {s:?} do not fit {cell:?}: they are [steps, N, {blocks} * hidden] and [N, hidden]"
    );
    assert!(x[0] > 0, "recurrent: expected sequence length to be larger than 0");
    assert!(s[1] > 0, "recurrent: the hidden size must be greater than zero, got state {s:?}");
    assert!(w == [x[2], s[1]], "recurrent: expected a weight of shape [{}, {}], got {w:?}", x[2], s[1]);
    if let Some(b) = bias {
        assert!(b.shape() == [x[2]], "recurrent: expected a bias of shape [{}], got {:?}", x[2], b.shape());
    }
    assert!(
        c.is_some() == (cell == RecurrentCell::Lstm),
        "recurrent: an LSTM has a cell state, other cells have none"
    );
    if let Some(c) = c {
        assert!(c.shape() == s, "recurrent: expected a cell state of shape {s:?}, got {:?}", c.shape());
    }
    for v in [Some(weight), bias, Some(h), c].into_iter().flatten() {
        assert!(
            v.dtype() == inputs.dtype(),
            "recurrent: expected all of type {}, got {}",
            inputs.dtype(),
            v.dtype()
        );
    }
    Sequence { cell, steps: x[0], n: x[1], hidden: s[1], reverse }
}

/// Borrows the values of inputs, weight, bias, h and c.
fn operands<'a, T: Steps>(values: &'a [Tensor], has_bias: bool) -> Operands<'a, T> {
    let slice = |i: usize| values.get(i).map_or(&[][..], |t| t.as_slice::<T>().expect("contiguous"));
    let next = 2 + usize::from(has_bias);
    Operands {
        inputs: slice(0),
        weight: slice(1),
        bias: has_bias.then(|| slice(2)),
        h: slice(next),
        c: slice(next + 1),
    }
}

/// The hidden states of all steps, followed by the last cell state, and what the backward pass needs: the kept values
/// and the cell states of all steps.
fn run_forward<T: Steps>(
    q: &Sequence,
    values: &[Tensor],
    has_bias: bool,
    keep: bool,
) -> (Tensor, Vec<Tensor>) {
    let from = operands::<T>(values, has_bias);
    let has_c = !from.c.is_empty() || q.cell == RecurrentCell::Lstm;
    let mut y = Tensor::uninit(&[q.steps + usize::from(has_c), q.n, q.hidden], T::DTYPE);
    let mut kept = Tensor::uninit(&[if keep { q.steps } else { 1 }, q.n, q.cell.kept() * q.hidden], T::DTYPE);
    let mut cells = Tensor::uninit(&[if has_c { q.steps } else { 0 }, q.n, q.hidden], T::DTYPE);
    let all = y.data_mut::<T>();
    let (states, last) = all.split_at_mut(q.steps * q.state());
    forward(q, from, Written { y: states, c: cells.data_mut(), kept: kept.data_mut() });
    if has_c {
        let t = if q.reverse { 0 } else { q.steps - 1 };
        let c = cells.as_slice::<T>().expect("contiguous");
        last.copy_from_slice(&c[t * q.state()..][..q.state()]);
    }
    (y, vec![kept, cells])
}

/// The gradients for the operands, in their order.
fn run_backward<T: Steps>(
    q: &Sequence,
    values: &[Tensor],
    has_bias: bool,
    kept: &[Tensor],
    c: &Cotangent,
) -> Vec<Option<Var>> {
    let from = operands::<T>(values, has_bias);
    let (y, grad) = (c.output().tensor().contiguous(), c.grad().tensor().contiguous());
    let [y, grad, cells, kept] =
        [&y, &grad, &kept[1], &kept[0]].map(|t| t.as_slice::<T>().expect("contiguous"));
    let states = q.steps * q.state();
    let shape = [q.steps, q.n, q.cell.blocks() * q.hidden];
    let mut inputs = Tensor::uninit(&shape, T::DTYPE);
    let mut product = Tensor::uninit(if q.cell.state_differs() { &shape } else { &[0] }, T::DTYPE);
    let mut h = Tensor::zeros_with(&[q.n, q.hidden], T::DTYPE);
    let mut cell = Tensor::uninit(&[if from.c.is_empty() { 0 } else { q.n }, q.hidden], T::DTYPE);
    if !from.c.is_empty() {
        cell.data_mut::<T>().copy_from_slice(&grad[states..]);
    }
    let to = Gradients {
        inputs: inputs.data_mut(),
        product: product.data_mut(),
        h: h.data_mut(),
        c: cell.data_mut(),
    };
    backward(q, from, [&y[..states], cells, kept, &grad[..states]], to);
    let gradient = if q.cell.state_differs() { &product } else { &inputs };
    let weight = c.wants(1).then(|| {
        let mut dw = Tensor::uninit(values[1].shape(), T::DTYPE);
        let gradient = gradient.as_slice::<T>().expect("contiguous");
        weight_grad(q, from.h, &y[..states], gradient, dw.data_mut());
        Var::from(dw)
    });
    let bias = has_bias.then(|| c.wants(2).then(|| Var::from(gradient.clone()).sum([0, 1])));
    let mut gradients = vec![Some(Var::from(inputs)), weight];
    gradients.extend(bias);
    gradients.push(Some(Var::from(h)));
    if q.cell == RecurrentCell::Lstm {
        gradients.push(Some(Var::from(cell.reshape(&[q.n, q.hidden]))));
    }
    gradients
}

/// The same as the kernels compute, in operations.
fn composed(q: &Sequence, operands: &[Var], has_bias: bool) -> Var {
    let (inputs, weight) = (operands[0].unbind(0), &operands[1]);
    let (bias, first) = if has_bias { (Some(&operands[2]), 3) } else { (None, 2) };
    let (mut h, mut c) = (operands[first].clone(), operands.get(first + 1).cloned());
    let mut states = vec![h.clone(); q.steps];
    for k in 0..q.steps {
        let t = if q.reverse { q.steps - 1 - k } else { k };
        let state = crate::linear(&h, weight, bias);
        (h, c) = q.cell.step(&inputs[t], &state, &h, c.as_ref());
        states[t] = h.clone();
    }
    let y = stack(&states, 0);
    match c {
        Some(c) => cat(&[y, c.unsqueeze(0)], 0),
        None => y,
    }
}

/// The gradients for the operands, recorded.
fn composed_gradients(q: &Sequence, saved: &[Var], has_bias: bool, c: &Cotangent) -> Vec<Option<Var>> {
    let gradients = vjp(|v| composed(q, v, has_bias), saved, c.grad()).1;
    gradients.into_iter().enumerate().map(|(i, g)| c.wants(i).then_some(g)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};
    use tapegrad_tape::DType;

    const CELLS: [RecurrentCell; 4] =
        [RecurrentCell::RnnTanh, RecurrentCell::RnnRelu, RecurrentCell::Lstm, RecurrentCell::Gru];

    fn operands(cell: RecurrentCell, [steps, n, hidden]: [usize; 3], seed: u64) -> Vec<Var> {
        let gates = cell.blocks() * hidden;
        let mut operands = vec![
            parameter(&[steps, n, gates], seed),
            parameter(&[gates, hidden], seed ^ 1),
            parameter(&[gates], seed ^ 2),
            parameter(&[n, hidden], seed ^ 3),
        ];
        if cell == RecurrentCell::Lstm {
            operands.push(parameter(&[n, hidden], seed ^ 4));
        }
        operands
    }

    fn run(cell: RecurrentCell, v: &[Var], reverse: bool) -> Var {
        let (y, c) = recurrent(cell, &v[0], &v[1], Some(&v[2]), &v[3], v.get(4), reverse);
        c.map_or(y.clone(), |c| cat(&[y, c.unsqueeze(0)], 0))
    }

    #[test]
    fn gradients() {
        for cell in CELLS {
            for reverse in [false, true] {
                check_gradients(|v| run(cell, v, reverse), &operands(cell, [3, 2, 2], 5));
            }
        }
    }

    #[test]
    fn without_bias() {
        let v = operands(RecurrentCell::Gru, [2, 2, 3], 7);
        let inputs = [v[0].clone(), v[1].clone(), v[3].clone()];
        check_gradients(|v| recurrent(RecurrentCell::Gru, &v[0], &v[1], None, &v[2], None, false).0, &inputs);
    }

    #[test]
    fn one_operand_computed_from_another() {
        let v = operands(RecurrentCell::RnnTanh, [2, 2, 2], 9);
        let f = |v: &[Var]| {
            let h = v[0].select(0, 0) * v[1].select(0, 0);
            recurrent(RecurrentCell::RnnTanh, &v[0], &v[1], None, &h, None, false).0
        };
        check_gradients(f, &v[..2]);
    }

    /// The kernels in F32, at sizes that are no multiples of vectors and tiles, against the operations in F64.
    #[test]
    fn kernels_agree_with_the_operations() {
        for cell in CELLS {
            for (sizes, reverse) in [
                ([4, 1, 1], false),
                ([3, 13, 37], true),
                ([5, 26, 40], false),
                ([1, 3, 65], true),
                ([2, 0, 3], false),
            ] {
                let wide = operands(cell, sizes, 11);
                let scaled: Vec<Var> =
                    wide.iter().map(|v| Var::parameter((v.detach() * 0.3).tensor())).collect();
                let narrow: Vec<Var> =
                    scaled.iter().map(|v| Var::parameter(v.tensor().cast(DType::F32))).collect();
                let q =
                    check(cell, &scaled[0], &scaled[1], Some(&scaled[2]), &scaled[3], scaled.get(4), reverse);
                let expected = composed(&q, &scaled, true);
                let got = run(cell, &narrow, reverse);
                assert_close(&got.cast(DType::F64), &expected, 1e-5);
                let inference = tapegrad_tape::no_grad(|| run(cell, &narrow, reverse));
                assert_eq!(inference.to_vec::<f32>(), got.to_vec::<f32>());
                let weights = parameter(expected.shape(), 17).detach();
                (&expected * &weights).sum_all().backward();
                (&got * weights.cast(DType::F32)).sum_all().backward();
                for (a, b) in narrow.iter().zip(&scaled) {
                    let (a, b) = (a.grad().unwrap(), b.grad().unwrap());
                    assert_close(&a.cast(DType::F64), &b, 1e-4);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "recurrent: expected a weight of shape [8, 2], got [6, 2]")]
    fn a_weight_of_another_cell() {
        let v = operands(RecurrentCell::Lstm, [3, 2, 2], 1);
        let w = parameter(&[6, 2], 1);
        recurrent(RecurrentCell::Lstm, &v[0], &w, None, &v[3], Some(&v[4]), false);
    }

    #[test]
    #[should_panic(expected = "an LSTM has a cell state, other cells have none")]
    fn a_missing_cell_state() {
        let v = operands(RecurrentCell::Lstm, [3, 2, 2], 1);
        recurrent(RecurrentCell::Lstm, &v[0], &v[1], None, &v[3], None, false);
    }
}
