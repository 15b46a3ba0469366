"""Words that stay whole: found in texts, declared in any file, saved and exported.

Expected ids are those of transformers 5.23; `tests/interop/test_tokenizer_export.py` compares with
it.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_vocabularies import DECLARATIONS, ENT_JSON, KINDS, WORDPIECES, make, twenty_tokens

from data_pipeline import AlbertTokenizer
from data_pipeline.config import WordStartRule
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.added_tokens import AddedToken
from data_pipeline.tokenizers.loading import load_tokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer

LETTERS = twenty_tokens()
ENT = AddedToken("[ENT]")


def added(*tokens: AddedToken, base: Tokenizer = LETTERS, **settings: bool) -> Tokenizer:
    return type(base).from_bytes(base.vocabulary_bytes(), **settings, added_tokens=tokens)


def tokens_and_spans(tokenizer: Tokenizer, text: str) -> tuple[list[str], list[str]]:
    """Return the tokens of a text, and the parts of it that their spans are."""
    ids, offsets = tokenizer.encode_with_offsets(text)
    assert tokenizer.encode(text) == ids.tolist()
    return [tokenizer.tokens[id] for id in ids], [text[start:end] for start, end in offsets]


@pytest.mark.parametrize(
    ("tokens", "text", "expected", "spans"),
    [
        ([ENT], "a[ENT]b", ["▁a", "[ENT]", "▁b"], ["a", "[ENT]", "b"]),
        ([ENT], " A  [ENT] [ENT][ENT] ", ["▁a", *["[ENT]"] * 3], ["A", *["[ENT]"] * 3]),
        ([ENT], "[ent]", ["▁", "[", "<unk>"], ["", "[", "ent]"]),
        ([AddedToken("[ENT]", normalized=True)], "b[éNT]", ["▁b", "[ENT]"], ["b", "[éNT]"]),
        ([ENT, AddedToken("[ENT]2")], "[ENT]22", ["[ENT]2", "▁", "<unk>"], ["[ENT]2", "", "2"]),
        ([AddedToken("ab"), AddedToken("bab")], "abab", ["ab", "ab"], ["ab", "ab"]),
        ([AddedToken("a", normalized=True)], "bÁb", ["▁b", "a", "▁b"], ["b", "Á", "b"]),
        ([AddedToken("1", normalized=True)], "½", ["▁", "<unk>"], ["", "½"]),
        ([AddedToken("the")], "the", ["the"], ["the"]),
        ([AddedToken("▁the")], "the ▁the", ["▁the", "▁the"], ["the", "▁the"]),
    ],
)
def test_words_stay_whole(tokens, text, expected, spans):
    tokenizer = added(*tokens)
    found, parts = tokens_and_spans(tokenizer, text)
    assert (found, parts) == (expected, spans)
    for id in tokenizer.added_tokens.by_id:
        assert tokenizer.surface_form(id) == (tokenizer.tokens[id], True)
        assert tokenizer.word_starts(WordStartRule.SPACE)[id]


def test_neighbors_of_a_single_word():
    tokenizer = added(AddedToken("ab", single_word=True), AddedToken("b2"))
    for text, count in (("ab", 1), ("ab ab,ab", 3), ("bab", 0), ("ab_", 0), ("abⒶ", 0), ("½ab", 1)):
        assert tokenizer.encode(text).count(20) == count, text
    # A word of its own, but the text beside it, which is another token, ends in a digit.
    assert tokens_and_spans(tokenizer, "b2ab") == (["b2", "▁a", "b"], ["b2", "a", "b"])


def test_the_first_new_token_follows_the_vocabulary():
    tokenizer = added(AddedToken("the"), AddedToken("b"), AddedToken("a", special=True))
    assert tokenizer.vocab_size == 21
    assert tokenizer.tokens[20] == "the"
    assert set(tokenizer.added_tokens.by_id) == {16, 17, 20}
    assert tokenizer.decode(tokenizer.encode("b the a b")) == "b the b"
    words = added(AddedToken("[unused1]"), base=WordPieceTokenizer([*WORDPIECES, "[unused1]"]))
    assert words.vocab_size == len(WORDPIECES) + 1
    assert words.encode("the [unused1]") == [5, len(WORDPIECES)]


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_exported_tokens_are_read_back(kind, tmp_path):
    tokens = [
        AddedToken("[ENT]", special=True, lstrip=True),
        AddedToken("Foo", normalized=True, rstrip=True),
        AddedToken("(", single_word=True) if kind == "wordpiece" else AddedToken("<b>"),
    ]
    plain = make(kind, "uncased")
    tokenizer = added(*tokens, base=plain)
    tokenizer.save(tmp_path / "ours")
    AlbertTokenizer(tokenizer).save_pretrained(tmp_path / "theirs")
    (tmp_path / "alone").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "alone" / name).write_bytes((tmp_path / "theirs" / name).read_bytes())
    text = "the [ENT]foo,FOO x (the"
    for name in ("ours", "theirs", "alone"):
        again = AlbertTokenizer.from_pretrained(tmp_path / name).tokenizer
        assert set(again.added_tokens.tokens) == set(tokens), name
        assert again.tokens == tokenizer.tokens
        assert again.encode(text) == tokenizer.encode(text) != plain.encode(text)
    assert load_tokenizer(tmp_path / "ours").fingerprint == tokenizer.fingerprint
    assert tokenizer.fingerprint != plain.fingerprint


def test_offsets_and_masks_in_model_inputs():
    tokenizer = AlbertTokenizer(added(ENT))
    text = "a [MASK][ENT] b"
    row = tokenizer.encode_row(text, mask_words=True)
    assert row["input_ids"].tolist() == [2, 14, 4, 20, 15, 3]
    spans = [text[start:end] for start, end in row["offsets"].tolist()]
    assert spans == ["", "a", "[MASK]", "[ENT]", "b", ""]


def directory(path: Path, base: Tokenizer, **files: object) -> Path:
    """Write a vocabulary in its own format, and JSON files beside it."""
    path.mkdir()
    name = "vocab.txt" if base.KIND == "wordpiece" else "spiece.model"
    (path / name).write_bytes(base.vocabulary_bytes())
    for file, content in files.items():
        (path / f"{file}.json").write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("name", DECLARATIONS)
def test_every_declaration_counts(name, tmp_path):
    for number, base in enumerate((LETTERS, WordPieceTokenizer([*WORDPIECES[:20]]))):
        path = directory(tmp_path / str(number), base, **DECLARATIONS[name])
        tokenizer = AlbertTokenizer.from_pretrained(path).tokenizer
        assert tokenizer.vocab_size == 21
        np.testing.assert_array_equal(tokenizer.encode("[ENT][ENT]"), [20, 20])
        (token,) = tokenizer.added_tokens.tokens
        assert token.special is (name != "added_tokens")
        assert token.normalized is (name == "added_tokens")


def test_order_and_ids_of_several_declarations(tmp_path):
    path = directory(
        tmp_path / "model",
        LETTERS,
        added_tokens={"second": 21, "first": 20},
        special_tokens_map={"additional_special_tokens": ["third", "first"], "bos_token": "<s>"},
        # Those of the vocabulary, and what is null, are no additions.
        tokenizer_config={"cls_token": "[CLS]", "eos_token": None, "extra_special_tokens": None},
        tokenizer={"added_tokens": [{"id": 5, "content": "("}, {"id": 12, "content": "€"}]},
    )
    tokenizer = AlbertTokenizer.from_pretrained(path).tokenizer
    assert tokenizer.tokens[20:] == ("first", "second", "<s>", "third")
    assert set(tokenizer.added_tokens.by_id) == {20, 21, 22, 23}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"added_tokens": {"[ENT]": 1000}}, r"\[ENT\]' has id 1000, .* 20 tokens .* have 20"),
        ({"added_tokens": {"▁the": 20}}, "'▁the' has id 20, .* have 18"),
        ({"added_tokens": {"New York": 20}}, "'New York' is empty or has white space"),
        ({"added_tokens": {"\u00a8": 20}}, "is empty or has white space"),
        ({"added_tokens": {"[ENT]": "20"}}, "id of .* must be a number, got '20'"),
        ({"added_tokens": {"[ENT]": 20, "[ent]": 21}}, "are the same in a text: '\\[ent\\]'"),
        ({"tokenizer_config": {"cls_token": "<s>"}}, r"cls_token is '<s>', .* '\[CLS\]'"),
        ({"tokenizer_config": {"extra_special_tokens": "[ENT]"}}, "must be a list, got"),
        ({"tokenizer_config": {"added_tokens_decoder": {"x": ENT_JSON}}}, "map ids to tokens"),
        ({"tokenizer": {"added_tokens": [{"id": 20}]}}, "must have a content"),
        (
            {"tokenizer": {"added_tokens": [{"content": "x", "special": 1}]}},
            "special of the added token 'x' must be true or false, got 1",
        ),
        (
            {"tokenizer_config": {"bos_token": "<s>", "split_special_tokens": True}},
            "split_special_tokens=true is not supported",
        ),
        (
            {"added_tokens": {"a": 14}, "tokenizer": {"added_tokens": [{"id": 2, "content": "a"}]}},
            "'a' is token 14, in tokenizer.json it is 2",
        ),
    ],
)
def test_what_cannot_be_kept_whole_is_named(files, message, tmp_path):
    path = directory(tmp_path / "model", LETTERS, **files)
    with pytest.raises(InputError, match=message) as error:
        AlbertTokenizer.from_pretrained(path)
    assert str(path) in str(error.value)
