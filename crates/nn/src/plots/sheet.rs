//! Small images in rows, with captions.

use super::{Area, FONT, image};
use crate::files::FileError;
use plotters::prelude::*;
use std::error::Error;
use std::path::Path;

/// A small image with a caption; the pixels are RGB, row by row.
pub struct Tile {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
    caption: String,
}

impl Tile {
    /// From channel-first values: gray for one channel, color for three. `low` becomes black, `high` white.
    pub fn from_values(values: &[f32], [channels, height, width]: [usize; 3], low: f32, high: f32) -> Tile {
        let scale = |v: f32| ((v - low) / (high - low).max(1e-12) * 255.0).clamp(0.0, 255.0) as u8;
        let area = height * width;
        let rgb = (0..area)
            .flat_map(|p| (0..3).map(move |c| (p, c)))
            .map(|(p, c)| scale(values[if channels >= 3 { c * area + p } else { p }]))
            .collect();
        Tile { width, height, rgb, caption: String::new() }
    }

    /// From values, scaled to their own range.
    pub fn stretched(values: &[f32], shape: [usize; 3]) -> Tile {
        let (low, high) =
            values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
        Tile::from_values(values, shape, low, high)
    }

    /// This image with a caption.
    pub fn caption(mut self, caption: impl Into<String>) -> Tile {
        self.caption = caption.into();
        self
    }

    /// Draws the pixels, each enlarged to `zoom` by `zoom`, without the caption, at a position in a part of an image.
    ///
    /// # Errors
    /// Those of `plotters`.
    pub fn draw(&self, area: &Area, (left, top): (i32, i32), zoom: usize) -> Result<(), Box<dyn Error>> {
        for y in 0..self.height * zoom {
            for x in 0..self.width * zoom {
                let p = (y / zoom * self.width + x / zoom) * 3;
                let color = RGBColor(self.rgb[p], self.rgb[p + 1], self.rgb[p + 2]);
                area.draw_pixel((left + x as i32, top + y as i32), &color)?;
            }
        }
        Ok(())
    }
}

/// Draws images in rows of `columns`, each `zoom` times its size, with their captions and a title, as PNG.
///
/// # Errors
/// If the file cannot be written.
pub fn sheet(
    path: impl AsRef<Path>,
    title: &str,
    tiles: &[Tile],
    columns: usize,
    zoom: usize,
) -> Result<(), FileError> {
    let columns = columns.min(tiles.len()).max(1);
    let cell = |f: fn(&Tile) -> usize| tiles.iter().map(f).max().unwrap_or(1) * zoom;
    let captioned = tiles.iter().any(|t| !t.caption.is_empty());
    let longest = tiles.iter().map(|t| t.caption.chars().count()).max().unwrap_or(0);
    let (pad, text, head) = (6, if captioned { 18 } else { 0 }, 40);
    let (w, h) = (cell(|t| t.width).max(longest * 8), cell(|t| t.height));
    let rows = tiles.len().div_ceil(columns).max(1);
    let width = (columns * (w + pad) + pad).max(title.chars().count() * 10 + 2 * pad);
    let size = (width as u32, (head + rows * (h + text + pad) + pad) as u32);
    image(path, size, |area| {
        area.draw(&Text::new(title, (pad as i32, 10), (FONT, 18)))?;
        for (i, tile) in tiles.iter().enumerate() {
            let left = pad + i % columns * (w + pad);
            let top = head + i / columns * (h + text + pad);
            tile.draw(area, (left as i32, top as i32), zoom)?;
            if captioned {
                let at = (left as i32, (top + h + 2) as i32);
                area.draw(&Text::new(tile.caption.as_str(), at, (FONT, 13)))?;
            }
        }
        Ok(())
    })
}
