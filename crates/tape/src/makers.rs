//! Functions that make tensors and constants: random numbers, ranges, the identity.

use crate::dtype::{DType, Scalar, default_dtype};
use crate::int_list::{Int, IntList};
use crate::random::{Generator, with_default_generator};
use crate::shape;
use crate::tensor::Tensor;
use crate::var::Var;

impl Tensor {
    /// Numbers of the standard normal distribution, in the [default type](crate::set_default_dtype) (`torch.randn`), from
    /// this thread's default generator.
    ///
    /// ```
    /// use tapegrad_tape::{Generator, Tensor};
    /// assert_eq!(Tensor::randn((2, 3)).shape(), [2, 3]);
    /// let mut generator = Generator::manual_seed(0);
    /// let first = Tensor::randn_with(4, &mut generator).to_vec::<f32>();
    /// assert_eq!(Tensor::randn_with(4, &mut Generator::manual_seed(0)).to_vec::<f32>(), first);
    /// ```
    #[track_caller]
    pub fn randn(shape: impl IntList) -> Tensor {
        with_default_generator(|g| Tensor::randn_with(shape, g))
    }

    /// [`Tensor::randn`] from a generator.
    #[track_caller]
    pub fn randn_with(shape: impl IntList, generator: &mut Generator) -> Tensor {
        normal(&shape.to_sizes("randn"), default_dtype(), generator)
    }

    /// Numbers evenly distributed over `[0, 1)`, in the [default type](crate::set_default_dtype) (`torch.rand`), from this
    /// thread's default generator.
    #[track_caller]
    pub fn rand(shape: impl IntList) -> Tensor {
        with_default_generator(|g| Tensor::rand_with(shape, g))
    }

    /// [`Tensor::rand`] from a generator.
    #[track_caller]
    pub fn rand_with(shape: impl IntList, generator: &mut Generator) -> Tensor {
        uniform(&shape.to_sizes("rand"), default_dtype(), generator)
    }

    /// Integers from `low` up to but excluding `high`, as I64 (`torch.randint`), from this thread's default generator.
    ///
    /// # Panics
    /// If there is no such integer.
    #[track_caller]
    pub fn randint(low: impl Int, high: impl Int, shape: impl IntList) -> Tensor {
        with_default_generator(|g| Tensor::randint_with(low, high, shape, g))
    }

    /// [`Tensor::randint`] from a generator.
    ///
    /// # Panics
    /// Same as [`Tensor::randint`].
    #[track_caller]
    pub fn randint_with(
        low: impl Int,
        high: impl Int,
        shape: impl IntList,
        generator: &mut Generator,
    ) -> Tensor {
        integers(low.to_i64(), high.to_i64(), &shape.to_sizes("randint"), generator)
    }

    /// The integers `0..n` in random order, as I64 (`torch.randperm`), from this thread's default generator.
    #[track_caller]
    pub fn randperm(n: usize) -> Tensor {
        with_default_generator(|g| Tensor::randperm_with(n, g))
    }

    /// [`Tensor::randperm`] from a generator.
    #[track_caller]
    pub fn randperm_with(n: usize, generator: &mut Generator) -> Tensor {
        generator.permutation(n)
    }

    /// The identity matrix `[n, n]`, in the [default type](crate::set_default_dtype) (`torch.eye`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Tensor::eye(2).to_vec::<f32>(), [1.0, 0.0, 0.0, 1.0]);
    /// ```
    #[track_caller]
    pub fn eye(n: usize) -> Tensor {
        let shape = [n, n];
        shape::numel_for("eye", &shape);
        let mut t = Tensor::zeros_with(shape, DType::F32);
        t.data_mut::<f32>().iter_mut().step_by(n + 1).for_each(|v| *v = 1.0);
        t.cast(default_dtype())
    }

    /// `steps` numbers from `start` to `end` at equal distances, in the [default type](crate::set_default_dtype)
    /// (`torch.linspace`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Tensor::linspace(0, 1, 5).to_vec::<f32>(), [0.0, 0.25, 0.5, 0.75, 1.0]);
    /// ```
    #[track_caller]
    pub fn linspace(start: impl Into<Scalar>, end: impl Into<Scalar>, steps: usize) -> Tensor {
        spaced("linspace", start.into(), end.into(), steps, |x| x)
    }

    /// `base` to the power of the numbers of [`Tensor::linspace`] (`torch.logspace`); the base is 10.
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Tensor::logspace(0, 3, 4).to_vec::<f32>(), [1.0, 10.0, 100.0, 1000.0]);
    /// ```
    #[track_caller]
    pub fn logspace(start: impl Into<Scalar>, end: impl Into<Scalar>, steps: usize) -> Tensor {
        Tensor::logspace_with(start, end, steps, 10.0)
    }

    /// [`Tensor::logspace`] with another base.
    #[track_caller]
    pub fn logspace_with(
        start: impl Into<Scalar>,
        end: impl Into<Scalar>,
        steps: usize,
        base: f64,
    ) -> Tensor {
        spaced("logspace", start.into(), end.into(), steps, |x| base.powf(x))
    }

    /// Rows and columns, `[2, n]` as I64, of the elements on and below a diagonal of a matrix (`torch.tril_indices`).
    ///
    /// ```
    /// assert_eq!(tapegrad_tape::Tensor::tril_indices(2, 2).to_vec::<i64>(), [0, 1, 1, 0, 0, 1]);
    /// ```
    #[track_caller]
    pub fn tril_indices(rows: usize, columns: usize) -> Tensor {
        Tensor::tril_indices_with(rows, columns, 0)
    }

    /// [`Tensor::tril_indices`] with another diagonal.
    #[track_caller]
    pub fn tril_indices_with(rows: usize, columns: usize, offset: impl Int) -> Tensor {
        indices("tril_indices", rows, columns, |row, column| column <= row.saturating_add(offset.to_isize()))
    }

    /// Rows and columns, `[2, n]` as I64, of the elements on and above a diagonal of a matrix (`torch.triu_indices`).
    #[track_caller]
    pub fn triu_indices(rows: usize, columns: usize) -> Tensor {
        Tensor::triu_indices_with(rows, columns, 0)
    }

    /// [`Tensor::triu_indices`] with another diagonal.
    #[track_caller]
    pub fn triu_indices_with(rows: usize, columns: usize, offset: impl Int) -> Tensor {
        indices("triu_indices", rows, columns, |row, column| column >= row.saturating_add(offset.to_isize()))
    }
}

#[track_caller]
fn spaced(op: &str, start: Scalar, end: Scalar, steps: usize, f: impl Fn(f64) -> f64) -> Tensor {
    shape::numel_for(op, &[steps]);
    let (start, end) = (start.to::<f64>(), end.to::<f64>());
    let step = (end - start) / steps.saturating_sub(1).max(1) as f64;
    let mut t = Tensor::uninit(&[steps], DType::F64);
    for (i, v) in t.data_mut::<f64>().iter_mut().enumerate() {
        // From the nearer end, so that both are exact.
        let x = if i < steps / 2 || steps == 1 {
            start + step * i as f64
        } else {
            end - step * (steps - 1 - i) as f64
        };
        *v = f(x);
    }
    t.cast(default_dtype())
}

#[track_caller]
fn indices(op: &str, rows: usize, columns: usize, wanted: impl Fn(isize, isize) -> bool) -> Tensor {
    shape::numel_for(op, &[2, rows, columns]);
    let mut places = [Vec::new(), Vec::new()];
    for row in 0..rows {
        for column in (0..columns).filter(|&column| wanted(row as isize, column as isize)) {
            places[0].push(row as i64);
            places[1].push(column as i64);
        }
    }
    let n = places[0].len();
    Tensor::from_vec(places.concat(), [2, n])
}

/// The same functions for constants of the graph.
macro_rules! constants {
    ($($name:ident($($arg:ident: $ty:ty),*);)*) => {
        impl Var {
            $(
                #[doc = concat!("[`Tensor::", stringify!($name), "`] as a constant.")]
                #[track_caller]
                pub fn $name($($arg: $ty),*) -> Var {
                    Tensor::$name($($arg),*).into()
                }
            )*
        }
    };
}
constants! {
    zeros(shape: impl IntList);
    zeros_with(shape: impl IntList, dtype: DType);
    ones(shape: impl IntList);
    ones_with(shape: impl IntList, dtype: DType);
    full(shape: impl IntList, value: impl Into<Scalar>);
    full_with(shape: impl IntList, value: impl Into<Scalar>, dtype: DType);
    arange(start: impl Int, end: impl Int);
    randn(shape: impl IntList);
    randn_with(shape: impl IntList, generator: &mut Generator);
    rand(shape: impl IntList);
    rand_with(shape: impl IntList, generator: &mut Generator);
    randint(low: impl Int, high: impl Int, shape: impl IntList);
    randint_with(low: impl Int, high: impl Int, shape: impl IntList, generator: &mut Generator);
    randperm(n: usize);
    randperm_with(n: usize, generator: &mut Generator);
    eye(n: usize);
    linspace(start: impl Into<Scalar>, end: impl Into<Scalar>, steps: usize);
    logspace_with(start: impl Into<Scalar>, end: impl Into<Scalar>, steps: usize, base: f64);
    tril_indices_with(rows: usize, columns: usize, offset: impl Int);
    triu_indices_with(rows: usize, columns: usize, offset: impl Int);
}

/// Integers from `low` up to but excluding `high`.
#[track_caller]
fn integers(low: i64, high: i64, shape: &[usize], generator: &mut Generator) -> Tensor {
    assert!(low < high, "randint: expects low < high, got {low} and {high}");
    shape::numel_for("randint", shape);
    let mut t = Tensor::uninit(shape, DType::I64);
    let count = high.abs_diff(low) as usize;
    t.data_mut::<i64>().iter_mut().for_each(|v| *v = low.wrapping_add(generator.below(count) as i64));
    t
}

/// Normal numbers; those of 64 bits are drawn as such.
#[track_caller]
fn normal(shape: &[usize], dtype: DType, generator: &mut Generator) -> Tensor {
    match dtype {
        DType::F64 => generator.fill::<f64>("randn", shape, Generator::next_normal),
        _ => generator.normal(shape, 0.0, 1.0).cast(dtype),
    }
}

/// Numbers in `[0, 1)`; those of 64 bits are drawn as such.
#[track_caller]
fn uniform(shape: &[usize], dtype: DType, generator: &mut Generator) -> Tensor {
    match dtype {
        DType::F64 => generator.fill::<f64>("rand", shape, Generator::next_f64),
        _ => generator.uniform(shape, 0.0, 1.0).cast(dtype),
    }
}

impl Var {
    /// Numbers of the standard normal distribution in this variable's shape and type, as a constant (`torch.randn_like`), from
    /// this thread's default generator.
    ///
    /// # Panics
    /// If the type is not floating point.
    ///
    /// ```
    /// use tapegrad_tape::{DType, Generator, Var};
    /// let x = Var::zeros_with((2, 3), DType::F64);
    /// assert_eq!((x.randn_like().shape(), x.randn_like().dtype()), (&[2, 3][..], DType::F64));
    /// let draw = || x.randn_like_with(&mut Generator::manual_seed(0)).to_vec::<f64>();
    /// assert_eq!(draw(), draw());
    /// ```
    #[track_caller]
    pub fn randn_like(&self) -> Var {
        with_default_generator(|g| self.randn_like_with(g))
    }

    /// [`Var::randn_like`] from a generator.
    ///
    /// # Panics
    /// Same as [`Var::randn_like`].
    #[track_caller]
    pub fn randn_like_with(&self, generator: &mut Generator) -> Var {
        assert!(self.dtype().is_float(), "randn_like: not implemented for {}", self.dtype());
        normal(self.shape(), self.dtype(), generator).into()
    }

    /// Numbers evenly distributed over `[0, 1)` in this variable's shape and type, as a constant (`torch.rand_like`), from
    /// this thread's default generator.
    ///
    /// # Panics
    /// If the type is not floating point.
    #[track_caller]
    pub fn rand_like(&self) -> Var {
        with_default_generator(|g| self.rand_like_with(g))
    }

    /// [`Var::rand_like`] from a generator.
    ///
    /// # Panics
    /// Same as [`Var::rand_like`].
    #[track_caller]
    pub fn rand_like_with(&self, generator: &mut Generator) -> Var {
        assert!(self.dtype().is_float(), "rand_like: not implemented for {}", self.dtype());
        uniform(self.shape(), self.dtype(), generator).into()
    }

    /// Integers from `low` up to but excluding `high` in this variable's shape and type, as a constant
    /// (`torch.randint_like`), from this thread's default generator.
    ///
    /// # Panics
    /// If there is no such integer, or the type cannot hold them.
    ///
    /// ```
    /// use tapegrad_tape::Var;
    /// let x = Var::zeros((2, 3)).randint_like(1, 4);
    /// assert!(x.to_vec::<f32>().iter().all(|n| [1.0, 2.0, 3.0].contains(n)));
    /// ```
    #[track_caller]
    pub fn randint_like(&self, low: impl Int, high: impl Int) -> Var {
        with_default_generator(|g| self.randint_like_with(low, high, g))
    }

    /// [`Var::randint_like`] from a generator.
    ///
    /// # Panics
    /// Same as [`Var::randint_like`].
    #[track_caller]
    pub fn randint_like_with(&self, low: impl Int, high: impl Int, generator: &mut Generator) -> Var {
        let (low, high, dtype) = (low.to_i64(), high.to_i64(), self.dtype());
        assert!(low < high, "randint_like: expects low < high, got {low} and {high}");
        let fits = |n: i64| {
            let held = Tensor::scalar(n).cast(dtype);
            if dtype.is_float() {
                held.item::<f64>().is_finite()
            } else {
                held.cast(DType::I64).to_vec::<i64>() == [n]
            }
        };
        assert!(fits(low) && fits(high - 1), "randint_like: {dtype} cannot hold all of {low}..{high}");
        Tensor::randint_with(low, high, self.shape(), generator).cast(dtype).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(Tensor::linspace(1, 3, 1).to_vec::<f32>(), [1.0]);
        assert_eq!(Tensor::linspace(0, 1, 0).numel(), 0);
        assert_eq!(Tensor::linspace(-1, 1, 3).to_vec::<f32>(), [-1.0, 0.0, 1.0]);
        assert_eq!(Tensor::triu_indices_with(2, 3, 1).to_vec::<i64>(), [0, 0, 1, 1, 2, 2]);
        assert_eq!(Tensor::tril_indices_with(2, 3, -5).shape(), [2, 0]);
        assert_eq!(Tensor::eye(0).shape(), [0, 0]);
    }

    #[test]
    fn doubles_are_of_full_precision() {
        let t = Generator::manual_seed(0).fill::<f64>("rand", &[8], Generator::next_f64).to_vec::<f64>();
        assert!(t.iter().any(|&v| f64::from(v as f32) != v));
    }

    #[test]
    fn random_integers() {
        let t = Tensor::randint_with(-2, 3, 1000, &mut Generator::manual_seed(0)).to_vec::<i64>();
        assert_eq!((t.iter().min(), t.iter().max()), (Some(&-2), Some(&2)));
        let extreme = Tensor::randint_with(i64::MIN, i64::MAX, 10, &mut Generator::manual_seed(0));
        assert_eq!(extreme.numel(), 10);
    }

    #[test]
    fn numbers_like_those_of_a_variable() {
        let mut g = Generator::manual_seed(0);
        for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
            let x = Var::zeros_with((2, 50), dtype);
            for y in [x.randn_like_with(&mut g), x.rand_like_with(&mut g), x.randint_like_with(0, 2, &mut g)]
            {
                assert_eq!((y.shape(), y.dtype()), (x.shape(), dtype));
                assert!(y.to_vec::<f64>().iter().any(|&v| v != 0.0));
            }
        }
        let doubles = Var::zeros_with(8, DType::F64).rand_like_with(&mut g).to_vec::<f64>();
        assert!(doubles.iter().any(|&v| f64::from(v as f32) != v));
        let bytes = Var::zeros_with(500, DType::U8).randint_like_with(0, 256, &mut g);
        assert!((bytes.dtype(), bytes.max_all().item() > 127.0) == (DType::U8, true));
    }

    #[test]
    #[should_panic(expected = "randint_like: uint8 cannot hold all of -1..2")]
    fn negative_bytes() {
        Var::zeros_with(3, DType::U8).randint_like(-1, 2);
    }

    #[test]
    #[should_panic(expected = "randn_like: not implemented for int64")]
    fn normal_integers() {
        Var::zeros_with(3, DType::I64).randn_like();
    }

    #[test]
    #[should_panic(expected = "randint: expects low < high, got 3 and 3")]
    fn no_integer_between() {
        Tensor::randint(3, 3, 1);
    }
}
