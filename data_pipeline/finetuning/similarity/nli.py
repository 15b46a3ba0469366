"""Natural language inference as pairs: entailments are alike, contradictions only look alike."""

from pathlib import Path
from typing import NamedTuple

from data_pipeline.errors import InputError
from data_pipeline.finetuning.similarity.examples import SimilarityExample, read_examples
from data_pipeline.sources.tables import is_table

_ENTAILMENT, _CONTRADICTION = "entailment", "contradiction"
_LABELS = (_ENTAILMENT, "neutral", _CONTRADICTION)  # in the order of their numbers in data sets
_UNDECIDED = ("-", "-1")  # the annotators disagreed
_FILE_COLUMNS = ("sentence1", "sentence2", "gold_label")  # in the official files of SNLI and MNLI
_SET_COLUMNS = ("premise", "hypothesis", "label")


class Inferences(NamedTuple):
    """Examples made from natural language inference.

    Attributes:
        examples: one pair per entailment.
        note: what was made of the rows, for a report.
    """

    examples: list[SimilarityExample]
    note: str


def read_inferences(path: str, split: str, *, flag: str) -> Inferences:
    """Read SNLI or MNLI: each entailment of a premise, with a contradiction if there is one.

    The premise is the anchor (Gao et al. 2021, §4). Rows are grouped by premise over the whole
    file. The n-th entailment of a premise is paired with its n-th contradiction; if there are
    fewer, these are used in turn.

    Args:
        path: an official file, such as `snli_1.0_train.jsonl` or MNLI's `train.tsv` from GLUE; or a
            data set, see `read_pairs`.
        split: see `read_pairs`.
        flag: see `read_pairs`.

    Raises:
        InputError: there are no rows, a column is missing, a label is unknown, or there is no
            entailment.

    Example: "A man eats." with the entailment "Someone eats." and the contradiction "He sleeps."
    gives `SimilarityExample("A man eats.", "Someone eats.", "He sleeps.")`.
    """
    from_table = is_table(Path(path))
    columns = _FILE_COLUMNS if from_table else _SET_COLUMNS
    premise, hypothesis, label = columns
    groups: dict[str, tuple[list[str], list[str]]] = {}
    rows = undecided = 0
    for row in read_examples(path, split, columns, flag=flag):
        rows += 1
        found = row.cells[label].strip()
        if found in _UNDECIDED:
            undecided += 1
            continue
        if not from_table and found.isdigit() and int(found) < len(_LABELS):
            found = _LABELS[int(found)]
        if found not in _LABELS:
            raise InputError(f"{row.place}: {label} {found!r} is none of {', '.join(_LABELS)} or -")
        group = groups.setdefault(row.cells[premise].strip(), ([], []))
        text = row.cells[hypothesis].strip()
        if found == _ENTAILMENT and text:
            group[0].append(text)
        elif found == _CONTRADICTION and text:
            group[1].append(text)
    examples = [
        SimilarityExample(anchor, positive, negatives[n % len(negatives)] if negatives else None)
        for anchor, (positives, negatives) in groups.items()
        for n, positive in enumerate(positives)
        if anchor
    ]
    if not examples:
        raise InputError(f"{flag}={path}: none of its {rows:,} rows is an entailment")
    hard = sum(example.negative is not None for example in examples)
    note = (
        f"{len(examples):,} entailments, {hard:,} with a contradiction, of {rows:,} rows in "
        f"{path}; {undecided:,} rows have no label"
    )
    return Inferences(examples, note)
