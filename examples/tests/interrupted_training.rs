//! The MNIST program, under disturbance: signals, unread output, files that it cannot read or write.

use std::path::Path;
use std::process::Output;

mod programs;

/// A few short epochs. Training images: 275.
const SHORT: &[&str] = &["--limit", "300", "--model", "mlp", "--batch-size", "10", "--epochs", "3"];

fn short<'a>(out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    [SHORT, &["--out", out.to_str().expect("a readable path")], more].concat()
}

fn run(out: &Path, more: &[&str]) -> Output {
    programs::run("mnist", &short(out, more))
}

fn refused(out: &Path, more: &[&str]) -> String {
    programs::refused("mnist", &short(out, more))
}

fn weights(out: &Path) -> Vec<u8> {
    std::fs::read(out.join("model.safetensors")).expect("the weights were written")
}

fn undisturbed(folder: &Path) -> Vec<u8> {
    let out = folder.join("undisturbed");
    assert!(run(&out, &[]).status.success());
    weights(&out)
}

#[cfg(unix)]
mod signals {
    use super::*;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    fn send(signals: &[&str], child: &Child) {
        for signal in signals {
            let number = child.id().to_string();
            let sent = Command::new("kill").args(["-s", signal, &number]).status();
            assert!(sent.expect("kill is there").success(), "{signal}");
        }
    }

    /// Whether the tests, and so their children, were started with a signal ignored (`nohup`, a background job).
    fn is_ignored(number: u32) -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or("0");
        (u64::from_str_radix(mask.trim(), 16).unwrap_or(0) >> (number - 1)) & 1 == 1
    }

    /// Starts a training run that writes a checkpoint after each step, and waits for the first.
    fn training(out: &Path) -> Child {
        let mut child = programs::command("mnist", &short(out, &["--checkpoint-every", "1"]))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let begin = Instant::now();
        while !out.join("last.safetensors").exists() {
            assert!(begin.elapsed() < Duration::from_secs(120), "no checkpoint");
            assert!(child.try_wait().expect("its status").is_none(), "it ended");
            std::thread::sleep(Duration::from_millis(1));
        }
        child
    }

    #[test]
    fn a_signal_writes_the_checkpoint_and_the_same_bits_follow() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let expected = undisturbed(folder.path());
        let cases = [("INT", 2), ("TERM", 15), ("HUP", 1), ("KILL", 9)];
        for (signal, number) in cases.into_iter().filter(|(_, number)| !is_ignored(*number)) {
            let code = (signal != "KILL").then_some(128 + number as i32);
            let out = folder.path().join(signal);
            let child = training(&out);
            send(&[signal], &child);
            let ended = child.wait_with_output().expect("it ends");
            let text = String::from_utf8_lossy(&ended.stderr).to_string();
            assert_eq!(ended.status.code(), code, "{signal}: {text}");
            if code.is_some() {
                assert!(
                    text.contains(&format!("stopped by SIG{signal}")) && text.contains("--resume"),
                    "{text}"
                );
            }
            assert!(!out.join("model.safetensors").exists());
            let resumed = run(&out, &["--resume"]);
            assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
            assert!(weights(&out) == expected, "after SIG{signal} the weights differ");
            assert!(names(&out).iter().all(|n| !n.ends_with(".tmp")), "{:?}", names(&out));
        }
    }

    fn names(out: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(out).expect("made above");
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_second_signal_ends_it_at_once() {
        if is_ignored(2) {
            return println!("skipped: SIGINT is ignored here");
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Two threads may take the signals in the same instant; then both count as the first.
        for attempt in 0..5 {
            let out = folder.path().join(format!("run{attempt}"));
            let child = training(&out);
            // Both are delivered before the program continues.
            send(&["STOP", "INT", "TERM", "CONT"], &child);
            let ended = child.wait_with_output().expect("it ends");
            let text = String::from_utf8_lossy(&ended.stderr).to_string();
            assert!(matches!(ended.status.code(), Some(130 | 143)), "{:?}: {text}", ended.status);
            assert!(run(&out, &["--resume"]).status.success());
            if !text.contains("stopped by") {
                return;
            }
        }
        panic!("it always finished its step");
    }

    #[test]
    fn unread_output_does_not_end_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let expected = undisturbed(folder.path());
        let full =
            || Stdio::from(std::fs::File::options().write(true).open("/dev/full").expect("a full device"));
        for name in ["full", "pipe"] {
            let out = folder.path().join(name);
            let mut command = programs::command("mnist", &short(&out, &[]));
            match name {
                "full" => command.stdout(full()).stderr(full()),
                _ => command.stdout(Stdio::piped()).stderr(Stdio::piped()),
            };
            let mut child = command.spawn().expect("the program starts");
            // No line is read.
            drop((child.stdout.take(), child.stderr.take()));
            assert!(child.wait().expect("it ends").success(), "{name}");
            assert!(weights(&out) == expected, "{name}");
        }
    }
}

#[test]
fn a_checkpoint_that_cannot_be_read_stops_it_unless_it_restarts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("run");
    std::fs::create_dir(&out).expect("a folder");
    let last = out.join("last.safetensors");
    std::fs::write(&last, b"of another version").expect("a file");
    let text = refused(&out, &["--resume"]);
    assert!(text.contains("last.safetensors: ") && text.contains("--restart"), "{text}");
    assert_eq!(std::fs::read(&last).expect("still there"), b"of another version");
    let restarted = run(&out, &["--resume", "--restart"]);
    assert!(restarted.status.success());
    let kept = out.join("last.unreadable-1.safetensors");
    assert_eq!(std::fs::read(kept).expect("kept"), b"of another version");
    assert!(String::from_utf8_lossy(&restarted.stderr).contains("it is kept as"));
}

#[test]
fn other_settings_are_told_when_it_resumes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("run");
    assert!(run(&out, &[]).status.success());
    let resumed = |more: &[&str]| {
        let out = out.to_str().expect("a readable path");
        let base = ["--model", "mlp", "--limit", "300", "--epochs", "3", "--out", out, "--resume"];
        programs::refused("mnist", &[&base, more].concat())
    };
    let text = resumed(&["--batch-size", "10", "--lr", "0.5"]);
    assert!(text.contains("lr was 0.003, and is 0.5"), "{text}");
    let text = resumed(&["--batch-size", "20", "--seed", "1"]);
    let seed = text.contains("the loader's seed was 0, and is 1");
    assert!(seed && text.contains("the batch size was 10, and is 20"), "{text}");
}

#[test]
fn bad_settings_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for rate in ["nan", "inf", "-1"] {
        let out = folder.path().join("rate");
        let flag = format!("--lr={rate}");
        let ended = run(&out, &[&flag]);
        let text = String::from_utf8_lossy(&ended.stderr).to_string();
        assert_eq!(ended.status.code(), Some(2), "{text}");
        assert!(text.contains("must be finite and at least 0"), "{text}");
        assert!(!out.exists());
    }
    let one = folder.path().join("one");
    let text = programs::refused("mnist", &["--limit", "1", "--out", one.to_str().expect("a readable path")]);
    assert!(text.contains("1 images leave none to train on"), "{text}");
}

#[test]
fn a_folder_in_use_or_not_writable_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = tapegrad::nn::RunFolder::open(folder.path()).expect("a folder");
    let text = refused(folder.path(), &[]);
    assert!(
        text.contains(&format!("is in use by another training run (process {})", std::process::id())),
        "{text}"
    );
    drop(run);
    let file = folder.path().join("file");
    std::fs::write(&file, "x").expect("a file");
    assert!(refused(&file, &[]).contains("cannot be written to"));
}

#[test]
fn a_image_that_cannot_be_written_is_a_warning() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("run");
    for name in ["curves.png", "filters.png", "mistakes.png"] {
        std::fs::create_dir_all(out.join(name)).expect("a folder where an image should be");
    }
    let ended = run(&out, &[]);
    let text = String::from_utf8_lossy(&ended.stderr).to_string();
    assert!(ended.status.success(), "{text}");
    assert_eq!(
        text.lines().filter(|l| l.starts_with("warning: ") && l.contains(".png")).count(),
        3,
        "{text}"
    );
    assert!(weights(&out) == undisturbed(folder.path()));
}
