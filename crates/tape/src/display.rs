//! Printing, as PyTorch prints: four digits, common width, the middle of large tensors left out.

use crate::dtype::DType;
use crate::tensor::Tensor;
use crate::var::Var;
use std::fmt;

/// Elements above which the middle of each dimension is left out.
const THRESHOLD: usize = 1000;
/// Entries shown at either end of a shortened dimension.
const EDGE: usize = 3;
/// Characters in a line.
const LINE: usize = 80;

/// The number format of a tensor.
enum Style {
    /// Integers and booleans.
    Plain,
    /// Floats that are all integers: `3.`
    Whole,
    /// `0.1234`
    Fixed,
    /// `1.2340e-05`
    Scientific,
}

impl Style {
    fn of(values: &[f64], dtype: DType) -> Style {
        if !dtype.is_float() {
            return Style::Plain;
        }
        let magnitudes = values.iter().filter(|v| v.is_finite() && **v != 0.0).map(|v| v.abs());
        let (min, max) = magnitudes.fold((f64::INFINITY, 0f64), |(min, max), v| (min.min(v), max.max(v)));
        let whole = values.iter().all(|v| !v.is_finite() || *v == v.ceil());
        if max == 0.0 {
            Style::Whole
        } else if whole {
            if max / min > 1000.0 || max > 1e8 { Style::Scientific } else { Style::Whole }
        } else if max / min > 1000.0 || max > 1e8 || min < 1e-4 {
            Style::Scientific
        } else {
            Style::Fixed
        }
    }

    fn write(&self, v: f64, dtype: DType) -> String {
        match self {
            _ if v.is_nan() => "nan".into(),
            _ if v.is_infinite() => if v > 0.0 { "inf" } else { "-inf" }.into(),
            Style::Plain if dtype == DType::Bool => if v != 0.0 { "True" } else { "False" }.into(),
            Style::Plain => format!("{v:.0}"),
            Style::Whole => format!("{v:.0}."),
            Style::Fixed => format!("{v:.4}"),
            Style::Scientific => {
                let text = format!("{v:.4e}");
                let (mantissa, exponent) = text.split_once('e').expect("scientific notation has an exponent");
                let exponent: i32 = exponent.parse().expect("an exponent is an integer");
                format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
            }
        }
    }
}

/// The indices of a dimension that are shown; `None` is the ellipsis.
fn shown(n: usize, cut: bool) -> Vec<Option<usize>> {
    if cut && n > 2 * EDGE {
        (0..EDGE).map(Some).chain([None]).chain((n - EDGE..n).map(Some)).collect()
    } else {
        (0..n).map(Some).collect()
    }
}

/// The part of a tensor that is printed.
fn edges(t: &Tensor, cut: bool) -> Tensor {
    let mut t = t.clone();
    for d in 0..t.ndim() {
        let n = t.shape()[d];
        if cut && n > 2 * EDGE {
            let keep: Vec<usize> = shown(n, true).into_iter().flatten().collect();
            let d = d as isize;
            // Only the values matter for the width, so both ends can be joined.
            let (a, b) =
                (t.narrow(d, keep[0], EDGE).contiguous(), t.narrow(d, keep[EDGE], EDGE).contiguous());
            let mut shape = t.shape().to_vec();
            shape[d as usize] = 2 * EDGE;
            let outer: usize = shape[..d as usize].iter().product();
            let (a, b) = (a.to_vec::<f64>(), b.to_vec::<f64>());
            let chunk = (a.len() / outer.max(1)).max(1);
            let joined = a.chunks(chunk).zip(b.chunks(chunk)).flat_map(|(a, b)| [a, b].concat()).collect();
            t = Tensor::from_vec::<f64>(joined, &shape);
        }
    }
    t
}

fn write_values(t: &Tensor, style: &Style, width: usize, indent: usize, cut: bool, dtype: DType) -> String {
    let text = |t: &Tensor| format!("{:>width$}", style.write(t.item::<f64>(), dtype));
    let Some(&n) = t.shape().first() else { return text(t) };
    let entries = shown(n, cut);
    if t.ndim() == 1 {
        let per_line = ((LINE.saturating_sub(indent)) / (width + 2)).max(1);
        let items: Vec<String> =
            entries.iter().map(|i| i.map_or(" ...".into(), |i| text(&t.select(0, i)))).collect();
        let lines: Vec<String> = items.chunks(per_line).map(|line| line.join(", ")).collect();
        return format!("[{}]", lines.join(&format!(",\n{}", " ".repeat(indent + 1))));
    }
    let rows: Vec<String> = entries
        .iter()
        .map(|i| match i {
            Some(i) => write_values(&t.select(0, *i), style, width, indent + 1, cut, dtype),
            None => "...".into(),
        })
        .collect();
    format!("[{}]", rows.join(&format!(",{}{}", "\n".repeat(t.ndim() - 1), " ".repeat(indent + 1))))
}

fn write_tensor(f: &mut fmt::Formatter<'_>, t: &Tensor, suffix: &str) -> fmt::Result {
    let dtype = t.dtype();
    let mut notes = String::new();
    if !matches!(dtype, DType::F32 | DType::I64 | DType::Bool) {
        notes += &format!(", dtype={dtype}");
    }
    if t.numel() == 0 {
        let size = if t.ndim() == 1 { String::new() } else { format!(", size={:?}", t.shape()) };
        let dtype = if dtype == DType::F32 { String::new() } else { format!(", dtype={dtype}") };
        return write!(f, "tensor([]{size}{dtype}{suffix})");
    }
    let cut = t.numel() > THRESHOLD;
    let values = edges(t, cut).to_vec::<f64>();
    let style = Style::of(&values, dtype);
    let width = if t.ndim() == 0 {
        0
    } else {
        values.iter().map(|&v| style.write(v, dtype).len()).max().unwrap_or(0)
    };
    write!(f, "tensor({}{notes}{suffix})", write_values(t, &style, width, "tensor(".len(), cut, dtype))
}

impl fmt::Display for Tensor {
    /// As PyTorch prints it.
    ///
    /// ```
    /// let t = tapegrad_tape::Tensor::from_vec(vec![1f32, 2.5, -3.0, 4.0], &[2, 2]);
    /// assert_eq!(t.to_string(), "tensor([[ 1.0000,  2.5000],\n        [-3.0000,  4.0000]])");
    /// ```
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_tensor(f, self, "")
    }
}

impl fmt::Display for Var {
    /// As PyTorch prints it, with `requires_grad=True` or the operation that made it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match self.op() {
            Some(op) => format!(", grad_fn=<{op}>"),
            None if self.requires_grad() => ", requires_grad=True".into(),
            None => String::new(),
        };
        write_tensor(f, &self.tensor(), &suffix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(v: &[f32]) -> Tensor {
        Tensor::from_slice(v, &[v.len()])
    }

    /// The expected output is that of torch 2.15.
    #[test]
    fn numbers_as_pytorch_writes_them() {
        for (tensor, text) in [
            (Tensor::scalar(2.5), "tensor(2.5000)"),
            (Tensor::scalar(true), "tensor(True)"),
            (floats(&[1.0, -2.0, 30.0]), "tensor([ 1., -2., 30.])"),
            (floats(&[1e-5, 1.0]), "tensor([1.0000e-05, 1.0000e+00])"),
            (floats(&[0.5, f32::NAN, f32::INFINITY]), "tensor([0.5000,    nan,    inf])"),
            (floats(&[0.0, 1e9]), "tensor([0.0000e+00, 1.0000e+09])"),
            (Tensor::from_vec(vec![1i64, -20], &[2, 1]), "tensor([[  1],\n        [-20]])"),
            (Tensor::from_vec(vec![0.1f64], &[1]), "tensor([0.1000], dtype=float64)"),
            (Tensor::zeros_with(&[0, 3], DType::F32), "tensor([], size=[0, 3])"),
        ] {
            assert_eq!(tensor.to_string(), text);
        }
    }

    #[test]
    fn large_tensors_show_their_edges() {
        let t = Tensor::arange(0, 1001);
        assert_eq!(t.to_string(), "tensor([   0,    1,    2,  ...,  998,  999, 1000])");
        let t = Tensor::zeros_with(&[100, 100], DType::F32).to_string();
        assert!(t.starts_with("tensor([[0., 0., 0.,  ..., 0., 0., 0.],\n"), "{t}");
        assert_eq!(t.lines().count(), 7);
    }

    #[test]
    fn a_variable_tells_where_it_comes_from() {
        let x = Var::parameter(Tensor::scalar(1.0));
        assert_eq!(x.to_string(), "tensor(1., requires_grad=True)");
        assert_eq!(x.exp().to_string(), "tensor(2.7183, grad_fn=<exp>)");
    }
}
