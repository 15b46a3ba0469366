"""Exported tokenizers in transformers against ours: the same token ids, segment ids and padding.

transformers parses special tokens in a text. We do so for [MASK] on request (`mask_words`), which
is how the two are compared; texts with other special tokens are excluded. Three differences remain,
and are excluded too:

- transformers has the character tables of Unicode 9 (2016): no later characters are compared.
- With `keep_accents` it drops a mark that directly follows a character with a compatibility form
  ("½" and an accent), and composes nothing where several follow a letter; U+0344 is two marks.
- Its rule for BERT's ideographs omits the range U+2B820 to U+2B91F.
"""

import itertools
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_vocabularies import (
    DECLARATIONS,
    KINDS,
    ODD,
    PLAIN,
    SETTINGS,
    make,
    of_pieces,
    random_texts,
    trained,
    twenty_tokens,
)

from data_pipeline import AlbertTokenizer
from data_pipeline.tokenizers.loading import load_tokenizer

pytestmark = pytest.mark.interop

# Relative to the project, where a machine has them.
DATA = Path(__file__).parents[3] / "shared/data"
EXCLUDED = {"\u0344", *map(chr, range(0x2B820, 0x2B920))}
SPECIAL = re.compile(r"\[(CLS|SEP|PAD|UNK)\]|<(pad|unk)>")
MARK_AFTER_COMPATIBILITY_FORM = re.compile(
    "[^a-zA-Z][\u0300-\u0345\u093e\u0bc7\ufe0f\u20e3]"
    "|[\u0300-\u0345][\u0300-\u0345\u093e\u0bc7\ufe0f\u200d\u20e3\U000e0041]"
    "|[\x80-\uffff]\u200d"
)


def export(tokenizer: AlbertTokenizer, directory: Path) -> Any:
    """Export a tokenizer and load it in transformers."""
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(directory, model_max_length=64)
    (directory / "config.json").write_text(json.dumps({"model_type": "albert"}))
    return AutoTokenizer.from_pretrained(directory)


def differing(ours: AlbertTokenizer, theirs: Any, texts: list[str]) -> list[str]:
    """Return the texts that have different ids in the two."""
    plain = [text for text in texts if "[MASK]" not in text]
    ids, lengths = ours.tokenizer.encode_lines(plain)
    found = dict(zip(plain, np.split(ids, np.cumsum(lengths)[:-1]), strict=True))
    for text in set(texts) - found.keys():
        found[text], _ = ours.encode_with_offsets(text, mask_words=True)
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    pairs = zip(texts, expected, strict=True)
    return [ascii(text) for text, ids in pairs if found[text].tolist() != ids]


def comparable(texts: list[str], kind: str, setting: str) -> list[str]:
    """Exclude the texts with the differences listed above."""
    texts = [text for text in texts if not SPECIAL.search(text)]
    if SETTINGS[setting]["keep_accents"] and kind == "sentencepiece":
        texts = [text for text in texts if not MARK_AFTER_COMPATIBILITY_FORM.search(text)]
    return texts


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_odd_texts_have_the_same_ids(kind, setting, tmp_path):
    ours = AlbertTokenizer(make(kind, setting))
    theirs = export(ours, tmp_path)
    assert type(theirs).__name__ == {"sentencepiece": "AlbertTokenizer"}.get(kind, "BertTokenizer")
    texts = comparable(random_texts([*PLAIN, *ODD, "[MASK]", " [MASK] "], 2000), kind, setting)
    assert len(texts) > 1000
    assert differing(ours, theirs, texts) == []


def test_numbers_before_commas(tmp_path):
    pieces = ["▁", ",", "▁2011,", "▁2011", "▁20", "11,", "11", "1", "2", "0", "7,", "7", "▁7", "a"]
    ours = AlbertTokenizer(of_pieces(*pieces, "▁x", "x", "٣", "٣,", ",0", ",000", "▁1"))
    theirs = export(ours, tmp_path)
    parts = ["2011,", "2011", "11,", "7,", ",", "x", "٣,", " ", "1", "0", "000", ".", "2", "a"]
    assert differing(ours, theirs, random_texts(parts, 3000)) == []


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_character_of_unicode_9(kind, setting, tmp_path):
    """Each inside a word; of ideographs and Hangul syllables, which are alike, a sample."""
    ours = AlbertTokenizer(make(kind, setting))
    theirs = export(ours, tmp_path)
    dense = [range(0x3400, 0xA000, 50), range(0xAC00, 0xD7A4, 50), range(0x20000, 0x2FA20, 50)]
    points = itertools.chain(
        *(range(1, 0x3400), range(0xA000, 0xAC00), range(0xD7B0, 0xD800), range(0xE000, 0xFFFE)),
        *(range(0x10000, 0x20000), *dense),
    )
    chars = [chr(point) for point in points]
    known = [char for char in chars if in_tables_of_transformers(char) and char not in EXCLUDED]
    assert len(known) > 0.98 * len(chars)
    assert differing(ours, theirs, [f"A{char}B x" for char in known]) == []


def in_tables_of_transformers(char: str) -> bool:
    """Return True if transformers' tables agree with Python's newer ones on a character."""
    from tokenizers import normalizers, pre_tokenizers

    is_symbol = char in "$+<=>^`|~"  # punctuation to BERT

    return (
        normalizers.NFKD().normalize_str(char) == unicodedata.normalize("NFKD", char)
        and (normalizers.StripAccents().normalize_str(char) == "")
        == unicodedata.category(char).startswith("M")
        and normalizers.Lowercase().normalize_str(char) == char.lower()
        and (len(pre_tokenizers.Punctuation().pre_tokenize_str(f"{char}a")) == 2)
        == (unicodedata.category(char).startswith("P") or is_symbol)
    )


def test_final_capital_sigma_is_not_special(tmp_path):
    for kind in KINDS:
        ours = AlbertTokenizer(make(kind, "uncased"))
        texts = ["ΟΔΟΣ ΣΟΦΟΣ.", "Σ", "σοφος ΣΟΦΟΣ", "ΑΣ-ΑΣΑ"]
        assert differing(ours, export(ours, tmp_path / kind), texts) == []


def test_rows_pairs_padding_and_truncation(tmp_path):
    """Truncated pairs are compared where the two agree which side is the longer."""
    ours = AlbertTokenizer(trained())
    theirs = export(ours, tmp_path)
    assert theirs.model_max_length == 64
    random = np.random.default_rng(0)
    words = ["the", "café", "2011,", "HELLO", "don't", "½", "(the)"]
    first, second = (
        [" ".join(random.choice(words, random.integers(1, 30))) for _ in range(200)]
        for _ in range(2)
    )
    for pairs in (None, second):
        for options in ({"padding": True}, {"padding": "max_length", "max_length": 400}):
            expected = theirs(first, pairs, return_tensors="np", **options)
            found = ours(first, pairs, **options)
            assert found.keys() == expected.keys()
            for name, array in found.items():
                np.testing.assert_array_equal(array, expected[name], err_msg=name)
    expected = theirs(first, truncation=True, max_length=9)["input_ids"]
    found = [ours.encode_row(text, truncation=True, max_length=9)["input_ids"] for text in first]
    assert [row.tolist() for row in found] == expected
    ids = ours(first, padding=True)["input_ids"]
    for row, text in zip(ids, first, strict=True):
        decoded = theirs.decode(row, skip_special_tokens=True)
        assert decoded == ours.decode(row), text


def test_tokenizers_saved_by_transformers_are_read(tmp_path):
    """Version 5 saves no .model; scores and replacements are read from its tokenizer.json."""
    for kind, setting in itertools.product(KINDS, SETTINGS):
        ours = AlbertTokenizer(make(kind, setting))
        theirs = export(ours, tmp_path / kind / setting / "ours")
        saved = tmp_path / kind / setting / "theirs"
        theirs.save_pretrained(saved)
        assert not (saved / "spiece.model").exists()
        again = AlbertTokenizer.from_pretrained(saved)
        for text in random_texts(PLAIN + ODD, 100):
            assert again.tokenizer.encode(text) == ours.tokenizer.encode(text), ascii(text)
        assert again.tokenizer.tokens == ours.tokenizer.tokens
        assert again.tokenizer.lower_case is ours.tokenizer.lower_case
        assert again.tokenizer.keep_accents is ours.tokenizer.keep_accents


def test_mask_tokens_in_a_text(tmp_path):
    ours = AlbertTokenizer(trained())
    theirs = export(ours, tmp_path)
    assert theirs.mask_token == "[MASK]"
    assert theirs.mask_token_id == ours.mask_id
    text = "The [MASK] is in [MASK], HELLO."
    np.testing.assert_array_equal(
        ours(text, mask_words=True)["input_ids"], theirs(text, return_tensors="np")["input_ids"]
    )


# Declared in every way, with every flag; among them a token of both vocabularies and a part of "½".
ADDED = [
    {"content": "[ENT]", "normalized": True},
    {"content": "[Loc]", "special": True, "normalized": False},
    {"content": "Foo", "single_word": True, "normalized": False},
    {"content": "ba\u0301r", "normalized": True},
    {"content": "x", "normalized": True, "single_word": True},
    {"content": "[ENT]2", "normalized": False, "lstrip": True},
    {"content": "中文", "normalized": True},
    {"content": "<ent>", "special": True, "rstrip": True},
]
AROUND = (
    *("[ENT]", "[ent]", "[Ent]", "[Loc]", "[loc]", "Foo", "foo", "Foo_", "bár", "BAR", "[ENT]2"),
    *("ba\u0301r", "[E\u200bNT]", "中文", "中", "文字", "<ent>", " <ent> ", "x", "X", " x ", "Ⓐ"),
    *("½", " ", "the", "Café", "(", ",", "[MASK]"),
)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_added_tokens_stay_whole(kind, setting, tmp_path):
    """Added in transformers and saved by it; read, exported and loaded there again."""
    from tokenizers import AddedToken

    theirs = export(AlbertTokenizer(make(kind, setting)), tmp_path / "base")
    theirs.add_tokens([AddedToken(**values) for values in ADDED])
    theirs.save_pretrained(tmp_path / "saved")
    ours = AlbertTokenizer.from_pretrained(tmp_path / "saved")
    assert len(ours.tokenizer.added_tokens.tokens) == len(ADDED)
    assert ours.vocab_size == len(theirs)
    texts = random_texts(AROUND, 1000) + random_texts(AROUND + PLAIN, 600, seed=1)
    texts = comparable(texts, kind, setting)
    assert differing(ours, theirs, texts) == []
    again = export(ours, tmp_path / "ours")
    assert differing(ours, again, texts) == []
    assert [str(again.added_tokens_decoder[id]) for id in again.added_tokens_decoder] == [
        str(theirs.added_tokens_decoder[id]) for id in theirs.added_tokens_decoder
    ]


@pytest.mark.parametrize(
    "name", sorted(DECLARATIONS.keys() - {"special map, flags"})
)  # not in version 5
def test_every_declaration_of_an_added_token_counts(name, tmp_path):
    from transformers import AutoTokenizer

    declared = DECLARATIONS[name]
    ours = AlbertTokenizer(twenty_tokens())
    export(ours, tmp_path)
    for file, content in declared.items():
        path = tmp_path / f"{file}.json"
        stored = json.loads(path.read_text()) if path.exists() else {}
        if "added_tokens" in content and file == "tokenizer":
            content = {"added_tokens": [*stored["added_tokens"], *content["added_tokens"][:1]]}
        path.write_text(json.dumps(stored | content))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    ours = AlbertTokenizer.from_pretrained(tmp_path)
    texts = ["a[ENT]b", "[ENT] [ENT][ENT]", "the [ent]b", "[ENT"]
    assert differing(ours, theirs, texts) == []
    assert ours.tokenizer.encode("[ENT]") == [20]


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_thousands_of_lines_with_the_released_vocabulary(setting, tmp_path):
    vocabulary = DATA / "albert_spm/30k-clean.model"
    if not vocabulary.exists():
        pytest.skip(f"there is no {vocabulary}")
    ours = AlbertTokenizer(load_tokenizer(vocabulary, **SETTINGS[setting]))
    texts = list(itertools.islice(wiki_lines(), 20_000)) + random_texts(PLAIN + ODD, 3000)
    texts = comparable(texts, "sentencepiece", setting)
    assert len(texts) > 20_000
    assert differing(ours, export(ours, tmp_path), texts) == []


def wiki_lines() -> Iterator[str]:
    """Yield paragraphs of a Wikipedia dump, where a machine has it."""
    import tarfile

    with tarfile.open(DATA / "wiki_en/wiki_en.tar.xz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            for line in file or ():
                text = line.decode().rstrip("\n")
                if text and not text.startswith(("<doc", "</doc")):
                    yield text
