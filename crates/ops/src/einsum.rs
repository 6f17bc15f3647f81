//! `einsum`: sums of products along named dimensions.

use crate::autocast::lowered_list;
use crate::product::{check_types, product};
use std::borrow::Borrow;
use tapegrad_tape::Var;

/// A dimension's name: a letter, or a position within the ellipsis, counted from the back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Label {
    Rest(std::cmp::Reverse<usize>),
    Letter(char),
}

/// Sums of products by Einstein's convention (`torch.einsum`).
///
/// The equation names every operand's dimensions by letters; a dimension whose letter is not in the result is summed.
/// A letter that an operand has twice takes its diagonal, `...` stands for dimensions that are broadcast, and without
/// `->` the result has the letters that appear once, in alphabetical order. Operands are joined from left to right.
///
/// # Panics
/// If the equation is malformed, or sizes do not fit it.
///
/// ```
/// use tapegrad_tape::Var;
/// let a = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
/// assert_eq!(tapegrad_ops::einsum("ij,kj->ik", &[&a, &a]).to_vec::<f32>(), [5.0, 11.0, 11.0, 25.0]);
/// assert_eq!(tapegrad_ops::einsum("ii", &[&a]).item(), 5.0);
/// ```
#[track_caller]
pub fn einsum<V: Borrow<Var>>(equation: &str, operands: &[V]) -> Var {
    if operands.len() > 1 && tapegrad_tape::autocast_dtype().is_some() {
        let cast = lowered_list(operands.iter().map(Borrow::borrow));
        return tapegrad_tape::without_autocast(|| einsum(equation, &cast));
    }
    let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (inputs, output) = match text.split_once("->") {
        Some((inputs, output)) => (inputs, Some(output)),
        None => (&text[..], None),
    };
    let terms: Vec<&str> = inputs.split(',').collect();
    assert!(!operands.is_empty(), "einsum: must provide at least one operand for \"{equation}\"");
    assert!(
        terms.len() == operands.len(),
        "einsum: the equation \"{equation}\" has {} operands, but {} were given",
        terms.len(),
        operands.len()
    );
    let mut parts: Vec<Part> =
        terms.iter().zip(operands).map(|(term, v)| Part::new(equation, term, v.borrow())).collect();
    let output = match output {
        Some(term) => {
            let widest = parts.iter().flat_map(|p| p.rest()).max().map_or(0, |r| r + 1);
            labels(equation, term, widest)
        }
        None => implicit(&parts),
    };
    for (i, label) in output.iter().enumerate() {
        assert!(
            parts.iter().any(|p| p.labels.contains(label)),
            "einsum: the result of \"{equation}\" has a subscript that no operand has"
        );
        assert!(!output[..i].contains(label), "einsum: the result of \"{equation}\" has a subscript twice");
    }
    check_sizes(equation, &parts);
    for part in &mut parts {
        part.take_diagonals();
    }
    let mut parts = parts.into_iter();
    let mut joined = parts.next().expect("at least one operand");
    while let Some(next) = parts.next() {
        let needed = |l: &Label| output.contains(l) || parts.as_slice().iter().any(|p| p.labels.contains(l));
        joined = join(joined, next, needed);
    }
    joined.sum_all_but(|l| output.contains(l));
    joined.arrange(&output)
}

/// A variable with named dimensions.
pub(crate) struct Part {
    pub v: Var,
    pub labels: Vec<Label>,
}

/// The names in one term of an equation; the ellipsis stands for `rest` dimensions.
#[track_caller]
fn labels(equation: &str, term: &str, rest: usize) -> Vec<Label> {
    let mut out = Vec::new();
    let (before, after) = term.split_once("...").unwrap_or((term, ""));
    let letters = |part: &str, out: &mut Vec<Label>| {
        for c in part.chars() {
            assert!(
                c.is_ascii_alphabetic(),
                "einsum: invalid subscript {c:?} in \"{equation}\": subscripts must be in [a-zA-Z]"
            );
            out.push(Label::Letter(c));
        }
    };
    letters(before, &mut out);
    if term.contains("...") {
        out.extend((0..rest).rev().map(|i| Label::Rest(std::cmp::Reverse(i))));
        letters(after, &mut out);
    }
    out
}

/// The result's dimensions if the equation does not list them.
fn implicit(parts: &[Part]) -> Vec<Label> {
    let mut all: Vec<Label> = parts.iter().flat_map(|p| p.labels.clone()).collect();
    all.sort_unstable();
    let count = |l: &Label| all.iter().filter(|m| *m == l).count();
    let mut out: Vec<Label> =
        all.iter().copied().filter(|l| matches!(l, Label::Rest(_)) || count(l) == 1).collect();
    out.dedup();
    out
}

#[track_caller]
fn check_sizes(equation: &str, parts: &[Part]) {
    let mut sizes: Vec<(Label, usize)> = Vec::new();
    for part in parts {
        for (label, &n) in part.labels.iter().zip(part.v.shape()) {
            match sizes.iter_mut().find(|(l, _)| l == label) {
                Some((_, m)) if *m == 1 => *m = n,
                Some((_, m)) => assert!(
                    n == *m || n == 1,
                    "einsum: a dimension of \"{equation}\" has sizes {m} and {n}; operands have shapes {:?}",
                    parts.iter().map(|p| p.v.shape()).collect::<Vec<_>>()
                ),
                None => sizes.push((*label, n)),
            }
        }
    }
}

impl Part {
    #[track_caller]
    fn new(equation: &str, term: &str, v: &Var) -> Part {
        let letters = labels(equation, term, 0).len();
        let ellipsis = term.contains("...");
        assert!(
            letters == v.ndim() || (ellipsis && letters < v.ndim()),
            "einsum: the term \"{term}\" of \"{equation}\" has {letters} subscripts{}, but its operand has shape {:?}",
            if ellipsis { " and an ellipsis" } else { "" },
            v.shape()
        );
        Part { v: v.clone(), labels: labels(equation, term, v.ndim() - letters) }
    }

    fn rest(&self) -> impl Iterator<Item = usize> {
        self.labels.iter().filter_map(|l| match l {
            Label::Rest(i) => Some(i.0),
            Label::Letter(_) => None,
        })
    }

    fn place(&self, label: &Label) -> Option<usize> {
        self.labels.iter().position(|l| l == label)
    }

    fn size(&self, label: &Label) -> usize {
        self.place(label).map_or(1, |d| self.v.shape()[d])
    }

    /// A name that appears twice selects the diagonal of both dimensions.
    fn take_diagonals(&mut self) {
        while let Some((i, j)) = (0..self.labels.len())
            .find_map(|j| (0..j).find(|&i| self.labels[i] == self.labels[j]).map(|i| (i, j)))
        {
            let (a, b) = (self.v.shape()[i], self.v.shape()[j]);
            let label = self.labels[j];
            if a == b {
                self.v = self.v.diagonal_with(0, i, j);
                self.labels.remove(j);
                self.labels.remove(i);
                self.labels.push(label);
            } else {
                // One of them has size one and is broadcast along the other.
                let d = if a == 1 { i } else { j };
                self.v = self.v.squeeze(d);
                self.labels.remove(d);
            }
        }
    }

    /// Sums over the dimensions that are not kept.
    fn sum_all_but(&mut self, keep: impl Fn(&Label) -> bool) {
        let dims: Vec<isize> =
            (0..self.labels.len()).filter(|&d| !keep(&self.labels[d])).map(|d| d as isize).collect();
        if !dims.is_empty() {
            self.v = self.v.sum(&dims);
            self.labels.retain(keep);
        }
    }

    /// The variable with its dimensions in this order.
    pub(crate) fn arrange(&self, order: &[Label]) -> Var {
        let dims: Vec<isize> =
            order.iter().map(|l| self.place(l).expect("one of its names") as isize).collect();
        self.v.permute(&dims)
    }

    /// Drops a dimension of size one.
    fn squeeze(&mut self, label: &Label) {
        let d = self.place(label).expect("one of its names");
        self.v = self.v.squeeze(d);
        self.labels.remove(d);
    }
}

/// The product of two parts, summed over the dimensions that are no longer needed.
#[track_caller]
pub(crate) fn join(mut a: Part, mut b: Part, needed: impl Fn(&Label) -> bool) -> Part {
    check_types("einsum", a.v.dtype(), b.v.dtype());
    // A dimension of size one is broadcast: the name then belongs to the other operand alone.
    for label in a.labels.clone() {
        if b.place(&label).is_some() && a.size(&label) != b.size(&label) {
            if a.size(&label) == 1 { a.squeeze(&label) } else { b.squeeze(&label) }
        }
    }
    let in_both: Vec<Label> = a.labels.iter().copied().filter(|l| b.labels.contains(l)).collect();
    let keep = |l: &Label| needed(l) || in_both.contains(l);
    a.sum_all_but(keep);
    b.sum_all_but(keep);
    let (batch, summed): (Vec<Label>, Vec<Label>) = in_both.iter().partition(|l| needed(l));
    let only = |p: &Part| p.labels.iter().copied().filter(|l| !in_both.contains(l)).collect::<Vec<_>>();
    let (left, right) = (only(&a), only(&b));
    let sizes =
        |part: &Part, labels: &[Label]| labels.iter().map(|l| part.size(l) as isize).collect::<Vec<_>>();
    let labels = [&batch[..], &left, &right].concat();
    let ones = |n: usize| vec![1; n];
    let v = if summed.is_empty() {
        let x = a.arrange(&[&batch[..], &left].concat());
        let y = b.arrange(&[&batch[..], &right].concat());
        let x = x.reshape(&[sizes(&a, &batch), sizes(&a, &left), ones(right.len())].concat());
        let y = y.reshape(&[sizes(&b, &batch), ones(left.len()), sizes(&b, &right)].concat());
        x.mul(&y)
    } else {
        let count = |part: &Part, labels: &[Label]| sizes(part, labels).iter().product::<isize>();
        let (n, k) = (count(&a, &batch), count(&a, &summed));
        let x = a.arrange(&[&batch[..], &left, &summed].concat()).reshape(&[n, count(&a, &left), k]);
        let y = b.arrange(&[&batch[..], &summed, &right].concat()).reshape(&[n, k, count(&b, &right)]);
        let all = [sizes(&a, &batch), sizes(&a, &left), sizes(&b, &right)].concat();
        product("einsum", &x, false, &y, false).reshape(&all)
    };
    Part { v, labels }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, numbers, parameter};
    use proptest::prelude::*;
    use tapegrad_tape::Tensor;

    /// The definition: a loop over all names.
    fn naive(terms: &[&str], output: &str, operands: &[Var]) -> Vec<f64> {
        let mut names: Vec<char> = output.chars().collect();
        for c in terms.concat().chars() {
            if !names.contains(&c) {
                names.push(c);
            }
        }
        let size = |c: char| {
            let sizes = terms.iter().zip(operands);
            sizes
                .flat_map(|(t, v)| t.chars().zip(v.shape().to_vec()))
                .filter(|(d, _)| *d == c)
                .map(|(_, n)| n)
                .max()
        };
        let sizes: Vec<usize> = names.iter().map(|&c| size(c).unwrap()).collect();
        let values: Vec<Vec<f64>> = operands.iter().map(|v| v.to_vec::<f64>()).collect();
        let outputs: usize = sizes[..output.len()].iter().product();
        let inner: usize = sizes[output.len()..].iter().product();
        (0..outputs)
            .map(|o| {
                let term = |k: usize| {
                    let mut index = vec![0; names.len()];
                    let mut flat = o * inner + k;
                    for d in (0..names.len()).rev() {
                        index[d] = flat % sizes[d];
                        flat /= sizes[d];
                    }
                    let element = |(t, (v, x)): (&&str, (&Var, &Vec<f64>))| {
                        let at = t.chars().zip(v.shape()).fold(0, |at, (c, &n)| {
                            let i = index[names.iter().position(|&m| m == c).unwrap()];
                            at * n + if n == 1 { 0 } else { i }
                        });
                        x[at]
                    };
                    terms.iter().zip(operands.iter().zip(&values)).map(element).product::<f64>()
                };
                (0..inner).map(term).sum()
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn random_equations(
            terms in proptest::collection::vec(proptest::collection::vec(0usize..5, 0..4), 1..4),
            keep in any::<[bool; 5]>(), sizes in proptest::collection::vec(1usize..4, 5), ones in any::<[bool; 12]>(),
            order: bool, seed: u64,
        ) {
            let letters = ['a', 'b', 'c', 'D', 'e'];
            let texts: Vec<String> = terms.iter().map(|t| t.iter().map(|&i| letters[i]).collect()).collect();
            let mut output: Vec<usize> = (0..5).filter(|i| keep[*i] && terms.concat().contains(i)).collect();
            if order {
                output.reverse();
            }
            let output: String = output.into_iter().map(|i| letters[i]).collect();
            let mut flags = ones.into_iter();
            let operands: Vec<Var> = terms.iter().enumerate().map(|(n, t)| {
                // Now and then a dimension has size one instead, and is broadcast.
                let one = flags.next().unwrap() && flags.next().unwrap();
                let shape: Vec<usize> = t.iter().map(|&i| if one { 1 } else { sizes[i] }).collect();
                Var::from(Tensor::from_vec(numbers(shape.iter().product(), seed ^ n as u64), &shape))
            }).collect();
            let terms: Vec<&str> = texts.iter().map(String::as_str).collect();
            let equation = format!("{} -> {output}", terms.join(", "));
            let y = einsum(&equation, &operands);
            let want = naive(&terms, &output, &operands);
            prop_assert!(y.to_vec::<f64>().iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-12), "{equation}");
        }
    }

    #[test]
    fn ellipses_and_implicit_results() {
        let (a, b) = (parameter(&[2, 3, 4], 1), parameter(&[5, 1, 4, 2], 2));
        assert_close(&einsum("...ij,...jk->...ik", &[&a, &b.detach()]), &crate::matmul(&a, &b), 1e-12);
        assert_eq!(einsum("...ij,...jk", &[&a, &b]).shape(), [5, 2, 3, 2]);
        assert_eq!(einsum("ba", &[&parameter(&[2, 3], 1)]).shape(), [3, 2]);
        assert_eq!(einsum("i...->...", &[&a]).shape(), [3, 4]);
        assert_close(&einsum("...->", &[&a]), &a.sum_all(), 1e-12);
        assert_eq!(einsum("a...b->b...a", &[&a]).shape(), [4, 3, 2]);
    }

    #[test]
    fn gradients() {
        let inputs = [parameter(&[2, 3], 1), parameter(&[3, 3, 2], 2), parameter(&[2], 3)];
        check_gradients(|x| einsum("ij,jjk,k->ik", x), &inputs);
    }

    #[test]
    #[should_panic(expected = "einsum: a dimension of \"ij,jk\" has sizes 3 and 2")]
    fn sizes_that_do_not_fit() {
        einsum("ij,jk", &[parameter(&[2, 3], 1), parameter(&[2, 2], 1)]);
    }

    #[test]
    #[should_panic(
        expected = "einsum: the term \"ij\" of \"ij->i\" has 2 subscripts, but its operand has shape [2]"
    )]
    fn terms_that_do_not_fit() {
        einsum("ij->i", &[parameter(&[2], 1)]);
    }
}
