//! Running the example programs.

use std::process::{Command, Output};

/// An example program, built with the tests, with arguments.
pub(crate) fn command(program: &str, args: &[&str]) -> Command {
    let mut path = std::env::current_exe().expect("a test has a path");
    path.pop();
    path.pop();
    let mut command = Command::new(path.join("examples").join(program));
    command.args(args);
    command
}

/// Runs an example.
pub(crate) fn run(program: &str, args: &[&str]) -> Output {
    let mut command = command(program, args);
    command.output().unwrap_or_else(|e| panic!("{}: {e}", command.get_program().display()))
}

/// Runs with bad input: exit code 2 and one line on standard error, which is returned.
pub(crate) fn refused(program: &str, args: &[&str]) -> String {
    let out = run(program, args);
    let text = String::from_utf8_lossy(&out.stderr).to_string();
    assert_eq!(out.status.code(), Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}
