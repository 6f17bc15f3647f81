//! `adaptive_avg_pool1d/2d/3d`, `adaptive_max_pool1d/2d/3d`.

use super::avg_pool::mean_over_windows;
use super::max_pool::max_over_windows;
use crate::OutputSize;
use crate::kernels::windows::Axis;
use tapegrad_tape::Var;
use tapegrad_tape::shape::numel_for;

/// One axis for each dimension; `None` keeps the size.
#[track_caller]
fn axes<const D: usize>(op: &str, shape: &[usize], output: [Option<usize>; D]) -> Vec<Axis> {
    let output: [usize; D] = std::array::from_fn(|d| output[d].unwrap_or(shape[d + 2]));
    numel_for(op, &[&shape[..2], &output].concat());
    (0..D).map(|d| Axis::adaptive(op, shape[d + 2], output[d])).collect()
}

macro_rules! adaptive_pool {
    ($($name:ident, $max:ident, $with_indices:ident, $d:literal, $shape:literal, $output:literal;)*) => {$(
        #[doc = concat!("The mean of each of as many windows as the output has elements, for an input ", $shape, " (`torch.nn.functional.", stringify!($name), "`).")]
        ///
        /// The size is a number for all dimensions, or one for each; `None` keeps that of the input.
        ///
        /// # Panics
        /// If the input has another number of dimensions.
        ///
        /// ```
        /// use tapegrad_tape::{DType, Tensor, Var};
        #[doc = concat!("let x = Var::from(Tensor::ones_with(&[&[2, 3][..], &[6; ", $d, "]].concat(), DType::F32));")]
        #[doc = concat!("let y = tapegrad_ops::", stringify!($name), "(&x, 2);")]
        #[doc = concat!("assert_eq!(y.shape()[2..], [2; ", $d, "]);")]
        /// ```
        #[track_caller]
        pub fn $name(input: &Var, output_size: impl Into<OutputSize<$d>>) -> Var {
            let OutputSize(output_size) = output_size.into();
            mean_over_windows::<$d>(stringify!($name), input, false, None, |shape| axes(stringify!($name), shape, output_size))
        }

        #[doc = concat!("The largest element of each of as many windows as the output has elements, for an input ", $shape, " (`torch.nn.functional.", stringify!($max), "`).")]
        ///
        /// The size is a number for all dimensions, or one for each; `None` keeps that of the input.
        ///
        /// # Panics
        /// If the input has another number of dimensions.
        ///
        /// ```
        /// use tapegrad_tape::{DType, Tensor, Var};
        #[doc = concat!("let x = Var::from(Tensor::ones_with(&[&[2, 3][..], &[6; ", $d, "]].concat(), DType::F32));")]
        #[doc = concat!("assert_eq!(tapegrad_ops::", stringify!($max), "(&x, 2).shape()[2..], [2; ", $d, "]);")]
        /// ```
        #[track_caller]
        pub fn $max(input: &Var, output_size: impl Into<OutputSize<$d>>) -> Var {
            let OutputSize(output_size) = output_size.into();
            max_over_windows::<$d>(stringify!($max), input, |shape| axes(stringify!($max), shape, output_size)).0
        }

        #[doc = concat!("As [`", stringify!($max), "`], with the index of each maximum in the flattened spatial dimensions (`return_indices=True`).")]
        ///
        /// # Panics
        /// If the input has another number of dimensions.
        #[track_caller]
        pub fn $with_indices(input: &Var, output_size: impl Into<OutputSize<$d>>) -> (Var, Var) {
            let OutputSize(output_size) = output_size.into();
            let (y, taken) = max_over_windows::<$d>(stringify!($max), input, |shape| axes(stringify!($max), shape, output_size));
            let indices = taken.indices(&y);
            (y, indices)
        }
    )*};
}
adaptive_pool! {
    adaptive_avg_pool1d, adaptive_max_pool1d, adaptive_max_pool1d_with_indices, 1, "`[N, C, L]`", "`[L]`";
    adaptive_avg_pool2d, adaptive_max_pool2d, adaptive_max_pool2d_with_indices, 2, "`[N, C, H, W]`", "`[H, W]`";
    adaptive_avg_pool3d, adaptive_max_pool3d, adaptive_max_pool3d_with_indices, 3, "`[N, C, D, H, W]`", "`[D, H, W]`";
}
