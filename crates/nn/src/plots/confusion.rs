//! The confusion matrix as an image.

use super::{Area, FONT, image};
use crate::files::FileError;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;
use std::path::Path;

/// Up to this many classes, a cell has room for its count.
const NUMBERED: usize = 25;
/// The height of the title, and the width of the scale beside the matrix.
const HEAD: i32 = 44;
const SCALE: i32 = 92;

/// Draws how often each class (row) was predicted as each class (column), as PNG; `counts` is row-major, as
/// [`confusion_matrix`](crate::train::confusion_matrix) gives it.
///
/// # Errors
/// If the file cannot be written.
///
/// # Panics
/// If there is not one count per pair of classes.
#[track_caller]
pub fn confusion(
    path: impl AsRef<Path>,
    title: &str,
    counts: &[i64],
    class_names: &[&str],
) -> Result<(), FileError> {
    image(path, confusion_size(class_names), |area| draw_confusion(area, title, counts, class_names))
}

/// The width and height of the drawn matrix for these classes.
pub fn confusion_size(class_names: &[&str]) -> (u32, u32) {
    let side = class_names.len() as i32 * cell(class_names);
    let label = label_room(class_names);
    ((side + label + SCALE + 8) as u32, (side + label + HEAD + 8) as u32)
}

/// Draws the matrix into the upper left corner of a part of an image; see [`confusion`].
///
/// # Errors
/// Those of `plotters`.
///
/// # Panics
/// If there is not one count per pair of classes.
#[track_caller]
pub fn draw_confusion(
    area: &Area,
    title: &str,
    counts: &[i64],
    class_names: &[&str],
) -> Result<(), Box<dyn Error>> {
    let n = class_names.len();
    assert_eq!(counts.len(), n * n, "confusion: {n} classes have {} counts, not {}", n * n, counts.len());
    let classes = class_names.len();
    let (cell, left) = (cell(class_names), label_room(class_names));
    let side = classes as i32 * cell;
    let style = |size: i32, color: RGBColor, h, v| {
        (FONT, size).into_font().color(&color).pos(Pos::new(h, v)).into_text_style(area)
    };
    let upright = |style: TextStyle<'static>| style.transform(FontTransform::Rotate270);
    let text = |text: &str, at: (i32, i32), style: TextStyle<'static>| {
        area.draw(&Text::new(text.to_string(), at, style)).map_err(|e| e.to_string())
    };
    text(title, (8, 12), style(20, BLACK, HPos::Left, VPos::Top))?;
    text(
        "predicted",
        (left + side / 2, HEAD + side + left - 14),
        style(15, BLACK, HPos::Center, VPos::Center),
    )?;
    text("label", (14, HEAD + side / 2), upright(style(15, BLACK, HPos::Center, VPos::Center)))?;

    let small = if classes > NUMBERED { cell.min(14) } else { 14 };
    for (row, name) in class_names.iter().enumerate() {
        let middle = row as i32 * cell + cell / 2;
        text(name, (left - 6, HEAD + middle), style(small, BLACK, HPos::Right, VPos::Center))?;
        // Rotated text is anchored as if it were not rotated: its right end becomes its top.
        let below = (left + middle, HEAD + side + 6);
        text(name, below, upright(style(small, BLACK, HPos::Right, VPos::Center)))?;
        let line = &counts[row * classes..][..classes];
        let total = line.iter().sum::<i64>().max(1) as f64;
        for (column, &count) in line.iter().enumerate() {
            let (share, x, y) = (count as f64 / total, left + column as i32 * cell, HEAD + row as i32 * cell);
            let fill = shade(share);
            area.draw(&Rectangle::new([(x, y), (x + cell - 1, y + cell - 1)], fill.filled()))?;
            if classes <= NUMBERED && count > 0 {
                let ink = if share > 0.35 { WHITE } else { BLACK };
                let at = (x + cell / 2, y + cell / 2);
                text(&count.to_string(), at, style(15, ink, HPos::Center, VPos::Center))?;
            }
        }
    }
    let frame = [(left - 1, HEAD - 1), (left + side, HEAD + side)];
    area.draw(&Rectangle::new(frame, BLACK.mix(0.6).stroke_width(1)))?;

    let (x, height) = (left + side + 16, side.min(200));
    for y in 0..height {
        let share = 1.0 - f64::from(y) / f64::from((height - 1).max(1));
        area.draw(&Rectangle::new([(x, HEAD + y), (x + 14, HEAD + y + 1)], shade(share).filled()))?;
    }
    for (label, y) in [("100%", 0), ("50%", height / 2), ("0%", height - 1)] {
        text(label, (x + 19, HEAD + y), style(13, BLACK, HPos::Left, VPos::Center))?;
    }
    text("of the label", (x, HEAD + height + 12), style(11, BLACK, HPos::Left, VPos::Top))?;
    Ok(())
}

/// The size of a cell: wide enough for its count.
fn cell(class_names: &[&str]) -> i32 {
    if class_names.len() <= NUMBERED { 48 } else { 10 }
}

/// The space for the class names beside and below the matrix, and for the axis label.
fn label_room(class_names: &[&str]) -> i32 {
    let longest = class_names.iter().map(|n| n.chars().count()).max().unwrap_or(0) as i32;
    longest * if class_names.len() <= NUMBERED { 8 } else { 7 } + 36
}

/// White for zero, dark blue for one; small fractions are brightened so that rare mistakes are visible.
fn shade(share: f64) -> RGBColor {
    let t = share.clamp(0.0, 1.0).sqrt();
    let mix = |from: f64, to: f64| (from + (to - from) * t) as u8;
    RGBColor(mix(255.0, 8.0), mix(255.0, 62.0), mix(255.0, 122.0))
}
