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

/// Kernels know slices and sizes: of what is above them, those of `tape` use only the types that data is made of.
#[test]
fn kernels_do_not_use_what_calls_them() {
    for (name, allowed) in [
        ("ops", &["kernels", "testing"][..]),
        ("tape", &["kernels", "bf16", "f16", "dtype", "shape", "storage", "tensor"]),
    ] {
        let mut files = Vec::new();
        sources(&root().join("crates").join(name).join("src/kernels"), &mut files);
        assert!(files.len() > 10, "{files:?}");
        for path in files {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for used in code.split("\nuse crate::").skip(1) {
                let module =
                    used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                assert!(allowed.contains(&module), "{} uses crate::{module}", path.display());
            }
        }
    }
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

/// Every operation of `ops` on a variable is a method of `VarOps`.
#[test]
fn operations_are_methods() {
    let mut files = Vec::new();
    let folder = root().join("crates/ops/src");
    sources(&folder, &mut files);
    let read =
        |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let methods = read(&folder.join("var_ops.rs"));
    let mut found = 0;
    for path in files.iter().filter(|p| {
        !["kernels", "linalg", "detection", "distributions"].iter().any(|f| p.starts_with(folder.join(f)))
    }) {
        for item in read(path).split("\npub fn ").skip(1) {
            let (name, rest) = item.split_once('(').expect("a list of arguments");
            let name = name.split('<').next().expect("a name");
            // `unfold` is that of `torch.Tensor`.
            if rest.trim_start().split_once(": ").is_some_and(|(_, ty)| ty.starts_with("&Var"))
                && name != "unfold"
            {
                found += 1;
                let row = |end| methods.contains(&format!("\n    {name}{end}"));
                assert!(row("(") || row("<"), "{} has {name}, VarOps has not", path.display());
            }
        }
    }
    assert!(found > 100, "{found}");
}

/// The programs of the guide that are typed in both languages: ours is longer by a third at most.
#[test]
fn side_by_side_programs_are_short() {
    let page = std::fs::read_to_string(root().join("docs/from-pytorch.md")).expect("a page of the guide");
    let section =
        page.split("## Side by side").nth(1).and_then(|s| s.split("\n## ").next()).expect("the section");
    let count = |lines: &mut dyn Iterator<Item = &str>| -> usize {
        lines.map(|l| l.chars().filter(|c| !c.is_whitespace()).count()).sum()
    };
    let mut programs = 0;
    for part in section.split("\n### ").skip(1) {
        let title = part.lines().next().expect("a title");
        let block = |language: &str| {
            let start = format!("```{language}\n");
            part.split(&start).nth(1).and_then(|b| b.split("```").next()).unwrap_or_else(|| panic!("{title}"))
        };
        let python = count(&mut block("python").lines());
        // Lines that the page does not show.
        let rust = count(&mut block("rust").lines().filter(|l| *l != "#" && !l.starts_with("# ")));
        assert!(3 * rust <= 4 * python, "{title}: {rust} characters instead of {python}");
        let lines = block("python").lines().count();
        assert!((3..=14).contains(&lines), "{title}: {lines} lines");
        programs += 1;
    }
    assert_eq!(programs, 20);
}

#[test]
fn the_word_is_found_in_code_only() {
    let text = "unsafe { f() }\n// unsafe\n\"unsafe\"\n#![forbid(unsafe_code)]\nx(\"a\", unsafe { b })\nunsafe fn f() {}";
    assert_eq!(unsafe_lines(text), [1, 5, 6]);
}
