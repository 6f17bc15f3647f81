//! Horizontal flips.

use super::{Image, Transform};
use rand::RngExt;
use tapegrad_tape::Generator;

/// Mirrors the image with a probability, as `v2.RandomHorizontalFlip`.
///
/// ```
/// use tapegrad_datasets::transforms::HorizontalFlip;
/// let half_of_them = HorizontalFlip::new(0.5);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct HorizontalFlip {
    p: f32,
}

impl HorizontalFlip {
    /// With probability `p`.
    ///
    /// # Panics
    /// If `p` is not between 0 and 1.
    #[track_caller]
    pub fn new(p: f32) -> Self {
        assert!((0.0..=1.0).contains(&p), "HorizontalFlip: probability {p} must be between 0 and 1");
        HorizontalFlip { p }
    }
}

impl Transform for HorizontalFlip {
    fn apply(&self, image: &mut Image<'_>, rng: &mut Generator) {
        if rng.random_bool(self.p.into()) {
            mirror(image);
        }
    }
}

/// Mirrors each image in every other epoch, with a random choice of whether it starts mirrored.
///
/// So two consecutive epochs see both versions of every image, which independent random flips do in only half of the
/// cases (the "alternating flip" of Keller Jordan's airbench).
#[derive(Debug, Clone, Copy, Default)]
pub struct AlternatingFlip;

impl Transform for AlternatingFlip {
    fn apply(&self, image: &mut Image<'_>, _: &mut Generator) {
        let first = Generator::stream(image.seed, "altflip", [0, image.index as u64]).random_bool(0.5);
        if first ^ (image.epoch % 2 == 1) {
            mirror(image);
        }
    }
}

fn mirror(image: &mut Image<'_>) {
    let width = image.width;
    image.pixels.chunks_exact_mut(width).for_each(<[f32]>::reverse);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transforms::tests::once;

    #[test]
    fn rows_are_mirrored() {
        let pixels = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(once(&HorizontalFlip::new(1.0), [1, 2, 3], &pixels, 0), [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
        assert_eq!(once(&HorizontalFlip::new(0.0), [1, 2, 3], &pixels, 0), pixels);
    }

    #[test]
    fn alternation_shows_both_forms_in_two_epochs() {
        let flipped = |epoch, index| {
            let mut pixels = [0.0, 1.0];
            let mut image =
                Image { pixels: &mut pixels, channels: 1, height: 1, width: 2, seed: 4, epoch, index };
            AlternatingFlip.apply(&mut image, &mut Generator::stream(0, "t", [epoch, 0]));
            pixels[0] == 1.0
        };
        let first = (0..1000).filter(|&i| flipped(0, i)).count();
        // A fair coin: five standard deviations are 79.
        assert!((421..579).contains(&first), "{first}");
        for index in 0..100 {
            assert_ne!(flipped(0, index), flipped(1, index));
            assert_eq!(flipped(0, index), flipped(2, index));
        }
    }
}
