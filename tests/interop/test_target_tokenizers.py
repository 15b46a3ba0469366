"""Vocabularies of targets against transformers: equal ids, equal texts, files of either read."""

import json
from typing import Any

import numpy as np
import pytest
from tiny_vocabularies import ODD, PLAIN, random_texts, train_targets, trained, write_byte_level

from data_pipeline.tokenizers.sentencepiece_model import parse_model
from data_pipeline.tokenizers.targets import (
    SentencePieceTargets,
    TargetTokenizer,
    load_target_tokenizer,
)

pytestmark = pytest.mark.interop

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<|endoftext|>")
PARTS = (*PLAIN, *ODD, "Der", " the", "Straße", "##", " a", "\r\n", "'s", " 12", "<|endoftext")


def texts(count: int = 2000) -> list[str]:
    """Texts without special tokens, which transformers finds in a text and we do not."""
    made = random_texts(PARTS, count)
    return [text for text in made if not any(token in text for token in SPECIAL)]


def rows_of(ours: TargetTokenizer, lines: list[str]) -> list[list[int]]:
    ids, lengths = ours.encode_lines(lines)
    return [row.tolist() for row in np.split(ids, np.cumsum(lengths)[:-1])]


def load(directory: Any) -> Any:
    from transformers import AutoTokenizer

    (directory / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    return AutoTokenizer.from_pretrained(directory)


def assert_equal(ours: TargetTokenizer, theirs: Any, lines: list[str]) -> None:
    rows = rows_of(ours, lines)
    expected = theirs(lines)["input_ids"]
    pairs = zip(lines, rows, expected, strict=True)
    differing = [ascii(line) for line, ids, other in pairs if ids != other]
    assert differing == []
    special = (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
    assert special == (ours.bos_id, ours.eos_id, ours.pad_id)
    assert len(theirs) == ours.vocab_size
    ended = [[ours.bos_id, *row, ours.eos_id, ours.pad_id, ours.pad_id] for row in rows]
    decoded = theirs.batch_decode(ended, skip_special_tokens=True)
    assert [ours.decode(row) for row in ended] == decoded


def test_sentencepiece(tmp_path):
    ours = train_targets()
    ours.save_huggingface(tmp_path)
    lines = [line for line in texts() if "▁" not in line]
    assert_equal(ours, load(tmp_path), [*lines, "", "  ", " a  b ", "a \n b"])
    assert load_target_tokenizer(tmp_path).fingerprint == ours.fingerprint


def test_a_normalizing_sentencepiece_model_without_bytes(tmp_path):
    model = parse_model(trained(lower_case=False).model)
    for piece in model.pieces:
        if piece.type == piece.Type.Value("USER_DEFINED"):
            piece.type = piece.Type.Value("NORMAL")
            piece.score = -9.0
        piece.score = round(piece.score * 1024) / 1024  # no ties for float64 to break
    spec = model.trainer_spec
    spec.bos_piece, spec.eos_piece, spec.bos_id, spec.eos_id = "[CLS]", "[SEP]", 2, 3
    ours = SentencePieceTargets(model.SerializeToString())
    ours.save_huggingface(tmp_path)
    parts = [part for part in PLAIN if not any(mark in part for mark in ("\u0301", "\u0327", "["))]
    lines = [line for line in random_texts(parts, 1000) if "<" not in line and "▁" not in line]
    theirs = load(tmp_path)
    assert rows_of(ours, lines) == theirs(lines)["input_ids"]


def test_byte_level(tmp_path):
    """As GPT2Tokenizer has it, whatever the text; exported, saved by transformers, and read."""
    ours = load_target_tokenizer(write_byte_level(tmp_path / "gpt2"), "<pad>")
    assert (ours.bos_id, ours.eos_id, ours.pad_id, ours.vocab_size) == (263, 263, 264, 265)
    ours.save_huggingface(tmp_path / "exported")
    theirs = load(tmp_path / "exported")
    assert type(theirs).__name__.startswith("GPT2Tokenizer")
    assert_equal(ours, theirs, [*texts(), "", "the the a\n\n  café##"])
    theirs.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved/tokenizer.json").is_file()
    for again in ("exported", "saved"):
        assert load_target_tokenizer(tmp_path / again).fingerprint == ours.fingerprint
    original = load(tmp_path / "gpt2")
    lines = texts()
    assert rows_of(ours, lines) == original(lines)["input_ids"]


def test_text_of_byte_level_targets_comes_back(tmp_path):
    ours = load_target_tokenizer(write_byte_level(tmp_path), "<pad>")
    lines = [*random_texts(PARTS, 500), "<|endoftext|> <pad>", "", "  a "]
    rows = rows_of(ours, lines)
    assert [ours.decode(row) for row in rows] == lines
    assert not {ours.eos_id, ours.pad_id} & {id for row in rows for id in row}
    the = rows_of(ours, ["the the"])[0]
    assert len(the) == 2
    for row in ([ours.bos_id, *the], [ours.bos_id, *the, ours.eos_id, *the], [*the, ours.pad_id]):
        assert ours.decode(row) == "the the"


@pytest.mark.parametrize(
    "files",
    [
        {"added_tokens": {"[P]": 264}, "special_tokens_map": {"pad_token": "[P]"}},
        {"tokenizer_config": {"pad_token": {"content": "[P]"}}},
        {
            "tokenizer_config": {
                "pad_token": "[P]",
                "added_tokens_decoder": {
                    "263": {"content": "<|endoftext|>"},
                    "264": {"content": "[P]"},
                },
            }
        },
    ],
)
def test_declared_padding(files, tmp_path):
    ours = load_target_tokenizer(write_byte_level(tmp_path, **files))
    assert (ours.pad_token, ours.pad_id, ours.vocab_size) == ("[P]", 264, 265)
