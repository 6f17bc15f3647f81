//! The one-dimensional transforms. Two-dimensional ones apply them to columns, then to rows.
//!
//! A scheme computes `OUT` neighboring outputs of a kernel with three taps from `IN` inputs by `SIDE` products:
//! `y = A^T [(G w) * (B^T x)]`. The gradient of the weight is its transpose: `dw = G^T [(A dy) * (B^T x)]`.

use tapegrad_tape::kernels::arch::Vector;
use tapegrad_tape::unroll;

/// The largest side of a tile, transformed or not. Schemes with smaller sides use the first entries of arrays.
pub(super) const MAX: usize = 9;

/// The transforms of one scheme.
pub(super) trait Scheme: Copy + Send + Sync + 'static {
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
    /// `G w`: from three taps to `WEIGHTS`.
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
    /// `G^T u`: from `WEIGHTS` to three taps.
    fn weight_grad<V: Vector>(u: [V; MAX]) -> [V; MAX];
}

/// F(4, 3): four outputs by six products instead of twelve.
///
/// The points are 0, a = sqrt(1/2), -a, b = sqrt(2), -b and infinity. They cost as much as the usual
/// 0, 1, -1, 2, -2 and lose a quarter as many bits: the powers up to the fourth stay between 1/4 and 4.
#[derive(Clone, Copy)]
pub(super) struct F4;

const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
const B: f32 = std::f32::consts::SQRT_2;

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

/// The parts that a stride of two makes of a kernel with three taps: its outer taps see every other input, its
/// middle tap sees those between.
///
/// The outer two are F(4, 2), four outputs by five products instead of eight, on the points a, -a, b, -b and infinity
/// of [`F4`]; the middle one is a product for each output.
mod halves {
    use super::{A, B};
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
    pub(super) fn output_grad<V: Vector>([y0, y1, y2, y3]: [V; 4]) -> [V; 5] {
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

    /// The adjoint of [`weight`]: the outer taps.
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

/// Stride 2: four outputs by nine products instead of twelve, so 81 instead of 144 in two dimensions. The last four
/// products share the middle tap.
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
    fn input<V: Vector>([x0, x1, x2, x3, x4, x5, x6, x7, x8]: [V; MAX]) -> [V; MAX] {
        let [m0, m1, m2, m3, m4] = halves::input([x0, x2, x4, x6, x8]);
        [m0, m1, m2, m3, m4, x1, x3, x5, x7]
    }

    #[inline(always)]
    fn weight<V: Vector>([w0, w1, w2, ..]: [V; MAX]) -> [V; MAX] {
        let [u0, u1, u2, u3, u4] = halves::weight(w0, w2);
        padded([u0, u1, u2, u3, u4, w1])
    }

    #[inline(always)]
    fn output<V: Vector>([m0, m1, m2, m3, m4, n0, n1, n2, n3]: [V; MAX]) -> [V; MAX] {
        let [y0, y1, y2, y3] = halves::output([m0, m1, m2, m3, m4]);
        padded([y0.add(n0), y1.add(n1), y2.add(n2), y3.add(n3)])
    }
}

impl WeightScheme for Stride2 {
    #[inline(always)]
    fn output_grad<V: Vector>([y0, y1, y2, y3, ..]: [V; MAX]) -> [V; MAX] {
        let [m0, m1, m2, m3, m4] = halves::output_grad([y0, y1, y2, y3]);
        [m0, m1, m2, m3, m4, y0, y1, y2, y3]
    }

    #[inline(always)]
    fn weight_grad<V: Vector>([u0, u1, u2, u3, u4, u5, ..]: [V; MAX]) -> [V; MAX] {
        let [w0, w2] = halves::weight_grad([u0, u1, u2, u3, u4]);
        padded([w0, u5, w2])
    }
}

/// The input gradient with stride 2 and padding 1: five inputs make eight outputs. The outer taps meet in the odd
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
        [m0, m1, m2, m3, m4, y0, y1, y2, y3]
    }

    #[inline(always)]
    fn weight<V: Vector>(w: [V; MAX]) -> [V; MAX] {
        Stride2::weight(w)
    }

    #[inline(always)]
    fn output<V: Vector>([m0, m1, m2, m3, m4, n0, n1, n2, n3]: [V; MAX]) -> [V; MAX] {
        let [x1, x3, x5, x7] = halves::output([m0, m1, m2, m3, m4]);
        padded([n0, x1, n1, x3, n2, x5, n3, x7])
    }
}

/// The first entries of an array; the others are not used.
#[inline(always)]
fn padded<V: Vector, const N: usize>(first: [V; N]) -> [V; MAX] {
    let mut all = [V::splat(0.0); MAX];
    unroll!(i of 9 < N, {
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
        unroll!($j of 9 < $from, {
            let mut column = [zero; MAX];
            unroll!($i of 9 < $from, {
                column[$i] = $load;
            });
            let column = $transform(column);
            unroll!(i of 9 < $to, {
                half[i][$j] = column[i];
            });
        });
        unroll!($k of 9 < $to, {
            let row = $transform(half[$k]);
            unroll!($l of 9 < $to, {
                let $value = row[$l];
                $store
            });
        });
    }};
}
pub(super) use square;
