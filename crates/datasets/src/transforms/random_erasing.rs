//! Random erasing.

use super::{Image, Transform};
use rand::RngExt;
use tapegrad_tape::Generator;

/// With a probability, sets a rectangle of random position, size and aspect ratio to one value, as `v2.RandomErasing`.
///
/// The default erases in half of the cases 2% to 33% of the image, with an aspect ratio of 0.3 to 3.3.
///
/// ```
/// use tapegrad_datasets::transforms::RandomErasing;
/// let small = RandomErasing { scale: (0.02, 0.1), ..RandomErasing::default() };
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RandomErasing {
    /// The probability.
    pub p: f32,
    /// The smallest and the largest fraction of the area.
    pub scale: (f32, f32),
    /// The smallest and the largest ratio of height to width.
    pub ratio: (f32, f32),
    /// The fill value.
    pub value: f32,
}

impl Default for RandomErasing {
    fn default() -> Self {
        RandomErasing { p: 0.5, scale: (0.02, 0.33), ratio: (0.3, 3.3), value: 0.0 }
    }
}

impl Transform for RandomErasing {
    fn apply(&self, image: &mut Image<'_>, rng: &mut Generator) {
        if !rng.random_bool(self.p.into()) {
            return;
        }
        let (height, width) = (image.height, image.width);
        // A long rectangle may not fit; like torchvision, give up after ten attempts.
        for _ in 0..10 {
            let area = (height * width) as f32 * rng.random_range(self.scale.0..=self.scale.1);
            let ratio = rng.random_range(self.ratio.0.ln()..=self.ratio.1.ln()).exp();
            let (rows, columns) =
                ((area * ratio).sqrt().round() as usize, (area / ratio).sqrt().round() as usize);
            if rows < height && columns < width {
                let top = rng.below(height - rows + 1) as isize;
                let left = rng.below(width - columns + 1) as isize;
                image.fill(top..top + rows as isize, left..left + columns as isize, self.value);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transforms::tests::once;

    #[test]
    fn a_rectangle_of_the_wanted_size_in_half_of_the_cases() {
        let mut erased = 0;
        for seed in 0..400 {
            let out = once(&RandomErasing::default(), [1, 32, 32], &[1.0; 1024], seed);
            let zeros: Vec<usize> = (0..1024).filter(|&i| out[i] == 0.0).collect();
            if zeros.is_empty() {
                continue;
            }
            erased += 1;
            // Rounding of the sides widens the bounds of 20 to 338 pixels a little.
            assert!((14..370).contains(&zeros.len()), "{}", zeros.len());
            let (rows, columns) = (
                zeros[zeros.len() - 1] / 32 - zeros[0] / 32 + 1,
                zeros[zeros.len() - 1] % 32 - zeros[0] % 32 + 1,
            );
            assert_eq!(rows * columns, zeros.len());
        }
        // A fair coin: five standard deviations are 50.
        assert!((150..250).contains(&erased), "{erased}");
    }
}
