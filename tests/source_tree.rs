//! Rules that the source tree keeps and the compiler does not check.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for path in entries.map(|entry| entry.expect("an entry of a folder").path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The numbers of the lines with `unsafe` in them: not in a comment, in a string or within a longer word.
fn unsafe_lines(text: &str) -> Vec<usize> {
    let uses = |line: &str| {
        // Quoted text is at odd positions.
        let code: String = line.split('"').step_by(2).collect::<Vec<_>>().join(" ");
        let code = code.split("//").next().unwrap_or_default();
        code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
    };
    text.lines().enumerate().filter(|(_, line)| uses(line)).map(|(i, _)| i + 1).collect()
}

/// `unsafe` is only in the kernels and the storage of tensors, where readers expect it, and in the calls of MPI.
fn may_be_unsafe(path: &Path) -> bool {
    let text = path.to_string_lossy().replace('\\', "/");
    [
        "crates/tape/src/kernels/",
        "crates/tape/src/storage.rs",
        "crates/ops/src/kernels/",
        "crates/distributed/src/mpi.rs",
    ]
    .iter()
    .any(|allowed| text.starts_with(allowed))
}

#[test]
fn unsafe_code_stands_in_kernels_and_storage_only() {
    let mut files = Vec::new();
    for crate_name in ["tape", "ops", "nn", "datasets", "pickle", "distributed"] {
        sources(&root().join("crates").join(crate_name).join("src"), &mut files);
    }
    for folder in ["src", "examples"] {
        sources(&root().join(folder), &mut files);
    }
    let read =
        |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let found: Vec<(PathBuf, Vec<usize>)> = files
        .iter()
        .map(|path| {
            (path.strip_prefix(root()).expect("below the root").to_path_buf(), unsafe_lines(&read(path)))
        })
        .filter(|(_, lines)| !lines.is_empty())
        .collect();
    let elsewhere: Vec<_> = found.iter().filter(|(path, _)| !may_be_unsafe(path)).collect();
    assert!(elsewhere.is_empty(), "unsafe code outside of kernels/, storage.rs and mpi.rs: {elsewhere:#?}");
    // Check that the search can find something.
    assert!(found.len() > 10, "{found:#?}");
}

#[test]
fn crates_without_kernels_forbid_unsafe_code() {
    for file in
        ["src/lib.rs", "crates/nn/src/lib.rs", "crates/datasets/src/lib.rs", "crates/pickle/src/lib.rs"]
    {
        let text = std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(text.contains("#![forbid(unsafe_code)]"), "{file} forbids unsafe code");
    }
}

#[test]
fn the_word_is_found_in_code_only() {
    let text = "unsafe { f() }\n// unsafe\n\"unsafe\"\n#![forbid(unsafe_code)]\nx(\"a\", unsafe { b })\nunsafe fn f() {}";
    assert_eq!(unsafe_lines(text), [1, 5, 6]);
}
