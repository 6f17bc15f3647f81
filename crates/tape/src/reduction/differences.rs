//! `diff`, `gradient`, `trapezoid`, `cumulative_trapezoid`.

use crate::dtype::DType;
use crate::int_list::{Int, IntList};
use crate::movement::cat;
use crate::promote::Operand;
use crate::shape::{self, Dims};
use crate::var::Var;

impl Var {
    /// The differences of neighbors along a dimension, taken `n` times (`torch.diff`); of booleans, where they differ.
    /// `prepend` and `append` are concatenated first, unless `n` is zero.
    ///
    /// # Panics
    /// If there is no such dimension, or what is concatenated does not fit.
    ///
    /// ```
    /// let x = tapegrad_tape::Var::from_vec(vec![1i64, 4, 9], &[3]);
    /// assert_eq!(x.diff().to_vec::<i64>(), [3, 5]);
    /// assert_eq!(x.diff_with(2, -1, None, None).to_vec::<i64>(), [2]);
    /// ```
    #[track_caller]
    pub fn diff(&self) -> Var {
        self.diff_with(1, -1, None, None)
    }

    /// [`Var::diff`] with differences of differences, another dimension, or more at the ends.
    ///
    /// # Panics
    /// Same as [`Var::diff`].
    #[track_caller]
    pub fn diff_with<'a>(
        &'a self,
        n: usize,
        dim: impl Int,
        prepend: impl Into<Option<&'a Var>>,
        append: impl Into<Option<&'a Var>>,
    ) -> Var {
        self.diff_along(n, dim.to_isize(), prepend.into(), append.into())
    }

    #[track_caller]
    fn diff_along(&self, n: usize, dim: isize, prepend: Option<&Var>, append: Option<&Var>) -> Var {
        assert!(self.ndim() > 0, "diff: expects a tensor with at least one dimension");
        let d = shape::dim("diff", dim, self.ndim()) as isize;
        let all: Vec<&Var> = prepend.into_iter().chain([self]).chain(append).collect();
        for part in &all {
            let fits = part.ndim() == self.ndim()
                && (0..self.ndim()).all(|e| e == d as usize || part.shape()[e] == self.shape()[e]);
            assert!(
                fits,
                "diff: what is prepended or appended has shape {:?}, which does not fit to {:?} along dimension {d}",
                part.shape(),
                self.shape()
            );
        }
        // As in PyTorch, nothing is concatenated either.
        if n == 0 {
            return self.clone();
        }
        let mut x = if all.len() == 1 { self.clone() } else { cat(&all, d) };
        for _ in 0..n.min(x.size(d)) {
            let rest = x.size(d).saturating_sub(1);
            let (low, high) = (x.narrow(d, 0, rest), x.narrow(d, x.size(d) - rest, rest));
            x = if x.dtype() == DType::Bool { high.logical_xor(&low) } else { high.sub(&low) };
        }
        x
    }

    /// The integral along a dimension by the trapezoidal rule (`torch.trapezoid`): `x` is the distance between samples,
    /// or a tensor of their positions.
    ///
    /// # Panics
    /// If there is no such dimension, the positions do not fit, or the samples are booleans.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let y = Var::from_vec(vec![1f32, 5.0, 10.0], &[3]);
    /// assert_eq!(y.trapezoid_with(2.0, -1).item(), 21.0);
    /// assert_eq!(y.trapezoid_with(&Var::from_vec(vec![1f32, 3.0, 6.0], &[3]), -1).item(), 28.5);
    /// ```
    #[track_caller]
    pub fn trapezoid(&self) -> Var {
        self.trapezoid_with(1.0, -1)
    }

    /// [`Var::trapezoid`] with a distance or positions, or along another dimension.
    ///
    /// # Panics
    /// Same as [`Var::trapezoid`].
    #[track_caller]
    pub fn trapezoid_with(&self, x: impl Into<Operand>, dim: impl Int) -> Var {
        let (d, width) = self.widths("trapezoid", dim.to_isize(), x.into());
        if self.size(d) == 0 {
            return self.sum(d).zeros_like();
        }
        match width {
            Operand::Scalar(dx) => {
                let ends = self.select(d, 0).add(self.select(d, -1)).mul(0.5);
                self.sum(d).sub(&ends).mul(dx)
            }
            Operand::Var(dx) => self.middles(d).mul(&dx).sum(d).div(2.0),
        }
    }

    /// The integrals up to each sample but the first along a dimension by the trapezoidal rule
    /// (`torch.cumulative_trapezoid`): `x` is the distance between samples, or a tensor of their positions.
    ///
    /// # Panics
    /// Same as [`Var::trapezoid`].
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let y = Var::from_vec(vec![1f32, 5.0, 10.0], &[3]);
    /// assert_eq!(y.cumulative_trapezoid().to_vec::<f32>(), [3.0, 10.5]);
    /// ```
    #[track_caller]
    pub fn cumulative_trapezoid(&self) -> Var {
        self.cumulative_trapezoid_with(1.0, -1)
    }

    /// [`Var::cumulative_trapezoid`] with a distance or positions, or along another dimension.
    ///
    /// # Panics
    /// Same as [`Var::cumulative_trapezoid`].
    #[track_caller]
    pub fn cumulative_trapezoid_with(&self, x: impl Into<Operand>, dim: impl Int) -> Var {
        let (d, width) = self.widths("cumulative_trapezoid", dim.to_isize(), x.into());
        match width {
            Operand::Scalar(dx) => self.middles(d).cumsum(d).mul(dx.to_f64() / 2.0),
            Operand::Var(dx) => self.middles(d).mul(&dx).cumsum(d).div(2.0),
        }
    }

    /// Sums of neighbors.
    #[track_caller]
    fn middles(&self, d: isize) -> Var {
        let rest = self.size(d).saturating_sub(1);
        self.narrow(d, 0, rest).add(self.narrow(d, self.size(d) - rest, rest))
    }

    /// The dimension, and the distances between samples.
    #[track_caller]
    fn widths(&self, op: &str, dim: isize, x: Operand) -> (isize, Operand) {
        assert!(self.ndim() > 0, "{op}: expects samples with at least one dimension");
        assert!(self.dtype() != DType::Bool, "{op}: received a bool input for `x` or `y`; cast it first");
        let d = shape::dim(op, dim, self.ndim());
        let n = self.shape()[d];
        let Operand::Var(x) = x else { return (d as isize, x) };
        let x = if x.ndim() == 1 && self.ndim() != 1 {
            let mut to = Dims::from_elem(1, self.ndim());
            to[d] = x.numel();
            x.reshape_to(&to)
        } else {
            let lead = vec![1; self.ndim().saturating_sub(x.ndim())];
            x.reshape_to(&[&lead[..], x.shape()].concat())
        };
        assert!(
            x.ndim() == self.ndim() && (x.shape()[d] == n || x.shape()[d] == 1),
            "{op}: there must be one `x` value for each sample point: shape {:?} for samples of shape {:?} along \
             dimension {d}",
            x.shape(),
            self.shape()
        );
        (d as isize, x.diff_with(1, d as isize, None, None).into())
    }

    /// Derivatives along dimensions, all if none is given, by central differences (`torch.gradient`), one tensor for each
    /// dimension. At the ends the differences are one-sided, of two elements or, with `edge_order` 2, of three.
    ///
    /// # Panics
    /// If a dimension is out of range, appears twice or has fewer than `edge_order + 1` entries, `edge_order` is neither 1
    /// nor 2, or the spacing does not fit.
    ///
    /// ```
    /// use tapegrad_tape::{Spacing, Var};
    /// let x = Var::from_vec(vec![1f32, 4.0, 9.0, 16.0], &[4]);
    /// assert_eq!(x.gradient_with(Spacing::from(1.0), (), 1)[0].to_vec::<f32>(), [3.0, 4.0, 6.0, 7.0]);
    /// ```
    #[track_caller]
    pub fn gradient(&self) -> Vec<Var> {
        self.gradient_with(1.0, (), 1)
    }

    /// [`Var::gradient`] with a spacing, along some dimensions, or of the second order at the edges.
    ///
    /// # Panics
    /// Same as [`Var::gradient`].
    #[track_caller]
    pub fn gradient_with(
        &self,
        spacing: impl Into<Spacing>,
        dims: impl IntList,
        edge_order: usize,
    ) -> Vec<Var> {
        let spacing = spacing.into();
        let list = shape::dims("gradient", &dims.to_isizes(), self.ndim());
        assert!(
            edge_order == 1 || edge_order == 2,
            "gradient: only edge_order = 1 and edge_order = 2 are supported, not {edge_order}"
        );
        for &d in &list {
            assert!(
                self.shape()[d] > edge_order,
                "gradient: expected each dimension size to be at least edge_order + 1 = {}, but the shape is {:?}",
                edge_order + 1,
                self.shape()
            );
        }
        let given = match &spacing {
            Spacing::Uniform(_) => list.len(),
            Spacing::Each(list) => list.len(),
            Spacing::Positions(list) => list.len(),
        };
        assert_eq!(
            given,
            list.len(),
            "gradient: expected spacing to be one number, or one for each of {} dimensions",
            list.len()
        );
        let along = |(i, &d): (usize, &usize)| match &spacing {
            Spacing::Uniform(dx) => even(self, d as isize, *dx, edge_order),
            Spacing::Each(list) => even(self, d as isize, list[i], edge_order),
            Spacing::Positions(list) => uneven(self, d, &list[i], edge_order),
        };
        list.iter().enumerate().map(along).collect()
    }
}

/// Where the samples of [`Var::gradient`] are. Made by `into()` from a number, an array of numbers, or a vector of
/// variables.
#[derive(Clone, Debug)]
pub enum Spacing {
    /// The same distance along each dimension.
    Uniform(f64),
    /// A distance for each dimension.
    Each(Vec<f64>),
    /// For each dimension a vector of positions.
    Positions(Vec<Var>),
}

impl From<f64> for Spacing {
    fn from(distance: f64) -> Spacing {
        Spacing::Uniform(distance)
    }
}

impl From<Vec<f64>> for Spacing {
    fn from(distances: Vec<f64>) -> Spacing {
        Spacing::Each(distances)
    }
}

impl<const N: usize> From<[f64; N]> for Spacing {
    fn from(distances: [f64; N]) -> Spacing {
        Spacing::Each(distances.to_vec())
    }
}

impl From<Vec<Var>> for Spacing {
    fn from(positions: Vec<Var>) -> Spacing {
        Spacing::Positions(positions)
    }
}

/// Derivatives of samples at equal distances.
#[track_caller]
fn even(x: &Var, d: isize, dx: f64, edge_order: usize) -> Var {
    let n = x.size(d);
    let at = |i: isize| x.narrow(d, i, 1);
    let ends = if edge_order == 1 {
        [at(1).sub(at(0)), at(-1).sub(at(-2))]
    } else {
        [
            at(1).mul(2.0).sub(at(0).mul(1.5)).sub(at(2).mul(0.5)),
            at(-3).mul(0.5).sub(at(-2).mul(2.0)).add(at(-1).mul(1.5)),
        ]
    };
    let inner = x.narrow(d, 2, n - 2).sub(x.narrow(d, 0, n - 2)).div(2.0 * dx);
    let [first, last] = ends.map(|e| e.div(dx));
    cat(&[first, inner, last], d)
}

/// Derivatives of samples at given positions.
#[track_caller]
fn uneven(x: &Var, d: usize, positions: &Var, edge_order: usize) -> Var {
    let n = x.shape()[d];
    assert!(
        positions.shape() == [n],
        "gradient: the positions along dimension {d} have to be {n}, but have shape {:?}",
        positions.shape()
    );
    let mut to = Dims::from_elem(1, x.ndim());
    to[d] = n - 1;
    let widths = positions.diff_with(1, 0, None, None).reshape_to(&to);
    let d = d as isize;
    let at = |i: isize| x.narrow(d, i, 1);
    let width = |i: isize| widths.narrow(d, i, 1);
    let (left, right) = (widths.narrow(d, 0, n - 2), widths.narrow(d, 1, n - 2));
    let both = &left + &right;
    let inner = -(&right / (&left * &both)) * x.narrow(d, 0, n - 2)
        + (&right - &left) / (&left * &right) * x.narrow(d, 1, n - 2)
        + &left / (&right * &both) * x.narrow(d, 2, n - 2);
    let ends = if edge_order == 1 {
        [(at(1) - at(0)) / width(0), (at(-1) - at(-2)) / width(-1)]
    } else {
        let (a, b) = (width(0), width(1));
        let sum = &a + &b;
        let first =
            &sum / (&a * &b) * at(1) - (&a * 2.0 + &b) / (&a * &sum) * at(0) - &a / (&b * &sum) * at(2);
        let (a, b) = (width(-2), width(-1));
        let sum = &a + &b;
        let last =
            &b / (&a * &sum) * at(-3) - &sum / (&a * &b) * at(-2) + (&b * 2.0 + &a) / (&b * &sum) * at(-1);
        [first, last]
    };
    let [first, last] = ends;
    cat(&[first, inner, last], d)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;
    use crate::test_views::{check, check2};

    #[test]
    fn gradients() {
        for seed in 0..5 {
            check2([&[3, 4], &[3, 1]], seed, |x, y| x.diff_with(2, 1, Some(y), None));
            check2([&[3, 4], &[4]], seed, |y, x| {
                [y.trapezoid_with(x, 1), y.cumulative_trapezoid_with(x, -1)]
            });
            check(&[3, 4], seed, |y| [y.trapezoid_with(0.5, 0), y.cumulative_trapezoid_with(2.0, 0)]);
            check(&[3, 4], seed, |x| x.gradient_with([0.5, 2.0], &[1, 0], 2));
            let positions = || Var::from_vec(vec![0.5f64, 1.0, 3.0], &[3]);
            check(&[3, 4], seed, |x| x.gradient_with(vec![positions()], &[0], 1));
        }
    }

    #[test]
    fn parabolas_have_exact_derivatives() {
        let at = Var::from_vec(vec![0f64, 1.0, 1.5, 4.0], &[4]);
        let slope = at.square().gradient_with(vec![at.clone()], (), 2)[0].to_vec::<f64>();
        slope.iter().zip([0.0, 2.0, 3.0, 8.0]).for_each(|(a, b)| assert!((a - b).abs() < 1e-12));
    }

    #[test]
    fn nothing_left() {
        let x = Var::from_vec(vec![1f64, 2.0], &[2]);
        assert_eq!(x.diff_with(5, 0, None, None).shape(), [0]);
        assert_eq!(x.diff_with(0, 0, None, None).to_vec::<f64>(), [1.0, 2.0]);
        assert_eq!(
            Var::from(Tensor::zeros_with(&[2, 0], DType::F32)).trapezoid_with(1.0, 1).to_vec::<f32>(),
            [0.0, 0.0]
        );
        let flags = Var::from_vec(vec![true, true, false], &[3]);
        assert_eq!(flags.diff_with(1, 0, None, None).to_vec::<bool>(), [false, true]);
    }

    #[test]
    #[should_panic(expected = "gradient: only edge_order = 1 and edge_order = 2 are supported, not 3")]
    fn an_unknown_order() {
        Var::from(Tensor::zeros_with(&[9], DType::F32)).gradient_with(1.0, (), 3);
    }
}
