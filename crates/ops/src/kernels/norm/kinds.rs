//! The terms that are summed for each channel, and the maps of each element.

use tapegrad_tape::Float;
use tapegrad_tape::kernels::channels::Terms;

/// The sums of a gradient and of its products with the centered elements.
#[derive(Clone, Copy)]
pub struct Products;

impl<T: Float> Terms<T> for Products {
    const BINARY: bool = true;
    #[inline(always)]
    fn terms(x: T, g: T, [center, ..]: [T; 3]) -> (T, T) {
        (g, g * (x - center))
    }
}

/// [`Products`] where `(x - p0) p1 + p2` is positive: the gradient passed a ReLU after the normalization.
#[derive(Clone, Copy)]
pub struct ReluProducts;

impl<T: Float> Terms<T> for ReluProducts {
    const BINARY: bool = true;
    #[inline(always)]
    fn terms(x: T, g: T, p: [T; 3]) -> (T, T) {
        let g = if (x - p[0]) * p[1] + p[2] > T::ZERO { g } else { T::ZERO };
        Products::terms(x, g, p)
    }
}

/// [`Products`] where `(x - p0) p1 + p2` is between 0 and 6: the gradient passed a ReLU6 after the normalization.
#[derive(Clone, Copy)]
pub struct Relu6Products;

impl<T: Float> Terms<T> for Relu6Products {
    const BINARY: bool = true;
    #[inline(always)]
    fn terms(x: T, g: T, p: [T; 3]) -> (T, T) {
        let y = (x - p[0]) * p[1] + p[2];
        let g = if y > T::ZERO && y < T::c(6.0) { g } else { T::ZERO };
        Products::terms(x, g, p)
    }
}

/// A function of an element, that of a second operand, and five parameters of its channel.
pub trait Map<T>: Copy + Send + Sync {
    /// Whether there is a second operand.
    const BINARY: bool;
    /// The function.
    fn map(x: T, g: T, p: [T; 5]) -> T;
}

/// `(x - p0) p1 + p2`
#[derive(Clone, Copy)]
pub struct Affine;

impl<T: Float> Map<T> for Affine {
    const BINARY: bool = false;
    #[inline(always)]
    fn map(x: T, _: T, p: [T; 5]) -> T {
        (x - p[0]) * p[1] + p[2]
    }
}

/// `g p1 - p2 - (x - p0) p3`, the gradient of a normalization for its input.
#[derive(Clone, Copy)]
pub struct Gradient;

impl<T: Float> Map<T> for Gradient {
    const BINARY: bool = true;
    #[inline(always)]
    fn map(x: T, g: T, p: [T; 5]) -> T {
        g * p[1] - (p[2] + (x - p[0]) * p[3])
    }
}

/// ReLU; a NaN stays.
#[inline(always)]
fn rectified<T: Float>(y: T) -> T {
    if y <= T::ZERO { T::ZERO } else { y }
}

/// [`Affine`], then ReLU.
#[derive(Clone, Copy)]
pub struct AffineRelu;

impl<T: Float> Map<T> for AffineRelu {
    const BINARY: bool = false;
    #[inline(always)]
    fn map(x: T, _: T, p: [T; 5]) -> T {
        rectified(Affine::map(x, x, p))
    }
}

/// [`Affine`], then ReLU6.
#[derive(Clone, Copy)]
pub struct AffineRelu6;

impl<T: Float> Map<T> for AffineRelu6 {
    const BINARY: bool = false;
    #[inline(always)]
    fn map(x: T, _: T, p: [T; 5]) -> T {
        let y = rectified(Affine::map(x, x, p));
        if y > T::c(6.0) { T::c(6.0) } else { y }
    }
}

/// [`Affine`] plus the second operand, then ReLU: the end of a residual block.
#[derive(Clone, Copy)]
pub struct AffineAddRelu;

impl<T: Float> Map<T> for AffineAddRelu {
    const BINARY: bool = true;
    #[inline(always)]
    fn map(x: T, residual: T, p: [T; 5]) -> T {
        rectified(Affine::map(x, x, p) + residual)
    }
}

/// [`Gradient`] where `(x - p0) p1 + p4` is positive: the gradient passed a ReLU after the normalization.
#[derive(Clone, Copy)]
pub struct ReluGradient;

impl<T: Float> Map<T> for ReluGradient {
    const BINARY: bool = true;
    #[inline(always)]
    fn map(x: T, g: T, p: [T; 5]) -> T {
        let g = if (x - p[0]) * p[1] + p[4] > T::ZERO { g } else { T::ZERO };
        Gradient::map(x, g, p)
    }
}

/// [`Gradient`] where `(x - p0) p1 + p4` is between 0 and 6: the gradient passed a ReLU6 after the normalization.
#[derive(Clone, Copy)]
pub struct Relu6Gradient;

impl<T: Float> Map<T> for Relu6Gradient {
    const BINARY: bool = true;
    #[inline(always)]
    fn map(x: T, g: T, p: [T; 5]) -> T {
        let y = (x - p[0]) * p[1] + p[4];
        let g = if y > T::ZERO && y < T::c(6.0) { g } else { T::ZERO };
        Gradient::map(x, g, p)
    }
}
