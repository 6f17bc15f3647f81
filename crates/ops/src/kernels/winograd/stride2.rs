//! Schemes for a stride of two. Even and odd taps of a kernel see different inputs, so each is a convolution with stride 1 of
//! half as many taps.

use super::scheme::{MAX, Scheme, WeightScheme, padded};
use tapegrad_tape::kernels::arch::Vector;

/// F(4, 2): four outputs by five products instead of eight, on the points a, -a, b, -b and infinity of
/// [`F4`](super::scheme::F4).
pub(super) mod halves {
    use super::super::scheme::{A, B};
    use tapegrad_tape::kernels::arch::Vector;

    /// From five inputs. Rows: the coefficients of `(x²-1/2)(x²-2)` without one factor; infinity has the whole.
    #[inline(always)]
    pub(super) fn input<V: Vector>([x0, x1, x2, x3, x4]: [V; 5]) -> [V; 5] {
        let (a, b, two, half) = (V::splat(A), V::splat(B), V::splat(2.0), V::splat(0.5));
        let even_a = two.neg_mul_add(x0, x2);
        let odd_a = two.neg_mul_add(x1, x3);
        let even_b = half.neg_mul_add(x0, x2);
        let odd_b = half.neg_mul_add(x1, x3);
        [
            a.mul_add(even_a, odd_a),
            a.neg_mul_add(even_a, odd_a),
            b.mul_add(even_b, odd_b),
            b.neg_mul_add(even_b, odd_b),
            V::splat(2.5).neg_mul_add(x2, x0.add(x4)),
        ]
    }

    /// Rows `[1, p]` over the product of the differences to the other points: -3a, 3a, 3b and -3b.
    #[inline(always)]
    pub(super) fn weight<V: Vector>(first: V, last: V) -> [V; 5] {
        let last_third = last.mul(V::splat(1.0 / 3.0));
        let (over_a, over_b) = (V::splat(B / 3.0), V::splat(A / 3.0));
        let zero = V::splat(0.0);
        [
            over_a.neg_mul_add(first, zero.sub(last_third)),
            over_a.mul_add(first, zero.sub(last_third)),
            over_b.mul_add(first, last_third),
            over_b.neg_mul_add(first, last_third),
            last,
        ]
    }

    /// To four outputs: columns `[1, p, p², p³]`.
    #[inline(always)]
    pub(super) fn output<V: Vector>([m0, m1, m2, m3, m4]: [V; 5]) -> [V; 4] {
        let (even_a, odd_a) = (m0.add(m1), m0.sub(m1));
        let (even_b, odd_b) = (m2.add(m3), m2.sub(m3));
        [
            even_a.add(even_b),
            V::splat(A).mul_add(odd_a, V::splat(B).mul(odd_b)),
            V::splat(0.5).mul_add(even_a, V::splat(2.0).mul(even_b)),
            V::splat(0.5 * A).mul_add(odd_a, V::splat(2.0 * B).mul_add(odd_b, m4)),
        ]
    }

    /// The adjoint of [`output`].
    #[inline(always)]
    pub(in super::super) fn output_grad<V: Vector>([y0, y1, y2, y3]: [V; 4]) -> [V; 5] {
        let (half, two) = (V::splat(0.5), V::splat(2.0));
        let even_a = half.mul_add(y2, y0);
        let odd_a = half.mul_add(y3, y1);
        let even_b = two.mul_add(y2, y0);
        let odd_b = two.mul_add(y3, y1);
        let (a, b) = (V::splat(A), V::splat(B));
        [
            a.mul_add(odd_a, even_a),
            a.neg_mul_add(odd_a, even_a),
            b.mul_add(odd_b, even_b),
            b.neg_mul_add(odd_b, even_b),
            y3,
        ]
    }

    /// The adjoint of [`weight`].
    #[inline(always)]
    pub(super) fn weight_grad<V: Vector>([u0, u1, u2, u3, u4]: [V; 5]) -> [V; 2] {
        let (even_a, odd_a) = (u0.add(u1), u1.sub(u0));
        let (even_b, odd_b) = (u2.add(u3), u2.sub(u3));
        [
            V::splat(B / 3.0).mul_add(odd_a, V::splat(A / 3.0).mul(odd_b)),
            V::splat(1.0 / 3.0).mul_add(even_b.sub(even_a), u4),
        ]
    }
}

/// Three taps: four outputs by nine products instead of twelve, so 81 instead of 144 in two dimensions. The outer taps are
/// F(4, 2); the middle one is a product for each output, and the last four products share it.
#[derive(Clone, Copy)]
pub(super) struct Stride2;

impl Scheme for Stride2 {
    const IN: usize = 9;
    const SIDE: usize = 9;
    const OUT: usize = 4;
    const WEIGHTS: usize = 6;
    const STEP: usize = 8;
    const MARGIN: usize = 0;

    #[inline(always)]
    fn input<V: Vector>([x0, x1, x2, x3, x4, x5, x6, x7, x8, ..]: [V; MAX]) -> [V; MAX] {
        let [m0, m1, m2, m3, m4] = halves::input([x0, x2, x4, x6, x8]);
        padded([m0, m1, m2, m3, m4, x1, x3, x5, x7])
    }

    #[inline(always)]
    fn weight<V: Vector>([w0, w1, w2, ..]: [V; MAX]) -> [V; MAX] {
        let [u0, u1, u2, u3, u4] = halves::weight(w0, w2);
        padded([u0, u1, u2, u3, u4, w1])
    }

    #[inline(always)]
    fn output<V: Vector>([m0, m1, m2, m3, m4, n0, n1, n2, n3, ..]: [V; MAX]) -> [V; MAX] {
        let [y0, y1, y2, y3] = halves::output([m0, m1, m2, m3, m4]);
        padded([y0.add(n0), y1.add(n1), y2.add(n2), y3.add(n3)])
    }
}

impl WeightScheme for Stride2 {
    #[inline(always)]
    fn output_grad<V: Vector>([y0, y1, y2, y3, ..]: [V; MAX]) -> [V; MAX] {
        let [m0, m1, m2, m3, m4] = halves::output_grad([y0, y1, y2, y3]);
        padded([m0, m1, m2, m3, m4, y0, y1, y2, y3])
    }

    #[inline(always)]
    fn weight_grad<V: Vector>([u0, u1, u2, u3, u4, u5, ..]: [V; MAX]) -> [V; MAX] {
        let [w0, w2] = halves::weight_grad([u0, u1, u2, u3, u4]);
        padded([w0, u5, w2])
    }
}

/// The input gradient of [`Stride2`] with padding 1: five inputs make eight outputs. The outer taps meet in the odd
/// ones, the middle tap alone is in the even ones.
#[derive(Clone, Copy)]
pub(super) struct Stride2Transposed;

impl Scheme for Stride2Transposed {
    const IN: usize = 5;
    const SIDE: usize = 9;
    const OUT: usize = 8;
    const WEIGHTS: usize = 6;
    const STEP: usize = 4;
    const MARGIN: usize = 0;

    #[inline(always)]
    fn input<V: Vector>([y0, y1, y2, y3, y4, ..]: [V; MAX]) -> [V; MAX] {
        let [m0, m1, m2, m3, m4] = halves::input([y0, y1, y2, y3, y4]);
        padded([m0, m1, m2, m3, m4, y0, y1, y2, y3])
    }

    #[inline(always)]
    fn weight<V: Vector>(w: [V; MAX]) -> [V; MAX] {
        Stride2::weight(w)
    }

    #[inline(always)]
    fn output<V: Vector>([m0, m1, m2, m3, m4, n0, n1, n2, n3, ..]: [V; MAX]) -> [V; MAX] {
        let [x1, x3, x5, x7] = halves::output([m0, m1, m2, m3, m4]);
        padded([n0, x1, n1, x3, n2, x5, n3, x7])
    }
}

/// Four taps: four outputs by ten products instead of sixteen, so 100 instead of 256 in two dimensions. The even and the
/// odd taps are both F(4, 2).
#[derive(Clone, Copy)]
pub(super) struct Stride2Taps4;

impl Scheme for Stride2Taps4 {
    const TAPS: usize = 4;
    const IN: usize = 10;
    const SIDE: usize = 10;
    const OUT: usize = 4;
    const WEIGHTS: usize = 10;
    const STEP: usize = 8;
    const MARGIN: usize = 0;

    #[inline(always)]
    fn input<V: Vector>([x0, x1, x2, x3, x4, x5, x6, x7, x8, x9]: [V; MAX]) -> [V; MAX] {
        joined(halves::input([x0, x2, x4, x6, x8]), halves::input([x1, x3, x5, x7, x9]))
    }

    #[inline(always)]
    fn weight<V: Vector>([w0, w1, w2, w3, ..]: [V; MAX]) -> [V; MAX] {
        joined(halves::weight(w0, w2), halves::weight(w1, w3))
    }

    #[inline(always)]
    fn output<V: Vector>([m0, m1, m2, m3, m4, n0, n1, n2, n3, n4]: [V; MAX]) -> [V; MAX] {
        padded(halves::output([m0.add(n0), m1.add(n1), m2.add(n2), m3.add(n3), m4.add(n4)]))
    }
}

impl WeightScheme for Stride2Taps4 {
    #[inline(always)]
    fn output_grad<V: Vector>([y0, y1, y2, y3, ..]: [V; MAX]) -> [V; MAX] {
        let m = halves::output_grad([y0, y1, y2, y3]);
        joined(m, m)
    }

    #[inline(always)]
    fn weight_grad<V: Vector>([u0, u1, u2, u3, u4, v0, v1, v2, v3, v4]: [V; MAX]) -> [V; MAX] {
        let [w0, w2] = halves::weight_grad([u0, u1, u2, u3, u4]);
        let [w1, w3] = halves::weight_grad([v0, v1, v2, v3, v4]);
        padded([w0, w1, w2, w3])
    }
}

/// The input gradient of [`Stride2Taps4`] with padding 1: six inputs make eight outputs, the even ones by the even taps of the
/// rotated kernel, the odd ones by its odd taps, one input later.
#[derive(Clone, Copy)]
pub(super) struct Stride2Taps4Transposed;

impl Scheme for Stride2Taps4Transposed {
    const TAPS: usize = 4;
    const IN: usize = 6;
    const SIDE: usize = 10;
    const OUT: usize = 8;
    const WEIGHTS: usize = 10;
    const STEP: usize = 4;
    const MARGIN: usize = 0;

    #[inline(always)]
    fn input<V: Vector>([y0, y1, y2, y3, y4, y5, ..]: [V; MAX]) -> [V; MAX] {
        joined(halves::input([y0, y1, y2, y3, y4]), halves::input([y1, y2, y3, y4, y5]))
    }

    #[inline(always)]
    fn weight<V: Vector>(w: [V; MAX]) -> [V; MAX] {
        Stride2Taps4::weight(w)
    }

    #[inline(always)]
    fn output<V: Vector>([m0, m1, m2, m3, m4, n0, n1, n2, n3, n4]: [V; MAX]) -> [V; MAX] {
        let [x0, x2, x4, x6] = halves::output([m0, m1, m2, m3, m4]);
        let [x1, x3, x5, x7] = halves::output([n0, n1, n2, n3, n4]);
        padded([x0, x1, x2, x3, x4, x5, x6, x7])
    }
}

#[inline(always)]
fn joined<V: Vector>([a0, a1, a2, a3, a4]: [V; 5], [b0, b1, b2, b3, b4]: [V; 5]) -> [V; MAX] {
    [a0, a1, a2, a3, a4, b0, b1, b2, b3, b4]
}
