//! Optional output: if standard output or standard error is closed, full or a pipe without a reader
//! (`| head -1`, `> /dev/full`), output is dropped and the program continues. The macros replace the standard ones,
//! which panic in that case.

use std::fmt::Arguments;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether standard output is dropped: of several processes, one prints.
static SILENT: AtomicBool = AtomicBool::new(false);

pub(crate) fn set_silent(silent: bool) {
    SILENT.store(silent, Ordering::Relaxed);
}

pub(crate) fn write(text: Arguments) {
    if SILENT.load(Ordering::Relaxed) {
        return;
    }
    // There is nowhere left to report it.
    let _ = std::io::stdout().write_fmt(text);
}

pub(crate) fn write_error(text: Arguments) {
    let _ = std::io::stderr().write_fmt(text);
}

macro_rules! print {
    ($($text:tt)*) => { $crate::common::output::write(format_args!($($text)*)) };
}

macro_rules! println {
    () => { $crate::common::output::write(format_args!("\n")) };
    ($($text:tt)*) => { $crate::common::output::write(format_args!("{}\n", format_args!($($text)*))) };
}

macro_rules! eprintln {
    ($($text:tt)*) => { $crate::common::output::write_error(format_args!("{}\n", format_args!($($text)*))) };
}
