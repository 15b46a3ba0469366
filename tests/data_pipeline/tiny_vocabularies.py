"""Vocabularies of a few hundred tokens, and texts that are hard to segment."""

import functools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.tokenizers.sentencepiece import (
    FIRST_PIECES,
    USER_DEFINED,
    SentencePieceTokenizer,
    train_sentencepiece,
)
from data_pipeline.tokenizers.sentencepiece_model import PieceType, make_model, parse_model
from data_pipeline.tokenizers.targets.byte_level import BYTE_CHARACTERS
from data_pipeline.tokenizers.targets.sentencepiece import (
    SentencePieceTargets,
    train_target_tokenizer,
)
from data_pipeline.tokenizers.tokenizer import Tokenizer
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer

KINDS = ("sentencepiece", "wordpiece")
SETTINGS = {
    "uncased": {"lower_case": True, "keep_accents": False},
    "uncased with accents": {"lower_case": True, "keep_accents": True},
    "cased": {"lower_case": False, "keep_accents": False},
    "cased with accents": {"lower_case": False, "keep_accents": True},
}
WORDPIECES = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "The", "hello", "##x", "x", "e", "##e"),
    *("é", "##é", "中", "文", ",", "2", "##0", "##1", "(", ")", "don", "'", "t", "##s", "f", "##i"),
    *("1", "##2", "σ", "##σ", "##α", "##ς", "’", "-", ".", "“", "i", "k", "##g", '"', "[", "]"),  # noqa: RUF001
)

# Parts of texts: each plain part becomes tokens of its own characters.
PLAIN = (
    *("the", "The", "HELLO", "don't", "café", "CAFÉ", "e\u0301", "naïve", "Å", "中", "文字", "각"),
    *("2011,", "1,000,000", "7,", "3.5", "x", "in 1999, ", "٣,", "(", ")", "-", "–", "£", "€"),  # noqa: RUF001
    *('"', "``", "''", "Σ", "ΟΔΟΣ", "İ", "ß", "Straße", "[CLS]", "<pad>", "<unk>", "😀", "[mask]"),
    *(" ", "  ", "\t", "\n", "\u00a0", "\u3000", " " * 40, "ab\u0327c"),
)
ODD = (
    *("ﬁ", "½", "²", "™", "ℌ", "㎅", "①", "，", "ǆ", "\u0660", "\u0345", "का", "ே", "❤\ufe0f"),  # noqa: RUF001
    *("1\ufe0f\u20e3", "👨\u200d👩\u200d👧", "\u200b", "\u200d", "\ufeff", "\u00ad", "▁", "\ufffd"),
    *("\x01", "\x0b", "\x1c", "\x1f", "\x85", "\u2028", "20\x0111,", "\u202e", "\U000e0041"),
)

ENT_JSON = {
    "content": "[ENT]",
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": True,
}
# Files that declare [ENT] to be token 20, by their names.
DECLARATIONS: dict[str, dict[str, Any]] = {
    "added_tokens": {"added_tokens": {"[ENT]": 20}},
    "special map": {"special_tokens_map": {"additional_special_tokens": ["[ENT]"]}},
    "special map, flags": {"special_tokens_map": {"additional_special_tokens": [ENT_JSON]}},
    "named": {"special_tokens_map": {"cls_token": "[CLS]", "bos_token": "[ENT]"}},
    "decoder": {"tokenizer_config": {"added_tokens_decoder": {"20": ENT_JSON}}},
    "list": {"tokenizer_config": {"additional_special_tokens": ["[ENT]"]}},
    "list of version 5": {"tokenizer_config": {"extra_special_tokens": ["[ENT]"]}},
    "names of version 5": {"tokenizer_config": {"extra_special_tokens": {"ent_token": "[ENT]"}}},
    "a name of its own": {"tokenizer_config": {"ent_token": "[ENT]"}},
    "tokenizer": {"tokenizer": {"added_tokens": [{"id": 20, **ENT_JSON}]}},
    "several": {
        "added_tokens": {"[ENT]": 20},
        "special_tokens_map": {"additional_special_tokens": ["[ENT]"], "mask_token": "[MASK]"},
        "tokenizer": {"added_tokens": [{"id": 20, **ENT_JSON}, {"id": 4, "content": "[MASK]"}]},
    },
}


@functools.cache
def trained(lower_case: bool = True, keep_accents: bool = False) -> SentencePieceTokenizer:
    """Train a vocabulary on made-up words, some years before commas, and odd letters."""
    random = np.random.default_rng(0)
    syllables = np.array([a + b for a in "bdfgklmnprstBÉ" for b in "aeiouéü"])
    words = ["".join(random.choice(syllables, n)) for n in random.integers(1, 5, 300)]
    names = ["The", "the", "HELLO", "café", "don't", "naïve", "Straße", "σοφος", "1,000", "½"]
    lines = [
        f"in {random.choice([1999, 2010, 2011])}, {' '.join(random.choice(words, 8))} "
        f"{random.choice(names)} ({random.choice(words)})."
        for _ in range(3000)
    ]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "sentences.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return train_sentencepiece(
            path, vocab_size=300, lower_case=lower_case, keep_accents=keep_accents
        )


def of_pieces(*pieces: str, lower_case: bool = True, keep_accents: bool = False) -> Tokenizer:
    """Make a vocabulary of these pieces, all equally likely, after the usual first thirteen."""
    kinds = {"<unk>": PieceType.UNKNOWN} | dict.fromkeys(USER_DEFINED, PieceType.USER_DEFINED)
    first = [(piece, 0.0, kinds.get(piece, PieceType.CONTROL)) for piece in FIRST_PIECES]
    others = [(piece, -5.0, PieceType.NORMAL) for piece in pieces]
    charsmap = parse_model(trained().model).normalizer_spec.precompiled_charsmap
    model = make_model([*first, *others], charsmap).SerializeToString()
    return SentencePieceTokenizer(model, lower_case=lower_case, keep_accents=keep_accents)


def twenty_tokens() -> Tokenizer:
    """Make a vocabulary of "the", "a" and "b" at the start of words and "a" and "b" inside."""
    return of_pieces("▁", "▁a", "▁b", "a", "b", "▁the", "[")


def make(kind: str, setting: str) -> Tokenizer:
    """Make a vocabulary of either kind, uncased or cased, with or without accents."""
    if kind == "wordpiece":
        return WordPieceTokenizer(WORDPIECES, **SETTINGS[setting])
    return SentencePieceTokenizer(trained().model, **SETTINGS[setting])


def random_texts(parts: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """Make texts of up to eight parts, and of each part alone and inside a word."""
    random = np.random.default_rng(seed)
    mixed = ["".join(random.choice(parts, random.integers(2, 9))) for _ in range(count)]
    return [*parts, *(f"a{part}b" for part in parts), *mixed]


def train_targets(vocab_size: int = 340) -> SentencePieceTargets:
    """Train a vocabulary of targets on made-up lines with capitals, accents and line ends."""
    random = np.random.default_rng(0)
    syllables = np.array([a + b for a in "BdfGklm" for b in "aeiouéü"])
    made = ["".join(random.choice(syllables, n)) for n in random.integers(1, 5, 60)]
    words = [*made, "Der", "die", "Straße", "e\u0301", "l'eau", "3.5", "(the)", "„x“", "\n"]
    lines = [" ".join(random.choice(words, 9)) for _ in range(300)]
    return train_target_tokenizer(lines, vocab_size)


def write_byte_level(directory: Path, **files: Any) -> Path:
    """Write a GPT-2 vocabulary of 264 tokens, the last `<|endoftext|>`, and other JSON files."""
    directory.mkdir(parents=True, exist_ok=True)
    merges = ["t h", "th e", "Ġ the", "Ġ a", "# #", "Ã ©", "ï ¿"]
    tokens = [*sorted(BYTE_CHARACTERS), *(merge.replace(" ", "") for merge in merges)]
    vocabulary = {token: id for id, token in enumerate([*tokens, "<|endoftext|>"])}
    contents = {"vocab": vocabulary, **files}
    for name, content in contents.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    (directory / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return directory
