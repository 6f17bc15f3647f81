//! Counting and printing.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::{SUITES, Settings};

/// The outcome of a sample.
pub enum Verdict {
    /// Everything in the sample agrees.
    Passed,
    /// An error sample that Rust's types rule out, and how.
    RefusedByCompiler(String),
    /// What differs.
    Failed(String),
    /// Tapegrad has no such operation.
    Missing,
}

impl Verdict {
    /// Passed if there are no faults.
    pub fn of(faults: Vec<String>) -> Verdict {
        if faults.is_empty() { Verdict::Passed } else { Verdict::Failed(faults.join("; ")) }
    }
}

/// The count for one file.
#[derive(Default)]
pub struct Tally {
    /// Passed, failed and missing by PyTorch's path of the function or class.
    pub labels: BTreeMap<String, [usize; 3]>,
    /// Samples that agree.
    pub passed: usize,
    /// Samples that do not.
    pub failed: usize,
    /// Samples without a dispatch row.
    pub missing: usize,
    /// Of the passed ones: calls that Rust's types rule out, with the reason.
    pub unwritable: Vec<(String, String)>,
    /// Failed samples with the reason.
    pub failures: Vec<(String, String)>,
    /// Time it took.
    pub seconds: f64,
}

impl Tally {
    /// Adds a sample of a function or class.
    pub fn add(&mut self, id: &str, label: &str, verdict: Verdict) {
        let place = match verdict {
            Verdict::Passed | Verdict::RefusedByCompiler(_) => 0,
            Verdict::Failed(_) => 1,
            Verdict::Missing => 2,
        };
        self.labels.entry(label.to_string()).or_default()[place] += 1;
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::RefusedByCompiler(reason) => {
                self.passed += 1;
                self.unwritable.push((id.to_string(), reason));
            }
            Verdict::Failed(reason) => {
                self.failed += 1;
                self.failures.push((id.to_string(), reason));
            }
            Verdict::Missing => self.missing += 1,
        }
    }

    /// Adds the count of a file of the same name in another folder.
    fn merge(&mut self, other: Tally) {
        for (label, counts) in other.labels {
            let row = self.labels.entry(label).or_default();
            row.iter_mut().zip(counts).for_each(|(total, n)| *total += n);
        }
        self.passed += other.passed;
        self.failed += other.failed;
        self.missing += other.missing;
        self.unwritable.extend(other.unwritable);
        self.failures.extend(other.failures);
        self.seconds += other.seconds;
    }
}

/// All results: by suite, then by name; files of one name in several folders are counted together.
pub struct Report {
    /// Counts by suite and name.
    pub suites: BTreeMap<&'static str, BTreeMap<String, Tally>>,
    /// The folders; passed, failed and missing of each.
    folders: Vec<(PathBuf, [usize; 3])>,
}

impl Report {
    /// No results yet of these folders.
    pub fn of(folders: &[PathBuf]) -> Report {
        let folders = folders.iter().map(|f| (f.clone(), [0; 3])).collect();
        Report { suites: BTreeMap::new(), folders }
    }

    /// Adds a file of a folder.
    pub fn add(&mut self, folder: usize, suite: &'static str, name: &str, mut tally: Tally) {
        let several = self.folders.len() > 1;
        let (path, counts) = &mut self.folders[folder];
        let found = [tally.passed, tally.failed, tally.missing];
        counts.iter_mut().zip(found).for_each(|(total, n)| *total += n);
        if several {
            let place = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            tally.failures.iter_mut().for_each(|(id, _)| *id = format!("{id} in {place}"));
        }
        self.suites.entry(suite).or_default().entry(name.to_string()).or_default().merge(tally);
    }

    fn sum<'a>(tallies: impl Iterator<Item = &'a Tally>) -> [usize; 3] {
        tallies.fold([0; 3], |[p, f, m], t| [p + t.passed, f + t.failed, m + t.missing])
    }

    /// Passed, failed and missing of a suite.
    pub fn suite(&self, suite: &str) -> [usize; 3] {
        Self::sum(self.suites.get(suite).into_iter().flat_map(BTreeMap::values))
    }

    /// Passed, failed and missing of all.
    pub fn totals(&self) -> [usize; 3] {
        Self::sum(self.suites.values().flat_map(BTreeMap::values))
    }

    /// Nothing failed, nothing is missing.
    pub fn is_clean(&self) -> bool {
        let [_, failed, missing] = self.totals();
        failed + missing == 0
    }

    /// Failures, the table and the totals, to the standard output.
    pub(crate) fn print(&self, settings: &Settings, elapsed: Duration) {
        let mut out = String::new();
        let limit = if settings.verbose { usize::MAX } else { 5 };
        for suite in SUITES {
            for (name, tally) in self.suites.get(suite).into_iter().flatten() {
                for (id, reason) in tally.failures.iter().take(limit) {
                    let _ = writeln!(out, "FAILED {suite}/{name} {id}: {reason}");
                }
                if tally.failures.len() > limit {
                    let _ = writeln!(out, "       {suite}/{name}: {} more", tally.failures.len() - limit);
                }
            }
        }
        let refused: Vec<_> = self
            .suites
            .values()
            .flatten()
            .flat_map(|(name, t)| t.unwritable.iter().map(move |(id, reason)| (name, id, reason)))
            .collect();
        if !refused.is_empty() {
            let _ = writeln!(out, "\nRefused by the compiler, since Rust's types cannot express the call:");
            for (name, id, reason) in refused {
                let _ = writeln!(out, "  {name} {id}: {reason}");
            }
        }
        let _ = writeln!(
            out,
            "\n{:<12} {:<50} {:>7} {:>7} {:>7}",
            "suite", "name", "passed", "failed", "missing"
        );
        for suite in SUITES {
            for (name, t) in self.suites.get(suite).into_iter().flatten() {
                let _ =
                    writeln!(out, "{suite:<12} {name:<50} {:>7} {:>7} {:>7}", t.passed, t.failed, t.missing);
            }
        }
        let mut slow: Vec<_> = self
            .suites
            .iter()
            .flat_map(|(s, names)| names.iter().map(move |(n, t)| (t.seconds, s, n)))
            .collect();
        slow.sort_by(|a, b| b.0.total_cmp(&a.0));
        let _ = writeln!(out, "\nslowest:");
        for (seconds, suite, name) in slow.into_iter().take(5) {
            let _ = writeln!(out, "{seconds:>9.2} s {suite}/{name}");
        }
        let _ = writeln!(out, "\n{:<12} {:>7} {:>7} {:>7}", "", "passed", "failed", "missing");
        for suite in SUITES {
            let [p, f, m] = self.suite(suite);
            let _ = writeln!(out, "{suite:<12} {p:>7} {f:>7} {m:>7}");
        }
        let [p, f, m] = self.totals();
        let _ = writeln!(out, "{:<12} {p:>7} {f:>7} {m:>7}   in {:.1} s", "total", elapsed.as_secs_f64());
        if self.folders.len() > 1 {
            for (path, [p, f, m]) in &self.folders {
                let _ = writeln!(out, "{:<12} {p:>7} {f:>7} {m:>7}   {}", "", path.display());
            }
        }
        print!("{out}");
    }

    /// The counts as JSON.
    pub fn json(&self) -> String {
        let count = |[p, f, m]: [usize; 3]| json!({"passed": p, "failed": f, "missing": m});
        let mut suites = serde_json::Map::new();
        for (suite, names) in &self.suites {
            let mut entry = count(self.suite(suite));
            let mut by_name = serde_json::Map::new();
            for (name, t) in names {
                let mut one = count([t.passed, t.failed, t.missing]);
                if !t.failures.is_empty() {
                    one["failures"] =
                        t.failures.iter().map(|(id, why)| json!({"id": id, "why": why})).collect();
                }
                by_name.insert(name.clone(), one);
            }
            entry["names"] = by_name.into();
            suites.insert(suite.to_string(), entry);
        }
        let folders: Vec<_> = self
            .folders
            .iter()
            .map(|(path, counts)| json!({"path": path.to_string_lossy(), "totals": count(*counts)}))
            .collect();
        format!("{:#}\n", json!({"totals": count(self.totals()), "folders": folders, "suites": suites}))
    }
}
