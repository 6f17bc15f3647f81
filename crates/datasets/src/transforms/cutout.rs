//! Cutout.

use super::{Image, Transform};
use tapegrad_tape::Generator;

/// Sets a square at a random place to zero (DeVries and Taylor, 2017). The square may reach beyond the edge.
///
/// ```
/// use tapegrad_datasets::transforms::Cutout;
/// let eight_by_eight = Cutout::new(8);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Cutout {
    size: usize,
    value: f32,
}

impl Cutout {
    /// With a square of `size` by `size` pixels.
    pub fn new(size: usize) -> Self {
        Cutout { size, value: 0.0 }
    }

    /// The fill value.
    #[must_use]
    pub fn value(mut self, value: f32) -> Self {
        self.value = value;
        self
    }
}

impl Transform for Cutout {
    fn apply(&self, image: &mut Image<'_>, rng: &mut Generator) {
        let mut range = |size: usize| {
            let start = rng.below(size) as isize - self.size as isize / 2;
            start..start + self.size as isize
        };
        let (rows, columns) = (range(image.height), range(image.width));
        image.fill(rows, columns, self.value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transforms::tests::once;

    #[test]
    fn a_square_around_any_pixel() {
        let mut sizes = std::collections::BTreeSet::new();
        for seed in 0..300 {
            let out = once(&Cutout::new(4).value(7.0), [2, 9, 9], &[1.0; 162], seed);
            let count = |plane: &[f32]| plane.iter().filter(|&&x| x == 7.0).count();
            assert_eq!(out[..81], out[81..]);
            sizes.insert(count(&out[..81]));
        }
        // The start is -2 to 6, so 2, 3 or 4 of the four rows and columns are inside.
        assert_eq!(sizes, [4, 6, 8, 9, 12, 16].into());
    }
}
