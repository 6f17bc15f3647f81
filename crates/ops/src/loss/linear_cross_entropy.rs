//! `linear_cross_entropy`: the loss of a linear head, without its logits in memory.

use super::Reduction;
use super::cross_entropy::{CrossEntropyOptions, class_numbers, composed_gradient, cross_entropy_with};
use crate::kernels::cross_entropy::{log_sums, logit_gradients};
use crate::product::{Addend, product_value};
use std::ops::Range;
use tapegrad_tape::{DType, Float, Tensor, Var, cat, dispatch, is_grad_enabled, note_saved, record};

/// The most logits that are held at once: 16 MiB in F32, unless 64 rows have more.
const LOGITS: usize = 1 << 22;

/// The fewest rows of a chunk: each reads the whole weight.
const ROWS: usize = 64;

/// The cross-entropy of `linear(input, linear_weight, linear_bias)`
/// (`torch.nn.functional.linear_cross_entropy`).
///
/// `input` is `[N, in]`, `linear_weight` `[C, in]`, `linear_bias` `[C]`, and the target what
/// [`cross_entropy`](crate::cross_entropy) takes. With class numbers, a mean or a sum, and neither class weights nor
/// smoothing, the logits and their gradient are computed for some rows at a time, again in the backward pass: a head of
/// 50,000 classes takes a fraction of the memory, and a third more arithmetic.
///
/// # Panics
/// If the shapes do not fit, or for the reasons of [`cross_entropy`](crate::cross_entropy).
///
/// ```
/// use tapegrad_ops::{cross_entropy, cross_entropy_with, linear, linear_cross_entropy, linear_cross_entropy_with};
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f64, 2.0, -1.0, 0.5], &[2, 2]);
/// let w = Var::from_vec(vec![0.3f64, -0.2, 0.1, 0.4, 0.0, 0.2], &[3, 2]);
/// let target = Var::from_vec(vec![2i64, 0], &[2]);
/// let loss = linear_cross_entropy(&x, &w, &target, None);
/// let same = cross_entropy(&linear(&x, &w, None), &target);
/// assert!((loss.item() - same.item()).abs() < 1e-12);
/// ```
#[track_caller]
pub fn linear_cross_entropy<'a>(
    input: &Var,
    linear_weight: &Var,
    target: &Var,
    linear_bias: impl Into<Option<&'a Var>>,
) -> Var {
    linear_cross_entropy_with(input, linear_weight, target, linear_bias, CrossEntropyOptions::default())
}

/// [`linear_cross_entropy`] with options.
///
/// # Panics
/// Same as [`linear_cross_entropy`].
#[track_caller]
pub fn linear_cross_entropy_with<'a>(
    input: &Var,
    linear_weight: &Var,
    target: &Var,
    linear_bias: impl Into<Option<&'a Var>>,
    options: CrossEntropyOptions,
) -> Var {
    let linear_bias = linear_bias.into();
    let plain = options.weight.is_none()
        && options.label_smoothing == 0.0
        && options.reduction != Reduction::None
        && !target.dtype().is_float();
    let parts = [input.dtype(), linear_weight.dtype()];
    let alike = parts == [DType::F32; 2] || parts == [DType::F64; 2];
    // In autocast the product is in a shorter type.
    let alike = alike && tapegrad_tape::autocast_dtype().is_none();
    if !(plain && alike && input.ndim() == 2 && linear_weight.ndim() == 2) {
        return cross_entropy_with(&crate::linear(input, linear_weight, linear_bias), target, options);
    }
    crate::linear::check("linear_cross_entropy", input, linear_weight, linear_bias);
    let sizes = [input.shape()[0], linear_weight.shape()[0]];
    let targets = class_numbers("linear_cross_entropy", sizes, target, options.ignore_index);
    fused(input, linear_weight, linear_bias, targets, &options)
}

/// What both passes compute chunks of logits from.
struct Head {
    x: Tensor,
    w: Tensor,
    bias: Option<Tensor>,
}

impl Head {
    fn of(x: &Var, w: &Var, bias: Option<&Var>) -> Head {
        Head { x: x.tensor(), w: w.tensor(), bias: bias.map(Var::tensor) }
    }

    fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, classes) = (self.x.shape()[0], self.w.shape()[0]);
        let size = (LOGITS / classes.max(1)).max(ROWS);
        (0..rows).step_by(size).map(move |start| start..rows.min(start + size))
    }

    fn rows(&self, chunk: &Range<usize>) -> Tensor {
        self.x.narrow(0, chunk.start, chunk.len())
    }

    #[track_caller]
    fn logits(&self, chunk: &Range<usize>) -> Tensor {
        let addend = self.bias.clone().map_or(Addend::Nothing, Addend::Bias);
        product_value("linear_cross_entropy", &self.rows(chunk), false, &self.w, true, addend)
    }
}

#[track_caller]
fn fused(x: &Var, w: &Var, bias: Option<&Var>, targets: Vec<i64>, options: &CrossEntropyOptions) -> Var {
    let CrossEntropyOptions { ignore_index, reduction, .. } = *options;
    let (dtype, head) = (x.dtype(), Head::of(x, w, bias));
    let count = targets.iter().filter(|&&t| t != ignore_index).count();
    let scale = if reduction == Reduction::Mean { 1.0 / count as f64 } else { 1.0 };
    let mut logs = Tensor::uninit(&[targets.len()], dtype);
    let loss = dispatch!(float: dtype, "linear_cross_entropy", T => {
        losses::<T>(&head, logs.data_mut(), &targets, ignore_index)
    });
    // A mean without targets is 0 / 0, as in PyTorch.
    let value = Tensor::full_with((), loss * scale, dtype);
    note_saved(logs.bytes());
    let saved = [Some(x), Some(w), bias].map(|v| v.map(Var::saved));
    let inputs: Vec<&Var> = [Some(x), Some(w), bias].into_iter().flatten().collect();
    record("linear_cross_entropy", &inputs, value, move |c| {
        let [x, w, bias] = saved.each_ref().map(Option::as_ref);
        let (x, w) = (x.expect("an operand"), w.expect("an operand"));
        let wants: Vec<bool> = (0..2 + usize::from(bias.is_some())).map(|i| c.wants(i)).collect();
        if is_grad_enabled() {
            let target = Var::from_vec(targets.clone(), &[targets.len()]);
            let options = CrossEntropyOptions::new().ignore_index(ignore_index).reduction(reduction);
            let logits = crate::linear(x, w, bias);
            let dl = c.grad() * composed_gradient(&logits, &target, &options);
            let dw = crate::matmul(&dl.transpose(0, 1), x);
            let all = [crate::matmul(&dl, w), dw, dl.sum(0)];
            return all.into_iter().zip(wants).map(|(g, wanted)| wanted.then_some(g)).collect();
        }
        let factor = c.grad().item() * scale;
        gradients(&Head::of(x, w, bias), &logs, &targets, ignore_index, factor, &wants)
    })
}

/// Fills in the logarithm of each row's sum of exponentials; gives the sum of the losses.
#[track_caller]
fn losses<T: Float>(head: &Head, logs: &mut [T], targets: &[i64], ignore_index: i64) -> f64 {
    let mut sum = 0.0;
    for chunk in head.chunks() {
        let logits = head.logits(&chunk);
        let (classes, logits) = (logits.shape()[1], logits.as_slice::<T>().expect("a new product"));
        log_sums(&mut logs[chunk.clone()], logits, classes);
        for (row, i) in chunk.enumerate().filter(|(_, i)| targets[*i] != ignore_index) {
            sum += logs[i].to_f64() - logits[row * classes + targets[i] as usize].to_f64();
        }
    }
    sum
}

/// The gradients of input, weight and bias, chunk by chunk.
#[track_caller]
fn gradients(
    head: &Head,
    logs: &Tensor,
    targets: &[i64],
    ignore_index: i64,
    factor: f64,
    wants: &[bool],
) -> Vec<Option<Var>> {
    const OP: &str = "linear_cross_entropy";
    let dtype = head.x.dtype();
    let mut dx: Vec<Var> = Vec::new();
    let (mut dw, mut db): (Option<Tensor>, Option<Var>) = (None, None);
    for chunk in head.chunks() {
        let mut dl = head.logits(&chunk);
        dispatch!(float: dtype, OP, T => {
            let logs = &logs.data::<T>()[chunk.clone()];
            logit_gradients(dl.make_mut::<T>(), logs, &targets[chunk.clone()], ignore_index, T::c(factor));
        });
        if wants[0] {
            dx.push(product_value(OP, &dl, false, &head.w, false, Addend::Nothing).into());
        }
        if wants[1] {
            let addend = dw.take().map_or(Addend::Nothing, |sum| Addend::Scaled(sum, 1.0));
            dw = Some(product_value(OP, &dl, true, &head.rows(&chunk), false, addend));
        }
        if wants.get(2) == Some(&true) {
            let sum = Var::from(dl).sum(0);
            db = Some(match db.take() {
                Some(old) => sum + old,
                None => sum,
            });
        }
    }
    let zeros = |t: &Tensor| Var::from(Tensor::zeros_with(t.shape(), dtype));
    let dx = match dx.len() {
        0 => zeros(&head.x),
        1 => dx.remove(0),
        _ => cat(&dx.iter().collect::<Vec<_>>(), 0),
    };
    let dw = dw.map_or_else(|| zeros(&head.w), Var::from);
    let mut all = vec![Some(dx), Some(dw)];
    if let Some(bias) = &head.bias {
        all.push(Some(db.unwrap_or_else(|| zeros(bias))));
    }
    all.into_iter().zip(wants).map(|(g, wanted)| g.filter(|_| *wanted)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cross_entropy;
    use crate::testing::{assert_close, check_gradients, parameter};
    use tapegrad_tape::BackwardOptions;

    fn targets(n: usize, classes: usize) -> Var {
        Var::from_vec(
            (0..n).map(|i| if i % 5 == 3 { -100 } else { (i * 7 % classes) as i64 }).collect::<Vec<_>>(),
            &[n],
        )
    }

    #[test]
    fn derivatives() {
        let inputs = [parameter(&[6, 3], 1), parameter(&[4, 3], 2), parameter(&[4], 3)];
        for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
            let options = CrossEntropyOptions::new().reduction(reduction);
            let loss = |x: &[Var]| {
                linear_cross_entropy_with(&x[0], &x[1], &targets(6, 4), x.get(2), options.clone())
            };
            check_gradients(loss, &inputs);
            check_gradients(loss, &inputs[..2]);
        }
    }

    /// With so many classes there are several chunks of rows, the last one shorter.
    #[test]
    fn chunks_are_the_whole() {
        let (n, classes) = (150, LOGITS / ROWS);
        let inputs = [parameter(&[n, 3], 1), parameter(&[classes, 3], 2), parameter(&[classes], 3)];
        let inputs = inputs.map(|v| Var::parameter(v.tensor().cast(DType::F32)));
        let [x, w, b] = inputs.each_ref();
        let run = |chunked: bool, create_graph: bool| {
            inputs.iter().for_each(|x| x.zero_grad());
            let loss = match chunked {
                true => linear_cross_entropy(x, w, &targets(n, classes), Some(b)),
                false => cross_entropy(&crate::linear(x, w, Some(b)), &targets(n, classes)),
            };
            (&loss * 3.0).backward_with(None, BackwardOptions::new().create_graph(create_graph));
            let gradients = inputs.each_ref().map(|x| x.grad().unwrap().detach());
            (loss.detach(), gradients)
        };
        let want = run(false, false);
        for create_graph in [false, true] {
            let got = run(true, create_graph);
            assert_close(&got.0, &want.0, 1e-6);
            for (a, b) in got.1.iter().zip(&want.1) {
                assert_close(a, b, 1e-6);
            }
        }
    }

    #[test]
    fn nothing_to_learn_from() {
        let inputs = [parameter(&[0, 3], 1), parameter(&[4, 3], 2)];
        let loss = linear_cross_entropy(&inputs[0], &inputs[1], &targets(0, 4), None);
        assert!(loss.item().is_nan());
        loss.backward();
        assert_eq!(inputs[1].grad().unwrap().to_vec::<f64>(), [0.0; 12]);
    }

    #[test]
    #[should_panic(expected = "linear_cross_entropy: target 4 is out of bounds for 4 classes")]
    fn a_target_that_is_no_class() {
        let target = Var::from_vec(vec![4i64], &[1]);
        linear_cross_entropy(&parameter(&[1, 3], 1), &parameter(&[4, 3], 2), &target, None);
    }

    #[test]
    #[should_panic(
        expected = "linear_cross_entropy: input [1, 2] has 2 features but weight [4, 3] expects 3"
    )]
    fn features_that_do_not_fit() {
        linear_cross_entropy(&parameter(&[1, 2], 1), &parameter(&[4, 3], 2), &targets(1, 4), None);
    }
}
