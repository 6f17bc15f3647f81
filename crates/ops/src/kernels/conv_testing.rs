//! What the tests of the convolution kernels have in common.

use super::geometry::Conv2dShape;
use tapegrad_tape::kernels::arch::InstructionSet;

/// Calls `f(x index, w index, y index)` for every product of the convolution.
pub(crate) fn products(s: &Conv2dShape, mut f: impl FnMut(usize, usize, usize)) {
    let (oh, ow) = (s.out_h(), s.out_w());
    for n in 0..s.n {
        for (a, b) in (0..oh).flat_map(|a| (0..ow).map(move |b| (a, b))) {
            for (i, j) in (0..s.kh).flat_map(|i| (0..s.kw).map(move |j| (i, j))) {
                let y = (a * s.stride[0] + i * s.dilation[0]).wrapping_sub(s.padding[0]);
                let x = (b * s.stride[1] + j * s.dilation[1]).wrapping_sub(s.padding[1]);
                if y >= s.h || x >= s.w {
                    continue;
                }
                let (from, to) = (s.c_in / s.groups, s.c_out / s.groups);
                for r in 0..from {
                    for o in 0..s.c_out {
                        f(
                            ((n * s.h + y) * s.w + x) * s.c_in + o / to * from + r,
                            ((o * from + r) * s.kh + i) * s.kw + j,
                            ((n * oh + a) * ow + b) * s.c_out + o,
                        );
                    }
                }
            }
        }
    }
}

/// The largest error over the largest value.
pub(crate) fn error(got: &[f32], wanted: &[f64]) -> f64 {
    let largest = wanted.iter().fold(0.0f64, |m, &v| m.max(v.abs()));
    let worst = got.iter().zip(wanted).fold(0.0f64, |m, (&g, &w)| {
        let error = (f64::from(g) - w).abs();
        if error.is_nan() { f64::INFINITY } else { m.max(error) }
    });
    if worst == 0.0 { 0.0 } else { worst / largest }
}

/// Normally distributed numbers, the same for the same seed.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut uniform = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..len).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
}

/// The instruction sets of this machine.
pub(crate) fn instruction_sets() -> Vec<InstructionSet> {
    InstructionSet::ALL.into_iter().filter(|set| set.is_available()).collect()
}
