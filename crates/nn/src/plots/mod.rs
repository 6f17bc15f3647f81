//! Plots of a training run: curves, confusion matrices, sheets of filters and samples, as PNG. Behind the feature
//! `plots`.

mod chart;
mod confusion;
mod sheet;

pub use chart::{Corner, Panel, Series, panels, training_curves};
pub use confusion::{confusion, confusion_size, draw_confusion};
pub use sheet::{Tile, sheet};

use crate::files::{FileError, write_atomically};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::error::Error;
use std::path::Path;
use std::sync::Once;

/// A part of an image to draw on, with the crate `plotters`.
pub type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// The name under which `plotters` finds the font of the images, which comes with the program: they look the same
/// everywhere.
pub const FONT: &str = "sans-serif";

/// The name of the monospace font.
pub const FIXED_FONT: &str = "monospace";

/// Draws an image of `width` by `height` pixels on white, and writes it atomically as a PNG.
///
/// ```
/// use tapegrad_nn::plots::{Panel, Series, image};
/// let folder = tempfile::tempdir().unwrap();
/// let file = folder.path().join("two.png");
/// let curve = |name: &str, power| Series::new(name, (0..20).map(|x| (x.into(), f64::from(x).powi(power))));
/// image(&file, (900, 400), |area| {
///     let (left, right) = area.split_horizontally(450);
///     Panel::new("Squares", "x", "y", vec![curve("x²", 2)]).draw(&left)?;
///     Panel::new("Cubes", "x", "y", vec![curve("x³", 3)]).draw(&right)
/// })
/// .unwrap();
/// assert!(file.exists());
/// ```
///
/// # Errors
/// If the file cannot be written.
pub fn image(
    path: impl AsRef<Path>,
    (width, height): (u32, u32),
    draw: impl FnOnce(&Area) -> Result<(), Box<dyn Error>>,
) -> Result<(), FileError> {
    let path = path.as_ref();
    prepare_fonts();
    let mut pixels = vec![255; 3 * width as usize * height as usize];
    let mut bytes = Vec::new();
    let make = || -> Result<(), Box<dyn Error>> {
        {
            let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
            draw(&area)?;
            area.present()?;
        }
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header()?.write_image_data(&pixels)?;
        Ok(())
    };
    make().map_err(|e| FileError::new(e.to_string()).in_file(path))?;
    write_atomically(path, &bytes)
}

fn prepare_fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The fonts are embedded, so they are valid.
        let _ = register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
        let _ = register_font(FIXED_FONT, FontStyle::Normal, dejavu::sans_mono::regular());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of(path: &Path) -> (u32, u32) {
        let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap()));
        decoder.read_info().unwrap().info().size()
    }

    #[test]
    fn images_have_their_size_and_are_not_blank() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let line = Series::new("line", [(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)]);
        panels(path("panels.png"), &[Panel::new("One", "x", "y", vec![line]).log()]).unwrap();
        assert_eq!(size_of(&path("panels.png")), (560, 420));
        let tiles = [Tile::stretched(&[0.0, 1.0, 2.0, 3.0], [1, 2, 2]).caption("a")];
        sheet(path("sheet.png"), "S", &tiles, 4, 10).unwrap();
        confusion(path("confusion.png"), "C", &[3, 1, 0, 4], &["cat", "dog"]).unwrap();
        for name in ["panels.png", "sheet.png", "confusion.png"] {
            assert!(std::fs::metadata(path(name)).unwrap().len() > 500, "{name}");
        }
        // An empty plot is an image, too.
        panels(path("empty.png"), &[Panel::new("None", "x", "y", vec![])]).unwrap();
        sheet(path("none.png"), "none", &[], 4, 10).unwrap();
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = panels("no/such/folder/a.png", &[]).unwrap_err();
        assert!(error.to_string().contains("no/such/folder/a.png"), "{error}");
    }
}
