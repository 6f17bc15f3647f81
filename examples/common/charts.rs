//! Line charts and sheets of small pictures, as PNG.

use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::error::Error;
use std::path::Path;
use std::sync::Once;

/// A font that comes with the program, so that the pictures look the same everywhere.
pub(super) const FONT: &str = "sans-serif";

pub(super) fn prepare_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The font is part of the program; it cannot be broken.
        let _ = register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
    });
}

pub(crate) use plotters::chart::SeriesLabelPosition as Corner;

/// How a series is drawn.
#[derive(Clone, Copy, PartialEq)]
enum Look {
    /// A line; one of few points has dots on it.
    Line,
    Dots,
    Rings,
}

/// One curve, or a cloud of points.
pub(crate) struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    look: Look,
    color: Option<usize>,
}

impl Series {
    pub(crate) fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Series {
        Series { name: name.into(), points: points.into_iter().collect(), look: Look::Line, color: None }
    }

    /// Points without a line.
    pub(crate) fn dots(mut self) -> Series {
        self.look = Look::Dots;
        self
    }

    /// Hollow points without a line.
    pub(crate) fn rings(mut self) -> Series {
        self.look = Look::Rings;
        self
    }

    /// The color of this place in the list, rather than of its own.
    pub(crate) fn color(mut self, index: usize) -> Series {
        self.color = Some(index);
        self
    }
}

/// Curves that share axes.
pub(crate) struct Panel {
    pub title: String,
    pub x: String,
    pub y: String,
    pub series: Vec<Series>,
    /// The vertical axis counts powers of ten.
    pub log: bool,
    legend: Corner,
    window: Option<[(f64, f64); 2]>,
    regions: Option<(usize, Vec<f64>)>,
}

impl Panel {
    pub(crate) fn new(title: impl Into<String>, x: &str, y: &str, series: Vec<Series>) -> Panel {
        Panel {
            title: title.into(),
            x: x.into(),
            y: y.into(),
            series,
            log: false,
            legend: Corner::UpperRight,
            window: None,
            regions: None,
        }
    }

    /// This panel with a logarithmic vertical axis.
    pub(crate) fn log(mut self) -> Panel {
        self.log = true;
        self
    }

    /// This panel with its legend in another corner.
    pub(crate) fn legend(mut self, corner: Corner) -> Panel {
        self.legend = corner;
        self
    }

    /// This panel over these ranges; what lies outside is cut off.
    pub(crate) fn window(mut self, x: (f64, f64), y: (f64, f64)) -> Panel {
        self.window = Some([x, y]);
        self
    }

    /// This panel over these ranges, colored by a function: 0 is blue, 1 is orange. The function gets the centres of
    /// `side` by `side` cells at once.
    pub(crate) fn regions(
        self,
        x: (f64, f64),
        y: (f64, f64),
        side: usize,
        f: impl FnOnce(&[(f64, f64)]) -> Vec<f64>,
    ) -> Panel {
        let at = |(low, high): (f64, f64), i: usize| low + (high - low) * (i as f64 + 0.5) / side as f64;
        let centres: Vec<_> = (0..side * side).map(|i| (at(x, i % side), at(y, i / side))).collect();
        let mut panel = self.window(x, y);
        panel.regions = Some((side, f(&centres)));
        panel
    }
}

/// Draws panels side by side, at most three in a row.
pub(crate) fn panels(path: &Path, panels: &[Panel]) -> Result<(), Box<dyn Error>> {
    prepare_font();
    let columns = panels.len().clamp(1, 3);
    let rows = panels.len().div_ceil(columns);
    let size = (560 * columns as u32, 420 * rows as u32);
    let area = BitMapBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    for (panel, cell) in panels.iter().zip(area.split_evenly((rows, columns))) {
        draw(panel, &cell)?;
    }
    area.present()?;
    Ok(())
}

/// Draws one panel into a part of a picture.
pub(crate) fn draw<DB: DrawingBackend>(
    panel: &Panel,
    cell: &DrawingArea<DB, plotters::coord::Shift>,
) -> Result<(), Box<dyn Error>>
where
    DB::ErrorType: 'static,
{
    prepare_font();
    let height = |y: f64| if panel.log { y.max(1e-12).log10() } else { y };
    let points =
        || panel.series.iter().flat_map(|s| &s.points).filter(|p| p.0.is_finite() && p.1.is_finite());
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if !low.is_finite() {
            return 0.0..1.0;
        }
        let margin = if high > low { (high - low) * 0.05 } else { 0.5 };
        low - margin..high + margin
    };
    let (x_range, y_range) = match panel.window {
        Some([x, y]) => (x.0..x.1, height(y.0)..height(y.1)),
        None => (range(&mut points().map(|p| p.0)), range(&mut points().map(|p| height(p.1)))),
    };
    let mut chart = ChartBuilder::on(cell)
        .margin(12)
        .margin_right(24)
        .caption(&panel.title, (FONT, 20))
        .x_label_area_size(42)
        .y_label_area_size(76)
        .build_cartesian_2d(x_range.clone(), y_range.clone())?;
    chart
        .configure_mesh()
        .x_labels(8)
        .x_desc(&panel.x)
        .y_desc(&panel.y)
        .light_line_style(WHITE)
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .y_label_formatter(&|v| short(if panel.log { 10f64.powf(*v) } else { *v }))
        .x_label_formatter(&|v| short(*v))
        .draw()?;
    if let (Some((side, values)), Some([x, y])) = (&panel.regions, panel.window) {
        let (w, h) = ((x.1 - x.0) / *side as f64, (y.1 - y.0) / *side as f64);
        chart.draw_series(values.iter().enumerate().map(|(i, v)| {
            let (left, low) = (x.0 + (i % side) as f64 * w, y.0 + (i / side) as f64 * h);
            Rectangle::new([(left, low), (left + w, low + h)], blend(*v).filled())
        }))?;
    }
    for (i, s) in panel.series.iter().enumerate() {
        let color = Palette99::pick(s.color.unwrap_or(i)).to_rgba();
        let points: Vec<(f64, f64)> = s
            .points
            .iter()
            .filter(|p| p.0.is_finite() && p.1.is_finite())
            .map(|p| (p.0, height(p.1)))
            .filter(|p| panel.window.is_none() || (x_range.contains(&p.0) && y_range.contains(&p.1)))
            .collect();
        if s.look == Look::Line {
            if points.len() <= 40 {
                chart.draw_series(points.iter().map(|p| Circle::new(*p, 3, color.filled())))?;
            }
            chart
                .draw_series(LineSeries::new(points, color.stroke_width(2)))?
                .label(&s.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        } else {
            // A ring fits around a dot, so that both can be seen in one place.
            let (radius, style) = match s.look {
                Look::Dots => (5, color.filled()),
                _ => (8, color.stroke_width(2)),
            };
            chart
                .draw_series(points.into_iter().map(|p| Circle::new(p, radius, style)))?
                .label(&s.name)
                .legend(move |(x, y)| Circle::new((x + 9, y), radius - 1, style));
        }
    }
    if panel.series.len() > 1 {
        chart
            .configure_series_labels()
            .position(panel.legend.clone())
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .label_font((FONT, 14))
            .draw()?;
    }
    Ok(())
}

/// From light blue (0) over white to light orange (1).
fn blend(v: f64) -> RGBColor {
    let toward = |c: u8, t: f64| (255.0 - (255.0 - f64::from(c)) * t) as u8;
    let t = (v.clamp(0.0, 1.0) * 2.0 - 1.0).abs();
    let [r, g, b] = if v < 0.5 { [160, 195, 240] } else { [250, 200, 140] };
    RGBColor(toward(r, t), toward(g, t), toward(b, t))
}

/// A number with as many digits as an axis needs.
fn short(v: f64) -> String {
    // Where an axis crosses zero, its steps add up to a rounding error.
    let v = if v.abs() < 1e-13 { 0.0 } else { v };
    let text = if v != 0.0 && v.abs() < 1e-3 { format!("{v:.1e}") } else { format!("{v:.4}") };
    match text.contains('.') && !text.contains('e') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

/// A small picture with a caption; the pixels are RGB, row by row.
pub(crate) struct Tile {
    pub width: usize,
    pub height: usize,
    pub rgb: Vec<u8>,
    pub caption: String,
}

impl Tile {
    /// From channel-first values: grey for one channel, colour for three. `low` becomes black, `high` white.
    pub(crate) fn from_values(
        values: &[f32],
        [channels, height, width]: [usize; 3],
        low: f32,
        high: f32,
    ) -> Tile {
        let scale = |v: f32| ((v - low) / (high - low).max(1e-12) * 255.0).clamp(0.0, 255.0) as u8;
        let area = height * width;
        let rgb = (0..area)
            .flat_map(|p| (0..3).map(move |c| (p, c)))
            .map(|(p, c)| scale(values[if channels >= 3 { c * area + p } else { p }]))
            .collect();
        Tile { width, height, rgb, caption: String::new() }
    }

    /// From values with a range of their own.
    pub(crate) fn stretched(values: &[f32], shape: [usize; 3]) -> Tile {
        let (low, high) =
            values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
        Tile::from_values(values, shape, low, high)
    }

    /// This picture with a caption.
    pub(crate) fn caption(mut self, caption: impl Into<String>) -> Tile {
        self.caption = caption.into();
        self
    }
}

/// Draws pictures in rows of `columns`, each `zoom` times its size, with their captions and a title.
pub(crate) fn sheet(
    path: &Path,
    title: &str,
    tiles: &[Tile],
    columns: usize,
    zoom: usize,
) -> Result<(), Box<dyn Error>> {
    prepare_font();
    let columns = columns.min(tiles.len()).max(1);
    let cell = |f: fn(&Tile) -> usize| tiles.iter().map(f).max().unwrap_or(1) * zoom;
    let captioned = tiles.iter().any(|t| !t.caption.is_empty());
    let longest = tiles.iter().map(|t| t.caption.chars().count()).max().unwrap_or(0);
    let (pad, text, head) = (6, if captioned { 18 } else { 0 }, 40);
    let (w, h) = (cell(|t| t.width).max(longest * 8), cell(|t| t.height));
    let rows = tiles.len().div_ceil(columns).max(1);
    let width = (columns * (w + pad) + pad).max(title.chars().count() * 10 + 2 * pad);
    let size = (width as u32, (head + rows * (h + text + pad) + pad) as u32);
    let area = BitMapBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    area.draw(&Text::new(title, (pad as i32, 10), (FONT, 18)))?;
    for (i, tile) in tiles.iter().enumerate() {
        let left = pad + i % columns * (w + pad);
        let top = head + i / columns * (h + text + pad);
        draw_tile(&area, tile, (left as i32, top as i32), zoom)?;
        if captioned {
            area.draw(&Text::new(tile.caption.as_str(), (left as i32, (top + h + 2) as i32), (FONT, 13)))?;
        }
    }
    area.present()?;
    Ok(())
}

/// Draws the pixels of a picture, without its caption, at a place of an area.
pub(super) fn draw_tile<DB: DrawingBackend>(
    area: &DrawingArea<DB, plotters::coord::Shift>,
    tile: &Tile,
    (left, top): (i32, i32),
    zoom: usize,
) -> Result<(), Box<dyn Error>>
where
    DB::ErrorType: 'static,
{
    for y in 0..tile.height * zoom {
        for x in 0..tile.width * zoom {
            let p = (y / zoom * tile.width + x / zoom) * 3;
            let color = RGBColor(tile.rgb[p], tile.rgb[p + 1], tile.rgb[p + 2]);
            area.draw_pixel((left + x as i32, top + y as i32), &color)?;
        }
    }
    Ok(())
}
