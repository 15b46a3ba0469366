"""CoNLL files, rows of words, and entities by the rules of conlleval."""

import itertools

import pytest

from data_pipeline.errors import InputError
from data_pipeline.finetuning.examples import TaggedExample
from data_pipeline.finetuning.tagging import (
    Entity,
    discover_tags,
    find_entities,
    lay_out_words,
    marks_entities,
    read_conll,
    score_entities,
)

CONLL = """\
-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

  \t
-DOCSTART- -X- O O
Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER"""


def write(tmp_path, content):
    path = tmp_path / "train.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_sentences_of_a_file(tmp_path):
    examples = read_conll(write(tmp_path, CONLL))
    assert examples == [
        TaggedExample(("EU", "rejects"), ("B-ORG", "O")),
        TaggedExample(("Peter", "Blackburn"), ("B-PER", "I-PER")),
    ]
    tags = discover_tags(examples)
    assert tags == ("B-ORG", "B-PER", "I-PER", "O")
    assert read_conll(write(tmp_path, CONLL), tags) == examples


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("EU O\nrejects\n", "train.txt:2: expected 2 columns, found 1"),
        ("EU O\nrejects V O\n", "train.txt:2: expected 2 columns, found 3"),
        ("EU\n", "train.txt:1: expected a word and a tag, found 1"),
        ("EU O\n\nrejects B-LOC\n", "train.txt:3: tag 'B-LOC' is none of O, B-ORG"),
        ("\n\n-DOCSTART- O\n", "train.txt has no sentence"),
        ("", "train.txt is empty"),
        (b"caf\xe9 O\n", "train.txt:1: byte 4 .* is not UTF-8"),
    ],
)
def test_errors_name_file_and_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read_conll(write(tmp_path, content), ("O", "B-ORG"))


def test_every_word_is_in_a_row():
    words = [[7, 8], [], [9]]
    (row,) = lay_out_words(words, cls_id=2, sep_id=3, unk_id=1)
    assert row.input_ids.tolist() == [2, 7, 8, 1, 9, 3]
    assert (row.first_word, row.word_positions.tolist()) == (0, [1, 3, 4])
    rows = lay_out_words(words, cls_id=2, sep_id=3, unk_id=1, max_seq_length=5)
    assert [row.input_ids.tolist() for row in rows] == [[2, 7, 8, 1, 3], [2, 9, 3]]
    assert [(row.first_word, row.word_positions.tolist()) for row in rows] == [
        (0, [1, 3]),
        (2, [1]),
    ]
    rows = lay_out_words([[7] * 9, [8]], cls_id=2, sep_id=3, unk_id=1, max_seq_length=4)
    assert [row.input_ids.tolist() for row in rows] == [[2, 7, 7, 3], [2, 8, 3]]
    with pytest.raises(InputError, match="max_seq_length=2 leaves no room for a word"):
        lay_out_words(words, cls_id=2, sep_id=3, unk_id=1, max_seq_length=2)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        # The same sentence in IOB1, IOB2 and BIOES.
        ("I-LOC I-LOC O I-PER B-PER I-PER I-ORG", "LOC01 PER33 PER45 ORG66"),
        ("B-LOC I-LOC O B-PER B-PER I-PER B-ORG", "LOC01 PER33 PER45 ORG66"),
        ("B-LOC E-LOC O S-PER B-PER E-PER S-ORG", "LOC01 PER33 PER45 ORG66"),
        ("S-A S-A", "A00 A11"),
        ("B-A I-A E-A I-A", "A02 A33"),
        ("E-A E-A", "A00 A11"),
        ("B-A I-B I-A", "A00 B11 A22"),
        ("O I-A O", "A11"),
        ("O O", ""),
        ("", ""),
    ],
)
def test_entities_of_all_schemes(tags, expected):
    found = " ".join(f"{kind}{first}{last}" for kind, first, last in find_entities(tags.split()))
    assert found == expected


def ends_chunk(prev_tag, tag, prev_type, type_):
    """conlleval's endOfChunk, transcribed, with the single-word tag S of BIOES."""
    pairs = {"BB", "BS", "BO", "IB", "IS", "IO"}
    end = prev_tag in ("E", "S") or prev_tag + tag in pairs
    return end or (prev_tag != "O" and prev_type != type_)


def starts_chunk(prev_tag, tag, prev_type, type_):
    """conlleval's startOfChunk, transcribed, likewise."""
    start = tag in ("B", "S") or prev_tag + tag in {"EE", "EI", "SE", "SI", "OE", "OI"}
    return start or (tag != "O" and prev_type != type_)


def test_entities_by_the_rules_of_conlleval_for_all_short_sentences():
    tags = ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in "XY")]
    for sentence in itertools.product(tags, repeat=4):
        expected, first, before = [], 0, ("O", "")
        for place, tag in enumerate([*sentence, "O"]):
            now = (tag[0], tag[2:])
            if ends_chunk(before[0], now[0], before[1], now[1]):
                expected.append(Entity(before[1], first, place - 1))
            if starts_chunk(before[0], now[0], before[1], now[1]):
                first = place
            before = now
        assert find_entities(sentence) == expected, sentence


@pytest.mark.parametrize("tag", ["NN", "B-", "B", "-X", "L-X", "OX", ""])
def test_tags_that_mark_no_entity(tag):
    with pytest.raises(ValueError, match="marks no entity: expected O or B-"):
        find_entities([tag])
    assert not marks_entities(["O", "B-X", tag])


def test_tags_that_mark_entities():
    assert marks_entities(["O", "B-X", "E-Y"])
    assert marks_entities(["I-X"])
    assert not marks_entities(["O"])
    assert not marks_entities([])


def test_scores_by_hand():
    labels = [["B-LOC", "I-LOC", "O", "B-PER"], ["B-PER", "O"], ["O"]]
    predictions = [["B-LOC", "O", "O", "B-PER"], ["B-ORG", "B-PER"], ["O"]]
    total, kinds = score_entities(predictions, labels)
    assert tuple(total) == (1, 4, 3)
    assert (total.precision, total.recall) == (1 / 4, 1 / 3)
    assert total.f1 == pytest.approx(2 / 7)
    assert {kind: tuple(scores) for kind, scores in kinds.items()} == {
        "LOC": (0, 1, 1),
        "ORG": (0, 1, 0),
        "PER": (1, 2, 2),
    }
    assert (kinds["ORG"].precision, kinds["ORG"].recall, kinds["ORG"].f1) == (0, 0, 0)
    perfect, _ = score_entities(labels, labels)
    assert perfect.f1 == 1
    nothing, kinds = score_entities([["O"]], [["O"]])
    assert (nothing.precision, nothing.recall, nothing.f1, kinds) == (0, 0, 0, {})
    with pytest.raises(ValueError, match="1 tags were predicted for 2 words"):
        score_entities([["O"]], [["O", "O"]])
