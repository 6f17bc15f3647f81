//! The MNIST program's command line: what it writes, and its messages for bad input.

use std::io::Write;
use std::path::Path;
use std::process::Output;

mod programs;

fn run(args: &[&str]) -> Output {
    programs::run("mnist", args)
}

fn refused(args: &[&str]) -> String {
    programs::refused("mnist", args)
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("a file in a temporary folder");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

fn images(count: u32) -> Vec<u8> {
    let mut bytes = [2051u32, count, 28, 28].map(u32::to_be_bytes).concat();
    bytes.extend((0..count * 784).map(|i| (i * 31 % 256) as u8));
    bytes
}

fn labels(count: u32) -> Vec<u8> {
    let mut bytes = [2049u32, count].map(u32::to_be_bytes).concat();
    bytes.extend((0..count).map(|i| (i % 10) as u8));
    bytes
}

/// A folder with the four files; the change is applied to it.
fn folder(change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (name, count) in [("train", 200), ("t10k", 50)] {
        write(&dir.path().join(format!("{name}-images-idx3-ubyte")), &images(count));
        write(&dir.path().join(format!("{name}-labels-idx1-ubyte")), &labels(count));
    }
    change(dir.path());
    dir
}

#[test]
fn a_short_run_writes_everything() {
    let out = tempfile::tempdir().expect("a temporary folder");
    let path = out.path().to_str().expect("a readable name");
    let result = run(&["--limit", "300", "--epochs", "1", "--model", "mlp", "--out", path]);
    let text = String::from_utf8_lossy(&result.stdout).to_string();
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with("test accuracy 0.") && last.ends_with(" wrong of 5000)"), "{last}");
    for file in [
        "metrics.csv",
        "curves.png",
        "filters.png",
        "mistakes.png",
        "predictions.txt",
        "model.safetensors",
        "model.npz",
    ] {
        assert!(out.path().join(file).metadata().is_ok_and(|m| m.len() > 0), "{file}");
    }
    let predictions = std::fs::read_to_string(out.path().join("predictions.txt")).expect("written above");
    assert_eq!(predictions.lines().count(), 5000);
    // The saved weights give the same accuracy again, from either file.
    for file in ["model.safetensors", "model.npz"] {
        let model = out.path().join(file);
        let again = run(&[
            "--limit",
            "300",
            "--model",
            "mlp",
            "--out",
            path,
            "--eval-only",
            "--load",
            model.to_str().expect("a readable name"),
        ]);
        let text = String::from_utf8_lossy(&again.stdout).to_string();
        assert_eq!(text.lines().last(), Some(last), "{}", String::from_utf8_lossy(&again.stderr));
    }
    let model = out.path().join("model.safetensors");
    let text = refused(&[
        "--model",
        "lenet",
        "--load",
        model.to_str().expect("a readable name"),
        "--eval-only",
        "--limit",
        "100",
    ]);
    assert!(text.contains("model.safetensors") && text.contains("conv1.weight"), "{text}");
}

#[test]
fn bad_input_gets_one_line() {
    let data = |dir: &tempfile::TempDir| dir.path().to_str().expect("a readable name").to_string();
    assert!(refused(&["--data", "no/such/folder"]).contains("no/such/folder"));

    let dir = folder(|d| write(&d.join("train-images-idx3-ubyte"), &[0, 0, 8, 9, 0, 0, 0, 0]));
    assert!(refused(&["--data", &data(&dir)]).contains("train-images-idx3-ubyte"));
    let dir = folder(|d| write(&d.join("train-images-idx3-ubyte"), &images(200)[..5000]));
    assert!(refused(&["--data", &data(&dir)]).contains("train-images-idx3-ubyte"));
    let dir = folder(|d| write(&d.join("train-labels-idx1-ubyte"), &labels(199)));
    let text = refused(&["--data", &data(&dir)]);
    assert!(text.contains("200") && text.contains("199"), "{text}");
    let dir = folder(|d| {
        std::fs::remove_file(d.join("t10k-images-idx3-ubyte")).expect("made above");
        let mut bytes = gzip(&images(50));
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        write(&d.join("t10k-images-idx3-ubyte.gz"), &bytes);
    });
    assert!(refused(&["--data", &data(&dir)]).contains("t10k-images-idx3-ubyte.gz"));

    let csv = tempfile::tempdir().expect("a temporary folder");
    let row = |n: usize| format!("3{}\n", ",7".repeat(n));
    write(&csv.path().join("mnist_train.csv"), (row(784) + &row(783)).as_bytes());
    write(&csv.path().join("mnist_test.csv"), row(784).as_bytes());
    let text = refused(&["--data", &data(&csv)]);
    assert!(
        text.contains("mnist_train.csv") && text.contains("row 2") && text.contains("784 fields"),
        "{text}"
    );

    let dir = folder(|d| write(&d.join("weights.safetensors"), b"not weights"));
    let file = dir.path().join("weights.safetensors");
    let text = refused(&["--limit", "100", "--eval-only", "--load", file.to_str().expect("a readable name")]);
    assert!(text.contains("weights.safetensors"), "{text}");
}
