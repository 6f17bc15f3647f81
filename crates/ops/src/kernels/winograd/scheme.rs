//! The one-dimensional transforms. Two-dimensional ones apply them to columns, then to rows.
//!
//! A scheme computes `OUT` neighboring outputs of a kernel with `TAPS` taps from `IN` inputs by `SIDE` products:
//! `y = A^T [(G w) * (B^T x)]`. The gradient of the weight is its transpose: `dw = G^T [(A dy) * (B^T x)]`.

use super::stride2::halves;
use tapegrad_tape::kernels::arch::Vector;
use tapegrad_tape::unroll;

/// The largest side of a tile, transformed or not. Schemes with smaller sides use the first entries of arrays.
pub(super) const MAX: usize = 10;

/// The transforms of one scheme.
pub(super) trait Scheme: Copy + Send + Sync + 'static {
    /// Taps of the kernel.
    const TAPS: usize = 3;
    /// Inputs of a tile.
    const IN: usize;
    /// Products of a tile.
    const SIDE: usize;
    /// Outputs of a tile.
    const OUT: usize;
    /// Transformed weights; the last one serves all products from its index on.
    const WEIGHTS: usize;
    /// The distance between the inputs of adjacent tiles.
    const STEP: usize;
    /// Zeros at each border of the window, which are known and thus not inputs.
    const MARGIN: usize;

    /// `B^T x`: from `IN` to `SIDE`.
    fn input<V: Vector>(x: [V; MAX]) -> [V; MAX];
    /// `G w`: from `TAPS` to `WEIGHTS`.
    fn weight<V: Vector>(w: [V; MAX]) -> [V; MAX];
    /// `A^T m`: from `SIDE` to `OUT`.
    fn output<V: Vector>(m: [V; MAX]) -> [V; MAX];

    /// Which of the `WEIGHTS * WEIGHTS` transformed weights a frequency is multiplied with, and whether an
    /// earlier frequency is, too.
    #[inline(always)]
    fn weight_of(frequency: usize) -> (usize, bool) {
        let (i, j) = (frequency / Self::SIDE, frequency % Self::SIDE);
        let again = i >= Self::WEIGHTS || j >= Self::WEIGHTS;
        (i.min(Self::WEIGHTS - 1) * Self::WEIGHTS + j.min(Self::WEIGHTS - 1), again)
    }
}

/// The transforms that the gradient of the weight takes in addition.
pub(super) trait WeightScheme: Scheme {
    /// `A dy`: from `OUT` to `SIDE`.
    fn output_grad<V: Vector>(dy: [V; MAX]) -> [V; MAX];
    /// `G^T u`: from `WEIGHTS` to `TAPS`.
    fn weight_grad<V: Vector>(u: [V; MAX]) -> [V; MAX];
}

/// F(4, 3): four outputs by six products instead of twelve.
///
/// The points are 0, a = sqrt(1/2), -a, b = sqrt(2), -b and infinity. They cost as much as the usual
/// 0, 1, -1, 2, -2 and lose a quarter as many bits: the powers up to the fourth stay between 1/4 and 4.
#[derive(Clone, Copy)]
pub(super) struct F4;

pub(super) const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
pub(super) const B: f32 = std::f32::consts::SQRT_2;

impl Scheme for F4 {
    const IN: usize = 6;
    const SIDE: usize = 6;
    const OUT: usize = 4;
    const WEIGHTS: usize = 6;
    const STEP: usize = 4;
    const MARGIN: usize = 0;

    /// Rows: the coefficients of `x(x²-1/2)(x²-2)` without one factor; infinity has the whole polynomial.
    #[inline(always)]
    fn input<V: Vector>([x0, x1, x2, x3, x4, x5, ..]: [V; MAX]) -> [V; MAX] {
        let (a, b, two, half) = (V::splat(A), V::splat(B), V::splat(2.0), V::splat(0.5));
        let five_halves = V::splat(2.5);
        let even_a = two.neg_mul_add(x2, x4);
        let odd_a = two.neg_mul_add(x1, x3);
        let even_b = half.neg_mul_add(x2, x4);
        let odd_b = half.neg_mul_add(x1, x3);
        padded([
            five_halves.neg_mul_add(x2, x0.add(x4)),
            a.mul_add(odd_a, even_a),
            a.neg_mul_add(odd_a, even_a),
            b.mul_add(odd_b, even_b),
            b.neg_mul_add(odd_b, even_b),
            five_halves.neg_mul_add(x3, x1.add(x5)),
        ])
    }

    /// Rows `[1, p, p²]` over the product of the differences to the other points: 1, -3/2 and 6.
    #[inline(always)]
    fn weight<V: Vector>([w0, w1, w2, ..]: [V; MAX]) -> [V; MAX] {
        let even_a = V::splat(0.5).mul_add(w2, w0).mul(V::splat(-2.0 / 3.0));
        let odd_a = V::splat(-2.0 / 3.0 * A);
        let even_b = V::splat(2.0).mul_add(w2, w0).mul(V::splat(1.0 / 6.0));
        let odd_b = V::splat(1.0 / 6.0 * B);
        padded([
            w0,
            odd_a.mul_add(w1, even_a),
            odd_a.neg_mul_add(w1, even_a),
            odd_b.mul_add(w1, even_b),
            odd_b.neg_mul_add(w1, even_b),
            w2,
        ])
    }

    /// Columns `[1, p, p², p³]`.
    #[inline(always)]
    fn output<V: Vector>([m0, m1, m2, m3, m4, m5, ..]: [V; MAX]) -> [V; MAX] {
        let (even_a, odd_a) = (m1.add(m2), m1.sub(m2));
        let (even_b, odd_b) = (m3.add(m4), m3.sub(m4));
        padded([
            m0.add(even_a).add(even_b),
            V::splat(A).mul_add(odd_a, V::splat(B).mul(odd_b)),
            V::splat(0.5).mul_add(even_a, V::splat(2.0).mul(even_b)),
            V::splat(0.5 * A).mul_add(odd_a, V::splat(2.0 * B).mul_add(odd_b, m5)),
        ])
    }
}

impl WeightScheme for F4 {
    #[inline(always)]
    fn output_grad<V: Vector>([y0, y1, y2, y3, ..]: [V; MAX]) -> [V; MAX] {
        // The point 0 comes before those that it shares with the halves.
        let [m1, m2, m3, m4, m5] = halves::output_grad([y0, y1, y2, y3]);
        padded([y0, m1, m2, m3, m4, m5])
    }

    #[inline(always)]
    fn weight_grad<V: Vector>([u0, u1, u2, u3, u4, u5, ..]: [V; MAX]) -> [V; MAX] {
        let (even_a, odd_a) = (u1.add(u2), u1.sub(u2));
        let (even_b, odd_b) = (u3.add(u4), u3.sub(u4));
        padded([
            V::splat(-2.0 / 3.0).mul_add(even_a, V::splat(1.0 / 6.0).mul_add(even_b, u0)),
            V::splat(-2.0 / 3.0 * A).mul_add(odd_a, V::splat(1.0 / 6.0 * B).mul(odd_b)),
            V::splat(1.0 / 3.0).mul_add(even_b.sub(even_a), u5),
        ])
    }
}

/// F(2, 3): two outputs by four products instead of six.
///
/// The points are 0, 1, -1 and infinity. The transforms add and halve, so their rounding errors are a third of those of
/// [`F4`].
#[derive(Clone, Copy)]
pub(super) struct F2;

impl Scheme for F2 {
    const IN: usize = 4;
    const SIDE: usize = 4;
    const OUT: usize = 2;
    const WEIGHTS: usize = 4;
    const STEP: usize = 2;
    const MARGIN: usize = 0;

    #[inline(always)]
    fn input<V: Vector>([x0, x1, x2, x3, ..]: [V; MAX]) -> [V; MAX] {
        padded([x0.sub(x2), x1.add(x2), x2.sub(x1), x3.sub(x1)])
    }

    #[inline(always)]
    fn weight<V: Vector>([w0, w1, w2, ..]: [V; MAX]) -> [V; MAX] {
        let half = V::splat(0.5);
        let outer = w0.add(w2);
        padded([w0, outer.add(w1).mul(half), outer.sub(w1).mul(half), w2])
    }

    #[inline(always)]
    fn output<V: Vector>([m0, m1, m2, m3, ..]: [V; MAX]) -> [V; MAX] {
        padded([m0.add(m1.add(m2)), m1.sub(m2).add(m3)])
    }
}

impl WeightScheme for F2 {
    #[inline(always)]
    fn output_grad<V: Vector>([y0, y1, ..]: [V; MAX]) -> [V; MAX] {
        padded([y0, y0.add(y1), y0.sub(y1), y1])
    }

    #[inline(always)]
    fn weight_grad<V: Vector>([u0, u1, u2, u3, ..]: [V; MAX]) -> [V; MAX] {
        let half = V::splat(0.5);
        let outer = u1.add(u2).mul(half);
        padded([u0.add(outer), u1.sub(u2).mul(half), outer.add(u3)])
    }
}

/// Two outputs of two inputs with a zero on either side, by three products: all of a 2x2 image with padding 1.
#[derive(Clone, Copy)]
pub(super) struct Whole2;

impl Scheme for Whole2 {
    const IN: usize = 2;
    const SIDE: usize = 3;
    const OUT: usize = 2;
    const WEIGHTS: usize = 3;
    const STEP: usize = 2;
    const MARGIN: usize = 1;

    #[inline(always)]
    fn input<V: Vector>([x0, x1, ..]: [V; MAX]) -> [V; MAX] {
        padded([x0.add(x1), x1, x0])
    }

    #[inline(always)]
    fn weight<V: Vector>([w0, w1, w2, ..]: [V; MAX]) -> [V; MAX] {
        padded([w1, w2.sub(w1), w0.sub(w1)])
    }

    #[inline(always)]
    fn output<V: Vector>([m0, m1, m2, ..]: [V; MAX]) -> [V; MAX] {
        padded([m0.add(m1), m0.add(m2)])
    }
}

impl WeightScheme for Whole2 {
    #[inline(always)]
    fn output_grad<V: Vector>([y0, y1, ..]: [V; MAX]) -> [V; MAX] {
        padded([y0.add(y1), y0, y1])
    }

    #[inline(always)]
    fn weight_grad<V: Vector>([u0, u1, u2, ..]: [V; MAX]) -> [V; MAX] {
        padded([u2, u0.sub(u1).sub(u2), u1])
    }
}

/// The first entries of an array; the others are not used.
#[inline(always)]
pub(super) fn padded<V: Vector, const N: usize>(first: [V; N]) -> [V; MAX] {
    let mut all = [V::splat(0.0); MAX];
    unroll!(i of 10 < N, {
        all[i] = first[i];
    });
    all
}

/// Applies a one-dimensional transform to the columns, then to the rows, of a square of `from` by `from` entries,
/// which become `to` by `to`.
///
/// A macro, since a closure would be compiled without the caller's instruction set and then not inlined.
macro_rules! square {
    ($from:expr => $to:expr, $transform:path, |$i:ident, $j:ident| $load:expr, |$k:ident, $l:ident, $value:ident| $store:expr) => {{
        use tapegrad_tape::unroll;
        use $crate::kernels::winograd::scheme::MAX;
        let zero = V::splat(0.0);
        let mut half = [[zero; MAX]; MAX];
        unroll!($j of 10 < $from, {
            let mut column = [zero; MAX];
            unroll!($i of 10 < $from, {
                column[$i] = $load;
            });
            let column = $transform(column);
            unroll!(i of 10 < $to, {
                half[i][$j] = column[i];
            });
        });
        unroll!($k of 10 < $to, {
            let row = $transform(half[$k]);
            unroll!($l of 10 < $to, {
                let $value = row[$l];
                $store
            });
        });
    }};
}
pub(super) use square;
