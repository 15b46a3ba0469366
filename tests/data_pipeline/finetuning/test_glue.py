"""GLUE: official layouts, TFDS, malformed rows, submissions."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.errors import InputError
from data_pipeline.finetuning.examples import TextExample
from data_pipeline.finetuning.glue import (
    MalformedRows,
    read_glue,
    read_glue_tfds,
    write_glue_submission,
)
from data_pipeline.finetuning.glue_tasks import GLUE_TASKS
from data_pipeline.finetuning.metrics import METRICS

REAL_FILES = Path("../shared/data/glue")

_MNLI = "index promptID pairID genre b1 b2 p1 p2 sentence1 sentence2"
# Task, split -> columns (empty if the file has no header), a row, its example.
LAYOUTS = {
    ("cola", "train"): ("", 'gj04|0|*|They "drank.', ("0", 'They "drank.', None, 0)),
    ("cola", "test"): ("index sentence", "7|He ran.", ("7", "He ran.", None, None)),
    ("sst-2", "dev"): ("sentence label", "a fine film |1", ("0", "a fine film ", None, 1)),
    ("sst-2", "test"): ("index sentence", "0|fine", ("0", "fine", None, None)),
    ("mrpc", "train"): ("Quality|#1 ID|#2 ID|#1 String|#2 String", "1|5|6|A|B", ("0", "A", "B", 1)),
    ("mrpc", "test"): (
        "index|#1 ID|#2 ID|#1 String|#2 String",
        "3|5|6|A|B",
        ("3", "A", "B", None),
    ),
    ("sts-b", "dev"): (
        "index genre filename year old_index source1 source2 sentence1 sentence2 score",
        "4|g|f|y|o|none|none|A|B|3.250",
        ("4", "A", "B", 3.25),
    ),
    ("sts-b", "test"): (
        "index genre filename year old_index source1 source2 sentence1 sentence2",
        "4|g|f|y|o|none|none|A|B",
        ("4", "A", "B", None),
    ),
    ("qqp", "train"): (
        "id qid1 qid2 question1 question2 is_duplicate",
        "133273|1|2|A?|B?|0",
        ("133273", "A?", "B?", 0),
    ),
    ("qqp", "test"): ("id question1 question2", "0|A?|B?", ("0", "A?", "B?", None)),
    ("mnli", "train"): (
        f"{_MNLI} label1 gold_label",
        "0|3|3n|fiction|( A )|( B )|(ROOT)|(ROOT)|A|B|entailment|neutral",
        ("0", "A", "B", 2),
    ),
    ("mnli", "dev_mismatched"): (
        f"{_MNLI} label1 label2 label3 label4 label5 gold_label",
        "0|3|3n|f|b|b|p|p|A|B|neutral|neutral|neutral|neutral|neutral|contradiction",
        ("0", "A", "B", 0),
    ),
    ("mnli", "test_matched"): (_MNLI, "9847|3|3n|f|b|b|p|p|A|B", ("9847", "A", "B", None)),
    ("qnli", "dev"): ("index question sentence label", "0|Q?|S.|entailment", ("0", "Q?", "S.", 0)),
    ("rte", "train"): (
        "index sentence1 sentence2 label",
        "0|A|B|not_entailment",
        ("0", "A", "B", 1),
    ),
    ("wnli", "train"): ("index sentence1 sentence2 label", "0|A|B|1", ("0", "A", "B", 1)),
    ("ax", "test"): ("index sentence1 sentence2", "0|A|B", ("0", "A", "B", None)),
}


def write(tmp_path, task, split, *lines):
    text = "\n".join(line.replace("|", "\t") for line in lines)
    (tmp_path / GLUE_TASKS[task].splits[split].name).write_text(text)
    return GLUE_TASKS[task], tmp_path, split


def header_of(columns):
    return [columns if "|" in columns else columns.replace(" ", "|")] if columns else []


@pytest.mark.parametrize(("task", "split"), LAYOUTS)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_official_layouts(tmp_path, task, split, end):
    columns, row, example = LAYOUTS[task, split]
    place = write(tmp_path, task, split, *header_of(columns), row + end)
    assert read_glue(*place) == ([TextExample(*example)], [])


def test_every_task_is_laid_out_above():
    assert {task for task, _ in LAYOUTS} == set(GLUE_TASKS)
    for task in GLUE_TASKS.values():
        assert set(task.metrics) <= set(METRICS)


def test_byte_order_marks_and_quotes(tmp_path):
    columns, _, _ = LAYOUTS["mrpc", "train"]
    place = write(tmp_path, "mrpc", "dev", "\ufeff" + columns, '1|1|2|" A|B "', '0|3|4|"C"|"')
    examples, _ = read_glue(*place)
    assert [(example.text_a, example.text_b) for example in examples] == [
        ('" A', 'B "'),
        ('"C"', '"'),
    ]


MALFORMED = [
    ("1|1|2|only one question", "expected 6 columns, found 4"),
    ("2|1|2|A|B|0|extra", "expected 6 columns, found 7"),
    ("3|1|2||B|0", "question1 is empty"),
    ("4|1|2|A| |0", "question2 is empty"),
    ("5|1|2|A|B|2", "label '2' is none of 0, 1"),
    ("6|1|2|A|B|", "label '' is none of 0, 1"),
    ("0|1|2|A|B|1", "the id 0 is repeated"),
]


@pytest.mark.parametrize(("row", "message"), MALFORMED)
def test_a_malformed_row_is_an_error_with_file_and_line(tmp_path, row, message):
    header = "id|qid1|qid2|question1|question2|is_duplicate"
    place = write(tmp_path, "qqp", "train", header, "0|1|2|A|B|0", row, "9|1|2|C|D|1")
    with pytest.raises(InputError, match=f"train.tsv:3: {message}"):
        read_glue(*place)


def test_malformed_rows_are_skipped_and_reported_if_configured(tmp_path):
    header = "id|qid1|qid2|question1|question2|is_duplicate"
    rows = [row for row, _ in MALFORMED]
    place = write(tmp_path, "qqp", "train", header, "0|1|2|A|B|0", *rows, "9|1|2|C|D|1")
    path = tmp_path / "train.tsv"
    path.write_bytes(path.read_bytes() + b"\n10\t1\t2\tcaf\xe9\tB\t0\n")
    examples, malformed = read_glue(*place, MalformedRows.SKIP)
    assert [example.id for example in examples] == ["0", "9"]
    expected = [f"{path}:{line}: {message}" for line, (_, message) in enumerate(MALFORMED, 3)]
    assert malformed == [*expected, f"{path}:11: byte 11 (0xe9) is not UTF-8"]


def test_numbers_of_rows_do_not_shift_when_one_is_skipped(tmp_path):
    place = write(tmp_path, "sst-2", "train", "sentence|label", "a|1", "b", "c|0")
    examples, _ = read_glue(*place, MalformedRows.SKIP)
    assert [(example.id, example.text_a) for example in examples] == [("0", "a"), ("2", "c")]


@pytest.mark.parametrize("malformed", MalformedRows)
def test_a_file_of_another_format_is_always_an_error(tmp_path, malformed):
    for lines, message in (
        (["sentence|score", "A|1"], "train.tsv:1: no column 'label' among 'sentence', 'score'"),
        (["sentence|label"], "train.tsv has no row"),
        ([], "train.tsv is empty"),
    ):
        with pytest.raises(InputError, match=message):
            read_glue(*write(tmp_path, "sst-2", "train", *lines), malformed)
    with pytest.raises(InputError, match=r"dev.tsv does not exist"):
        read_glue(GLUE_TASKS["sst-2"], tmp_path, "dev", malformed)
    with pytest.raises(InputError, match="MNLI has no split 'dev', only train, dev_matched"):
        read_glue(GLUE_TASKS["mnli"], tmp_path, "dev", malformed)


@pytest.mark.parametrize("score", ["5.1", "-1", "nan", "high"])
def test_scores_out_of_range(tmp_path, score):
    columns, row, _ = LAYOUTS["sts-b", "dev"]
    place = write(tmp_path, "sts-b", "dev", *header_of(columns), row.replace("3.250", score))
    with pytest.raises(InputError, match=r"dev.tsv:2: .*(score|number)"):
        read_glue(*place)


def prepare_tfds(tmp_path, task, features, splits):
    """Write a dataset where TFDS looks for the prepared GLUE."""
    import tensorflow_datasets as tfds

    config = tfds.builder_cls("glue")(config=GLUE_TASKS[task].tfds[0], data_dir=str(tmp_path))
    directory = Path(config.data_dir)
    directory.mkdir(parents=True)
    identity = tfds.core.DatasetIdentity(
        "glue",
        str(config.version),
        str(directory),
        __name__,
        config_name=GLUE_TASKS[task].tfds[0],
    )
    info = tfds.core.DatasetInfo(
        builder=identity, features=tfds.features.FeaturesDict(features | {"idx": np.int32})
    )
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=2)
    writer.initialize_splits(list(splits))
    writer.add_examples(splits)
    writer.close_all()


def test_prepared_tfds_data_sets(tmp_path):
    """Classes of TFDS are matched by name, else by index."""
    import tensorflow_datasets as tfds

    text = tfds.features.Text()
    labels = tfds.features.ClassLabel(names=["entailment", "neutral", "contradiction"])
    pairs = [
        {"premise": f"A{n}", "hypothesis": "B", "label": n % 3, "idx": n + 5} for n in range(5)
    ]
    unlabeled = [pair | {"label": -1} for pair in pairs]
    prepare_tfds(
        tmp_path,
        "mnli",
        {"premise": text, "hypothesis": text, "label": labels},
        {"train": pairs, "validation_matched": pairs[:1], "test_mismatched": unlabeled},
    )
    task = GLUE_TASKS["mnli"]
    examples, malformed = read_glue_tfds(task, "train", str(tmp_path))
    expected = [TextExample(str(n + 5), f"A{n}", "B", (1, 2, 0)[n % 3]) for n in range(5)]
    assert (examples, malformed) == (expected, [])
    assert len(read_glue_tfds(task, "dev_matched", str(tmp_path)).examples) == 1
    examples, _ = read_glue_tfds(task, "test_mismatched", str(tmp_path))
    assert examples == [example._replace(label=None) for example in expected]

    names = tfds.features.ClassLabel(names=["unacceptable", "acceptable"])
    prepare_tfds(
        tmp_path,
        "cola",
        {"sentence": text, "label": names},
        {"train": [{"sentence": "C\u00e9.", "label": 1, "idx": 0}]},
    )
    examples, _ = read_glue_tfds(GLUE_TASKS["cola"], "train", str(tmp_path))
    assert examples == [TextExample("0", "C\u00e9.", None, 1)]

    prepare_tfds(
        tmp_path,
        "sts-b",
        {"sentence1": text, "sentence2": text, "label": np.float32},
        {"validation": [{"sentence1": "A", "sentence2": "B", "label": 3.25, "idx": 0}]},
    )
    examples, _ = read_glue_tfds(GLUE_TASKS["sts-b"], "dev", str(tmp_path))
    assert examples == [TextExample("0", "A", "B", 3.25)]
    with pytest.raises(InputError, match="has no split train, only validation"):
        read_glue_tfds(GLUE_TASKS["sts-b"], "train", str(tmp_path))
    with pytest.raises(InputError, match="data set glue/rte: the data set is not prepared in"):
        read_glue_tfds(GLUE_TASKS["rte"], "train", str(tmp_path))


@pytest.mark.parametrize(
    ("task", "split", "predictions", "name", "lines"),
    [
        ("rte", "test", [1, 0], "RTE.tsv", ["7\tnot_entailment", "9\tentailment"]),
        ("cola", "test", np.array([1, 0]), "CoLA.tsv", ["7\t1", "9\t0"]),
        ("mnli", "test_mismatched", [2, 0], "MNLI-mm.tsv", ["7\tneutral", "9\tcontradiction"]),
        ("sts-b", "test", [5.25, 1 / 3], "STS-B.tsv", ["7\t5.000000", "9\t0.333333"]),
    ],
)
def test_submissions(tmp_path, task, split, predictions, name, lines):
    path = write_glue_submission(GLUE_TASKS[task], split, ["7", "9"], predictions, tmp_path)
    assert path == tmp_path / name
    assert path.read_text() == "\n".join(["index\tprediction", *lines, ""])
    with pytest.raises(InputError, match="'train' are not submitted, only of test"):
        write_glue_submission(GLUE_TASKS[task], "train", ["7", "9"], predictions, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not REAL_FILES.is_dir(), reason=f"{REAL_FILES} is not there")
@pytest.mark.parametrize(
    ("task", "sizes"),
    [
        ("cola", {"train": 8551, "dev": 1043, "test": 1063}),
        ("sst-2", {"train": 67349, "dev": 872, "test": 1821}),
        ("mrpc", {"train": 3668, "dev": 408, "test": 1725}),
        ("sts-b", {"train": 5749, "dev": 1500, "test": 1379}),
        ("rte", {"train": 2490, "dev": 277, "test": 3000}),
    ],
)
def test_all_of_the_real_files(task, sizes):
    task = GLUE_TASKS[task]
    for split, size in sizes.items():
        examples, malformed = read_glue(task, REAL_FILES / task.name, split)
        assert (len(examples), malformed) == (size, [])
        assert all((example.label is None) == (split == "test") for example in examples)
        if task.labels and split != "test":
            assert {example.label for example in examples} == set(range(len(task.labels)))
