//! One pass over a parameter, its gradient and the optimizer's buffers.
//!
//! Each element is computed independently, in vector lanes and in blocks on several threads, so the result does not
//! depend on their number. Subnormal values in a buffer are flushed to zero: a decaying mean, as of an inactive unit,
//! would become subnormal, and arithmetic on such numbers is many times slower.

use crate::dtype::{DType, Float};
use crate::kernels::parallel::{parallel_blocks, parallel_chunks};
use crate::kernels::shared::SharedSlice;
use crate::tensor::Tensor;

/// Updates of fewer elements stay on one thread.
const GRAIN: usize = 32 * 1024;

/// Sums of squares of this many elements are added in lanes, then to one another.
const BLOCK: usize = 4096;

/// The sum of the squares of the elements of each tensor, in F64: in one pass over all of them, on all threads. Elements of F16
/// and BF16 are converted first.
///
/// # Panics
/// If one is not floating point.
#[track_caller]
pub fn sums_of_squares(tensors: &[Tensor]) -> Vec<f64> {
    let tensors: Vec<Tensor> = tensors
        .iter()
        .map(|t| match t.dtype() {
            DType::F16 | DType::BF16 => t.cast(DType::F32).contiguous(),
            _ if t.is_dense() => t.clone(),
            _ => t.contiguous(),
        })
        .collect();
    // A piece has a whole number of blocks, whatever the number of threads.
    let pieces: Vec<(usize, usize)> = tensors
        .iter()
        .enumerate()
        .flat_map(|(i, t)| (0..t.numel()).step_by(GRAIN).map(move |start| (i, start)))
        .collect();
    let sum = |&(i, start): &(usize, usize)| {
        let t = &tensors[i];
        let end = t.numel().min(start + GRAIN);
        crate::dispatch!(float: t.dtype(), "norm", T => squares(&t.memory::<T>(end)[start..]))
    };
    let mut partial = vec![0.0; pieces.len()];
    // Small gradients are joined into tasks that are worth a thread.
    let elements: usize = tensors.iter().map(Tensor::numel).sum();
    let chunk = (pieces.len() * GRAIN).div_ceil(elements.max(1)).max(1);
    parallel_chunks(&mut partial, chunk, |task, sums| {
        for (s, piece) in sums.iter_mut().zip(&pieces[task * chunk..]) {
            *s = sum(piece);
        }
    });
    let mut totals = vec![0.0; tensors.len()];
    for ((i, _), s) in pieces.iter().zip(partial) {
        totals[*i] += s;
    }
    totals
}

crate::multiversion! {
    vectors of T;
    fn squares<T: Float>(values: &[T]) -> f64 {
        const LANES: usize = 16;
        let mut total = 0.0;
        for block in values.chunks(BLOCK) {
            let mut sums = [0.0f64; LANES];
            let (rows, rest) = block.as_chunks::<LANES>();
            for row in rows {
                for (sum, x) in sums.iter_mut().zip(row) {
                    let x = x.to_f64();
                    *sum += x * x;
                }
            }
            for (sum, x) in sums.iter_mut().zip(rest) {
                let x = x.to_f64();
                *sum += x * x;
            }
            let mut width = LANES / 2;
            while width > 0 {
                for i in 0..width {
                    sums[i] += sums[i + width];
                }
                width /= 2;
            }
            total += sums[0];
        }
        total
    }
}

macro_rules! updates {
    ($($(#[$meta:meta])* $name:ident, $row:ident, ($($b:ident: $T:ident => $new:ident),*);)*) => {$(
        $(#[$meta])*
        ///
        /// # Panics
        /// If the slices differ in length.
        #[track_caller]
        pub fn $name<T: Float>(
            p: &mut [T],
            g: &[T],
            $($b: &mut [T],)*
            f: impl Fn(T, T, $($T),*) -> (T, $($T),*) + Sync,
        ) {
            let n = p.len();
            assert!(g.len() == n $(&& $b.len() == n)*, "update: parameter, gradient and buffers differ in length");
            let p = SharedSlice::new(p);
            $(let $b = SharedSlice::new($b);)*
            parallel_blocks(n, GRAIN, |start, end| {
                // SAFETY: parallel_blocks hands out disjoint ranges, each once.
                unsafe { $row(p.part(start, end - start), &g[start..end], $($b.part(start, end - start),)* &f) }
            });
        }

        crate::multiversion! {
            vectors of T;
            fn $row<T: Float>(p: &mut [T], g: &[T], $($b: &mut [T],)* f: &F)
            where F: [Fn(T, T, $($T),*) -> (T, $($T),*)] {
                let n = p.len();
                let g = &g[..n];
                $(let $b = &mut $b[..n];)*
                for i in 0..n {
                    let (new, $($new,)*) = f(p[i], g[i], $($b[i]),*);
                    p[i] = new;
                    $($b[i] = $new.flushed();)*
                }
            }
        }
    )*};
}

updates! {
    /// `p = f(p, g)` for every element; `f` gives a tuple of one.
    update0, row0, ();
    /// `(p, a) = f(p, g, a)` for every element.
    update1, row1, (a: T => new_a);
    /// `(p, a, b) = f(p, g, a, b)` for every element.
    update2, row2, (a: T => new_a, b: T => new_b);
    /// `(p, a, b, c) = f(p, g, a, b, c)` for every element.
    update3, row3, (a: T => new_a, b: T => new_b, c: T => new_c);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_once() {
        let n = 3 * GRAIN + 5;
        let g: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let (mut p, mut a, mut b, mut c) = (vec![1f32; n], vec![2f32; n], vec![3f32; n], vec![4f32; n]);
        update0(&mut p, &g, |p, g| (p + g,));
        update3(&mut p, &g, &mut a, &mut b, &mut c, |p, g, a, b, c| (p - g, a + g, b + p, c + b));
        assert!(p.iter().all(|&p| p == 1.0) && c.iter().all(|&c| c == 7.0));
        assert!(a.iter().zip(&g).all(|(&a, &g)| a == 2.0 + g));
        assert!(b.iter().zip(&g).all(|(&b, &g)| b == 3.0 + (1.0 + g)));
    }

    #[test]
    fn fading_buffers_end_at_zero() {
        let (mut p, mut m) = (vec![1f32; 40], vec![f32::MIN_POSITIVE; 40]);
        m[7] = f32::NAN;
        update1(&mut p, &[0.0; 40], &mut m, |p, _, m| (p - m, m * 0.9));
        assert!(m.iter().enumerate().all(|(i, &m)| if i == 7 { m.is_nan() } else { m == 0.0 }));
        assert!(p[0] == 1.0 && p[7].is_nan());
    }
}
