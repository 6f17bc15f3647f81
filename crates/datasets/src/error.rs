//! Errors in data files, each with a one-line message.

use std::path::Path;

/// An error in external data: it names the file, the position, what was found and what was expected.
///
/// Every message is a single line, so that a program can print it unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The operating system could not open or read a file.
    #[error("{file}: {source}")]
    Io {
        /// The file or folder.
        file: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The bytes at an offset do not match the format.
    #[error("{file}: offset {offset}: found {found}, expected {expected}")]
    Format {
        /// The file, or `archive: member`.
        file: String,
        /// Position in bytes; in the unpacked data where the file is compressed.
        offset: u64,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A row of a text file does not match the format.
    #[error("{file}: row {row}: found {found}, expected {expected}")]
    Row {
        /// The file.
        file: String,
        /// The row, that is the line, counted from 1; header and blank lines included.
        row: u64,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// Two files that belong together hold different numbers of entries.
    #[error("{images} holds {image_count} images but {labels} holds {label_count} labels")]
    Counts {
        /// The file with the images.
        images: String,
        /// The number of entries in it.
        image_count: usize,
        /// The file with the labels.
        labels: String,
        /// The number of entries in it.
        label_count: usize,
    },
    /// A folder does not contain the files of the data set.
    #[error("{dir}: found {found}, expected {expected}")]
    Folder {
        /// The folder.
        dir: String,
        /// What it contains, or lacks.
        found: String,
        /// The recognized names.
        expected: String,
    },
    /// The saved state of a loader does not fit this loader.
    #[error("saved loader state: {what} is {found}, expected {expected}")]
    LoaderState {
        /// The name of the value.
        what: &'static str,
        /// The saved value.
        found: u64,
        /// The expected value.
        expected: String,
    },
    /// A transfer failed.
    #[error("{url}: {reason}")]
    Download {
        /// The URL.
        url: String,
        /// What went wrong, and how to fix it.
        reason: String,
    },
}

/// A result with a [`DataError`].
pub type Result<T> = std::result::Result<T, DataError>;

impl DataError {
    pub(crate) fn io(file: &Path, source: std::io::Error) -> Self {
        DataError::Io { file: file.display().to_string(), source }
    }

    pub(crate) fn format(
        file: &str,
        offset: u64,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        DataError::Format { file: file.into(), offset, found: found.into(), expected: expected.into() }
    }

    pub(crate) fn row(file: &str, row: u64, found: impl Into<String>, expected: impl Into<String>) -> Self {
        DataError::Row { file: file.into(), row, found: found.into(), expected: expected.into() }
    }

    pub(crate) fn folder(dir: &Path, found: impl Into<String>, expected: impl Into<String>) -> Self {
        DataError::Folder { dir: dir.display().to_string(), found: found.into(), expected: expected.into() }
    }
}

/// Reads a whole file, with its name in the error.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| DataError::io(path, e))
}
