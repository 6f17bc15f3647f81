//! The transforms of F(4, 7): four neighboring outputs of a row of seven taps, by ten products instead of 28.
//!
//! `y = A^T [(G w) * (B^T x)]`, and the gradient of the weight is its transpose: `dw = G^T [(A dy) * (B^T x)]`. The
//! points are 0, four pairs of a number and its negative, and infinity. The pairs share the even and the odd half of
//! every transform, and their powers up to the third are exact in `f32`. Among such points these have the smallest mean
//! error; that of the points 0, 1/2, 1, 2 and 3 is five times as large.

use tapegrad_tape::kernels::arch::Vector;
use tapegrad_tape::unroll;

/// Taps of the kernel in a row.
pub(super) const TAPS: usize = 7;
/// Outputs of a tile.
pub(super) const OUT: usize = 4;
/// Inputs of a tile, and products.
pub(super) const SIDE: usize = OUT + TAPS - 1;

const PAIRS: usize = 4;
/// The positive point of each pair.
const POINTS: [f64; PAIRS] = [15.0 / 32.0, 13.0 / 16.0, 39.0 / 32.0, 35.0 / 16.0];

/// The first to third powers of the points.
const POWERS: [[f32; 3]; PAIRS] = {
    let mut powers = [[0.0; 3]; PAIRS];
    let mut i = 0;
    while i < PAIRS {
        let p = POINTS[i];
        powers[i] = [p as f32, (p * p) as f32, (p * p * p) as f32];
        i += 1;
    }
    powers
};

/// The coefficients of the product of `x - p²` over all pairs but one, from the constant on; that of the highest
/// power is 1.
const fn without(pair: usize) -> [f64; PAIRS + 1] {
    let mut product = [0.0; PAIRS + 1];
    product[0] = 1.0;
    let mut i = 0;
    while i < PAIRS {
        if i != pair {
            let mut k = PAIRS;
            while k > 0 {
                product[k] = product[k - 1] - POINTS[i] * POINTS[i] * product[k];
                k -= 1;
            }
            product[0] *= -POINTS[i] * POINTS[i];
        }
        i += 1;
    }
    product
}

/// [`without`] each pair, and without none.
const POLYNOMIALS: [[f32; PAIRS]; PAIRS + 1] = {
    let mut all = [[0.0; PAIRS]; PAIRS + 1];
    let mut i = 0;
    while i <= PAIRS {
        let product = without(i);
        let mut k = 0;
        while k < PAIRS {
            all[i][k] = product[k] as f32;
            k += 1;
        }
        i += 1;
    }
    all
};

/// Rows of G, `[1, p, p², ...]` over the product of the differences to the other points: for the point 0 its only entry,
/// for each pair the row of the positive point.
const ZERO: f64 = 1.0 / without(PAIRS)[0];
const ROWS: [[f64; TAPS]; PAIRS] = {
    let mut rows = [[0.0; TAPS]; PAIRS];
    let mut i = 0;
    while i < PAIRS {
        let square = POINTS[i] * POINTS[i];
        let mut differences = 2.0 * square;
        let mut j = 0;
        while j < PAIRS {
            if j != i {
                differences *= square - POINTS[j] * POINTS[j];
            }
            j += 1;
        }
        let mut power = 1.0 / differences;
        let mut k = 0;
        while k < TAPS {
            rows[i][k] = power;
            power *= POINTS[i];
            k += 1;
        }
        i += 1;
    }
    rows
};

/// `B^T x`. Rows: the coefficients of `x(x²-a²)(x²-b²)...` without one factor; infinity has the whole polynomial.
#[inline(always)]
pub(super) fn input<V: Vector>(x: [V; SIDE]) -> [V; SIDE] {
    let mut out = [V::splat(0.0); SIDE];
    /// The polynomial number `$i`, monic of degree `$degree`, of every other input starting at `$first`.
    macro_rules! polynomial {
        ($i:expr, $degree:expr, $first:expr) => {{
            let mut sum = x[$first + 2 * $degree];
            unroll!(k of 10 < $degree, {
                sum = V::splat(POLYNOMIALS[$i][k]).mul_add(x[$first + 2 * k], sum);
            });
            sum
        }};
    }
    out[0] = polynomial!(PAIRS, 4, 0);
    unroll!(i of 10 < PAIRS, {
        let (even, odd) = (polynomial!(i, 3, 2), polynomial!(i, 3, 1));
        let p = V::splat(POWERS[i][0]);
        out[1 + 2 * i] = p.mul_add(odd, even);
        out[2 + 2 * i] = p.neg_mul_add(odd, even);
    });
    out[SIDE - 1] = polynomial!(PAIRS, 4, 1);
    out
}

/// `G w`.
#[inline(always)]
pub(super) fn weight(w: [f64; TAPS]) -> [f64; SIDE] {
    let mut out = [0.0; SIDE];
    out[0] = ZERO * w[0];
    for (i, row) in ROWS.iter().enumerate() {
        let even = row[0] * w[0] + row[2] * w[2] + row[4] * w[4] + row[6] * w[6];
        let odd = row[1] * w[1] + row[3] * w[3] + row[5] * w[5];
        out[1 + 2 * i] = even + odd;
        out[2 + 2 * i] = even - odd;
    }
    out[SIDE - 1] = w[TAPS - 1];
    out
}

/// `A^T m`. Columns: `[1, p, p², p³]`.
#[inline(always)]
pub(super) fn output<V: Vector>(m: [V; SIDE]) -> [V; OUT] {
    let zero = V::splat(0.0);
    let (mut even, mut odd) = ([zero; PAIRS], [zero; PAIRS]);
    unroll!(i of 10 < PAIRS, {
        even[i] = m[1 + 2 * i].add(m[2 + 2 * i]);
        odd[i] = m[1 + 2 * i].sub(m[2 + 2 * i]);
    });
    let mut y = [
        m[0].add(even[0]),
        V::splat(POWERS[0][0]).mul(odd[0]),
        V::splat(POWERS[0][1]).mul(even[0]),
        V::splat(POWERS[0][2]).mul_add(odd[0], m[SIDE - 1]),
    ];
    unroll!(i of 10 < PAIRS, {
        if i > 0 {
            y[0] = y[0].add(even[i]);
            y[1] = V::splat(POWERS[i][0]).mul_add(odd[i], y[1]);
            y[2] = V::splat(POWERS[i][1]).mul_add(even[i], y[2]);
            y[3] = V::splat(POWERS[i][2]).mul_add(odd[i], y[3]);
        }
    });
    y
}

/// `A dy`, the transpose of [`output`].
#[inline(always)]
pub(super) fn output_grad<V: Vector>(dy: [V; OUT]) -> [V; SIDE] {
    let mut out = [V::splat(0.0); SIDE];
    out[0] = dy[0];
    unroll!(i of 10 < PAIRS, {
        let square = V::splat(POWERS[i][1]);
        let (even, odd) = (square.mul_add(dy[2], dy[0]), square.mul_add(dy[3], dy[1]));
        let p = V::splat(POWERS[i][0]);
        out[1 + 2 * i] = p.mul_add(odd, even);
        out[2 + 2 * i] = p.neg_mul_add(odd, even);
    });
    out[SIDE - 1] = dy[OUT - 1];
    out
}

/// `G^T u`, the transpose of [`weight`].
#[inline(always)]
pub(super) fn weight_grad<V: Vector>(u: [V; SIDE]) -> [V; TAPS] {
    let mut w = [V::splat(0.0); TAPS];
    w[0] = V::splat(ZERO as f32).mul(u[0]);
    w[TAPS - 1] = u[SIDE - 1];
    unroll!(i of 10 < PAIRS, {
        let (even, odd) = (u[1 + 2 * i].add(u[2 + 2 * i]), u[1 + 2 * i].sub(u[2 + 2 * i]));
        unroll!(k of 10 < TAPS, {
            let half = [even, odd][k % 2];
            w[k] = V::splat(ROWS[i][k] as f32).mul_add(half, w[k]);
        });
    });
    w
}
