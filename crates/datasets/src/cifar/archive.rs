//! Files of a `.tar` or `.tar.gz` archive, one after the other, without unpacking it to disk.

use std::io::{ErrorKind, Read};

use flate2::read::MultiGzDecoder;

use crate::error::{DataError, Result};

/// No archive of the known data sets expands to more, whatever the pickle protocol: CIFAR-100 takes 187 MB, or 374 MB
/// if each pixel is a character of two bytes.
const LARGEST: u64 = 3 << 27;

/// One file of an archive, to be read or skipped.
pub(super) struct Member<'m> {
    archive: &'m str,
    data: &'m mut dyn Read,
    size: u64,
    at: u64,
}

impl Member<'_> {
    /// Appends the content. Memory grows with the data actually read, not with the size in the header.
    pub(super) fn read(self, content: &mut Vec<u8>, largest: u64) -> Result<()> {
        if self.size > largest {
            return Err(DataError::format(
                self.archive,
                self.at,
                format!("a file of {} bytes", self.size),
                format!("at most {largest}"),
            ));
        }
        let read = self.data.take(self.size).read_to_end(content);
        read.map_err(|e| broken(self.archive, self.at + content.len() as u64, &e))?;
        match content.len() as u64 == self.size {
            true => Ok(()),
            false => Err(DataError::format(
                self.archive,
                self.at + content.len() as u64,
                "the end of the archive",
                format!("{} bytes of a file", self.size),
            )),
        }
    }
}

/// Calls `visit(folder, name, member)` for each ordinary file, with the last two parts of its path.
pub(super) fn for_each_file(
    archive: &str,
    bytes: &[u8],
    visit: &mut dyn FnMut(&str, &str, Member<'_>) -> Result<()>,
) -> Result<()> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        walk(archive, Limited { input: MultiGzDecoder::new(bytes), left: LARGEST }, visit)
    } else {
        walk(archive, bytes, visit)
    }
}

/// Passes this many bytes on; more are an error.
struct Limited<R> {
    input: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            std::io::Error::other(format!(
                "it expands to more than the {LARGEST} bytes of any known data set"
            ))
        })?;
        Ok(n)
    }
}

fn walk(
    name: &str,
    input: impl Read,
    visit: &mut dyn FnMut(&str, &str, Member<'_>) -> Result<()>,
) -> Result<()> {
    let mut archive = tar::Archive::new(input);
    // Raw, so that extended headers, whose size is untrusted, are skipped like any other entry.
    let entries = archive.entries().map_err(|e| broken(name, 0, &e))?.raw(true);
    let mut at = 0;
    for entry in entries {
        let mut entry = entry.map_err(|e| broken(name, at, &e))?;
        at = entry.raw_file_position();
        if entry.header().entry_type() != tar::EntryType::Regular {
            continue;
        }
        let path = entry.path_bytes().into_owned();
        let path = String::from_utf8_lossy(&path).into_owned();
        let mut parts = path.rsplit('/');
        let (file, folder) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let size = entry.header().entry_size().map_err(|e| broken(name, at, &e))?;
        if size > LARGEST {
            // Before all of it is unpacked only to be skipped.
            let found = format!("a file of {size} bytes");
            return Err(DataError::format(name, at, found, format!("at most {LARGEST}")));
        }
        visit(folder, file, Member { archive: name, data: &mut entry, size, at })?;
    }
    // Reading on to the end also checks the gzip checksum.
    let rest = std::io::copy(&mut archive.into_inner(), &mut std::io::sink());
    rest.map_err(|e| broken(name, at, &e))?;
    Ok(())
}

fn broken(archive: &str, at: u64, error: &std::io::Error) -> DataError {
    let found = match error.kind() {
        ErrorKind::UnexpectedEof => "the end of a truncated archive".to_string(),
        _ => format!("a corrupt archive ({})", error.to_string().replace('\n', " ")),
    };
    DataError::format(archive, at, found, "a .tar or .tar.gz archive")
}
