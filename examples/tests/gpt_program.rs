//! The GPT program: it learns, resumes with the same bits, writes, and names what is wrong.

use std::path::Path;
use std::process::Output;

mod programs;

fn run(args: &[&str]) -> Output {
    programs::run("gpt", args)
}

fn refused(args: &[&str]) -> String {
    programs::refused("gpt", args)
}

fn succeeds(args: &[&str]) -> String {
    let result = run(args);
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    String::from_utf8_lossy(&result.stdout).to_string()
}

fn name(path: &Path) -> &str {
    path.to_str().expect("a readable name")
}

#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let (whole, resumed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let short = ["--data", "grammar", "--steps", "4", "--every", "2", "--batch-size", "2"];
    let with = |out: &Path, more: &[&str]| succeeds(&[&short[..], &["--out", name(out)], more].concat());
    let text = with(whole.path(), &[]);
    assert!(text.contains("step 2/4: loss ") && text.contains("step 4/4: loss "), "{text}");
    let previous = whole.path().join("last.previous.safetensors");
    std::fs::copy(previous, resumed.path().join("last.safetensors")).unwrap();
    let text = with(resumed.path(), &["--resume"]);
    assert!(text.contains("continuing after step 2") && !text.contains("step 2/4"), "{text}");
    let weights = |out: &Path| std::fs::read(out.join("model.safetensors")).unwrap();
    assert_eq!(weights(whole.path()), weights(resumed.path()));

    let write =
        |more: &[&str]| with(whole.path(), &[&["--write", "70", "--prompt", "the dog"], more].concat());
    let text = write(&["--temperature", "0"]);
    assert_eq!(text, write(&["--top-k", "1"]), "the likeliest tokens");
    let written = text.split_once("the dog").expect("the prompt").1;
    assert_eq!(
        written.trim_end_matches('\n').chars().count(),
        70,
        "more than the model takes at once: {text}"
    );
    assert_eq!(write(&["--top-p", "0.9"]), write(&["--top-p", "0.9"]), "the same seed");

    // Another learning rate is another training.
    let other = [&short[..], &["--out", name(resumed.path()), "--lr", "0.5", "--resume"]].concat();
    assert!(refused(&other).contains("the checkpoint is of another training"));
}

#[test]
fn wrong_input_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let short = dir.path().join("short.txt");
    std::fs::write(&short, "too short").unwrap();
    let out = ["--out", name(dir.path())];
    assert!(
        refused(&[&out[..], &["--data", name(&short)]].concat())
            .contains("9 characters leave 0 for validation")
    );
    assert!(refused(&[&out[..], &["--data", "no such file"]].concat()).contains("no such file"));
    assert!(refused(&[&out[..], &["--prompt", "\u{1f980}"]].concat()).contains("does not occur in the text"));
    let result = run(&["--top-p", "0"]);
    assert!(String::from_utf8_lossy(&result.stderr).contains("must be above 0"), "{result:?}");
    let nothing = refused(&[&out[..], &["--write", "5"]].concat());
    assert!(nothing.contains("model.safetensors"), "{nothing}");
}

/// The weights of a small GPT-2 with published names: it writes, trains further, and goes on from there.
#[test]
fn published_weights() {
    use tapegrad::nn::models::{Gpt, GptConfig};
    use tapegrad::prelude::*;
    let dir = tempfile::tempdir().unwrap();
    let fixture: serde_json::Value = serde_json::from_str(include_str!("programs/bpe.json")).unwrap();
    for (key, file) in [("vocab", "vocab.json"), ("merges", "merges.txt")] {
        std::fs::write(dir.path().join(file), fixture[key].as_str().unwrap()).unwrap();
    }
    let own = Gpt::new(GptConfig { vocab: 420, block: 16, layers: 1, heads: 1, embd: 64 }).tie_weights();
    let mut state = nn::StateDict::new();
    for (key, t) in own.state_dict().iter().filter(|(key, _)| *key != "lm_head.weight") {
        let matrix = key.contains(".c_") && key.ends_with(".weight");
        let name = key.replace(".c_attn.", ".attn.c_attn.").replace(".c_proj.", ".attn.c_proj.");
        let name = name.replace(".c_fc.", ".mlp.c_fc.").replace(".c_out.", ".mlp.c_proj.");
        state.insert(name, if matrix { t.transpose(0, 1).contiguous() } else { t.clone() });
    }
    let weights = dir.path().join("model.safetensors");
    state.save(&weights).unwrap();
    let out = dir.path().join("out");
    let with = |more: &[&str]| {
        let all = ["--preset", "gpt2", "--weights", name(&weights), "--out", name(&out), "--batch-size", "2"];
        succeeds(&[&all[..], more].concat())
    };
    let write = ["--write", "30", "--prompt", "The tape", "--temperature", "0"];
    let text = with(&write);
    assert!(text.contains("tokens, 420 different ones") && text.contains("The tape"), "{text}");
    assert!(with(&["--steps", "2", "--data", "grammar"]).contains("step 2/2: loss "));
    let resumed = with(&[&write[..], &["--resume", "--steps", "2", "--data", "grammar"]].concat());
    assert!(resumed.contains("continuing after step 2"), "{resumed}");

    let wrong = ["--weights", name(&weights), "--out", name(&out)];
    assert!(refused(&wrong).contains("--preset gpt2"));
    std::fs::remove_file(dir.path().join("merges.txt")).unwrap();
    assert!(refused(&[&wrong[..], &["--preset", "gpt2"]].concat()).contains("merges.txt"));
}
