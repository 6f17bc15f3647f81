//! The text to learn, as characters with numbers.

use crate::bpe::Bpe;
use tapegrad::prelude::*;

/// The pages of the project's guide.
const GUIDE: [&str; 6] = [
    include_str!("../../docs/index.md"),
    include_str!("../../docs/tutorial.md"),
    include_str!("../../docs/tape.md"),
    include_str!("../../docs/backpropagation.md"),
    include_str!("../../docs/training.md"),
    include_str!("../../docs/design.md"),
];

/// The guide as one text.
pub(crate) fn guide() -> String {
    GUIDE.concat()
}

/// Sentences of a small grammar: a model that has learned it makes no other ones.
pub(crate) fn grammar(seed: u64) -> String {
    const SUBJECTS: [&str; 8] = [
        "a cat",
        "the dog",
        "my sister",
        "the old king",
        "a child",
        "the moon",
        "our teacher",
        "a blue bird",
    ];
    const VERBS: [&str; 6] = ["sees", "follows", "likes", "draws", "remembers", "sings to"];
    const PLACES: [&str; 5] = ["in the garden", "at night", "near the sea", "on the hill", "without a word"];
    let mut generator = Generator::stream(seed, "grammar", [0, 0]);
    let mut pick = |from: &[&'static str]| from[generator.below(from.len())];
    let mut text = String::new();
    for _ in 0..4000 {
        let (subject, verb, object) = (pick(&SUBJECTS), pick(&VERBS), pick(&SUBJECTS));
        let end = match pick(&["", "place"]) {
            "" => String::new(),
            _ => format!(" {}", pick(&PLACES)),
        };
        text += &format!("{subject} {verb} {object}{end}.\n");
    }
    text
}

/// The tokens that a text consists of.
enum Vocabulary {
    /// The different characters, in order.
    Characters(Vec<char>),
    /// Those of a model.
    Pairs(Bpe),
}

/// A text as numbers of its tokens.
pub(crate) struct Text {
    vocabulary: Vocabulary,
    pub(crate) train: Vec<i64>,
    pub(crate) validation: Vec<i64>,
}

impl Text {
    /// Splits off the last tenth for validation. Without tokens of a model, the vocabulary is the characters of the whole
    /// text.
    pub(crate) fn new(source: &str, tokens: Option<Bpe>) -> Text {
        let vocabulary = tokens.map_or_else(
            || {
                let mut characters: Vec<char> = source.chars().collect();
                characters.sort_unstable();
                characters.dedup();
                Vocabulary::Characters(characters)
            },
            Vocabulary::Pairs,
        );
        let mut text = Text { vocabulary, train: Vec::new(), validation: Vec::new() };
        text.train = text.encode(source).expect("its own characters");
        let count = text.train.len();
        text.validation = text.train.split_off(count - count / 10);
        text
    }

    /// The size of the vocabulary.
    pub(crate) fn vocab(&self) -> usize {
        match &self.vocabulary {
            Vocabulary::Characters(characters) => characters.len(),
            Vocabulary::Pairs(tokens) => tokens.len(),
        }
    }

    /// What the tokens are called.
    pub(crate) fn unit(&self) -> &'static str {
        match &self.vocabulary {
            Vocabulary::Characters(_) => "characters",
            Vocabulary::Pairs(_) => "tokens",
        }
    }

    /// The numbers of a text, or its first character that is not in the vocabulary.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<i64>, char> {
        match &self.vocabulary {
            Vocabulary::Characters(characters) => {
                text.chars().map(|c| characters.binary_search(&c).map(|i| i as i64).map_err(|_| c)).collect()
            }
            Vocabulary::Pairs(tokens) => Ok(tokens.encode(text)),
        }
    }

    /// The text of some numbers.
    pub(crate) fn decode(&self, numbers: &[i64]) -> String {
        match &self.vocabulary {
            Vocabulary::Characters(characters) => numbers.iter().map(|&i| characters[i as usize]).collect(),
            Vocabulary::Pairs(tokens) => tokens.decode(numbers),
        }
    }

    /// A digest of everything, to recognize other data (FNV-1a).
    pub(crate) fn digest(&self) -> String {
        let vocabulary: Vec<u64> = match &self.vocabulary {
            Vocabulary::Characters(characters) => {
                characters.iter().map(|&c| u64::from(u32::from(c))).collect()
            }
            Vocabulary::Pairs(tokens) => vec![tokens.len() as u64],
        };
        let numbers = self.train.iter().chain(&self.validation).map(|&i| i as u64);
        let add = |hash: u64, x: u64| (hash ^ x).wrapping_mul(0x0100_0000_01b3);
        format!("{:016x}", vocabulary.into_iter().chain(numbers).fold(0xcbf2_9ce4_8422_2325, add))
    }
}

/// Tokens `[batch, block]` and the tokens after each, `[batch * block]`, from places that only seed and step decide.
pub(crate) fn batch(tokens: &[i64], [batch, block]: [usize; 2], seed: u64, step: u64) -> (Var, Var) {
    let mut generator = Generator::stream(seed, "batch", [step, 0]);
    let starts: Vec<usize> = (0..batch).map(|_| generator.below(tokens.len() - block)).collect();
    windows(tokens, &starts, block)
}

/// The windows of `block` tokens that start at these places, and the tokens after each.
pub(crate) fn windows(tokens: &[i64], starts: &[usize], block: usize) -> (Var, Var) {
    let from =
        |shift: usize| starts.iter().flat_map(|s| tokens[s + shift..][..block].to_vec()).collect::<Vec<_>>();
    (Var::from_vec(from(0), (starts.len(), block)), Var::from_vec(from(1), starts.len() * block))
}
