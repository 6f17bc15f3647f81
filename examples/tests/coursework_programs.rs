//! The coursework programs in their quick form: they run and write their images.
use tapegrad::datasets;

mod programs;

/// Runs a program briefly, checks the files that it must write, and returns its output.
fn brief(program: &str, files: &[&str]) -> String {
    let out = tempfile::tempdir().expect("a temporary folder");
    let path = out.path().to_str().expect("a readable name");
    let result = programs::run(program, &["--quick", "--seed", "1", "--out", path]);
    assert!(result.status.success(), "{program}: {}", String::from_utf8_lossy(&result.stderr));
    for file in files {
        assert!(out.path().join(file).metadata().is_ok_and(|m| m.len() > 0), "{program}: {file}");
    }
    String::from_utf8_lossy(&result.stdout).to_string()
}

#[test]
fn descent() {
    let text = brief("descent", &["momentum.png", "gelu.png", "activations.png"]);
    assert!(text.contains("w_167 = 2.0000203818374"), "{text}");
}

#[test]
fn logic_gates() {
    let text = brief("logic_gates", &["exact.png", "trained.png", "losses.png"]);
    // Only one unit for XOR cannot be right.
    assert_eq!(text.matches("WRONG").count(), 1, "{text}");
}

#[test]
fn backpropagation() {
    let text = brief("backpropagation", &["digit.png", "batch_norm.dot"]);
    assert!(text.contains("conv_input_grad"), "{text}");
    let error = programs::refused("backpropagation", &["--data", "/nowhere"]);
    assert!(error.contains("/nowhere"), "{error}");
}

#[test]
fn conv1d() {
    let text = brief("conv1d", &["differences.png", "signal.png"]);
    assert!(text.contains("is larger than the padded input"), "{text}");
    assert!(!text.contains("DIFFERENT"), "{text}");
}

#[test]
fn mnist_api() {
    let text = brief("mnist_api", &["training.png", "sigmoid.npz", "tanh.npz", "relu.npz", "prelu.npz"]);
    assert!(text.contains("test error"), "{text}");
    programs::refused("mnist_api", &["--data", "/nowhere"]);
}

#[test]
fn modular_networks() {
    let files =
        ["overfit.png", "optimizers.png", "dropout.png", "fully_connected.png", "convnet.png", "filters.png"];
    let text = brief("modular_networks", &files);
    assert_eq!(text.matches("100% of 50").count(), 2, "{text}");
    programs::refused("modular_networks", &["--data", "/nowhere", "--part", "loss"]);
}

#[test]
fn competition() {
    let out = tempfile::tempdir().expect("a temporary folder");
    let path = out.path().to_str().expect("a readable name");
    let result = programs::run("competition", &["--quick", "--names", "--epochs", "1", "--out", path]);
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    assert!(out.path().join("page.png").metadata().is_ok_and(|m| m.len() > 0));
    let lines = std::fs::read_to_string(out.path().join("predictions.txt")).expect("written by the program");
    let classes = datasets::synthetic::SHAPE_CLASSES;
    for (i, line) in lines.lines().enumerate() {
        let (id, class) = line.split_once(", ").expect("an id and a label");
        assert!(id == i.to_string() && classes.contains(&class), "{line}");
    }
    assert_eq!(lines.lines().count(), 500);
    programs::refused("competition", &["--data", "/nowhere"]);
}

#[test]
fn classifiers() {
    let text = brief("classifiers", &["validation.png"]);
    for kind in ["logistic regression", "linear SVM", "softmax regression", "CNN, dropout and batch norm"] {
        assert!(text.contains(kind), "{text}");
    }
    programs::refused("classifiers", &["--data", "/nowhere"]);
}
