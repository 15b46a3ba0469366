"""Offsets: ids as without them, spans in order, each the text of its token."""

import unicodedata

import numpy as np
import pytest
from tiny_vocabularies import KINDS, ODD, PLAIN, SETTINGS, WORDPIECES, make, of_pieces, random_texts

from data_pipeline.tokenizers.alignment import align, drop_marks, normalize_form, replace, text_of
from data_pipeline.tokenizers.normalization import is_mark, normalize, normalize_aligned
from data_pipeline.tokenizers.tokenizer import Tokenizer
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer


def show(tokenizer: Tokenizer, text: str) -> list[tuple[str, str]]:
    """Show each token with its span of the text."""
    ids, offsets = tokenizer.encode_with_offsets(text)
    return [(tokenizer.tokens[id], text[a:b]) for id, (a, b) in zip(ids, offsets, strict=True)]


def test_transformations_keep_spans():
    assert replace(align("a''''b"), "''", '"') == [
        ("a", 0, 1),
        ('"', 1, 3),
        ('"', 3, 5),
        ("b", 5, 6),
    ]
    assert normalize_form(align("ﬁx"), "NFKD") == [("f", 0, 1), ("i", 0, 1), ("x", 1, 2)]
    assert normalize_form(align("xe\u0301"), "NFKC") == [("x", 0, 1), ("é", 1, 3)]
    assert drop_marks(align("e\u0301\u0327x"), is_mark) == [("e", 0, 3), ("x", 3, 4)]
    assert normalize_aligned("  É\t½") == [
        *(("e", 2, 3), (" ", 3, 4)),
        *(("1", 4, 5), ("⁄", 4, 5), ("2", 4, 5)),  # noqa: RUF001
    ]


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
def test_aligned_text_equals_the_text(options):
    points = np.random.default_rng(0).integers(1, 0x30000, 3000)
    chars = [chr(point) for point in points if not 0xD800 <= point < 0xE000]
    texts = ["".join(chars[i : i + 6]) for i in range(0, len(chars), 6)]
    # Characters that are composed or reordered by normalization.
    marks = ["각", "ᄀ", "ᅡ", "ᆨ", "\u0301", "\u0327", "\u0345", "e", "ो", "\u09be", "\u09c7", "q"]
    for text in texts + random_texts(PLAIN + ODD, 50) + random_texts(marks, 200):
        assert text_of(normalize_aligned(text, **options)) == normalize(text, **options)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_ids_equal_those_without_offsets_and_spans_rise(kind, setting):
    tokenizer = make(kind, setting)
    texts = random_texts(PLAIN + ODD, 200)
    ids, lengths = tokenizer.encode_lines(texts)
    expected = np.split(ids, np.cumsum(lengths)[:-1])
    for text, wanted in zip(texts, expected, strict=True):
        found, offsets = tokenizer.encode_with_offsets(text)
        assert found.tolist() == wanted.tolist(), ascii(text)
        assert found.dtype == offsets.dtype == np.int32
        assert offsets.shape == (len(found), 2)
        assert (np.diff(offsets, axis=0) >= 0).all(), ascii(text)
        assert (offsets[:, 0] <= offsets[:, 1]).all(), ascii(text)
        assert ((offsets >= 0) & (offsets <= len(text))).all(), ascii(text)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_text_of_a_span_is_its_token(kind, setting):
    """Wherever spans do not overlap."""
    tokenizer = make(kind, setting)
    checked = 0
    options = {"lower_case": tokenizer.lower_case, "keep_accents": tokenizer.keep_accents}
    for text in random_texts(PLAIN, 200):
        ids, offsets = tokenizer.encode_with_offsets(text)
        before = [0, *offsets[:, 1]][: len(ids)]
        after = [*offsets[1:, 0], len(text)][: len(ids)]
        for id, (start, end), earlier, later in zip(ids, offsets, before, after, strict=True):
            token, _ = tokenizer.surface_form(int(id))
            if start < earlier or end > later or id == tokenizer.unk_id:
                continue
            if isinstance(tokenizer, WordPieceTokenizer):
                seen = "".join(tokenizer.split_words(text[start:end]))
            else:
                # The vocabulary itself composes characters.
                seen = unicodedata.normalize("NFKC", normalize(text[start:end], **options))
            assert seen == token, ascii(text)
            assert not text[start:end][:1].isspace()
            checked += bool(token)
    assert checked > 500


def test_numbers_split_from_commas_keep_their_spans():
    tokenizer = of_pieces("▁2011,", "▁2011", ",", "▁20", "11,", "11", "▁x", "7,", "7")
    assert show(tokenizer, "x 2011, x") == [
        *(("▁x", "x"), ("▁2011", "2011"), (",", ","), ("▁x", "x")),
    ]
    assert show(tokenizer, "x7,") == [("▁x", "x"), ("7", "7"), (",", ",")]
    # Deleted by the vocabulary's table of replacements.
    assert show(tokenizer, "20\x0111,") == [("▁2011", "20\x0111"), (",", ",")]


def test_spans_of_every_kind_of_transformation():
    tokenizer = of_pieces("▁the", "▁1", "2", "▁cafe", "s", "▁", "a", "▁fi", "x")
    assert show(tokenizer, "Thé  ½") == [("▁the", "Thé"), ("▁1", "½"), ("<unk>", "½"), ("2", "½")]
    assert show(tokenizer, "cafe\u0301s") == [("▁cafe", "cafe\u0301"), ("s", "s")]
    assert show(tokenizer, " \u200b中") == [("▁", ""), ("<unk>", "中")]
    assert show(tokenizer, "\u3000the\u2028ﬁx") == [("▁the", "the"), ("▁fi", "ﬁ"), ("x", "x")]
    words = WordPieceTokenizer(WORDPIECES)
    assert show(words, "The中é\u200dx,20") == [
        *(("the", "The"), ("中", "中"), ("e", "é"), ("##x", "x"), (",", ","), ("2", "2")),
        ("##0", "0"),
    ]
    assert show(words, "unknown2 e\u0301x") == [
        ("[UNK]", "unknown2"),
        ("e", "e\u0301"),
        ("##x", "x"),
    ]


def test_byte_vocabularies_are_rejected():
    from sentencepiece import sentencepiece_model_pb2

    from data_pipeline.errors import InputError
    from data_pipeline.tokenizers.sentencepiece import SentencePieceTokenizer

    model = sentencepiece_model_pb2.ModelProto.FromString(of_pieces("▁a").model)
    model.trainer_spec.byte_fallback = True
    for byte in range(256):
        model.pieces.add(piece=f"<0x{byte:02X}>", score=-9.0, type=6)
    with pytest.raises(InputError, match="pieces of single bytes"):
        SentencePieceTokenizer(model.SerializeToString()).encode_with_offsets("a中")
