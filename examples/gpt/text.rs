//! The text to learn, as characters with numbers.

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

/// A text as numbers of its characters.
pub(crate) struct Text {
    /// The different characters, in order.
    characters: Vec<char>,
    pub(crate) train: Vec<i64>,
    pub(crate) validation: Vec<i64>,
}

impl Text {
    /// Splits off the last tenth for validation. The vocabulary is that of the whole text.
    pub(crate) fn new(source: &str) -> Text {
        let mut characters: Vec<char> = source.chars().collect();
        let count = characters.len();
        characters.sort_unstable();
        characters.dedup();
        let mut text = Text { characters, train: Vec::new(), validation: Vec::new() };
        text.train = source.chars().filter_map(|c| text.number(c)).collect();
        text.validation = text.train.split_off(count - count / 10);
        text
    }

    /// The size of the vocabulary.
    pub(crate) fn vocab(&self) -> usize {
        self.characters.len()
    }

    fn number(&self, c: char) -> Option<i64> {
        self.characters.binary_search(&c).ok().map(|i| i as i64)
    }

    /// The numbers of a text, or its first character that is not in the vocabulary.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<i64>, char> {
        text.chars().map(|c| self.number(c).ok_or(c)).collect()
    }

    /// The text of some numbers.
    pub(crate) fn decode(&self, numbers: &[i64]) -> String {
        numbers.iter().map(|&i| self.characters[i as usize]).collect()
    }

    /// A digest of everything, to recognize other data (FNV-1a).
    pub(crate) fn digest(&self) -> String {
        let vocabulary = self.characters.iter().map(|&c| u64::from(u32::from(c)));
        let numbers = self.train.iter().chain(&self.validation).map(|&i| i as u64);
        let add = |hash: u64, x: u64| (hash ^ x).wrapping_mul(0x0100_0000_01b3);
        format!("{:016x}", vocabulary.chain(numbers).fold(0xcbf2_9ce4_8422_2325, add))
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
