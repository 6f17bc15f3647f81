//! `tril`, `triu`.

use crate::int_list::Int;
use crate::node::record_linear;
use crate::tensor::Tensor;
use crate::var::Var;

impl Var {
    /// The lower triangles of matrices, with zeros above the diagonal that is `diagonal` places above the main one
    /// (`torch.tril`).
    ///
    /// # Panics
    /// If there are fewer than two dimensions.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// assert_eq!(x.tril().to_vec::<f32>(), [1.0, 0.0, 3.0, 4.0]);
    /// ```
    #[track_caller]
    pub fn tril(&self) -> Var {
        self.tril_with(0)
    }

    /// [`Var::tril`] with another diagonal.
    ///
    /// # Panics
    /// Same as [`Var::tril`].
    #[track_caller]
    pub fn tril_with(&self, diagonal: impl Int) -> Var {
        triangle("tril", self, diagonal.to_isize(), false)
    }

    /// The upper triangles of matrices, with zeros below the diagonal that is `diagonal` places above the main one
    /// (`torch.triu`).
    ///
    /// # Panics
    /// If there are fewer than two dimensions.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::from_vec(vec![1f32, 2.0, 3.0, 4.0], &[2, 2]);
    /// assert_eq!(x.triu_with(1).to_vec::<f32>(), [0.0, 2.0, 0.0, 0.0]);
    /// ```
    #[track_caller]
    pub fn triu(&self) -> Var {
        self.triu_with(0)
    }

    /// [`Var::triu`] with another diagonal.
    ///
    /// # Panics
    /// Same as [`Var::triu`].
    #[track_caller]
    pub fn triu_with(&self, diagonal: impl Int) -> Var {
        triangle("triu", self, diagonal.to_isize(), true)
    }
}

#[track_caller]
fn triangle(op: &'static str, x: &Var, diagonal: isize, upper: bool) -> Var {
    assert!(
        x.ndim() >= 2,
        "{op}: input tensor must have at least 2 dimensions, but has shape {:?}",
        x.shape()
    );
    let mut value = x.tensor().contiguous();
    crate::dispatch!(all: value.dtype(), op, T => cut::<T>(&mut value, diagonal, upper));
    record_linear(
        op,
        x,
        value,
        |t| triangle(op, t, diagonal, upper),
        move |c| [Some(triangle(op, c.grad(), diagonal, upper))],
    )
}

fn cut<T: crate::Element>(t: &mut Tensor, diagonal: isize, upper: bool) {
    let (rows, columns) = (t.size(-2), t.size(-1));
    if columns == 0 {
        return;
    }
    for (i, row) in t.make_mut::<T>().chunks_exact_mut(columns).enumerate() {
        // The first column beyond the diagonal of the lower triangle, or the first of the upper one.
        let edge = ((i % rows) as isize + isize::from(!upper)).saturating_add(diagonal);
        let edge = edge.clamp(0, columns as isize) as usize;
        let zeros = if upper { &mut row[..edge] } else { &mut row[edge..] };
        zeros.fill(T::default());
    }
}

#[cfg(test)]
mod tests {
    use crate::Var;
    use crate::test_views::check;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn triangles(rows in 0usize..4, columns in 0usize..4, diagonal in -5isize..5, seed in 0u64..100) {
            let n = 2 * rows * columns;
            let x = Var::from_vec((1..=n as i64).collect(), &[2, rows, columns]);
            let below = |i: usize| {
                let (row, column) = (i / columns % rows, i % columns);
                column as isize - row as isize <= diagonal
            };
            let lower: Vec<i64> = (0..n).map(|i| if below(i) { i as i64 + 1 } else { 0 }).collect();
            prop_assert_eq!(x.tril_with(diagonal).to_vec::<i64>(), lower.clone());
            let upper: Vec<i64> = (0..n).map(|i| i as i64 + 1 - lower[i]).collect();
            prop_assert_eq!(x.triu_with(diagonal + 1).to_vec::<i64>(), upper);
            if n > 0 {
                check(&[2, rows, columns], seed, |x| [x.tril_with(diagonal), x.triu_with(diagonal)]);
            }
        }
    }

    #[test]
    #[should_panic(expected = "tril: input tensor must have at least 2 dimensions")]
    fn matrices_only() {
        Var::from_vec(vec![1f32], &[1]).tril();
    }
}
