//! Functions of whole vectors: like [`math`](super::math), with the fused operations of each instruction set.

use super::arch::{Kernel, Vector, run};
use super::math::{LN2_HIGH, LN2_LOW, ROUND};

/// `e^x` to two units in the last place; infinity, zero and NaN as they should be.
#[inline(always)]
pub fn exp<V: Vector>(x: V) -> V {
    let x = x.max(V::splat(-105.0)).min(V::splat(89.0));
    let n = x.mul_add(V::splat(std::f32::consts::LOG2_E), V::splat(ROUND)).sub(V::splat(ROUND));
    let r = n.neg_mul_add(V::splat(LN2_LOW), n.neg_mul_add(V::splat(LN2_HIGH), x));
    // The polynomial of degree 6 with the least relative error, 3e-9, for |r| <= ln 2 / 2.
    let p = V::splat(1.381_458e-3);
    let p = p.mul_add(r, V::splat(8.368_726e-3));
    let p = p.mul_add(r, V::splat(4.166_839e-2));
    let p = p.mul_add(r, V::splat(1.666_652_1e-1));
    let p = p.mul_add(r, V::splat(0.499_999_94));
    let s = p.mul_add(r.mul(r), r);
    s.add(V::splat(1.0)).scale(n)
}

struct Exponentials<'a> {
    out: &'a mut [f32],
    x: &'a [f32],
    less: f32,
}

impl Kernel for Exponentials<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<V: Vector>(self) -> f32 {
        let n = self.out.len();
        assert_eq!(n, self.x.len());
        let (out, x, less) = (self.out.as_mut_ptr(), self.x.as_ptr(), V::splat(self.less));
        let (mut sum, mut i) = (V::splat(0.0), 0);
        while i + V::LANES <= n {
            // SAFETY: a whole vector is left.
            unsafe {
                let e = exp(V::load(x.add(i)).sub(less));
                e.store(out.add(i));
                sum = sum.add(e);
            }
            i += V::LANES;
        }
        if i < n {
            // SAFETY: so many elements are left. Those beyond them are zeros in the sum.
            unsafe {
                exp(V::load_part(x.add(i), n - i).sub(less)).store_part(out.add(i), n - i);
                sum = sum.add(V::load_part(out.add(i), n - i));
            }
        }
        sum.sum()
    }
}

/// Sets `out` to `e^(x - less)`, and returns the sum of these.
pub fn exponentials(out: &mut [f32], x: &[f32], less: f32) -> f32 {
    run(Exponentials { out, x, less })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::arch::{InstructionSet, MAX_LANES, run_with};

    struct Exp([f32; MAX_LANES]);

    impl Kernel for Exp {
        type Output = [f32; MAX_LANES];

        #[inline(always)]
        fn run<V: Vector>(self) -> [f32; MAX_LANES] {
            let mut out = self.0;
            for start in (0..MAX_LANES).step_by(V::LANES) {
                // SAFETY: the lanes from `start` on are a whole vector.
                unsafe { exp(V::load(self.0.as_ptr().add(start))).store(out.as_mut_ptr().add(start)) };
            }
            out
        }
    }

    #[test]
    fn close_to_the_exact_function_everywhere() {
        for set in InstructionSet::ALL.into_iter().filter(|set| set.is_available()) {
            for i in 0..20_000 {
                let x = std::array::from_fn(|lane| (i * MAX_LANES + lane) as f32 * 6.1e-4 - 97.0);
                for (x, y) in x.into_iter().zip(run_with(set, Exp(x))) {
                    let exact = f64::from(x).exp();
                    let unit = exact.max(f64::from(f32::MIN_POSITIVE)) * f64::from(f32::EPSILON);
                    let error = (f64::from(y) - exact).abs() / unit;
                    assert!(error < 1.5 || (y.is_infinite() && x > 88.7), "{set:?}: exp({x}) = {y}");
                }
            }
            let mut ends = [0.0; MAX_LANES];
            ends[..4].copy_from_slice(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 200.0]);
            let [inf, zero, nan, large, one, ..] = run_with(set, Exp(ends));
            assert_eq!([inf, zero, large, one], [f32::INFINITY, 0.0, f32::INFINITY, 1.0], "{set:?}");
            assert!(nan.is_nan());
        }
    }

    #[test]
    fn rows_of_any_length() {
        for set in InstructionSet::ALL.into_iter().filter(|set| set.is_available()) {
            for n in 0..40 {
                let x: Vec<f32> = (0..n).map(|i| i as f32 / 7.0 - 3.0).collect();
                let mut out = vec![0.0; n];
                let sum = run_with(set, Exponentials { out: &mut out, x: &x, less: 0.5 });
                let want: Vec<f32> = x.iter().map(|x| (x - 0.5).exp()).collect();
                assert!(out.iter().zip(&want).all(|(a, b)| (a - b).abs() <= 3e-7 * b), "{set:?}, {n}");
                let whole: f32 = want.iter().sum();
                assert!((sum - whole).abs() <= 1e-6 * whole, "{set:?}, {n}: {sum} for {whole}");
            }
        }
    }
}
