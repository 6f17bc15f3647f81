//! Shared by the example programs: images, progress bars, error messages.
#![allow(dead_code, unused_macros)]

// First, since its macros are used by the modules below.
#[macro_use]
pub(crate) mod output;

pub(crate) mod bars;
pub(crate) mod course;
pub(crate) mod fit;
pub(crate) mod memory;
pub(crate) mod page;
pub(crate) mod ranks;
pub(crate) mod results;
pub(crate) mod training;

use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Display;
use std::path::Path;
use tapegrad::nn::RunFolder;

/// Prints one line and ends the program with exit code 2: the user's input was wrong.
pub(crate) fn fail(error: impl Display) -> ! {
    eprintln!("error: {error}");
    std::process::exit(2);
}

/// The value, or the program ends with the error in one line.
pub(crate) fn or_fail<T, E: Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|e| fail(e))
}

/// Prints a warning where the program can continue.
pub(crate) fn warn(text: impl Display) {
    eprintln!("warning: {text}");
}

/// For images, which must not stop the program: an error is a warning.
pub(crate) fn or_warn<T, E: Display>(result: Result<T, E>) {
    if let Err(e) = result {
        warn(e);
    }
}

/// Opens and locks the folder for the results, or ends the program, before any work.
pub(crate) fn open_folder(path: &Path) -> RunFolder {
    or_fail(RunFolder::open(path))
}

/// Writes a text file atomically.
pub(crate) fn write_text(path: &Path, text: &str) {
    or_fail(tapegrad::nn::write_atomically(path, text.as_bytes()));
}

/// A bar that counts images; `{msg}` holds loss and accuracy.
pub(crate) fn progress(images: usize, label: String) -> ProgressBar {
    let bar = ProgressBar::new(images as u64);
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {msg} {per_sec} {eta}")
        .expect("a valid template")
        .progress_chars("=> ");
    bar.set_style(style);
    bar.set_prefix(label);
    bar
}
