"""The tasks of GLUE: labels, files, columns and metrics (Wang et al. 2019).

Labels are in the order of the released ALBERT, which defines their indices.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple


class Columns(NamedTuple):
    """Names of the columns of a file; None for columns that it lacks.

    Attributes:
        texts: the columns of the one or two texts.
        label: the column with the label or score.
        id: the column with the id; if None, rows are numbered from 0.
        header: names of all columns, if the file has no header line.
    """

    texts: tuple[str, ...]
    label: str | None = None
    id: str | None = None
    header: tuple[str, ...] | None = None


class GlueFile(NamedTuple):
    """A split of a task.

    Attributes:
        name: the name of its official file.
        columns: the columns of that file.
        tfds: the name of the split in TFDS.
        submission: name of the file of predictions to submit; None if labels are public.
    """

    name: str
    columns: Columns
    tfds: str
    submission: str | None = None


@dataclasses.dataclass(frozen=True)
class GlueTask:
    """One task of the benchmark.

    Attributes:
        name: its official name.
        labels: names of the classes in the order of their indices; empty for a regression.
        splits: `train`, `dev` and `test`; MNLI has `dev_matched`, `dev_mismatched`,
            `test_matched` and `test_mismatched`, AX only `test`.
        metrics: names of the official metrics; the first selects the best checkpoint.
        tfds: the name of the task in TFDS, followed by the names of its texts there.
    """

    name: str
    labels: tuple[str, ...]
    splits: Mapping[str, GlueFile]
    metrics: tuple[str, ...]
    tfds: tuple[str, ...]

    @property
    def dev_splits(self) -> tuple[str, ...]:
        """The labeled splits for evaluation."""
        return tuple(name for name in self.splits if name.startswith("dev"))

    @property
    def test_splits(self) -> tuple[str, ...]:
        """The splits whose predictions are submitted."""
        return tuple(name for name, file in self.splits.items() if file.submission)


def _three_splits(name: str, labeled: Columns, test: Columns) -> dict[str, GlueFile]:
    return {
        "train": GlueFile("train.tsv", labeled, "train"),
        "dev": GlueFile("dev.tsv", labeled, "validation"),
        "test": GlueFile("test.tsv", test, "test", f"{name}.tsv"),
    }


def _mnli_splits(labeled: Columns, test: Columns) -> dict[str, GlueFile]:
    splits = {"train": GlueFile("train.tsv", labeled, "train")}
    for half in ("matched", "mismatched"):
        splits[f"dev_{half}"] = GlueFile(f"dev_{half}.tsv", labeled, f"validation_{half}")
    for half, submission in (("matched", "MNLI-m.tsv"), ("mismatched", "MNLI-mm.tsv")):
        splits[f"test_{half}"] = GlueFile(f"test_{half}.tsv", test, f"test_{half}", submission)
    return splits


_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
_INFERENCE = ("contradiction", "entailment", "neutral")

_PAIR = ("sentence1", "sentence2")
_QUESTIONS = ("question1", "question2")
_PASSAGE = ("question", "sentence")
_HYPOTHESIS = ("premise", "hypothesis")
_PARAPHRASES = ("#1 String", "#2 String")

_SENTENCE_TEST = Columns(("sentence",), id="index")
_PAIR_TEST = Columns(_PAIR, id="index")
_PAIR_LABELED = Columns(_PAIR, label="label", id="index")
_COLA_HEADER = ("source", "label", "mark", "sentence")

_TASKS = (
    GlueTask(
        "CoLA",
        _BINARY,
        _three_splits(
            "CoLA", Columns(("sentence",), label="label", header=_COLA_HEADER), _SENTENCE_TEST
        ),
        ("matthews", "accuracy"),
        ("cola", "sentence"),
    ),
    GlueTask(
        "SST-2",
        _BINARY,
        _three_splits("SST-2", Columns(("sentence",), label="label"), _SENTENCE_TEST),
        ("accuracy",),
        ("sst2", "sentence"),
    ),
    GlueTask(
        "MRPC",
        _BINARY,
        _three_splits(
            "MRPC", Columns(_PARAPHRASES, label="Quality"), Columns(_PARAPHRASES, id="index")
        ),
        ("accuracy", "f1"),
        ("mrpc", *_PAIR),
    ),
    GlueTask(
        "STS-B",
        (),
        _three_splits("STS-B", _PAIR_LABELED._replace(label="score"), _PAIR_TEST),
        ("pearson", "spearman"),
        ("stsb", *_PAIR),
    ),
    GlueTask(
        "QQP",
        _BINARY,
        _three_splits(
            "QQP",
            Columns(_QUESTIONS, label="is_duplicate", id="id"),
            Columns(_QUESTIONS, id="id"),
        ),
        ("accuracy", "f1"),
        ("qqp", *_QUESTIONS),
    ),
    GlueTask(
        "MNLI",
        _INFERENCE,
        _mnli_splits(_PAIR_LABELED._replace(label="gold_label"), _PAIR_TEST),
        ("accuracy",),
        ("mnli", *_HYPOTHESIS),
    ),
    GlueTask(
        "QNLI",
        _ENTAILMENT,
        _three_splits(
            "QNLI", Columns(_PASSAGE, label="label", id="index"), Columns(_PASSAGE, id="index")
        ),
        ("accuracy",),
        ("qnli", *_PASSAGE),
    ),
    GlueTask(
        "RTE",
        _ENTAILMENT,
        _three_splits("RTE", _PAIR_LABELED, _PAIR_TEST),
        ("accuracy",),
        ("rte", *_PAIR),
    ),
    GlueTask(
        "WNLI",
        _BINARY,
        _three_splits("WNLI", _PAIR_LABELED, _PAIR_TEST),
        ("accuracy",),
        ("wnli", *_PAIR),
    ),
    # Predicted by a model trained on MNLI.
    GlueTask(
        "AX",
        _INFERENCE,
        {"test": GlueFile("diagnostic.tsv", _PAIR_TEST, "test", "AX.tsv")},
        ("matthews",),
        ("ax", *_HYPOTHESIS),
    ),
)

# Keyed by their names in flags: cola, sst-2, mrpc, sts-b, qqp, mnli, qnli, rte, wnli, ax.
GLUE_TASKS = {task.name.lower(): task for task in _TASKS}
