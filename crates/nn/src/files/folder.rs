//! `RunFolder`: a locked folder for a program's results.

use super::{FileError, write_atomically};
use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder for the results of one program: created if missing, checked to be writable before any work is done, and
/// locked, so that a second program cannot write to it. Partial files that dead processes have left are
/// removed.
///
/// Clones share the lock; the folder is released when the last of them is dropped or the process ends.
///
/// ```
/// use tapegrad_nn::RunFolder;
/// let dir = tempfile::tempdir().unwrap();
/// let run = RunFolder::open(dir.path().join("run")).unwrap();
/// assert!(RunFolder::open(run.path()).unwrap_err().to_string().contains("is in use"));
/// tapegrad_nn::write_atomically(run.file("notes.txt"), b"whole or not at all").unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: Arc<File>,
}

const LOCK: &str = ".lock";

impl RunFolder {
    /// Opens a folder.
    ///
    /// # Errors
    /// If it cannot be made or written, or another process has it open.
    pub fn open(path: impl Into<PathBuf>) -> Result<RunFolder, FileError> {
        let path = path.into();
        let unwritable = |e: std::io::Error| {
            let reason = format!("cannot be written to: {e}");
            FileError { reason, ..FileError::of_io(&path, e) }
        };
        fs::create_dir_all(&path).map_err(unwritable)?;
        let file = path.join(LOCK);
        let open = File::options().read(true).write(true).create(true).truncate(false).open(&file);
        let mut lock = open.map_err(unwritable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = lock.read_to_string(&mut owner);
                let process = if owner.is_empty() { String::new() } else { format!(" (process {owner})") };
                let reason = format!(
                    "is in use by another training run{process}; wait for it to finish, or use another folder"
                );
                return Err(FileError::new(reason).in_file(&path));
            }
            // Some network drives do not support locks.
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(unwritable(e)),
        }
        let number = std::process::id().to_string();
        lock.set_len(0).and_then(|()| lock.write_all(number.as_bytes())).map_err(unwritable)?;
        // The lock file may be older than the folder's becoming read-only or its disk full.
        let probe = path.join(".probe");
        write_atomically(&probe, number.as_bytes())
            .and_then(|()| fs::remove_file(&probe).map_err(|e| FileError::of_io(&probe, e)))
            .map_err(|e| FileError {
                reason: format!("cannot be written to: {}", e.reason),
                file: Some(path.clone()),
                ..e
            })?;
        remove_stale(&path);
        Ok(RunFolder { path, _lock: Arc::new(lock) })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

/// Removes temporary files of [`write_atomically`] that belong to dead processes.
fn remove_stale(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(temporary_of);
        if process.is_some_and(|p| has_ended(p, &entry.path())) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The process that a temporary file belongs to: `.NAME.PROCESS.tmp`.
fn temporary_of(name: &str) -> Option<u32> {
    let (_, process) = name.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('.')?;
    process.parse().ok()
}

fn has_ended(process: u32, file: &Path) -> bool {
    let processes = Path::new("/proc");
    if processes.join("self").exists() {
        return !processes.join(process.to_string()).exists();
    }
    // Where processes cannot be looked up: no write takes an hour.
    let age = fs::metadata(file).and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
    age.is_some_and(|age| age.as_secs() > 3600)
}

/// Renames a file, with the reason in the name, so that nothing overwrites it: `last.safetensors` becomes
/// `last.REASON-1.safetensors`, or the next free number.
pub(crate) fn rename_with_reason(path: &Path, reason: &str) -> Result<PathBuf, FileError> {
    let extension = path.extension().map(|e| format!(".{}", e.display())).unwrap_or_default();
    let name = |n: u32| path.with_extension(format!("{reason}-{n}{extension}"));
    let free = (1..).map(name).find(|p| p.symlink_metadata().is_err()).expect("a number is free");
    fs::rename(path, &free).map_err(|e| FileError::of_io(path, e))?;
    Ok(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunFolder::open(dir.path()).unwrap();
        let text = RunFolder::open(dir.path()).unwrap_err().to_string();
        assert!(
            text.contains(&format!("is in use by another training run (process {})", std::process::id())),
            "{text}"
        );
        let clone = first.clone();
        drop(first);
        assert!(RunFolder::open(dir.path()).is_err());
        drop(clone);
        RunFolder::open(dir.path()).unwrap();
    }

    #[test]
    fn what_dead_processes_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let mine = std::process::id();
        let stale = format!(".last.safetensors.{dead}.tmp");
        let kept =
            [format!(".last.safetensors.{mine}.tmp"), ".notes.tmp".into(), format!("last.{dead}.tmp.txt")];
        for name in kept.iter().chain([&stale]) {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        RunFolder::open(dir.path()).unwrap();
        assert!(!dir.path().join(&stale).exists());
        assert!(kept.iter().all(|name| dir.path().join(name).exists()));
    }

    #[test]
    fn a_folder_that_cannot_be_written_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        for path in [file.clone(), file.join("below")] {
            let text = RunFolder::open(&path).unwrap_err().to_string();
            assert!(text.starts_with(&format!("{}: cannot be written to", path.display())), "{text}");
        }
    }

    #[test]
    fn renamed_files_never_collide() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last.safetensors");
        for n in 1..4 {
            fs::write(&path, n.to_string()).unwrap();
            let renamed = rename_with_reason(&path, "unreadable").unwrap();
            assert_eq!(renamed, dir.path().join(format!("last.unreadable-{n}.safetensors")));
            assert_eq!(fs::read_to_string(renamed).unwrap(), n.to_string());
        }
    }
}
