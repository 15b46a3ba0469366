"""Vocabularies of targets: training, ids and texts, files, and errors."""

import json
import sys

import numpy as np
import pytest
from tiny_vocabularies import ODD, PLAIN, random_texts, train_targets, trained, write_byte_level

from data_pipeline.errors import InputError
from data_pipeline.tokenizers.targets import (
    SentencePieceTargets,
    load_target_tokenizer,
    train_target_tokenizer,
)

FLAG = "--config.targets.pad_token"


@pytest.fixture(scope="module")
def targets():
    return train_targets()


def test_training_is_reproducible(targets):
    assert (targets.pad_id, targets.bos_id, targets.eos_id) == (0, 2, 3)
    assert targets.vocab_size == 340
    assert train_targets().model == targets.model
    assert train_targets(339).fingerprint != targets.fingerprint


def test_text_comes_back_as_it_was(targets):
    """All but repeated spaces and spaces at an end; also unknown characters and special tokens."""
    texts = [*random_texts(PLAIN + ODD, 200), "Der\n\n die\tx", "<s> </s><0x0A>", "", " ", "▅ 你"]
    expected = [" ".join(filter(None, text.replace("▁", " ").split(" "))) for text in texts]
    ids, lengths = targets.encode_lines(texts)
    assert (ids.dtype, lengths.dtype) == (np.int32, np.int32)
    assert ids.min() > targets.eos_id, "no special token, and nothing is unknown"
    rows = np.split(ids, np.cumsum(lengths)[:-1])
    assert [targets.decode(row) for row in rows] == expected
    assert lengths[texts.index("")] == 0
    assert [part.size for part in targets.encode_lines([])] == [0, 0]


def test_decoding_ends_at_the_end_token(targets):
    ids, pad, bos, eos = targets.encode_lines(["Der die"])[0].tolist(), 0, 2, 3
    for row in ([*ids], [bos, *ids, eos, pad], [*ids, pad, pad], [bos, *ids, eos, *ids, eos]):
        assert targets.decode(row) == "Der die"
    assert targets.decode([bos, eos, *ids]) == targets.decode([]) == ""
    assert targets.decode([*targets.encode_lines(["é"])[0].tolist(), 4 + 0xFF]) == "é\ufffd"
    with pytest.raises(ValueError, match="to 340 in a vocabulary of 340 tokens"):
        targets.decode([*ids, 340])


def test_no_text_is_left_out_of_training():
    """Neither a long one nor one with the trainer's reserved character."""
    model = train_target_tokenizer(["long " * 2000, "shape ▅ of", "", "short"] * 3, 275)
    ids, _ = model.encode_lines(["long shape of short"])
    assert ids.min() >= 4 + 256, "no bytes: each letter was seen"


def test_a_vocabulary_that_cannot_be_trained():
    texts = ["ab cd", "abcd", " "] * 9
    for size, message in (
        (5000, r"vocab_size=5000: for these 18 targets it may be at most 26\d$"),
        (100, r"vocab_size=100: for these 18 targets it must be at least 265 \(4"),
    ):
        with pytest.raises(InputError, match=rf"^--config.targets.{message}"):
            train_target_tokenizer(texts, size)
    with pytest.raises(InputError, match="all targets are empty"):
        train_target_tokenizer(["", " "], 300)


def test_saved_and_loaded(targets, tmp_path):
    targets.save(tmp_path / "saved")
    (tmp_path / "bare.model").write_bytes(targets.model)
    for name in ("saved", "bare.model"):
        assert load_target_tokenizer(tmp_path / name, "<pad>").fingerprint == targets.fingerprint
    with pytest.raises(InputError, match=rf"^{FLAG}=x: .*bare.model has a .* padding, <pad>"):
        load_target_tokenizer(tmp_path / "bare.model", "x")
    path = tmp_path / "saved/target_tokenizer.json"
    path.write_text(json.dumps(targets.settings | {"bos_id": 5}))
    with pytest.raises(InputError, match=r"saved: .*bos_id is 5, by the vocabulary beside it 2"):
        load_target_tokenizer(tmp_path / "saved")
    path.write_text('{"kind": "words"}')
    with pytest.raises(InputError, match="one of sentencepiece, byte_level, got 'words'"):
        load_target_tokenizer(tmp_path / "saved")
    with pytest.raises(InputError, match=r"lacks the special pieces bos, eos; spm_train makes"):
        SentencePieceTargets(trained().model)
    (tmp_path / "bare.model").write_bytes(b"no model")
    for name, message in (
        ("none", "there is no such file"),
        ("", "it must be a directory with"),
        ("bare.model", "it is not a SentencePiece model"),
    ):
        with pytest.raises(InputError, match=rf"^target tokenizer \S+: {message}"):
            load_target_tokenizer(tmp_path / name)


VOCABULARY = {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False}


@pytest.mark.parametrize(
    ("files", "pad_token", "message"),
    [
        ({}, None, rf"it has no padding; {FLAG}=<pad> appends <pad> to its 264 tokens"),
        (
            {"special_tokens_map": {"pad_token": {"content": "<|endoftext|>"}}},
            None,
            rf"'<\|endoftext\|>' for padding, which is not its own; {FLAG}=<pad>",
        ),
        ({}, "<|endoftext|>", "which is not its own"),
        ({}, "the", "'the' is a token of ordinary text"),
        ({"tokenizer_config": {"eos_token": "</s>"}}, "<pad>", "it has no token '</s>'"),
        ({"added_tokens": {"<sep>": 264}}, "<pad>", "it has the added token '<sep>'"),
        ({"added_tokens": {"<pad>": 265}}, "<pad>", "its 265 tokens have other ids than 0 to 264"),
        ({"added_tokens": {"the": 9}}, "<pad>", "its added token 'the' has the ids 2.. and 9"),
        ({"added_tokens": {"<pad>": "9"}}, "<pad>", "id must be a whole number, got '9'"),
        ({"tokenizer_config": {"added_tokens_decoder": {"x": 1}}}, "<pad>", "must map ids to"),
        ({"vocab": {"a": 0, "b": [1]}}, "<pad>", "its 3 tokens have other ids"),
        ({"vocab": {"a": 0, "<|endoftext|>": 1}}, "<pad>", "it lacks 255 of the 256 bytes"),
        ({"tokenizer": {"model": {"type": "Unigram"}}}, "<pad>", "'Unigram', expected BPE"),
        (
            {"tokenizer": {"model": VOCABULARY, "pre_tokenizer": {"type": "Split"}}},
            "<pad>",
            r"does not encode as GPT-2 does, .*pre_tokenizer.*Split",
        ),
        (
            {
                "tokenizer": {
                    "model": VOCABULARY | {"ignore_merges": True},
                    "pre_tokenizer": BYTE_LEVEL,
                }
            },
            "<pad>",
            r"does not encode as GPT-2 does, .*'ignore_merges': True",
        ),
        (
            {"tokenizer": {"model": VOCABULARY | {"merges": [3]}, "pre_tokenizer": BYTE_LEVEL}},
            "<pad>",
            "a merge must be of two tokens, got 3",
        ),
    ],
)
def test_byte_level_files_that_cannot_be_used(files, pad_token, message, tmp_path):
    write_byte_level(tmp_path / "gpt2", **files)
    with pytest.raises(InputError, match=rf"^target tokenizer \S+gpt2: .*{message}") as error:
        load_target_tokenizer(tmp_path / "gpt2", pad_token)
    assert "\n" not in str(error.value)


def test_merges_and_a_missing_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    path = write_byte_level(tmp_path / "gpt2")
    with pytest.raises(InputError, match=r"gpt2: .* pip install 'albert-jax\[generation\]'$"):
        load_target_tokenizer(path, "<pad>")
    for line, message in (
        ("th", r"merges.txt:9: expected two tokens, got 'th'"),
        ("q u", "merge 8 is of 'q' and 'u', and 'qu' is no token of bytes"),
    ):
        write_byte_level(path)
        with (path / "merges.txt").open("a") as file:
            file.write(line + "\n")
        with pytest.raises(InputError, match=message):
            load_target_tokenizer(path, "<pad>")
