//! The CIFAR program's command line: killed and resumed, the same bits; what it writes; its messages for bad input.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;
use tapegrad::tape::Generator;

mod programs;

fn run(args: &[&str]) -> Output {
    programs::run("cifar10", args)
}

fn refused(args: &[&str]) -> String {
    programs::refused("cifar10", args)
}

/// Runs with good input: the last line, which is the test accuracy.
fn accuracy(args: &[&str]) -> String {
    let out = run(args);
    let text = String::from_utf8_lossy(&out.stdout).to_string();
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    let last = text.lines().last().unwrap_or_default().to_string();
    assert!(last.starts_with("test accuracy 0.") && last.ends_with(" wrong of 2000)"), "{last}");
    last
}

/// Forty short steps with everything that is stateful: shuffling, augmentation, momentum, a schedule.
const SHORT: &[&str] = &[
    "--limit",
    "400",
    "--batch-size",
    "20",
    "--epochs",
    "2",
    "--checkpoint-every",
    "1",
    "--augment",
    "crop,flip,mixup",
];

fn short<'a>(out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let out = out.to_str().expect("a readable path");
    [SHORT, &["--out", out], more].concat()
}

fn weights(out: &Path) -> Vec<u8> {
    std::fs::read(out.join("model.safetensors")).expect("the model was written")
}

#[test]
fn killed_at_any_moment_it_resumes_to_the_same_bits() {
    const KILLS: usize = 20;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let undisturbed = folder.path().join("undisturbed");
    let started = std::time::Instant::now();
    accuracy(&short(&undisturbed, &[]));
    let whole = started.elapsed();
    let expected = weights(&undisturbed);

    let mut rng = Generator::manual_seed(7);
    let (mut kills, mut attempt) = (0, 0);
    while kills < KILLS {
        attempt += 1;
        let out = folder.path().join(format!("killed-{attempt}"));
        loop {
            let mut child = programs::command("cifar10", &short(&out, &["--resume"]))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the program starts");
            if kills == KILLS {
                assert!(child.wait().expect("it ends").success());
                break;
            }
            std::thread::sleep(Duration::from_secs_f64(whole.as_secs_f64() * rng.next_f64()));
            // SIGKILL: the process cannot react.
            child.kill().expect("a process can be killed");
            let status = child.wait().expect("it ends");
            if status.success() {
                break;
            }
            kills += 1;
        }
        assert!(weights(&out) == expected, "after {kills} kills the weights differ");
    }
    println!("{kills} kills in {attempt} trainings: all ended with the same weights");
}

#[test]
fn threads_do_not_change_the_weights() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    accuracy(&short(&one, &["--threads", "1", "--model", "cnn3"]));
    accuracy(&short(&two, &["--threads", "2", "--model", "cnn3"]));
    assert!(weights(&one) == weights(&two));
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("run");
    accuracy(&short(&out, &[]));
    let expected = weights(&out);
    let last = out.join("last.safetensors");
    let bytes = std::fs::read(&last).expect("a checkpoint");
    let altered = {
        let mut bytes = bytes.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    for (damaged, reason) in [(&bytes[..bytes.len() / 2], "last.safetensors"), (&altered[..], "checksum")] {
        std::fs::write(&last, damaged).expect("a file in a temporary folder");
        let again = run(&short(&out, &["--resume"]));
        assert!(again.status.success());
        let said = String::from_utf8_lossy(&again.stderr).to_string();
        assert!(said.contains("a checkpoint was rejected") && said.contains(reason), "{said}");
        assert!(weights(&out) == expected);
    }
}

#[test]
fn it_writes_what_it_says_and_predicts_alone_and_together() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let trained = accuracy(&short(&a, &["--validation", "100"]));
    for name in [
        "metrics.csv",
        "curves.png",
        "predictions.txt",
        "mistakes.png",
        "confusion.png",
        "first_layer.png",
        "model.safetensors",
        "model.npz",
        "last.safetensors",
        "best.safetensors",
    ] {
        assert!(a.join(name).is_file(), "{name}");
    }
    assert_eq!(std::fs::read_to_string(a.join("predictions.txt")).expect("text").lines().count(), 2000);
    assert_eq!(std::fs::read_to_string(a.join("metrics.csv")).expect("text").lines().count(), 3);
    assert_eq!(accuracy(&short(&a, &["--predict"])), trained);

    accuracy(&short(&b, &["--model", "fc"]));
    let files = [a.join("model.safetensors"), b.join("model.safetensors")];
    let files: Vec<&str> = files.iter().map(|f| f.to_str().expect("a readable path")).collect();
    let out = folder.path().join("both");
    accuracy(&short(&out, &["--ensemble", files[0], files[1]]));
}

#[test]
fn bad_input_gets_one_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("run");
    let text = refused(&short(&out, &["--data", "no/such/folder"]));
    assert!(text.contains("no/such/folder"), "{text}");
    let text = refused(&short(&out, &["--predict"]));
    assert!(text.contains("model.safetensors"), "{text}");
    let text = refused(&short(&out, &["--validation", "400"]));
    assert!(text.contains("--validation 400 of 400"), "{text}");
    let cut = folder.path().join("data_batch_1.bin");
    std::fs::write(&cut, [0u8; 100]).expect("a file in a temporary folder");
    let data = folder.path().to_str().expect("a readable path");
    refused(&short(&out, &["--data", data]));
    // A checkpoint of one model does not fit another.
    accuracy(&short(&out, &[]));
    let text = refused(&short(&out, &["--resume", "--model", "cnn3"]));
    assert!(text.contains("conv1.weight"), "{text}");
}
