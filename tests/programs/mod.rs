//! Running the example programs.

use std::process::{Command, Output};

/// Runs an example, which is built beside the tests.
pub(crate) fn run(program: &str, args: &[&str]) -> Output {
    let mut path = std::env::current_exe().expect("a test has a path");
    path.pop();
    path.pop();
    let path = path.join("examples").join(program);
    Command::new(&path).args(args).output().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Runs with bad input: exit code 2 and one line on standard error, which is returned.
pub(crate) fn refused(program: &str, args: &[&str]) -> String {
    let out = run(program, args);
    let text = String::from_utf8_lossy(&out.stderr).to_string();
    assert_eq!(out.status.code(), Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}
