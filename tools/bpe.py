"""Tokens of texts by Hugging Face's `tokenizers` (pip install tokenizers), for a small vocabulary that is learned here.

  python tools/bpe.py > examples/tests/programs/bpe.json
"""
import json
import pathlib
import tempfile

from tokenizers import ByteLevelBPETokenizer

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXTS = [
    "", " ", "  ", "a", "The tape records every operation as it runs.",
    "it's what we'll need, they've said; I'd say 'twas won't 's 'lls",
    "two  spaces,\ttabs\n\nand lines\n  indented \n", "123 4567 8.9e-10, x2 2x", "loss.backward(); // ok?",
    "Gr\u00fc\u00dfe, na\u00efve \u00e9t\u00e9", "\u65e5\u672c\u8a9e \u306e\u6587", "\U0001f980 crab\u00a0space \u2003em \u00b2\u00bd",
    "aaaaaaaaaaaa   b", "trailing   ",
]

if __name__ == "__main__":
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train([str(ROOT / "docs/tape.md"), str(ROOT / "docs/index.md")], vocab_size=420, show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_model(folder)
        vocab = (pathlib.Path(folder) / "vocab.json").read_text()
        merges = (pathlib.Path(folder) / "merges.txt").read_text()
    cases = [[text, tokenizer.encode(text).ids] for text in TEXTS]
    print(json.dumps({"vocab": vocab, "merges": merges, "cases": cases}))
