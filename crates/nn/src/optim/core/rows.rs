//! A step on some rows of a parameter.

use super::super::clip::scaled;
use super::{State, align, buffers};
use crate::optim::rule::Rule;
use tapegrad_tape::{MemoryFormat, Tensor, Var};

/// Steps these rows, with the gradients `values`: copies them and their part of the buffers out of the parameter, which
/// is small in comparison, and back again.
#[track_caller]
pub(super) fn update<R: Rule>(
    rule: &R,
    value: &mut Tensor,
    rows: &Tensor,
    values: &Tensor,
    state: &mut State,
    scale: f64,
) {
    let (rows, shape) = (rows.to_vec::<i64>(), value.shape().to_vec());
    let width = shape[1..].iter().product::<usize>();
    let format = MemoryFormat::Contiguous;
    align(value, format);
    let at = state.begin(rule, value, &shape, format, scale);
    let scaled =
        (!R::SCALES_GRADIENT && scale != 1.0).then(|| scaled(&Var::from(values), scale).into_tensor());
    let values = scaled.as_ref().unwrap_or(values).cast(value.dtype()).contiguous();
    tapegrad_tape::dispatch!(float: value.dtype(), R::NAME, T => {
        let g = values.as_slice::<T>().expect("made contiguous");
        let mut whole = buffers::<T>(&mut state.buffers);
        let mut parts: Vec<Vec<T>> = whole.iter().map(|b| gathered(b, &rows, width)).collect();
        let p = value.make_mut::<T>();
        let mut part = gathered(p, &rows, width);
        let mut slices: Vec<&mut [T]> = parts.iter_mut().map(Vec::as_mut_slice).collect();
        rule.update(at, &mut state.scalars, &mut part, g, &mut slices);
        scatter(p, &part, &rows, width);
        whole.iter_mut().zip(&parts).for_each(|(whole, part)| scatter(whole, part, &rows, width));
    });
}

fn gathered<T: Copy>(from: &[T], rows: &[i64], width: usize) -> Vec<T> {
    let mut list = Vec::with_capacity(rows.len() * width);
    rows.iter().for_each(|&row| list.extend_from_slice(&from[row as usize * width..][..width]));
    list
}

fn scatter<T: Copy>(to: &mut [T], from: &[T], rows: &[i64], width: usize) {
    for (i, &row) in rows.iter().enumerate() {
        to[row as usize * width..][..width].copy_from_slice(&from[i * width..][..width]);
    }
}
