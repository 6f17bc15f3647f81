//! The runner: reads one or several directories, runs all files on a few threads, reports.

mod attempt;
mod call;
mod check;
mod data;
mod dispatch;
mod document;
mod errors;
mod forward;
mod modules;
mod ops;
mod optimizers;
mod outcome;
mod report;
mod schedulers;
mod signatures;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use data::{File, Store};
use report::{Report, Tally, Verdict};

const SUITES: [&str; 4] = ["ops", "errors", "modules", "optimizers"];

/// Settings from the environment.
pub(crate) struct Settings {
    only: Option<String>,
    verbose: bool,
    /// Overwrite the leaves between forward and backward.
    poison: bool,
}

fn flag(name: &str) -> bool {
    std::env::var(name).is_ok_and(|v| !v.is_empty() && v != "0")
}

pub(crate) fn main() -> ExitCode {
    if std::env::args().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    let Some(folders) = std::env::var_os("TAPEGRAD_CONFORMANCE").filter(|v| !v.is_empty()) else {
        println!("conformance: skipped, TAPEGRAD_CONFORMANCE names no directory");
        return ExitCode::SUCCESS;
    };
    let settings = Settings {
        only: std::env::var("TAPEGRAD_CONFORMANCE_ONLY").ok().filter(|v| !v.is_empty()),
        verbose: flag("TAPEGRAD_CONFORMANCE_VERBOSE"),
        poison: flag("TAPEGRAD_CONFORMANCE_POISON"),
    };
    let folders: Vec<PathBuf> = std::env::split_paths(&folders).collect();
    let mut files = Vec::new();
    for (folder, root) in folders.iter().enumerate() {
        // A folder without samples is a mistake; one of several may have none that the filter lets through.
        match find(root, folder, &settings) {
            Ok(found) if !found.is_empty() || (folders.len() > 1 && settings.only.is_some()) => {
                files.extend(found)
            }
            Ok(_) => {
                eprintln!("conformance: no samples in {}", root.display());
                return ExitCode::FAILURE;
            }
            Err(e) => {
                eprintln!("conformance: {}: {e}", root.display());
                return ExitCode::FAILURE;
            }
        }
    }
    if files.is_empty() {
        eprintln!("conformance: no samples that the filter lets through");
        return ExitCode::FAILURE;
    }
    files.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(&b.path)));
    attempt::quiet();
    let started = Instant::now();
    let report = Mutex::new(Report::of(&folders));
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(job) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let tally = run_file(job, &settings);
                    report
                        .lock()
                        .expect("no thread panics with the lock")
                        .add(job.folder, job.suite, &job.name, tally);
                }
            });
        }
    });
    let report = report.into_inner().expect("no thread panics with the lock");
    report.print(&settings, started.elapsed());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| manifest.join("target"), PathBuf::from);
    let written = std::fs::create_dir_all(&target)
        .and_then(|()| std::fs::write(target.join("conformance.json"), report.json()))
        .and_then(|()| match flag("TAPEGRAD_CONFORMANCE_DOC") {
            true => std::fs::write(manifest.join("docs/conformance.md"), document::page(&report)),
            false => Ok(()),
        });
    if let Err(e) = written {
        eprintln!("conformance: cannot write the report: {e}");
        return ExitCode::FAILURE;
    }
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Job {
    /// The position among the folders.
    folder: usize,
    suite: &'static str,
    name: String,
    path: PathBuf,
    size: u64,
}

/// The files of a folder that are to run.
fn find(root: &Path, folder: usize, settings: &Settings) -> std::io::Result<Vec<Job>> {
    let mut files = Vec::new();
    for suite in SUITES {
        let inside = root.join(suite);
        if !inside.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(inside)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".json"))
            else {
                continue;
            };
            let wanted = settings.only.as_ref().is_none_or(|p| matches(p, &format!("{suite}/{name}")));
            if wanted {
                let size = std::fs::metadata(path.with_extension("safetensors")).map_or(0, |m| m.len());
                files.push(Job { folder, suite, name: name.to_string(), path: path.clone(), size });
            }
        }
    }
    Ok(files)
}

/// Alternatives split by `|`, each a substring that `^` and `$` may anchor to the whole or to the name.
fn matches(pattern: &str, whole: &str) -> bool {
    let name = whole.split_once('/').map_or(whole, |(_, n)| n);
    pattern.split('|').any(|p| {
        let start = p.strip_prefix('^');
        let p = start.unwrap_or(p);
        let end = p.strip_suffix('$');
        let p = end.unwrap_or(p);
        match (start.is_some(), end.is_some()) {
            (true, true) => name == p || whole == p,
            (true, false) => name.starts_with(p) || whole.starts_with(p),
            (false, true) => whole.ends_with(p),
            (false, false) => whole.contains(p),
        }
    })
}

fn run_file(job: &Job, settings: &Settings) -> Tally {
    let started = Instant::now();
    let mut tally = Tally::default();
    let file = match File::read(&job.path) {
        Ok(file) => file,
        Err(e) => {
            tally.add(&job.name, &job.name, Verdict::Failed(format!("unreadable: {e}")));
            return tally;
        }
    };
    let store = match Store::new(file.bytes.as_deref()) {
        Ok(store) => store,
        Err(e) => {
            tally.add(&job.name, &job.name, Verdict::Failed(format!("unreadable tensors: {e}")));
            return tally;
        }
    };
    let function = match job.suite {
        "ops" | "errors" => file.text("function"),
        _ => file.text("class"),
    };
    for sample in file.samples() {
        let text = |key: &str| sample.get(key).and_then(serde_json::Value::as_str);
        let verdict = match job.suite {
            "ops" => ops::run(function, sample, &store, settings),
            "errors" => errors::run(function, sample, &store),
            "modules" => modules::run(function, sample, &store),
            _ => optimizers::run(function, &file.head, sample, &store),
        };
        let label = text("scheduler").map(|s| format!("torch.optim.lr_scheduler.{s}"));
        let verdict = verdict.unwrap_or_else(|e| Verdict::Failed(format!("bad sample: {e}")));
        tally.add(text("id").unwrap_or("?"), label.as_deref().unwrap_or(function), verdict);
    }
    tally.seconds = started.elapsed().as_secs_f64();
    tally
}
