//! Random translation.

use super::crop::{Padding, shift};
use super::{Image, Transform};
use tapegrad_tape::Generator;

/// Translates the image by up to a fraction of its size in each direction, as `v2.RandomAffine(0, translate=...)`.
///
/// ```
/// use tapegrad_datasets::transforms::RandomTranslate;
/// let up_to_two_pixels = RandomTranslate::new(2.0 / 28.0, 2.0 / 28.0);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RandomTranslate {
    horizontal: f32,
    vertical: f32,
    fill: f32,
}

impl RandomTranslate {
    /// By at most these fractions of width and height, in whole pixels; the gap is filled with zeros.
    ///
    /// # Panics
    /// If a fraction is not between 0 and 1.
    #[track_caller]
    pub fn new(horizontal: f32, vertical: f32) -> Self {
        for share in [horizontal, vertical] {
            assert!(
                (0.0..=1.0).contains(&share),
                "RandomTranslate: fraction {share} must be between 0 and 1"
            );
        }
        RandomTranslate { horizontal, vertical, fill: 0.0 }
    }

    /// The fill value.
    #[must_use]
    pub fn fill(mut self, value: f32) -> Self {
        self.fill = value;
        self
    }
}

impl Transform for RandomTranslate {
    fn apply(&self, image: &mut Image<'_>, rng: &mut Generator) {
        let mut by = |share: f32, size: usize| {
            let most = (share * size as f32).round() as usize;
            rng.below(2 * most + 1) as isize - most as isize
        };
        let (right, down) = (by(self.horizontal, image.width), by(self.vertical, image.height));
        shift(image, down, right, Padding::Constant(self.fill));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transforms::tests::once;

    #[test]
    fn moves_a_dot_within_its_bounds() {
        let mut dot = [0.0; 100];
        dot[55] = 1.0;
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let out = once(&RandomTranslate::new(0.2, 0.1), [1, 10, 10], &dot, seed);
            seen.insert(out.iter().position(|&x| x == 1.0).unwrap());
        }
        let expected = (4..=6).flat_map(|y| (3..=7).map(move |x| 10 * y + x)).collect();
        assert_eq!(seen, expected);
    }
}
