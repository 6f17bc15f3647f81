//! The output files of a training program: predictions as text, curves and images.

use super::{or_warn, write_text};
use std::fmt::Display;
use std::path::Path;
use tapegrad::datasets::ImageDataset;
use tapegrad::nn::Forward;
use tapegrad::nn::plots::{Tile, sheet};

/// One line per image: its index and its predicted class, by number or name.
pub(crate) fn predictions_file(path: &Path, predictions: impl IntoIterator<Item = impl Display>) {
    let lines: String = predictions.into_iter().enumerate().map(|(i, p)| format!("{i}, {p}\n")).collect();
    write_text(path, &lines);
}

/// The image at an index, as it was before normalization.
pub(crate) fn image(data: &ImageDataset, index: usize) -> Tile {
    let [_, channels, height, width] = data.shape();
    let pixels: Vec<f32> = data.image(index).iter().map(|&v| f32::from(v)).collect();
    Tile::from_values(&pixels, [channels, height, width], 0.0, 255.0)
}

/// The first sixty misclassified images, each with its label and its predicted class.
pub(crate) fn mistakes(path: &Path, test: &ImageDataset, predictions: &[i64], name: impl Fn(i64) -> String) {
    let wrong: Vec<(usize, i64, i64)> = (predictions.iter().zip(test.labels()).enumerate())
        .filter(|(_, (p, l))| p != l)
        .map(|(i, (&p, &l))| (i, p, l))
        .collect();
    let tiles: Vec<Tile> = wrong
        .iter()
        .take(60)
        .map(|&(i, p, l)| image(test, i).caption(format!("{} as {}", name(l), name(p))))
        .collect();
    let title = format!("The first {} of {} mistakes: label, as predicted", tiles.len(), wrong.len());
    or_warn(sheet(path, &title, &tiles, 10, 3));
}

/// The weights of the first layer: one image for each filter, or for each of 64 hidden units, whose inputs are
/// images of this shape.
pub(crate) fn first_layer(path: &Path, model: &dyn Forward, input: [usize; 3]) {
    let (name, weight) = model.named_parameters().remove(0);
    let (shape, zoom) = match *weight.shape() {
        [_, channels, height, width] => ([channels, height, width], (80 / height.max(1)).max(1)),
        _ => (input, 3),
    };
    let values = weight.to_vec::<f32>();
    let tiles: Vec<Tile> =
        values.chunks(shape.iter().product()).take(64).map(|filter| Tile::stretched(filter, shape)).collect();
    or_warn(sheet(path, &format!("Weights of the first layer ({name})"), &tiles, 8, zoom));
}
