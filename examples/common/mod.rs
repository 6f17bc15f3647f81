//! What the example programs share: pictures, progress bars, error messages.
#![allow(dead_code)]

pub(crate) mod course;
pub(crate) mod fit;
pub(crate) mod memory;
pub(crate) mod page;
pub(crate) mod results;

use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Display;
use std::path::Path;

/// Prints one line and ends the program with exit code 2: the user's input was wrong.
pub(crate) fn fail(error: impl Display) -> ! {
    eprintln!("error: {error}");
    std::process::exit(2);
}

/// The value, or the program ends with the error in one line.
pub(crate) fn or_fail<T, E: Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|e| fail(e))
}

/// Makes a folder, or ends the program.
pub(crate) fn make_folder(path: &Path) {
    or_fail(std::fs::create_dir_all(path).map_err(|e| format!("{}: {e}", path.display())));
}

/// Writes a text file as a whole or not at all: to a temporary name, synced, then renamed.
pub(crate) fn write_text(path: &Path, text: &str) {
    let write = || -> std::io::Result<()> {
        let temporary = path.with_extension("tmp");
        let mut file = std::fs::File::create(&temporary)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    or_fail(write().map_err(|e| format!("{}: {e}", path.display())));
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
