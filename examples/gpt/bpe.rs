//! GPT-2's tokens: bytes, and pairs of tokens merged into one (Sennrich et al. 2016, "Neural Machine Translation of Rare
//! Words with Subword Units").

use std::collections::HashMap;
use std::path::Path;

/// The tokens and merges of a model.
pub(crate) struct Bpe {
    /// The bytes of each token.
    tokens: Vec<Vec<u8>>,
    /// The token of each byte.
    bytes: Vec<i64>,
    /// What two tokens are merged to, and the rank of the merge: the lowest one is made first.
    merges: HashMap<[i64; 2], (usize, i64)>,
}

/// The characters that stand for the 256 bytes in GPT-2's files: printable ones for themselves, the others for those from
/// U+0100 on.
fn characters() -> HashMap<char, u8> {
    let printable = |b: &u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let (shown, hidden): (Vec<u8>, Vec<u8>) = (0..=255).partition(printable);
    let own = shown.into_iter().map(|b| (char::from(b), b));
    own.chain(('\u{100}'..).zip(hidden)).collect()
}

impl Bpe {
    /// Reads `vocab.json` and `merges.txt` in a folder.
    pub(crate) fn read(folder: &Path) -> Result<Bpe, String> {
        let text = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))
        };
        Bpe::parse(&text("vocab.json")?, &text("merges.txt")?)
            .map_err(|e| format!("{}: {e}", folder.display()))
    }

    /// Reads the texts of `vocab.json` and `merges.txt`.
    pub(crate) fn parse(vocab: &str, merges: &str) -> Result<Bpe, String> {
        let vocab: HashMap<String, usize> =
            serde_json::from_str(vocab).map_err(|e| format!("vocab.json: {e}"))?;
        let characters = characters();
        let in_bytes = |s: &str| s.chars().map(|c| characters.get(&c).copied()).collect::<Option<Vec<u8>>>();
        let mut tokens = vec![Vec::new(); vocab.len()];
        for (token, &i) in &vocab {
            let place = tokens.get_mut(i).ok_or("vocab.json: the numbers of the tokens have gaps")?;
            // A special token need not consist of such characters.
            *place = in_bytes(token).unwrap_or_else(|| token.as_bytes().to_vec());
        }
        let number = |token: &str| {
            vocab.get(token).map(|&i| i as i64).ok_or_else(|| format!("vocab.json has no token {token:?}"))
        };
        let mut bytes = vec![0; 256];
        for (c, &byte) in &characters {
            bytes[usize::from(byte)] = number(&c.to_string())?;
        }
        let mut table = HashMap::new();
        let lines = merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
        for (rank, line) in lines.enumerate() {
            let (a, b) = line.split_once(' ').ok_or_else(|| format!("merges.txt: no pair in {line:?}"))?;
            table.insert([number(a)?, number(b)?], (rank, number(&format!("{a}{b}"))?));
        }
        Ok(Bpe { tokens, bytes, merges: table })
    }

    /// The number of tokens.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The tokens of a text.
    pub(crate) fn encode(&self, text: &str) -> Vec<i64> {
        let mut known: HashMap<&str, Vec<i64>> = HashMap::new();
        let mut out = Vec::new();
        for piece in pieces(text) {
            out.extend_from_slice(known.entry(piece).or_insert_with(|| self.merged(piece)));
        }
        out
    }

    /// The tokens of a piece, in which merges are made: of all possible ones that of the lowest rank, wherever it occurs,
    /// then again.
    fn merged(&self, piece: &str) -> Vec<i64> {
        let mut tokens: Vec<i64> = piece.bytes().map(|b| self.bytes[usize::from(b)]).collect();
        let pair = |pair: &[i64]| <[i64; 2]>::try_from(pair).expect("two tokens");
        while let Some((rank, new)) =
            tokens.windows(2).filter_map(|w| self.merges.get(&pair(w))).min().copied()
        {
            let mut out = Vec::with_capacity(tokens.len());
            let mut i = 0;
            while i < tokens.len() {
                let here = tokens.get(i..i + 2).and_then(|w| self.merges.get(&pair(w)));
                let merges = here.is_some_and(|&(r, _)| r == rank);
                out.push(if merges { new } else { tokens[i] });
                i += if merges { 2 } else { 1 };
            }
            tokens = out;
        }
        tokens
    }

    /// The text of some tokens; bytes that are no text become replacement characters.
    pub(crate) fn decode(&self, tokens: &[i64]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|&i| self.tokens[i as usize].iter().copied()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Letter,
    Number,
    Space,
    Other,
}

fn kind(c: char) -> Kind {
    // Rust's alphabetic characters are the letters and some of the signs that are combined with them.
    match c {
        c if c.is_whitespace() => Kind::Space,
        c if c.is_alphabetic() => Kind::Letter,
        c if c.is_numeric() => Kind::Number,
        _ => Kind::Other,
    }
}

/// The pieces of a text across which no tokens are merged: words, numbers and signs, each with the space before it,
/// endings such as `'ll`, and white space.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(length_of_first(rest));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// The bytes of the first piece of a text that is not empty.
fn length_of_first(text: &str) -> usize {
    if let Some(ending) = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].iter().find(|e| text.starts_with(**e))
    {
        return ending.len();
    }
    let run = |s: &str, of: Kind| s.find(|c| kind(c) != of).unwrap_or(s.len());
    let body =
        text.strip_prefix(' ').filter(|body| body.chars().next().is_some_and(|c| kind(c) != Kind::Space));
    let body = body.unwrap_or(text);
    let first = kind(body.chars().next().expect("not empty"));
    if first != Kind::Space {
        return text.len() - body.len() + run(body, first);
    }
    // The last white space before something else belongs to that, unless it is alone.
    let white = run(text, Kind::Space);
    let last = text[..white].chars().next_back().map_or(0, char::len_utf8);
    if white == text.len() || white == last { white } else { white - last }
}
