"""Both kinds of vocabulary: normalization, ids, word starts, training, and errors."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tiny_vocabularies import WORDPIECES

from data_pipeline.config import WordStartRule
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.loading import load_tokenizer
from data_pipeline.tokenizers.normalization import normalize
from data_pipeline.tokenizers.sentencepiece import (
    FIRST_PIECES,
    SentencePieceTokenizer,
    train_sentencepiece,
)
from data_pipeline.tokenizers.sentencepiece_model import parse_model
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer

YEARS = [1999, 2010, 2011]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    """Write a few thousand made-up sentences in which a few years often precede commas."""
    random = np.random.default_rng(0)
    syllables = np.array([a + b for a in "bdfgklmnprst" for b in "aeiou"])
    words = ["".join(random.choice(syllables, n)) for n in random.integers(1, 5, 300)]
    lines = [
        f"in {random.choice(YEARS)}, {' '.join(random.choice(words, 8))} ({random.choice(words)})."
        for _ in range(3000)
    ]
    path = tmp_path_factory.mktemp("vocabulary") / "sentences.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def trained(sentences):
    return train_sentencepiece(sentences, vocab_size=250)


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("  The\t\tquick \n FOX ", {}, "the quick fox"),
        ("``So'' he said", {}, '"so" he said'),
        ("Déjà vu\u00a0ﬁn½", {}, "deja vu fin1\u20442"),
        ("Déjà VU", {"keep_accents": True}, "déjà vu"),
        ("De\u0301ja\u0300 VU", {"keep_accents": True, "lower_case": False}, "Déjà VU"),
        ("Déjà VU", {"lower_case": False}, "Deja VU"),
        ("a\u2028b\u3000c ¨ d", {}, "a b c d"),
    ],
)
def test_normalization(text, options, expected):
    assert normalize(text, **options) == expected


def test_training_gives_the_released_first_ids(trained):
    assert trained.tokens[:13] == FIRST_PIECES
    assert trained.vocab_size == 250
    assert trained.special_ids.tolist() == [0, 1, 2, 3, 4]


def test_training_is_reproducible(sentences, trained, tmp_path):
    again = train_sentencepiece(sentences, vocab_size=250)
    for tokenizer, name in ((trained, "one"), (again, "two")):
        tokenizer.save(tmp_path / name)
    models = [(tmp_path / name / "tokenizer.model").read_bytes() for name in ("one", "two")]
    strip = [SentencePieceTokenizer(model).tokens for model in models]
    assert strip[0] == strip[1]
    assert models[0] == models[1]


def test_too_large_a_vocabulary_names_the_flag(sentences):
    with pytest.raises(InputError, match=r"--vocab_size=20000 .*Vocabulary size too high") as error:
        train_sentencepiece(sentences, vocab_size=20_000)
    assert "\n" not in str(error.value)


def test_lines_are_encoded_as_the_library_encodes_them(sentences, trained):
    """Encoding word by word, cached or not, gives the ids of the whole sentence."""
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(trained.model)
    lines = [line.replace(",", "") for line in sentences.read_text().splitlines()[:200]]
    lines += ["", "Caf\u00e9  zzz\u2028the  ", "a\nb", "  "]
    expected = [processor.encode(normalize(line)) for line in lines]
    for _ in range(2):
        ids, lengths = trained.encode_lines(lines)
        ends = np.cumsum(lengths)
        found = [ids[end - n : end].tolist() for end, n in zip(ends, lengths, strict=True)]
        assert found == expected
    assert trained.encode_lines([])[0].size == 0


def with_pieces(tokenizer, *pieces):
    """Add likely pieces at the end of a model."""
    model = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.model)
    for piece in pieces:
        model.pieces.add(piece=piece, score=-1.0)
    return SentencePieceTokenizer(model.SerializeToString())


def test_numbers_before_commas_are_split(trained):
    """The released models' intended rule: `▁2011,` becomes the number's pieces, then the comma."""
    tokenizer = with_pieces(trained, "▁2011", "▁2011,", "▁20", "▁2,0", "▁2,011,")
    encode = {
        text: [tokenizer.tokens[id] for id in tokenizer.encode(text)]
        for text in ("2011, 2011", "2,011, 2011", "2,011")
    }
    assert encode["2011, 2011"] == ["▁2011", ",", "▁2011"]
    assert encode["2,011, 2011"] == [*encode["2,011"], ",", "▁2011"]


def test_a_number_inside_a_word_gets_no_word_mark(trained):
    """A number with a comma but without a leading mark is replaced by pieces without one."""
    tokenizer = with_pieces(trained, "7", "77,", "7,", "▁77")
    shown = [tokenizer.tokens[id] for id in tokenizer.encode("ba7, ba77, 77,")]
    assert shown[shown.index("7") :][:2] == ["7", ","]
    assert "".join(shown) == "▁ba7,▁ba77,▁77,"
    assert not {"7,", "77,"} & set(shown)


def test_text_never_becomes_a_control_token(trained):
    cased = SentencePieceTokenizer(trained.model, lower_case=False)
    for tokenizer in (trained, cased):
        for text in ("[MASK]", "the [CLS] king [SEP]", "<pad> <unk>", "[mask]"):
            assert not {0, 2, 3, 4} & set(tokenizer.encode(text))


def test_word_starts_of_the_released_rule():
    starts = ["▁the", "▁", ",", ".", "2011", "1990s", "é", "'s", "£", "€", "–", "中", "<unk>"]  # noqa: RUF001
    continues = ["ing", "ABC", ".com", "-based", "...", "word,"]
    rule = SentencePieceTokenizer._starts_word
    for piece, expected in itertools.chain(
        ((p, True) for p in starts), ((p, False) for p in continues)
    ):
        assert rule(None, piece, WordStartRule.LEGACY) is expected, piece


def test_word_starts_after_a_space():
    starts = ["▁the", "▁", ",", "'", "<", "€"]
    continues = ["ing", "2011", "'s", "...", ".com", "é"]
    rule = SentencePieceTokenizer._starts_word
    for piece in starts:
        assert rule(None, piece, WordStartRule.SPACE), piece
    for piece in continues:
        assert not rule(None, piece, WordStartRule.SPACE), piece


def test_wordpiece_tokens_of_known_cases():
    pieces = ["[UNK]", "[CLS]", "[SEP]", "want", "##want", "##ed", "wa", "un", "runn", "##ing", ","]
    tokenizer = WordPieceTokenizer(["[PAD]", "[MASK]", *pieces])
    shown = [
        [tokenizer.tokens[id] for id in tokenizer.encode(t)]
        for t in ("UNwantéd,running", "unwantedX running")
    ]
    assert shown[0] == ["un", "##want", "##ed", ",", "runn", "##ing"]
    assert shown[1] == ["[UNK]", "runn", "##ing"]
    assert tokenizer.split_words(" \tHeLLo!how  \n Are yoU?  ") == [
        "hello",
        "!",
        "how",
        "are",
        "you",
        "?",
    ]
    assert tokenizer.split_words("ah博推zz\u200d\ufffd") == ["ah", "博", "推", "zz"]
    assert tokenizer.encode("a" * 201) == [tokenizer.unk_id]
    assert tokenizer.decode(tokenizer.encode("unwanted, running")) == "unwanted , running"
    starts = tokenizer.word_starts(WordStartRule.LEGACY)
    assert [p for p, start in zip(tokenizer.tokens, starts, strict=True) if not start] == [
        "##want",
        "##ed",
        "##ing",
    ]


def test_wordpiece_vocabulary_with_a_line_separator(tmp_path):
    """The Chinese vocabulary holds U+2028 on a line of its own, which counts as a space."""
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIAL, "\u2028", "中"]) + "\n", encoding="utf-8")
    tokenizer = load_tokenizer(path)
    assert tokenizer.tokens == (*SPECIAL, " ", "中")
    assert tokenizer.encode("中中") == [6, 6]


def test_saved_tokenizers_load_as_they_were(trained, tmp_path):
    cased = SentencePieceTokenizer(trained.model, lower_case=False, keep_accents=True)
    words = WordPieceTokenizer([*SPECIAL, " ", "ab", "##c"], lower_case=False)
    for name, tokenizer in (("cased", cased), ("words", words)):
        tokenizer.save(tmp_path / name)
        loaded = load_tokenizer(tmp_path / name)
        assert type(loaded) is type(tokenizer)
        assert loaded.tokens == tokenizer.tokens
        assert loaded.lower_case is False
        assert loaded.keep_accents is tokenizer.keep_accents
        assert load_tokenizer(tmp_path / name, lower_case=True).lower_case is True


def test_unusable_tokenizers_are_one_line_errors(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the king of the town began the war in the end\n" * 200)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "plain"), vocab_size=18, minloglevel=2
    )
    (tmp_path / "noise.model").write_bytes(b"noise" * 50)
    (tmp_path / "vocab.txt").write_text("[UNK]\na\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "empty").mkdir()
    for name, message in {
        "plain.model": r"lacks the special tokens <pad> \(as id 0\), \[CLS\], \[SEP\], \[MASK\]",
        "noise.model": "not a SentencePiece model",
        "vocab.txt": r"lacks the special tokens \[PAD\], \[CLS\], \[SEP\], \[MASK\]",
        "latin.txt": "not UTF-8",
        "missing.model": "does not exist",
        "empty": "has no tokenizer.json",
        "vocab.json": "must be a directory",
    }.items():
        with pytest.raises(InputError, match=message) as error:
            load_tokenizer(tmp_path / name)
        assert name in str(error.value)
        assert "\n" not in str(error.value)


def test_a_damaged_table_of_replacements_is_refused(trained, tmp_path):
    """SentencePiece itself follows the table anywhere, even outside of it."""
    model = trained.model
    charsmap = parse_model(model).normalizer_spec.precompiled_charsmap
    place = model.index(charsmap)
    size = int.from_bytes(charsmap[:4], "little")
    (tmp_path / "a.model").write_bytes(model)
    load_tokenizer(tmp_path / "a.model")
    for offset, content in (
        (0, (1 << 31).to_bytes(4, "little")),  # the size of the table
        (4, b"\xff\xfb\xff\x7f"),  # the children of the first unit
        (4 + size - 1024, b"\xff\xff\xff\xff" * 200),  # values, beyond the replacements
        (len(charsmap) - 1, b"a"),  # the end of the last replacement
    ):
        at = place + offset
        changed = model[:at] + content + model[at + len(content) :]
        (tmp_path / "a.model").write_bytes(changed)
        with pytest.raises(InputError, match=r"a\.model .*its table of replaced characters is dam"):
            load_tokenizer(tmp_path / "a.model")


def test_a_vocabulary_may_have_a_byte_order_mark(tmp_path):
    (tmp_path / "vocab.txt").write_text("\ufeff" + "\n".join(WORDPIECES) + "\n")
    assert load_tokenizer(tmp_path / "vocab.txt").tokens == WORDPIECES


def test_tokenizers_need_neither_tensorflow_nor_jax():
    code = (
        "import sys, data_pipeline.tokenizers, data_pipeline.sources, data_pipeline.corpus; "
        "sys.exit(len({'tensorflow', 'jax'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
