//! One page about a trained network: architecture, learning curves, confusion matrix and sample images.

use plotters::prelude::*;
use std::error::Error;
use std::path::Path;
use tapegrad::nn::FileError;
use tapegrad::nn::plots::{Area, FIXED_FONT, FONT, Panel, Tile, confusion_size, draw_confusion, image};

/// The lines of the architecture, the panels of curves, and the cells of the samples, in pixels.
const LINE: usize = 18;
const PANEL: (usize, usize) = (440, 390);
const SAMPLE: (usize, usize) = (104, 106);
const HEAD: usize = 56;

/// An image with its label and the class that was predicted.
pub(crate) struct Sample<'a> {
    pub image: Tile,
    pub label: &'a str,
    pub predicted: &'a str,
}

/// The contents of the page.
pub(crate) struct Page<'a> {
    pub title: &'a str,
    /// The architecture, line by line, as a table in a monospace font.
    pub architecture: Vec<&'a str>,
    /// At most two of them.
    pub curves: &'a [Panel],
    pub confusion: (&'a str, &'a [i64], &'a [&'a str]),
    pub samples: (&'a str, &'a [Sample<'a>]),
}

impl Page<'_> {
    /// Draws the page: architecture and curves above, confusion matrix and samples below.
    pub(crate) fn draw(&self, path: &Path) -> Result<(), FileError> {
        let (title, counts, names) = self.confusion;
        let (matrix_width, matrix_height) = confusion_size(names);
        let longest = self.architecture.iter().map(|l| l.chars().count()).max().unwrap_or(0);
        let left = (matrix_width as usize).max(longest * 9 + 24).max(400) as i32;
        let right = 2 * PANEL.0 as i32;
        let upper = PANEL.1.max(40 + self.architecture.len() * LINE) as i32;
        let columns = right as usize / SAMPLE.0;
        let rows = self.samples.1.len().div_ceil(columns);
        let lower = (matrix_height as usize).max(44 + rows * SAMPLE.1) as i32;

        let size = ((left + right) as u32, (HEAD as i32 + upper + lower) as u32);
        image(path, size, |area| {
            area.draw(&Text::new(self.title, (12, 16), (FONT, 26)))?;
            let (_, body) = area.split_vertically(HEAD as i32);
            let (above, below) = body.split_vertically(upper);
            let ((architecture, curves), (matrix, samples)) =
                (above.split_horizontally(left), below.split_horizontally(left));
            self.draw_architecture(&architecture)?;
            for (panel, cell) in self.curves.iter().zip(curves.split_evenly((1, 2))) {
                panel.draw(&cell)?;
            }
            draw_confusion(&matrix, title, counts, names)?;
            self.draw_samples(&samples, columns)
        })
    }

    fn draw_architecture(&self, area: &Area) -> Result<(), Box<dyn Error>> {
        area.draw(&Text::new("Architecture", (12, 10), (FONT, 20)))?;
        for (i, line) in self.architecture.iter().enumerate() {
            area.draw(&Text::new(*line, (12, (38 + i * LINE) as i32), (FIXED_FONT, 15)))?;
        }
        Ok(())
    }

    /// Under each image its predicted class, and its label in red if it differs.
    fn draw_samples(&self, area: &Area, columns: usize) -> Result<(), Box<dyn Error>> {
        let (title, samples) = self.samples;
        area.draw(&Text::new(title, (8, 12), (FONT, 20)))?;
        let (green, red) = (RGBColor(0, 110, 40), RGBColor(190, 20, 20));
        for (i, sample) in samples.iter().enumerate() {
            let x = (i % columns * SAMPLE.0 + 8) as i32;
            let y = (i / columns * SAMPLE.1 + 44) as i32;
            sample.image.draw(area, (x, y), 2)?;
            let right = sample.label == sample.predicted;
            let style = (FONT, 13).into_font().color(if right { &green } else { &red });
            area.draw(&Text::new(sample.predicted, (x, y + 67), style.clone()))?;
            if !right {
                area.draw(&Text::new(format!("is {}", sample.label), (x, y + 82), style))?;
            }
        }
        Ok(())
    }
}
