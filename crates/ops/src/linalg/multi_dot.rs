//! `linalg.multi_dot`.

use crate::matmul::matmul;
use crate::product::check_types;
use tapegrad_tape::Var;

/// The product of several matrices, in the order that takes the fewest multiplications (`torch.linalg.multi_dot`;
/// Cormen et al., "Introduction to algorithms", matrix-chain multiplication). The first and the last may be vectors: a
/// row and a column.
///
/// # Panics
/// If there are fewer than two, one has other dimensions, or the sizes do not fit.
///
/// ```
/// use tapegrad_ops::linalg::multi_dot;
/// use tapegrad_tape::Var;
/// let x = Var::from_vec(vec![1f64, 2.0], &[2]);
/// let a = Var::from_vec(vec![1f64, 0.0, 0.0, 10.0], &[2, 2]);
/// assert_eq!(multi_dot(&[&x, &a, &x]).item(), 41.0);
/// ```
#[track_caller]
pub fn multi_dot(tensors: &[&Var]) -> Var {
    let op = "linalg.multi_dot";
    let n = tensors.len();
    assert!(n >= 2, "{op}: expected at least 2 tensors but got {n}");
    let shapes: Vec<_> = tensors.iter().map(|v| v.shape()).collect();
    let (row, column) = (shapes[0].len() == 1, shapes[n - 1].len() == 1);
    for (i, v) in tensors.iter().enumerate() {
        let end = i == 0 || i == n - 1;
        assert!(
            v.ndim() == 2 || (end && v.ndim() == 1),
            "{op}: tensor {i} must be 2D{}, but the shapes are {shapes:?}",
            if end { " or 1D" } else { "" }
        );
        check_types(op, tensors[0].dtype(), v.dtype());
    }
    let mut list: Vec<Var> = tensors.iter().map(|v| (*v).clone()).collect();
    if row {
        list[0] = list[0].unsqueeze(0);
    }
    if column {
        list[n - 1] = list[n - 1].unsqueeze(1);
    }
    for i in 1..n {
        assert!(
            list[i - 1].shape()[1] == list[i].shape()[0],
            "{op}: tensors {} and {i} with shapes {shapes:?} cannot be multiplied",
            i - 1
        );
    }
    let y = multiply(&list, &splits(&list), 0, n - 1);
    match (row, column) {
        (true, true) => y.reshape(()),
        (true, false) => y.squeeze(0),
        (false, true) => y.squeeze(1),
        (false, false) => y,
    }
}

/// The last matrix of the left factor, for each first and last matrix of a product.
fn splits(list: &[Var]) -> Vec<Vec<usize>> {
    let n = list.len();
    let mut sizes: Vec<f64> = list.iter().map(|v| v.shape()[0] as f64).collect();
    sizes.push(list[n - 1].shape()[1] as f64);
    let (mut cost, mut split) = (vec![vec![0.0; n]; n], vec![vec![0; n]; n]);
    for length in 1..n {
        for i in 0..n - length {
            let j = i + length;
            let of = |k: usize| cost[i][k] + cost[k + 1][j] + sizes[i] * sizes[k + 1] * sizes[j + 1];
            let best = (i..j).min_by(|&a, &b| of(a).total_cmp(&of(b))).expect("at least one");
            (cost[i][j], split[i][j]) = (of(best), best);
        }
    }
    split
}

#[track_caller]
fn multiply(list: &[Var], split: &[Vec<usize>], i: usize, j: usize) -> Var {
    if i == j {
        return list[i].clone();
    }
    let k = split[i][j];
    matmul(&multiply(list, split, i, k), &multiply(list, split, k + 1, j))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, parameter};

    #[test]
    fn the_cheapest_order() {
        let list = [parameter(&[10, 100], 1), parameter(&[100, 5], 2), parameter(&[5, 50], 3)];
        assert_eq!(splits(&list)[0][2], 1);
        let all: Vec<&Var> = list.iter().collect();
        let want = matmul(&list[0], &matmul(&list[1], &list[2]));
        assert_close(&multi_dot(&all), &want, 1e-12);
    }

    #[test]
    fn gradients_with_vectors_at_the_ends() {
        let inputs = [parameter(&[2], 1), parameter(&[2, 3], 2), parameter(&[3], 3)];
        check_gradients(|v| multi_dot(&[&v[0], &v[1], &v[2]]), &inputs);
        check_gradients(|v| multi_dot(&[&v[0], &v[1]]), &inputs);
        check_gradients(|v| multi_dot(&[&v[1], &v[2]]), &inputs);
    }

    #[test]
    #[should_panic(
        expected = "linalg.multi_dot: tensors 0 and 1 with shapes [[2, 3], [2, 3]] cannot be multiplied"
    )]
    fn sizes_that_do_not_fit() {
        let a = parameter(&[2, 3], 1);
        multi_dot(&[&a, &a]);
    }
}
