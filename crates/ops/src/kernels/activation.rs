//! Smooth activations of `f32` in whole vectors: one exponential, one division, and no cancellation.

use std::marker::PhantomData;
use tapegrad_tape::Params;
use tapegrad_tape::kernels::arch::{self, Kernel, Vector};
use tapegrad_tape::kernels::fused;
use tapegrad_tape::kernels::vector_math::exp;

/// A function and its gradient, in vectors.
pub(crate) trait Curve {
    /// The function.
    fn value<V: Vector>(x: V) -> V;
    /// Its derivative.
    fn slope<V: Vector>(x: V) -> V;
}

/// The loop of a function over dense slices.
pub(crate) fn values<C: Curve>(out: &mut [f32], x: &[f32], _: &Params) {
    assert_eq!(out.len(), x.len());
    arch::run(Values::<C>(out, x, PhantomData));
}

/// The loop of its gradient.
pub(crate) fn gradients<C: Curve>(out: &mut [f32], x: &[f32], g: &[f32], _: &Params) {
    assert!(out.len() == x.len() && x.len() == g.len());
    arch::run(Gradients::<C>(out, x, g, PhantomData));
}

struct Values<'a, C>(&'a mut [f32], &'a [f32], PhantomData<C>);

impl<C: Curve> Kernel for Values<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let (out, x, n) = (self.0.as_mut_ptr(), self.1.as_ptr(), self.0.len());
        let whole = n / V::LANES * V::LANES;
        // SAFETY: both slices have n elements.
        unsafe {
            for i in (0..whole).step_by(V::LANES) {
                C::value(V::load(x.add(i))).store(out.add(i));
            }
            if whole < n {
                C::value(V::load_part(x.add(whole), n - whole)).store_part(out.add(whole), n - whole);
            }
        }
    }
}

struct Gradients<'a, C>(&'a mut [f32], &'a [f32], &'a [f32], PhantomData<C>);

impl<C: Curve> Kernel for Gradients<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let (out, x, g, n) = (self.0.as_mut_ptr(), self.1.as_ptr(), self.2.as_ptr(), self.0.len());
        let whole = n / V::LANES * V::LANES;
        // SAFETY: the slices have n elements.
        unsafe {
            for i in (0..whole).step_by(V::LANES) {
                C::slope(V::load(x.add(i))).mul(V::load(g.add(i))).store(out.add(i));
            }
            if whole < n {
                let rest = n - whole;
                let slope = C::slope(V::load_part(x.add(whole), rest));
                slope.mul(V::load_part(g.add(whole), rest)).store_part(out.add(whole), rest);
            }
        }
    }
}

tapegrad_tape::fused! {
    /// `ln(1 + e^(beta x)) / beta`, and `x` above a threshold.
    pub(crate) fn softplus<const F>(out: &mut [f32], x: &[f32], p: &Params) {
        let [beta, threshold] = [p[0] as f32, p[1] as f32];
        for (o, &x) in out.iter_mut().zip(x) {
            let z = x * beta;
            let y = fused::softplus::<F>(z) / beta;
            *o = if z > threshold { x } else { y };
        }
    }
}

tapegrad_tape::fused! {
    /// The binary cross-entropy of `sigmoid(x)` and `t`.
    pub(crate) fn logit_losses<const F>(out: &mut [f32], x: &[f32], t: &[f32]) {
        for ((o, &x), &t) in out.iter_mut().zip(x).zip(t) {
            // NaN stays.
            let least = if x > 0.0 { 0.0 } else { x };
            *o = (1.0 - t) * x - (least - fused::softplus_below::<F>(-x.abs()));
        }
    }
}

/// Beyond 100, where all slopes are zero or one, products with `x` would not vanish with their other factor.
#[inline(always)]
fn bounded<V: Vector>(x: V) -> V {
    x.max(V::splat(-100.0)).min(V::splat(100.0))
}

#[inline(always)]
fn negated<V: Vector>(x: V) -> V {
    V::splat(-0.0).sub(x)
}

/// `s = 1 / (1 + e^-x)`, and its derivative `s (1 - s)` without the cancellation.
#[inline(always)]
fn logistic<V: Vector>(x: V) -> [V; 2] {
    let one = V::splat(1.0);
    let e = exp(negated(x)).min(V::splat(3e38));
    let s = one.div(one.add(e));
    [s, e.mul(s).mul(s)]
}

/// The normal distribution function and, times `sqrt(2 pi)`, its density.
///
/// The former is computed below zero, where it is the density times a function of `t = 1 / (1 + 0.26 |x|)`: a
/// polynomial with a relative error of 2e-8. So small results are accurate, too.
#[inline(always)]
fn normal<V: Vector>(x: V) -> [V; 2] {
    let one = V::splat(1.0);
    let a = x.max(negated(x)).min(V::splat(20.0));
    let square = a.mul(a);
    // What the square has lost by rounding, which counts where it is large.
    let lost = a.mul_add(a, negated(square));
    let density = exp(square.mul(V::splat(-0.5)));
    let density = lost.mul(V::splat(0.5)).neg_mul_add(density, density);
    let t = one.div(a.mul_add(V::splat(0.26), one));
    let p = V::splat(0.030_952_85);
    let p = p.mul_add(t, V::splat(-0.155_018_37));
    let p = p.mul_add(t, V::splat(0.256_047_2));
    let p = p.mul_add(t, V::splat(-0.156_208_7));
    let p = p.mul_add(t, V::splat(0.164_624_91));
    let p = p.mul_add(t, V::splat(0.049_437_024));
    let p = p.mul_add(t, V::splat(0.103_445_28));
    let p = p.mul_add(t, V::splat(0.102_957_13));
    let p = p.mul_add(t, V::splat(0.103_762_67));
    let below = p.mul(t).mul(density);
    [x.by_sign(below, one.sub(below)), density]
}

/// `x` times the normal distribution function.
pub(crate) struct Gelu;

impl Curve for Gelu {
    #[inline(always)]
    fn value<V: Vector>(x: V) -> V {
        x.mul(normal(x)[0])
    }
    #[inline(always)]
    fn slope<V: Vector>(x: V) -> V {
        let x = bounded(x);
        let [distribution, density] = normal(x);
        // 1 / sqrt(2 pi)
        x.mul(density).mul_add(V::splat(0.398_942_3), distribution)
    }
}

/// `x logistic(2 sqrt(2 / pi) (x + 0.044715 x^3))`, which is GELU with the hyperbolic tangent.
pub(crate) struct GeluTanh;

impl GeluTanh {
    /// 2 sqrt(2 / pi)
    const SCALE: f32 = 1.595_769;
    const CUBIC: f32 = 0.044_715;
}

impl Curve for GeluTanh {
    #[inline(always)]
    fn value<V: Vector>(x: V) -> V {
        let inner = x.mul(x).mul_add(V::splat(Self::CUBIC * Self::SCALE), V::splat(Self::SCALE));
        let one = V::splat(1.0);
        x.div(one.add(exp(negated(x.mul(inner)))))
    }
    #[inline(always)]
    fn slope<V: Vector>(x: V) -> V {
        let x = bounded(x);
        let square = x.mul(x);
        let inner = square.mul_add(V::splat(Self::CUBIC * Self::SCALE), V::splat(Self::SCALE));
        let steep = square.mul_add(V::splat(3.0 * Self::CUBIC * Self::SCALE), V::splat(Self::SCALE));
        let [s, slope] = logistic(x.mul(inner));
        x.mul(steep).mul_add(slope, s)
    }
}

/// `x logistic(x)`
pub(crate) struct Silu;

impl Curve for Silu {
    #[inline(always)]
    fn value<V: Vector>(x: V) -> V {
        x.div(V::splat(1.0).add(exp(negated(x))))
    }
    #[inline(always)]
    fn slope<V: Vector>(x: V) -> V {
        let x = bounded(x);
        let [s, slope] = logistic(x);
        x.mul_add(slope, s)
    }
}

/// `x tanh(ln(1 + e^x))`, which is `x n / (n + 2)` with `n = e^x (e^x + 2)`.
pub(crate) struct Mish;

impl Curve for Mish {
    #[inline(always)]
    fn value<V: Vector>(x: V) -> V {
        let [_, n] = Self::parts(x);
        x.mul(n.div(n.add(V::splat(2.0))))
    }
    #[inline(always)]
    fn slope<V: Vector>(x: V) -> V {
        let x = bounded(x);
        let [e, n] = Self::parts(x);
        let r = V::splat(1.0).div(n.add(V::splat(2.0)));
        let inner = x.mul(V::splat(4.0)).mul(e.mul(r)).mul(e.add(V::splat(1.0)));
        n.add(inner).mul(r)
    }
}

impl Mish {
    /// `e^x` and `n`; from 20 on the quotient is one.
    #[inline(always)]
    fn parts<V: Vector>(x: V) -> [V; 2] {
        let e = exp(x.min(V::splat(20.0)));
        [e, e.mul(e.add(V::splat(2.0)))]
    }
}
