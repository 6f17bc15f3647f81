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
    /// A table has no column of this name.
    #[error("{file}: there is no column {column:?}; the columns are {columns}")]
    Column {
        /// The file.
        file: String,
        /// The name that was asked for.
        column: String,
        /// The names that there are.
        columns: String,
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
    /// A sample of a data set cannot be read.
    #[error("sample {index}: {reason}")]
    Sample {
        /// Its index in the data set that the loader reads from.
        index: usize,
        /// What went wrong.
        reason: String,
    },
    /// Samples do not fit together in a batch.
    #[error("{reason}")]
    Batch {
        /// What does not fit.
        reason: String,
    },
    /// An error of a data set of the program's own.
    #[error("{reason}")]
    Other {
        /// What went wrong.
        reason: String,
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

impl From<tapegrad_pickle::PickleError> for DataError {
    fn from(e: tapegrad_pickle::PickleError) -> Self {
        DataError::Format { file: e.file, offset: e.offset, found: e.found, expected: e.expected }
    }
}

/// A result with a [`DataError`].
pub type Result<T> = std::result::Result<T, DataError>;

impl DataError {
    /// An error of a data set of the program's own, such as one from another crate.
    ///
    /// ```
    /// use tapegrad_datasets::DataError;
    /// let number = "x".parse::<i64>().map_err(DataError::other);
    /// assert_eq!(number.unwrap_err().to_string(), "invalid digit found in string");
    /// ```
    pub fn other(reason: impl std::fmt::Display) -> Self {
        DataError::Other { reason: reason.to_string() }
    }

    /// This error, with the index of the sample in which it occurred.
    pub(crate) fn of_sample(self, index: usize) -> Self {
        DataError::Sample { index, reason: self.to_string() }
    }

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
