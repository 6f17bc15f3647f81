//! Color jitter.

use super::{Image, Transform};
use rand::RngExt;
use tapegrad_tape::Generator;

/// Changes brightness, contrast, saturation and hue at random, in random order, as `v2.ColorJitter`.
///
/// It expects values between 0 and 1, so apply it before normalization. A grayscale image keeps saturation and hue.
///
/// ```
/// use tapegrad_datasets::transforms::ColorJitter;
/// let usual = ColorJitter::new(0.4, 0.4, 0.4, 0.1);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ColorJitter {
    brightness: f32,
    contrast: f32,
    saturation: f32,
    hue: f32,
}

impl ColorJitter {
    /// Factors from `1 - x` (at least 0) to `1 + x` for the first three; a rotation of the hue by up to `hue` of the
    /// circle.
    ///
    /// # Panics
    /// If one of the first three is negative, or `hue` is not between 0 and 0.5.
    #[track_caller]
    pub fn new(brightness: f32, contrast: f32, saturation: f32, hue: f32) -> Self {
        for (name, value) in [("brightness", brightness), ("contrast", contrast), ("saturation", saturation)]
        {
            assert!(value >= 0.0, "ColorJitter: {name} {value} must not be negative");
        }
        assert!((0.0..=0.5).contains(&hue), "ColorJitter: hue {hue} must be between 0 and 0.5");
        ColorJitter { brightness, contrast, saturation, hue }
    }
}

impl Transform for ColorJitter {
    fn apply(&self, image: &mut Image<'_>, rng: &mut Generator) {
        let mut order = [0, 1, 2, 3];
        rng.shuffle(&mut order);
        let mut factor = |range: f32| rng.random_range((1.0 - range).max(0.0)..=1.0 + range);
        let (brightness, contrast, saturation) =
            (factor(self.brightness), factor(self.contrast), factor(self.saturation));
        let hue = rng.random_range(-self.hue..=self.hue);
        for step in order {
            match step {
                0 if self.brightness > 0.0 => {
                    image.pixels.iter_mut().for_each(|x| *x = (brightness * *x).clamp(0.0, 1.0));
                }
                1 if self.contrast > 0.0 => {
                    let area = image.height * image.width;
                    let mut sum = 0.0;
                    each_pixel(image, |rgb| sum += f64::from(luma(*rgb)));
                    let mean = match image.channels {
                        3 => (sum / area as f64) as f32,
                        _ => image.pixels.iter().sum::<f32>() / image.pixels.len() as f32,
                    };
                    image.pixels.iter_mut().for_each(|x| *x = blend(*x, mean, contrast));
                }
                2 if self.saturation > 0.0 => each_pixel(image, |rgb| {
                    let gray = luma(*rgb);
                    *rgb = rgb.map(|x| blend(x, gray, saturation));
                }),
                3 if self.hue > 0.0 => each_pixel(image, |rgb| *rgb = turn_hue(*rgb, hue)),
                _ => {}
            }
        }
    }
}

fn blend(x: f32, base: f32, factor: f32) -> f32 {
    (factor * x + (1.0 - factor) * base).clamp(0.0, 1.0)
}

fn luma([r, g, b]: [f32; 3]) -> f32 {
    0.2989 * r + 0.587 * g + 0.114 * b
}

/// Changes each pixel of an RGB image; leaves others unchanged.
fn each_pixel(image: &mut Image<'_>, mut change: impl FnMut(&mut [f32; 3])) {
    if image.channels != 3 {
        return;
    }
    let (red, rest) = image.pixels.split_at_mut(image.height * image.width);
    let (green, blue) = rest.split_at_mut(red.len());
    for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
        let mut rgb = [*r, *g, *b];
        change(&mut rgb);
        [*r, *g, *b] = rgb;
    }
}

/// Rotates the hue by a fraction of the circle, at the same HSV value and saturation.
fn turn_hue([r, g, b]: [f32; 3], by: f32) -> [f32; 3] {
    let (high, low) = (r.max(g).max(b), r.min(g).min(b));
    let range = high - low;
    if range <= 0.0 {
        return [r, g, b];
    }
    let sixth = match high {
        _ if high == r => (g - b) / range,
        _ if high == g => (b - r) / range + 2.0,
        _ => (r - g) / range + 4.0,
    };
    let hue = (sixth + 6.0 * by).rem_euclid(6.0);
    // Each color falls off around its own position on the circle: red at 0, green at 2, blue at 4.
    [0.0, 2.0, 4.0].map(|place| {
        let away = (hue - place).abs();
        let near = (2.0 - away.min(6.0 - away)).clamp(0.0, 1.0);
        low + range * near
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transforms::tests::once;

    fn close(a: [f32; 3], b: [f32; 3]) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6)
    }

    #[test]
    fn hue_goes_round_the_circle() {
        let third = 1.0 / 3.0;
        assert!(close(turn_hue([1.0, 0.0, 0.0], third), [0.0, 1.0, 0.0]));
        assert!(close(turn_hue([1.0, 0.0, 0.0], -third), [0.0, 0.0, 1.0]));
        assert!(close(turn_hue([1.0, 0.0, 0.0], 0.5), [0.0, 1.0, 1.0]));
        assert!(close(turn_hue([0.2, 0.5, 0.8], 1.0), [0.2, 0.5, 0.8]));
        assert!(close(turn_hue(turn_hue([0.9, 0.3, 0.4], 0.2), -0.2), [0.9, 0.3, 0.4]));
        assert_eq!(turn_hue([0.4; 3], 0.3), [0.4; 3]);
    }

    #[test]
    fn each_change_by_itself() {
        let pixels = [0.2, 0.8, 0.4, 0.1, 0.6, 0.3];
        for seed in 0..50 {
            let bright = once(&ColorJitter::new(0.2, 0.0, 0.0, 0.0), [3, 1, 2], &pixels, seed);
            let factor = bright[0] / pixels[0];
            assert!((0.8..=1.2).contains(&factor));
            assert!(bright.iter().zip(pixels).all(|(a, b)| (a - factor * b).abs() < 1e-6));

            let contrast = once(&ColorJitter::new(0.0, 0.2, 0.0, 0.0), [1, 1, 6], &pixels, seed);
            assert!((contrast.iter().sum::<f32>() - pixels.iter().sum::<f32>()).abs() < 1e-5);

            let saturation = once(&ColorJitter::new(0.0, 0.0, 0.2, 0.0), [3, 1, 2], &pixels, seed);
            let gray = |p: &[f32]| luma([p[0], p[2], p[4]]);
            assert!((gray(&saturation) - gray(&pixels)).abs() < 1e-3);
        }
        assert_eq!(once(&ColorJitter::new(0.0, 0.0, 0.0, 0.0), [3, 1, 2], &pixels, 1), pixels);
        assert_eq!(once(&ColorJitter::new(0.0, 0.0, 0.9, 0.5), [1, 2, 3], &pixels, 1), pixels);
    }
}
