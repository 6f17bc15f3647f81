//! Line plots, scatter plots and colored regions.

use super::{Area, FONT, image};
use crate::files::FileError;
use crate::train::{EpochRecord, Score};
use plotters::prelude::*;
use std::error::Error;
use std::ops::Range;
use std::path::Path;

/// The position of the legend of a panel.
pub use plotters::chart::SeriesLabelPosition as Corner;

/// How a series is drawn.
#[derive(Clone, Copy, PartialEq)]
enum Marker {
    /// A line, with markers if it has few points.
    Line,
    Dots,
    Rings,
}

/// A line or scatter plot series.
pub struct Series {
    name: String,
    points: Vec<(f64, f64)>,
    marker: Marker,
    color: Option<usize>,
}

impl Series {
    /// A curve through these points; where it is not finite, it has a gap.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Series {
        Series { name: name.into(), points: points.into_iter().collect(), marker: Marker::Line, color: None }
    }

    /// The points of the series.
    pub fn points(&self) -> &[(f64, f64)] {
        &self.points
    }

    /// Points without a line.
    pub fn dots(mut self) -> Series {
        self.marker = Marker::Dots;
        self
    }

    /// Hollow points without a line.
    pub fn rings(mut self) -> Series {
        self.marker = Marker::Rings;
        self
    }

    /// The color of this index in the palette, instead of that of its own index.
    pub fn color(mut self, index: usize) -> Series {
        self.color = Some(index);
        self
    }
}

/// Curves that share axes.
pub struct Panel {
    title: String,
    x: String,
    y: String,
    series: Vec<Series>,
    /// Whether the vertical axis is logarithmic.
    log: bool,
    legend: Corner,
    window: Option<[(f64, f64); 2]>,
    regions: Option<(usize, Vec<f64>)>,
}

impl Panel {
    /// A panel with named axes, whose ranges fit the series.
    pub fn new(title: impl Into<String>, x: &str, y: &str, series: Vec<Series>) -> Panel {
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
    pub fn log(mut self) -> Panel {
        self.log = true;
        self
    }

    /// This panel with its legend in another corner.
    pub fn legend(mut self, corner: Corner) -> Panel {
        self.legend = corner;
        self
    }

    /// This panel over these ranges; points outside are clipped.
    pub fn window(mut self, x: (f64, f64), y: (f64, f64)) -> Panel {
        self.window = Some([x, y]);
        self
    }

    /// This panel over these ranges, colored by a function: 0 is blue, 1 is orange. The function gets the centers of
    /// `side` by `side` cells in one call.
    pub fn regions(
        self,
        x: (f64, f64),
        y: (f64, f64),
        side: usize,
        f: impl FnOnce(&[(f64, f64)]) -> Vec<f64>,
    ) -> Panel {
        let at = |(low, high): (f64, f64), i: usize| low + (high - low) * (i as f64 + 0.5) / side as f64;
        let centers: Vec<_> = (0..side * side).map(|i| (at(x, i % side), at(y, i / side))).collect();
        let mut panel = self.window(x, y);
        panel.regions = Some((side, f(&centers)));
        panel
    }

    /// The position of a value on the vertical axis.
    fn height(&self, y: f64) -> f64 {
        if self.log { y.max(1e-12).log10() } else { y }
    }

    /// The ranges of both axes: those that were set, or those of the finite points with a margin.
    fn ranges(&self) -> (Range<f64>, Range<f64>) {
        let points =
            || self.series.iter().flat_map(|s| &s.points).filter(|p| p.0.is_finite() && p.1.is_finite());
        let range = |values: &mut dyn Iterator<Item = f64>| {
            let (low, high) =
                values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
            if !low.is_finite() {
                return 0.0..1.0;
            }
            let margin = if high > low { (high - low) * 0.05 } else { 0.5 };
            low - margin..high + margin
        };
        match self.window {
            Some([x, y]) => (x.0..x.1, self.height(y.0)..self.height(y.1)),
            None => (range(&mut points().map(|p| p.0)), range(&mut points().map(|p| self.height(p.1)))),
        }
    }

    /// Draws this panel into a part of an image; see [`image`].
    ///
    /// # Errors
    /// Those of `plotters`.
    pub fn draw(&self, cell: &Area) -> Result<(), Box<dyn Error>> {
        let (x_range, y_range) = self.ranges();
        let mut chart = ChartBuilder::on(cell)
            .margin(12)
            .margin_right(24)
            .caption(&self.title, (FONT, 20))
            .x_label_area_size(42)
            .y_label_area_size(76)
            .build_cartesian_2d(x_range.clone(), y_range.clone())?;
        chart
            .configure_mesh()
            .x_labels(8)
            .x_desc(&self.x)
            .y_desc(&self.y)
            .light_line_style(WHITE)
            .label_style((FONT, 14))
            .axis_desc_style((FONT, 15))
            .y_label_formatter(&|v| short(if self.log { 10f64.powf(*v) } else { *v }))
            .x_label_formatter(&|v| short(*v))
            .draw()?;
        if let (Some((side, values)), Some([x, y])) = (&self.regions, self.window) {
            let (w, h) = ((x.1 - x.0) / *side as f64, (y.1 - y.0) / *side as f64);
            chart.draw_series(values.iter().enumerate().map(|(i, v)| {
                let (left, low) = (x.0 + (i % side) as f64 * w, y.0 + (i / side) as f64 * h);
                Rectangle::new([(left, low), (left + w, low + h)], blend(*v).filled())
            }))?;
        }
        for (i, s) in self.series.iter().enumerate() {
            let color = Palette99::pick(s.color.unwrap_or(i)).to_rgba();
            let points: Vec<(f64, f64)> = s
                .points
                .iter()
                .filter(|p| p.0.is_finite() && p.1.is_finite())
                .map(|p| (p.0, self.height(p.1)))
                .filter(|p| self.window.is_none() || (x_range.contains(&p.0) && y_range.contains(&p.1)))
                .collect();
            if s.marker == Marker::Line {
                if points.len() <= 40 {
                    chart.draw_series(points.iter().map(|p| Circle::new(*p, 3, color.filled())))?;
                }
                chart
                    .draw_series(LineSeries::new(points, color.stroke_width(2)))?
                    .label(&s.name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
            } else {
                // A ring fits around a dot, so that both are visible at the same point.
                let (radius, style) = match s.marker {
                    Marker::Dots => (5, color.filled()),
                    _ => (8, color.stroke_width(2)),
                };
                chart
                    .draw_series(points.into_iter().map(|p| Circle::new(p, radius, style)))?
                    .label(&s.name)
                    .legend(move |(x, y)| Circle::new((x + 9, y), radius - 1, style));
            }
        }
        if self.series.len() > 1 {
            chart
                .configure_series_labels()
                .position(self.legend.clone())
                .background_style(WHITE.mix(0.85))
                .border_style(BLACK.mix(0.3))
                .label_font((FONT, 14))
                .draw()?;
        }
        Ok(())
    }
}

/// Draws panels side by side, at most three in a row, and writes the image as PNG.
///
/// # Errors
/// If the file cannot be written.
pub fn panels(path: impl AsRef<Path>, panels: &[Panel]) -> Result<(), FileError> {
    let columns = panels.len().clamp(1, 3);
    let rows = panels.len().div_ceil(columns).max(1);
    image(path, (560 * columns as u32, 420 * rows as u32), |area| {
        for (panel, cell) in panels.iter().zip(area.split_evenly((rows, columns))) {
            panel.draw(&cell)?;
        }
        Ok(())
    })
}

/// Draws a training's loss (with a logarithmic axis) and, where there are classes, its error in percent.
///
/// # Errors
/// If the file cannot be written.
pub fn training_curves(
    path: impl AsRef<Path>,
    history: &[EpochRecord],
    training: &str,
    validation: &str,
) -> Result<(), FileError> {
    let series = |value: &dyn Fn(&Score) -> Option<f64>| {
        let points = |score: &dyn Fn(&EpochRecord) -> Option<Score>| -> Vec<(f64, f64)> {
            history.iter().filter_map(|r| Some((r.epoch as f64, value(&score(r)?)?))).collect()
        };
        let both = [(training, points(&|r| Some(r.train))), (validation, points(&|r| r.validation))];
        let drawn = both.into_iter().filter(|(_, points)| !points.is_empty());
        drawn.map(|(name, points)| Series::new(name, points)).collect::<Vec<_>>()
    };
    let loss = Panel::new("Loss", "epoch", "loss", series(&|s| Some(s.loss()))).log();
    let error = series(&|s| s.accuracy().map(|a| 100.0 * (1.0 - a)));
    let error = Some(error).filter(|e| !e.is_empty());
    let error = error.map(|e| Panel::new("Error", "epoch", "wrong predictions, %", e));
    panels(path, &[Some(loss), error].into_iter().flatten().collect::<Vec<_>>())
}

/// From light blue (0) over white to light orange (1).
fn blend(v: f64) -> RGBColor {
    let toward = |c: u8, t: f64| (255.0 - (255.0 - f64::from(c)) * t) as u8;
    let t = (v.clamp(0.0, 1.0) * 2.0 - 1.0).abs();
    let [r, g, b] = if v < 0.5 { [160, 195, 240] } else { [250, 200, 140] };
    RGBColor(toward(r, t), toward(g, t), toward(b, t))
}

/// A number with as many digits as an axis label needs.
fn short(v: f64) -> String {
    // Where an axis crosses zero, its tick is a rounding error.
    let v = if v.abs() < 1e-13 { 0.0 } else { v };
    let text = if v != 0.0 && v.abs() < 1e-3 { format!("{v:.1e}") } else { format!("{v:.4}") };
    match text.contains('.') && !text.contains('e') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}
