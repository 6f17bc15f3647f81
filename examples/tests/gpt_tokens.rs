//! GPT-2's tokens are those of Hugging Face's `tokenizers`, by `tools/bpe.py`.

#[path = "../gpt/bpe.rs"]
#[allow(dead_code)]
mod bpe;

use bpe::Bpe;
use serde_json::Value as Json;

fn fixture() -> (Bpe, Json) {
    let fixture: Json = serde_json::from_str(include_str!("programs/bpe.json")).expect("a fixture");
    let text = |key: &str| fixture[key].as_str().expect("a text").to_string();
    (Bpe::parse(&text("vocab"), &text("merges")).expect("a vocabulary"), fixture["cases"].clone())
}

#[test]
fn texts_have_the_same_tokens() {
    let (tokens, cases) = fixture();
    assert_eq!(tokens.len(), 420);
    let cases = cases.as_array().expect("cases");
    assert!(cases.len() > 10);
    for case in cases {
        let text = case[0].as_str().expect("a text");
        let want: Vec<i64> = case[1].as_array().expect("tokens").iter().filter_map(Json::as_i64).collect();
        assert_eq!(tokens.encode(text), want, "{text:?}");
        assert_eq!(tokens.decode(&want), text);
    }
}

#[test]
fn wrong_files_are_named() {
    let refused = |vocab: &str, merges: &str| Bpe::parse(vocab, merges).err().expect("an error");
    assert!(refused("[", "").starts_with("vocab.json: "));
    assert!(refused(r#"{"a": 1}"#, "").contains("gaps"));
    assert!(refused(r#"{"a": 0}"#, "").contains("has no token"));
    let fixture: Json = serde_json::from_str(include_str!("programs/bpe.json")).expect("a fixture");
    let vocab = fixture["vocab"].as_str().expect("a text");
    assert!(refused(vocab, "ab").contains("no pair in \"ab\""));
    assert!(refused(vocab, "a zzz").contains("has no token \"zzz\""));
}
