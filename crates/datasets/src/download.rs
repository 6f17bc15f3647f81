//! Fetches the published files of a data set (with the feature `download`).
//!
//! A file is downloaded under a temporary name, a broken transfer is resumed, and the file gets its final name only once
//! its checksum matches: a file with the name of a data file is complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use md5::{Digest, Md5};
use ureq::Agent;
use ureq::http::{Response, StatusCode, header};

use crate::error::{DataError, Result};

/// A transfer that receives no new bytes this many times in a row is given up.
const ATTEMPTS: usize = 4;
/// No published file is nearly as large: an endless response is cut off here.
const LARGEST: u64 = 1 << 30;

/// A data set, the servers that have it, and its files with the MD5 sums that are published with them.
struct Source {
    names: &'static [&'static str],
    servers: &'static [&'static str],
    files: &'static [(&'static str, &'static str)],
}

const SOURCES: [Source; 5] = [
    Source {
        names: &["mnist"],
        servers: &[
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ],
        files: &[
            ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
            ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
            ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
        ],
    },
    Source {
        names: &["fashion-mnist", "fashion_mnist", "fashionmnist", "fashion"],
        servers: &["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"],
        files: &[
            ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
            ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
            ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
        ],
    },
    Source {
        names: &["kmnist"],
        servers: &["http://codh.rois.ac.jp/kmnist/dataset/kmnist/"],
        files: &[
            ("train-images-idx3-ubyte.gz", "bdb82020997e1d708af4cf47b453dcf7"),
            ("train-labels-idx1-ubyte.gz", "e144d726b3acfaa3e44228e80efcd344"),
            ("t10k-images-idx3-ubyte.gz", "5c965bf0a639b31b8f53240b1b52f4d7"),
            ("t10k-labels-idx1-ubyte.gz", "7320c461ea6c1c855c0b718fb2a4b134"),
        ],
    },
    Source {
        names: &["cifar10", "cifar-10"],
        servers: &["https://www.cs.toronto.edu/~kriz/"],
        files: &[("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a")],
    },
    Source {
        names: &["cifar100", "cifar-100"],
        servers: &["https://www.cs.toronto.edu/~kriz/"],
        files: &[("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85")],
    },
];

/// The progress of the transfer of one file.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The file's name.
    pub file: &'a str,
    /// The number of bytes received, including those of earlier transfers.
    pub received: u64,
    /// The size of the file, if the server sends it.
    pub total: Option<u64>,
}

/// Fetches the files of `name` into the folder `dir`, and returns their paths.
///
/// Names are `mnist`, `fashion-mnist`, `kmnist`, `cifar10` and `cifar100`. Files that already exist and are complete are
/// kept. `progress` is called regularly, for a progress bar. [`Mnist::open`](crate::Mnist::open) and
/// [`Cifar::open`](crate::Cifar::open) read the folder.
///
/// # Errors
/// If the name is unknown, no server can be reached, or they do not send the published file. The data received is
/// kept, and a later call resumes from there.
///
/// ```no_run
/// tapegrad_datasets::download("mnist", "data/mnist", |p| println!("{}: {} bytes", p.file, p.received))?;
/// let mnist = tapegrad_datasets::Mnist::open("data/mnist")?;
/// # Ok::<(), tapegrad_datasets::DataError>(())
/// ```
pub fn download(
    name: &str,
    dir: impl AsRef<Path>,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Vec<PathBuf>> {
    let dir = dir.as_ref();
    let wanted = name.to_ascii_lowercase();
    let Some(source) = SOURCES.iter().find(|s| s.names.contains(&&*wanted)) else {
        let known: Vec<_> = SOURCES.iter().map(|s| s.names[0]).collect();
        return Err(DataError::Download {
            url: name.into(),
            reason: format!("unknown data set; available are {}", known.join(", ")),
        });
    };
    fs::create_dir_all(dir).map_err(|e| DataError::io(dir, e))?;
    let client = Client::new(Duration::from_secs(1), LARGEST);
    let fetch = |&(file, md5): &(&str, &str)| {
        let urls: Vec<String> = source.servers.iter().map(|server| format!("{server}{file}")).collect();
        client.fetch(&urls, dir, file, md5, &mut progress)
    };
    source.files.iter().map(fetch).collect()
}

struct Client {
    agent: Agent,
    /// The pause before another attempt.
    pause: Duration,
    largest: u64,
}

/// Why one attempt did not complete the file.
enum Failure {
    /// The connection ended early: another attempt may resume from there.
    Transient(String),
    /// Another attempt at this server would fail in the same way.
    Permanent(String),
    /// An error on this machine.
    Local(DataError),
}

impl Client {
    fn new(pause: Duration, largest: u64) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_secs(30)))
            .user_agent("tapegrad-datasets")
            .build();
        Client { agent: config.new_agent(), pause, largest }
    }

    /// Fetches the file from the first server that has the complete one.
    fn fetch(
        &self,
        urls: &[String],
        dir: &Path,
        file: &str,
        md5: &str,
        progress: &mut impl FnMut(Progress<'_>),
    ) -> Result<PathBuf> {
        let (target, part) = (dir.join(file), dir.join(format!("{file}.part")));
        if target.is_file() && checksum(&target)? == md5 {
            return Ok(target);
        }
        let mut reason = String::new();
        for url in urls {
            match self.fetch_from(url, &part, file, md5, progress) {
                Ok(()) => {
                    fs::rename(&part, &target).map_err(|e| DataError::io(&target, e))?;
                    return Ok(target);
                }
                Err(Failure::Local(error)) => return Err(error),
                Err(Failure::Transient(why) | Failure::Permanent(why)) => reason = why,
            }
        }
        let reason =
            format!("{reason}; if this machine is offline, put {file} into {} by hand", dir.display());
        Err(DataError::Download { url: urls.last().cloned().unwrap_or_default(), reason })
    }

    fn fetch_from(
        &self,
        url: &str,
        part: &Path,
        file: &str,
        md5: &str,
        progress: &mut impl FnMut(Progress<'_>),
    ) -> std::result::Result<(), Failure> {
        if part.is_file() && checksum(part).map_err(Failure::Local)? == md5 {
            return Ok(());
        }
        let (mut failures, mut rejected) = (0, false);
        loop {
            let before = size(part);
            let outcome = self.attempt(url, part, file, progress);
            // Whatever length the server declared: if the checksum matches, the file is complete.
            let found = if part.is_file() { checksum(part).map_err(Failure::Local)? } else { String::new() };
            if found == md5 {
                return Ok(());
            }
            match outcome {
                Ok(()) => {
                    // All bytes are here, but the checksum differs: an old partial file may be the cause, so start
                    // over once.
                    let length = size(part);
                    fs::remove_file(part).map_err(|e| Failure::Local(DataError::io(part, e)))?;
                    if rejected {
                        let why =
                            format!("{length} bytes were received with the MD5 sum {found}, expected {md5}");
                        return Err(Failure::Permanent(why));
                    }
                    rejected = true;
                }
                Err(Failure::Transient(why)) => {
                    failures = if size(part) > before { 1 } else { failures + 1 };
                    if failures >= ATTEMPTS {
                        return Err(Failure::Transient(why));
                    }
                    std::thread::sleep(self.pause * failures as u32);
                }
                Err(other) => return Err(other),
            }
        }
    }

    /// One request, for the missing part.
    fn attempt(
        &self,
        url: &str,
        part: &Path,
        file: &str,
        progress: &mut impl FnMut(Progress<'_>),
    ) -> std::result::Result<(), Failure> {
        let local = |e| Failure::Local(DataError::io(part, e));
        let have = size(part);
        let mut request = self.agent.get(url);
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        let mut response = request.call().map_err(unreachable)?;
        let status = response.status();
        let start = match status {
            StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(have) => have,
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => {
                // The partial file does not match the server's: start over.
                fs::remove_file(part).map_err(local)?;
                return Err(Failure::Transient(format!("the server refused to resume at byte {have}")));
            }
            _ if status.is_server_error() => {
                return Err(Failure::Transient(format!("the server answered {status}")));
            }
            _ => return Err(Failure::Permanent(format!("the server answered {status}"))),
        };
        let total = response.body().content_length().map(|rest| start.saturating_add(rest));
        let mut out = OpenOptions::new()
            .create(true)
            .append(false)
            .write(true)
            .truncate(start == 0)
            .open(part)
            .map_err(local)?;
        out.seek(SeekFrom::Start(start)).map_err(local)?;
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 16];
        let mut received = start;
        loop {
            progress(Progress { file, received, total });
            let n = match body.read(&mut buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    return Err(Failure::Transient(format!(
                        "the transfer broke after {received} bytes ({e})"
                    )));
                }
            };
            if n == 0 {
                break;
            }
            out.write_all(&buffer[..n]).map_err(local)?;
            received += n as u64;
            if received > self.largest {
                drop(out);
                fs::remove_file(part).map_err(local)?;
                return Err(Failure::Permanent(format!("more than {} bytes were received", self.largest)));
            }
        }
        out.sync_all().map_err(local)?;
        match total {
            Some(total) if received < total => {
                Err(Failure::Transient(format!("the transfer broke after {received} of {total} bytes")))
            }
            _ => Ok(()),
        }
    }
}

fn unreachable(error: ureq::Error) -> Failure {
    match error {
        ureq::Error::BadUri(_) | ureq::Error::TooManyRedirects | ureq::Error::RedirectFailed => {
            Failure::Permanent(error.to_string())
        }
        // Without a network, retrying is useless.
        ureq::Error::HostNotFound => Failure::Permanent("the server's name cannot be resolved".into()),
        ureq::Error::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            Failure::Permanent(format!("the server cannot be reached ({e})"))
        }
        other => Failure::Transient(format!("the server cannot be reached ({other})")),
    }
}

/// The first byte of a partial response, from `Content-Range: bytes 100-199/200`.
fn range_start<T>(response: &Response<T>) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |m| m.len())
}

fn checksum(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|e| DataError::io(path, e))?;
    let mut hasher = Md5::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(|e| DataError::io(path, e))? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests;
