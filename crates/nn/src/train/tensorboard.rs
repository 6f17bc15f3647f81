//! Event files for TensorBoard.

use super::metrics::{EpochRecord, Score};
use crc::{CRC_32_ISCSI, Crc};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes scalars over the course of training to a file for TensorBoard
/// (`torch.utils.tensorboard.SummaryWriter`).
///
/// The file is a sequence of records (length, checksum, bytes, checksum), each an `Event` in the encoding of Protocol
/// Buffers; only scalars are written. See also [`Trainer::tensorboard`](super::Trainer::tensorboard).
///
/// ```
/// use tapegrad_nn::train::TensorBoard;
/// let folder = tempfile::tempdir().unwrap();
/// let mut board = TensorBoard::create(folder.path()).unwrap();
/// for step in 0..3 {
///     board.scalar("loss/training", step, 1.0 / (1.0 + step as f32)).unwrap();
/// }
/// assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
/// ```
pub struct TensorBoard {
    file: File,
}

/// The checksum of the record format.
const CASTAGNOLI: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

impl TensorBoard {
    /// Starts a new file in a folder, which is created if necessary. TensorBoard shows all files in a folder as one run.
    ///
    /// # Errors
    /// If the folder or the file cannot be created.
    pub fn create(folder: impl AsRef<Path>) -> io::Result<TensorBoard> {
        std::fs::create_dir_all(&folder)?;
        let begin = now();
        // The time in nanoseconds and the process id tell runs apart.
        let name = format!("events.out.tfevents.{:.9}.{}.tapegrad", begin, std::process::id());
        let file = File::options().write(true).create_new(true).open(folder.as_ref().join(name))?;
        let mut board = TensorBoard { file };
        let mut event = Vec::new();
        double(&mut event, 1, begin);
        bytes(&mut event, 3, b"brain.Event:2");
        board.record(&event)?;
        Ok(board)
    }

    /// A scalar at a step. Tags with the same prefix up to a slash are grouped.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f32) -> io::Result<()> {
        let mut point = Vec::new();
        bytes(&mut point, 1, tag.as_bytes());
        key(&mut point, 2, 5);
        point.extend(value.to_le_bytes());
        let mut summary = Vec::new();
        bytes(&mut summary, 1, &point);
        let mut event = Vec::new();
        double(&mut event, 1, now());
        key(&mut event, 2, 0);
        varint(&mut event, step);
        bytes(&mut event, 5, &summary);
        self.record(&event)
    }

    /// The metrics of an epoch, at its last step.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn epoch(&mut self, record: &EpochRecord) -> io::Result<()> {
        let mut scores = |name: &str, score: &Score| -> io::Result<()> {
            self.scalar(&format!("loss/{name}"), record.step, score.loss() as f32)?;
            match score.accuracy() {
                Some(accuracy) => self.scalar(&format!("accuracy/{name}"), record.step, accuracy as f32),
                None => Ok(()),
            }
        };
        scores("training", &record.train)?;
        if let Some(validation) = &record.validation {
            scores("validation", validation)?;
        }
        self.scalar("learning rate", record.step, record.lr as f32)
    }

    fn record(&mut self, event: &[u8]) -> io::Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        // In one call, so that a killed process leaves complete records.
        let parts = [&length[..], &masked(&length).to_le_bytes(), event, &masked(event).to_le_bytes()];
        self.file.write_all(&parts.concat())
    }
}

/// The masked checksum of the record format: rotated and offset, so that checksums of data with checksums differ.
fn masked(bytes: &[u8]) -> u32 {
    CASTAGNOLI.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// A field's number and how it is encoded: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
fn key(out: &mut Vec<u8>, field: u64, encoding: u64) {
    varint(out, field << 3 | encoding);
}

fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    key(out, field, 1);
    out.extend(value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u64, content: &[u8]) {
    key(out, field, 2);
    varint(out, content.len() as u64);
    out.extend(content);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_hold_what_the_format_says() {
        let folder = tempfile::tempdir().unwrap();
        let mut board = TensorBoard::create(folder.path().join("new")).unwrap();
        board.scalar("loss", 300, 0.5).unwrap();
        let file = std::fs::read_dir(folder.path().join("new")).unwrap().next().unwrap().unwrap().path();
        let mut rest = &std::fs::read(file).unwrap()[..];
        let mut events = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(u32::from_le_bytes(rest[8..12].try_into().unwrap()), masked(&rest[..8]));
            let event = &rest[12..12 + length];
            assert_eq!(u32::from_le_bytes(rest[12 + length..16 + length].try_into().unwrap()), masked(event));
            // After the time: one key and eight bytes.
            events.push(event[9..].to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(events[0], [&[0x1a, 13][..], b"brain.Event:2"].concat());
        let point = [&[0x0a, 4][..], b"loss", &[0x15], &0.5f32.to_le_bytes()].concat();
        assert_eq!(events[1], [&[0x10, 0xac, 0x02, 0x2a, 13, 0x0a, 11][..], &point].concat());
        assert_eq!(events.len(), 2);
    }

    #[test]
    fn the_checksum_is_the_published_one() {
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(CASTAGNOLI.checksum(&[0; 32]), 0x8a91_36aa);
    }
}
