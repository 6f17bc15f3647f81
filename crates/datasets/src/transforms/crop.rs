//! Random crops of the padded image, implemented as shifts.

use super::{Image, Transform};
use tapegrad_tape::Generator;

/// The padding beyond the edge of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Padding {
    /// A constant value.
    Constant(f32),
    /// The image mirrored at its outermost pixel, which is not repeated: `c b | a b c`.
    Reflect,
}

/// Pads the image on all sides and crops it at random to the original size, as `v2.RandomCrop(size, padding)`.
///
/// ```
/// use tapegrad_datasets::transforms::{Padding, RandomCrop};
/// assert_eq!(RandomCrop::zero(4), RandomCrop::new(4, Padding::Constant(0.0)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandomCrop {
    pixels: usize,
    padding: Padding,
}

impl RandomCrop {
    /// With `pixels` of padding on each side.
    pub fn new(pixels: usize, padding: Padding) -> Self {
        RandomCrop { pixels, padding }
    }

    /// With `pixels` zeros on each side.
    pub fn zero(pixels: usize) -> Self {
        RandomCrop::new(pixels, Padding::Constant(0.0))
    }

    /// With `pixels` of reflection padding on each side.
    pub fn reflect(pixels: usize) -> Self {
        RandomCrop::new(pixels, Padding::Reflect)
    }
}

impl Transform for RandomCrop {
    fn apply(&self, image: &mut Image<'_>, rng: &mut Generator) {
        let mut by = || rng.below(2 * self.pixels + 1) as isize - self.pixels as isize;
        let (down, right) = (by(), by());
        shift(image, down, right, self.padding);
    }
}

/// Shifts the image down and to the right, and fills the gap from beyond the edge.
pub(super) fn shift(image: &mut Image<'_>, down: isize, right: isize, padding: Padding) {
    if down == 0 && right == 0 {
        return;
    }
    let (height, width) = (image.height, image.width);
    // The columns copied from the image, and their original position.
    let inner =
        right.clamp(0, width as isize) as usize..(width as isize + right).clamp(0, width as isize) as usize;
    let from = (inner.start as isize - right) as usize;
    let mut before = vec![0.0; height * width];
    for plane in image.planes() {
        before.copy_from_slice(plane);
        for (y, row) in plane.chunks_exact_mut(width).enumerate() {
            let Some(old) = source(y as isize - down, height, padding) else {
                row.fill(constant(padding));
                continue;
            };
            let old = &before[old * width..][..width];
            if !inner.is_empty() {
                row[inner.clone()].copy_from_slice(&old[from..][..inner.len()]);
            }
            for x in (0..inner.start.min(width)).chain(inner.end.max(inner.start)..width) {
                row[x] = source(x as isize - right, width, padding).map_or(constant(padding), |x| old[x]);
            }
        }
    }
}

/// The row or column at `at`, which may be beyond the edge.
fn source(at: isize, size: usize, padding: Padding) -> Option<usize> {
    if (0..size as isize).contains(&at) {
        return Some(at as usize);
    }
    match padding {
        Padding::Constant(_) => None,
        Padding::Reflect => {
            let period = 2 * (size as isize - 1).max(1);
            let at = at.rem_euclid(period);
            Some(at.min(period - at).min(size as isize - 1) as usize)
        }
    }
}

fn constant(padding: Padding) -> f32 {
    match padding {
        Padding::Constant(value) => value,
        Padding::Reflect => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transforms::tests::once;
    use proptest::prelude::*;

    fn shifted(pixels: &[f32], shape: [usize; 3], down: isize, right: isize, padding: Padding) -> Vec<f32> {
        let mut pixels = pixels.to_vec();
        let [channels, height, width] = shape;
        let mut image = Image { pixels: &mut pixels, channels, height, width, seed: 0, epoch: 0, index: 0 };
        shift(&mut image, down, right, padding);
        pixels
    }

    #[test]
    fn small_cases_by_hand() {
        let row = [1.0, 2.0, 3.0];
        assert_eq!(shifted(&row, [1, 1, 3], 0, 1, Padding::Constant(9.0)), [9.0, 1.0, 2.0]);
        assert_eq!(shifted(&row, [1, 1, 3], 0, -2, Padding::Constant(9.0)), [3.0, 9.0, 9.0]);
        assert_eq!(shifted(&row, [1, 1, 3], 0, 2, Padding::Reflect), [3.0, 2.0, 1.0]);
        assert_eq!(shifted(&row, [1, 1, 3], 0, -1, Padding::Reflect), [2.0, 3.0, 2.0]);
        assert_eq!(shifted(&row, [1, 1, 3], 5, 0, Padding::Constant(0.0)), [0.0; 3]);
        assert_eq!(shifted(&row, [1, 3, 1], 1, 0, Padding::Reflect), [2.0, 1.0, 2.0]);
    }

    proptest! {
        #[test]
        fn agrees_with_padding_and_cutting(
            height in 1usize..7, width in 1usize..7, down in -5isize..6, right in -5isize..6, reflect in any::<bool>(),
        ) {
            let padding = if reflect { Padding::Reflect } else { Padding::Constant(-1.0) };
            let pixels: Vec<f32> = (0..2 * height * width).map(|i| i as f32).collect();
            let out = shifted(&pixels, [2, height, width], down, right, padding);
            // A mirrored index, found by walking back and forth.
            let walk = |at: isize, size: usize| {
                let (mut i, mut step) = (0usize, 1isize);
                for _ in 0..at.unsigned_abs() {
                    if size == 1 { break }
                    if i as isize + step < 0 || i as isize + step >= size as isize { step = -step }
                    i = (i as isize + step) as usize;
                }
                i
            };
            for c in 0..2 {
                for y in 0..height {
                    for x in 0..width {
                        let (fy, fx) = (y as isize - down, x as isize - right);
                        let inside = (0..height as isize).contains(&fy) && (0..width as isize).contains(&fx);
                        let expected = if reflect || inside {
                            pixels[(c * height + walk(fy, height)) * width + walk(fx, width)]
                        } else {
                            -1.0
                        };
                        prop_assert_eq!(out[(c * height + y) * width + x], expected);
                    }
                }
            }
        }
    }

    #[test]
    fn every_offset_is_as_likely() {
        let mut dot = [0.0; 25];
        dot[12] = 1.0;
        let mut counts = [[0; 5]; 2];
        for seed in 0..2000 {
            let out = once(&RandomCrop::zero(2), [1, 5, 5], &dot, seed);
            let at = out.iter().position(|&x| x == 1.0).unwrap();
            counts[0][at / 5] += 1;
            counts[1][at % 5] += 1;
        }
        // 400 each expected; five standard deviations are 90.
        assert!(counts.iter().flatten().all(|c| (310..490).contains(c)), "{counts:?}");
    }
}
