"""Model inputs: special tokens, pairs, padding, truncation, and tokenizers of every layout."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from etils import epath
from tiny_vocabularies import (
    KINDS,
    ODD,
    PLAIN,
    SETTINGS,
    WORDPIECES,
    make,
    of_pieces,
    random_texts,
    trained,
)

from data_pipeline import AlbertTokenizer
from data_pipeline.errors import InputError
from data_pipeline.tokenizers import pretrained
from data_pipeline.tokenizers.albert import Padding
from data_pipeline.tokenizers.sentencepiece import SentencePieceTokenizer
from data_pipeline.tokenizers.sentencepiece_model import parse_model, with_same_replacement
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer

# "a", "b", "c" are tokens 14, 15, 16.
LETTERS = AlbertTokenizer(of_pieces(",", "▁a", "▁b", "▁c"))
TEXTS = random_texts(PLAIN + ODD, 60)


def test_a_text_is_a_row():
    inputs = LETTERS("A b")
    assert {name: array.tolist() for name, array in inputs.items()} == {
        "input_ids": [[2, 14, 15, 3]],
        "attention_mask": [[1, 1, 1, 1]],
        "token_type_ids": [[0, 0, 0, 0]],
    }
    assert all(array.dtype == np.int32 for array in inputs.values())
    assert LETTERS("")["input_ids"].tolist() == [[2, 3]]
    assert LETTERS.decode(inputs["input_ids"][0]) == "a b"
    assert (LETTERS.pad_id, LETTERS.cls_id, LETTERS.sep_id, LETTERS.mask_id) == (0, 2, 3, 4)
    assert LETTERS.vocab_size == 17


def test_pairs_have_types_offsets_and_padding():
    inputs = LETTERS(["a  b", "c"], ["c", "b"], padding=True, return_offsets=True)
    assert inputs["input_ids"].tolist() == [[2, 14, 15, 3, 16, 3], [2, 16, 3, 15, 3, 0]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]]
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0]]
    nowhere = [0, 0]
    assert inputs["offsets"].tolist() == [
        [nowhere, [0, 1], [3, 4], nowhere, [0, 1], nowhere],
        [nowhere, [0, 1], nowhere, [0, 1], nowhere, nowhere],
    ]
    assert inputs["offsets"].dtype == np.int32


@pytest.mark.parametrize(
    ("padding", "width"),
    [(True, 4), ("longest", 4), (Padding.LONGEST, 4), ("max_length", 6), (Padding.MAX_LENGTH, 6)],
)
def test_padding(padding, width):
    assert LETTERS(["a", "a b"], padding=padding, max_length=6)["input_ids"].shape == (2, width)


def test_truncation_takes_from_the_longer_side_and_from_the_second_of_equals():
    def kept(first, second, length):
        inputs = LETTERS(first, second, truncation=True, max_length=length)
        return LETTERS.decode(inputs["input_ids"][0]), inputs["token_type_ids"].sum() - 1

    assert kept("a b c a", "b c", 8) == ("a b c b c", 2)
    assert kept("a b c a", "b c", 7) == ("a b b c", 2)
    assert kept("a b c a", "b c", 6) == ("a b b", 1)
    assert kept("a", "a b c a", 6) == ("a a b", 2)
    assert kept("a b", "c", 3) == ("", 0)
    assert LETTERS("a b c", truncation=True, max_length=4)["input_ids"].tolist() == [[2, 14, 15, 3]]
    assert LETTERS("a b", truncation=True, max_length=9)["input_ids"].shape == (1, 4)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["a", "a b c"], {"max_length": 4}, "text 2 of 2: it has 5 tokens .* may have 4"),
        (["a", "a b"], {}, "3 to 4 tokens, which do not form an array"),
        (["a"], {"padding": "max_length"}, "padding='max_length' needs max_length"),
        (["a"], {"truncation": True}, "truncation needs max_length"),
        (["a"], {"padding": "most"}, "padding must be one of none, longest, max_length"),
        (["a"], {"max_length": 1}, "max_length must be at least 2, got 1"),
        (["a"], {"text_pair": ["a"], "max_length": 2}, "at least 3, got 2"),
        (["a"], {"text_pair": ["a", "b"]}, "there are 1 texts and 2 to pair them with"),
        ([], {}, "there are no texts"),
        (["a \ud83d"], {}, "text 1 of 1: .* half a surrogate pair at character 2"),
    ],
)
def test_invalid_calls_are_rejected(texts, options, message):
    with pytest.raises(InputError, match=message):
        LETTERS(texts, **options)


def test_the_literal_mask_is_text_by_default():
    text = "a [MASK], [MASK]b"
    assert LETTERS.mask_id not in LETTERS(text)["input_ids"]
    inputs = LETTERS(text, mask_words=True, return_offsets=True)
    # The comma's piece has no word mark, which is a token of its own before it.
    assert inputs["input_ids"][0, 1:3].tolist() == [14, 4]
    assert (inputs["input_ids"] == 4).sum() == 2
    spans = inputs["offsets"][0][inputs["input_ids"][0] == 4]
    assert [text[start:end] for start, end in spans] == ["[MASK]", "[MASK]"]
    last = inputs["offsets"][0, -2]
    assert inputs["input_ids"][0, -2] == 15
    assert text[last[0] : last[1]] == "b"
    ids, offsets = LETTERS.encode_with_offsets("[MASK]", mask_words=True)
    assert (ids.tolist(), offsets.tolist()) == ([4], [[0, 6]])


def same(left: AlbertTokenizer, right: AlbertTokenizer) -> bool:
    one, other = left.tokenizer, right.tokenizer
    settings = [(t.tokens, t.lower_case, t.keep_accents) for t in (one, other)]
    return settings[0] == settings[1] and one.encode(" ".join(TEXTS)) == other.encode(
        " ".join(TEXTS)
    )


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_saved_files_of_transformers_are_read_back(kind, setting, tmp_path):
    tokenizer = AlbertTokenizer(make(kind, setting))
    tokenizer.save_pretrained(tmp_path / "both", model_max_length=128)
    vocabulary = {"sentencepiece": "spiece.model", "wordpiece": "vocab.txt"}[kind]
    names = {"tokenizer.json", "tokenizer_config.json", vocabulary}
    assert {path.name for path in (tmp_path / "both").iterdir()} == names
    config = json.loads((tmp_path / "both/tokenizer_config.json").read_text())
    assert config["model_max_length"] == 128
    assert config["do_lower_case"] is SETTINGS[setting]["lower_case"]
    assert same(AlbertTokenizer.from_pretrained(tmp_path / "both"), tokenizer)
    # What transformers 5 saves: one of the two, or both, without the vocabulary.
    (tmp_path / "alone").mkdir()
    shutil.copy(tmp_path / "both/tokenizer.json", tmp_path / "alone")
    for path in (tmp_path / "alone", tmp_path / "alone/tokenizer.json"):
        assert same(AlbertTokenizer.from_pretrained(path), tokenizer)


def test_a_model_rebuilt_from_scores_is_the_model(tmp_path):
    """Scores of numbers with commas get a penalty in tokenizer.json, which reading undoes."""
    tokenizer = of_pieces("▁2011,", "7,", ",", "a,", "▁20")
    AlbertTokenizer(tokenizer).save_pretrained(tmp_path)
    (tmp_path / "spiece.model").unlink()
    stored = dict(json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"])
    expected = {"▁2011,": -105, "7,": -105, ",": -5, "a,": -5, "▁20": -5, "(": 0, "[MASK]": 0}
    assert {piece: stored[piece] for piece in expected} == expected
    rebuilt = AlbertTokenizer.from_pretrained(tmp_path).tokenizer
    assert isinstance(rebuilt, SentencePieceTokenizer)
    found, wanted = parse_model(rebuilt.model), parse_model(tokenizer.model)
    assert found.pieces == wanted.pieces
    trainer = found.trainer_spec
    assert (trainer.vocab_size, trainer.pad_id, trainer.unk_id) == (len(wanted.pieces), 0, 1)
    assert (trainer.bos_id, trainer.eos_id, trainer.unk_piece) == (-1, -1, "<unk>")


def test_every_layout_is_found(tmp_path):
    """Layouts of this project and of released checkpoints, with and without settings."""
    ours, words = make("sentencepiece", "cased"), make("wordpiece", "uncased")
    ours.save(tmp_path / "workdir/tokenizer")
    ours.save(tmp_path / "bare")
    (tmp_path / "released").mkdir()
    (tmp_path / "released/30k-clean.model").write_bytes(ours.vocabulary_bytes())
    (tmp_path / "released/albert_config.json").write_text("{}")
    (tmp_path / "chinese").mkdir()
    (tmp_path / "chinese/vocab_chinese.txt").write_bytes(words.vocabulary_bytes())
    for name in ("workdir", "bare"):
        assert same(AlbertTokenizer.from_pretrained(tmp_path / name), AlbertTokenizer(ours))
    uncased = AlbertTokenizer(make("sentencepiece", "uncased"))
    released = tmp_path / "released"
    assert same(AlbertTokenizer.from_pretrained(released), uncased)
    assert same(AlbertTokenizer.from_pretrained(released / "30k-clean.model"), uncased)
    cased = AlbertTokenizer.from_pretrained(released, lower_case=False)
    assert same(cased, AlbertTokenizer(ours))
    chinese = AlbertTokenizer.from_pretrained(str(tmp_path / "chinese"))
    assert same(chinese, AlbertTokenizer(words))


def write_config(directory: Path, **config: object) -> Path:
    directory.mkdir()
    (directory / "vocab.txt").write_text("\n".join(WORDPIECES) + "\n", encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize(
    ("config", "lower_case", "keep_accents"),
    [
        ({}, True, False),
        ({"do_lower_case": False}, False, False),
        ({"tokenizer_class": None, "do_lower_case": None, "keep_accents": None}, True, False),
        ({"tokenizer_class": "BertTokenizer", "do_lower_case": False}, False, True),
        ({"tokenizer_class": "BertTokenizerFast", "strip_accents": None}, True, False),
        ({"do_lower_case": True, "strip_accents": False}, True, True),
        ({"keep_accents": True}, True, True),
    ],
)
def test_settings_of_a_tokenizer_config(config, lower_case, keep_accents, tmp_path):
    read = AlbertTokenizer.from_pretrained(write_config(tmp_path / "bert", **config)).tokenizer
    assert (read.lower_case, read.keep_accents) == (lower_case, keep_accents)


def test_remote_tokenizers_are_read(tmp_path, monkeypatch):
    """A directory stands for the store."""
    monkeypatch.setattr(
        pretrained,
        "open_remote",
        lambda url: epath.Path(url.replace("gs://bucket", str(tmp_path))),
    )
    tokenizer = AlbertTokenizer(trained())
    tokenizer.save_pretrained(tmp_path / "theirs")
    tokenizer.tokenizer.save(tmp_path / "run/tokenizer")
    (tmp_path / "empty").mkdir()
    write_config(tmp_path / "spaced", tokenize_chinese_chars=False)
    for name in ("theirs", "run", "theirs/spiece.model", "theirs/tokenizer.json"):
        assert same(AlbertTokenizer.from_pretrained(f"gs://bucket/{name}"), tokenizer), name
    for name, message in {
        "empty": "there is no tokenizer in gs://bucket/empty: ",
        "nowhere": "gs://bucket/nowhere: there is no such file or directory",
        "spaced": r"gs://bucket/spaced/tokenizer_config\.json: tokenize_chinese_chars=false",
    }.items():
        with pytest.raises(InputError, match=message):
            AlbertTokenizer.from_pretrained(f"gs://bucket/{name}")


def test_unsupported_tokenizers_are_one_line_errors(tmp_path):
    saved = tmp_path / "saved"
    AlbertTokenizer(trained()).save_pretrained(saved)
    stored = json.loads((saved / "tokenizer.json").read_text())

    def changed(name: str, **changes: object) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(stored | changes))

    changed("more", added_tokens=[{"id": 305, "content": "<new>"}])
    changed("other", model={"type": "BPE"})
    changed("odd", model={"type": "Unigram"})
    changed("bare", normalizer=None)
    write_config(tmp_path / "spaced", tokenize_chinese_chars=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "two").mkdir()
    for name in ("a.model", "b.model"):
        (tmp_path / "two" / name).write_bytes(trained().model)
    (tmp_path / "broken.json").write_text("{")
    for name, message in {
        "more": "'<new>' has id 305, by the vocabulary of 300 tokens .* would have 300",
        "other": "must be Unigram or WordPiece, got 'BPE'",
        "odd": "not as transformers writes it: KeyError 'vocab'",
        "bare": "not as transformers writes it",
        "spaced": "tokenize_chinese_chars=false is not supported",
        "empty": "there is no tokenizer in .*empty: no tokenizer/, no .model",
        "two": "is one of a.model, b.model: name the file",
        "broken.json": "is not JSON",
        "missing": "there is no such file or directory",
    }.items():
        with pytest.raises(InputError, match=message) as error:
            AlbertTokenizer.from_pretrained(tmp_path / name)
        assert "\n" not in str(error.value)


def test_vocabularies_that_transformers_does_not_support(tmp_path):
    model = parse_model(trained().model)
    model.normalizer_spec.precompiled_charsmap = b""
    bare = SentencePieceTokenizer(model.SerializeToString())
    twice = WordPieceTokenizer([*WORDPIECES, "x"])
    for tokenizer, message in ((bare, "no replacements of characters"), (twice, "to be unique")):
        with pytest.raises(InputError, match=message):
            AlbertTokenizer(tokenizer).save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_replacements_are_redirected_one_by_one():
    """Control characters share units of the table with others, which must stay."""
    model = parse_model(trained().model)
    charsmap = model.normalizer_spec.precompiled_charsmap
    before = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    changed = with_same_replacement(charsmap, "\x0b\x1c", "\t")
    model.normalizer_spec.precompiled_charsmap = changed
    after = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    assert (before.normalize("a\x0bb"), after.normalize("a\x0bb")) == ("▁ab", "▁a▁b")
    assert after.normalize("a\x1cb") == "▁a▁b"
    points = [point for point in range(1, 0x3100) if point not in (0x0B, 0x1C)]
    for point in points:
        text = f"a{chr(point)}b"
        assert before.normalize(text) == after.normalize(text), hex(point)
    assert with_same_replacement(charsmap, "z", "\t") == charsmap


@pytest.mark.parametrize("content", [b"", b"noise", b"\x0a\xff", b"\x0a\x02\x0a\x05"])
def test_bytes_that_are_not_a_model_are_rejected(content):
    if content:
        with pytest.raises(InputError, match="not a SentencePiece model"):
            parse_model(content)
    else:
        assert not parse_model(content).pieces
