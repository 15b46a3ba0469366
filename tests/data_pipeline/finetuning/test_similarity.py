"""Texts that are alike: readers, numbers of equal texts, and ranks."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.ipc
import pytest
from tiny_vocabularies import trained

from data_pipeline import AlbertTokenizer
from data_pipeline.errors import InputError
from data_pipeline.finetuning.similarity.encoding import encode_similar
from data_pipeline.finetuning.similarity.examples import (
    STSB_COLUMNS,
    PairColumns,
    SimilarityExample,
    read_pairs,
)
from data_pipeline.finetuning.similarity.nli import read_inferences
from data_pipeline.finetuning.similarity.retrieval import rank_positives, retrieval_metrics

FLAG = "--config.data.train_file"
TRIPLETS = PairColumns("question", "answer", "wrong")


def write_lines(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def write_data_set(directory: Path, **splits: dict[str, list[object]]) -> str:
    """Write a data set as `save_to_disk` does."""
    for split, columns in splits.items():
        (directory / split).mkdir(parents=True)
        table = pyarrow.table(columns)
        with pyarrow.ipc.new_stream(directory / split / "data.arrow", table.schema) as writer:
            writer.write_table(table)
        state = {"_data_files": [{"filename": "data.arrow"}]}
        (directory / split / "state.json").write_text(json.dumps(state))
    (directory / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return str(directory)


def test_rows_are_triplets_pairs_scored_pairs_or_single_texts(tmp_path: Path) -> None:
    rows = [
        {"question": "When?", "answer": "In 1066.", "wrong": "In Rome.", "score": "2.5"},
        {"question": "Who?", "answer": "Ann.", "wrong": "", "score": 0},
    ]
    file = write_lines(tmp_path / "a.jsonl", *map(json.dumps, rows))
    found = {
        columns: read_pairs(file, "train", PairColumns("question", *columns), flag=FLAG)
        for columns in [("answer", "wrong"), ("answer",), ("answer", None, "score"), (None,)]
    }
    assert found == {
        ("answer", "wrong"): [
            SimilarityExample("When?", "In 1066.", "In Rome."),
            SimilarityExample("Who?", "Ann."),
        ],
        ("answer",): [SimilarityExample("When?", "In 1066."), SimilarityExample("Who?", "Ann.")],
        ("answer", None, "score"): [
            SimilarityExample("When?", "In 1066.", None, 2.5),
            SimilarityExample("Who?", "Ann.", None, 0.0),
        ],
        (None,): [SimilarityExample("When?", "When?"), SimilarityExample("Who?", "Who?")],
    }


def test_data_sets_are_read_by_their_columns_and_splits(tmp_path: Path) -> None:
    columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": [0.5, 1]}
    path = write_data_set(tmp_path / "set", train=columns, dev=dict(columns, score=[0, 0.25]))
    found = [
        [one.score for one in read_pairs(path, split, STSB_COLUMNS, flag=FLAG)]
        for split in ("train", "dev")
    ]
    assert found == [[0.5, 1.0], [0.0, 0.25]]
    with pytest.raises(InputError, match=r"^--config\.data\.train_file=.*no split test, only tr"):
        read_pairs(path, "test", STSB_COLUMNS, flag=FLAG)
    with pytest.raises(InputError, match=r"data\.arrow: no column 'question' among 'sentence1'"):
        read_pairs(path, "train", TRIPLETS, flag=FLAG)


def test_what_is_no_pair_is_refused_with_its_place(tmp_path: Path) -> None:
    for line, message in [
        ({"question": " ", "answer": "b", "wrong": "c"}, ":1: question is empty"),
        ({"question": "a", "answer": "", "wrong": "c"}, ":1: answer is empty"),
        ({"question": "a", "answer": "b"}, ":1: no column 'wrong'"),
    ]:
        file = write_lines(tmp_path / "a.jsonl", json.dumps(line))
        with pytest.raises(InputError, match=message):
            read_pairs(file, "train", TRIPLETS, flag=FLAG)
    file = write_lines(tmp_path / "a.tsv", "sentence1\tsentence2\tscore", "a\tb\thigh")
    with pytest.raises(InputError, match=r"a\.tsv:2: expected a number as label, found 'high'"):
        read_pairs(file, "train", STSB_COLUMNS, flag=FLAG)
    with pytest.raises(InputError, match=r"must end in \.tsv, \.csv, \.jsonl"):
        read_pairs(write_lines(tmp_path / "a.txt", "a"), "train", STSB_COLUMNS, flag=FLAG)
    with pytest.raises(InputError, match=r"^--config\.data\.train_file=nothing is no directory"):
        read_pairs("nothing", "train", STSB_COLUMNS, flag=FLAG)


INFERENCES = [
    ("P", "E1", "entailment"),
    ("Q", "C1", "contradiction"),
    ("P", "N1", "neutral"),
    ("P", "C2", "contradiction"),
    ("P", "E2", "entailment"),
    ("R", "E3", "entailment"),
    ("P", "E4", "-"),
    ("R", "C3", "contradiction"),
    ("R", "E5", "entailment"),
    ("R", "C4", "contradiction"),
    ("R", "E6", "entailment"),
    ("S", "E7", "entailment"),
]
EXPECTED = [
    SimilarityExample("P", "E1", "C2"),
    SimilarityExample("P", "E2", "C2"),
    SimilarityExample("R", "E3", "C3"),
    SimilarityExample("R", "E5", "C4"),
    SimilarityExample("R", "E6", "C3"),
    SimilarityExample("S", "E7"),
]


def test_entailments_are_positives_and_contradictions_of_their_premise_hard_negatives(
    tmp_path: Path,
) -> None:
    header = "index\tsentence1\tsentence2\tgold_label"
    lines = ["\t".join(("0", *row)) for row in INFERENCES]
    names = ("sentence1", "sentence2", "gold_label")
    objects = [json.dumps(dict(zip(names, row, strict=True))) for row in INFERENCES]
    numbers = {"entailment": 0, "neutral": 1, "contradiction": 2, "-": -1}
    premises, hypotheses, labels = zip(*INFERENCES, strict=True)
    columns = {"premise": list(premises), "hypothesis": list(hypotheses)}
    columns |= {"label": [numbers[label] for label in labels]}
    for path in (
        write_lines(tmp_path / "train.tsv", header, *lines),
        write_lines(tmp_path / "snli_1.0_train.jsonl", *objects),
        write_data_set(tmp_path / "set", train=columns),
    ):
        found = read_inferences(path, "train", flag=FLAG)
        assert found.examples == EXPECTED
        assert found.note.startswith("6 entailments, 5 with a contradiction, of 12 rows in")
        assert found.note.endswith("1 rows have no label")


def test_contradictions_are_taken_in_turn(tmp_path: Path) -> None:
    labels = {"E": "entailment", "C": "contradiction"}
    lines = [f"P\t{text}\t{labels[text[0]]}" for text in ("E1", "C1", "E2", "E3", "C2")]
    file = write_lines(tmp_path / "a.tsv", "sentence1\tsentence2\tgold_label", *lines)
    assert [one.negative for one in read_inferences(file, "train", flag=FLAG).examples] == [
        *("C1", "C2", "C1")
    ]


def test_inferences_with_other_labels_or_without_entailments_are_refused(tmp_path: Path) -> None:
    header = "sentence1\tsentence2\tgold_label"
    file = write_lines(tmp_path / "a.tsv", header, "P\tE\tyes")
    with pytest.raises(InputError, match=r"a\.tsv:2: gold_label 'yes' is none of entailment, neut"):
        read_inferences(file, "train", flag=FLAG)
    file = write_lines(tmp_path / "a.tsv", header, "P\tE\tneutral")
    with pytest.raises(InputError, match="none of its 1 rows is an entailment"):
        read_inferences(file, "train", flag=FLAG)


def test_equal_texts_have_one_number_and_a_missing_negative_is_the_positive() -> None:
    tokenizer = AlbertTokenizer(trained())
    examples = [
        SimilarityExample("the x", "hello", "x", 3.0),
        SimilarityExample("hello", "The X"),
        SimilarityExample("the  x", "x the"),
    ]
    encoded = encode_similar(tokenizer, examples, max_seq_length=16)
    ids = encoded.values["text_ids"].tolist()
    assert ids == [[0, 1, 2], [1, 0, 0], [0, 3, 3]]
    assert encoded.values["scores"].tolist() == [3, 0, 0]
    batch = encoded.take(np.arange(3), length=16, batch_size=4)
    assert batch["input_ids"].shape == (4, 3, 16)
    for row, numbers in enumerate(ids):
        for place, number in enumerate(numbers):
            text = {0: "the x", 1: "hello", 2: "x", 3: "x the"}[number]
            expected = tokenizer.encode_row(text)["input_ids"].tolist()
            assert [i for i in batch["input_ids"][row, place].tolist() if i] == expected
    two = encode_similar(tokenizer, examples, max_seq_length=16, with_negatives=False)
    assert two.values["text_ids"].shape == (3, 2)


def test_positives_are_ranked_among_a_fixed_number_of_candidates() -> None:
    angles = np.radians([[0, 2], [1, 10], [50, 51], [90, 90], [200, 170]])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    ids = np.arange(10, dtype=np.int32).reshape(5, 2)
    of_all = rank_positives(vectors[:, 0], vectors[:, 1], ids, 100)
    assert of_all.tolist() == [1, 2, 1, 1, 1]
    # Groups of two: 0 1, 2 3, and 4 beside 3 once more.
    assert rank_positives(vectors[:, 0], vectors[:, 1], ids, 2).tolist() == [1, 2, 1, 1, 1]
    equal = np.ones_like(vectors) / np.sqrt(2)
    assert rank_positives(equal[:, 0], equal[:, 1], ids, 3).tolist() == [3] * 5
    assert rank_positives(np.full((5, 2), np.nan), equal[:, 1], ids, 3).tolist() == [3] * 5
    # The second anchor is the first one's, or the second anchor or its positive is the text of the
    # first positive: nothing is nearer.
    for of_second, of_first in ((0, 0), (0, 1), (1, 1)):
        same = ids.copy()
        same[1, of_second] = same[0, of_first]
        assert rank_positives(vectors[:, 0], vectors[:, 1], same, 100)[1] == 1
    assert retrieval_metrics(np.array([1, 2])) == {"mrr": 0.75, "retrieval_accuracy": 0.5}
