"""RACE: passages with multiple-choice questions, one per file or joined in `all.txt`."""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from albert_jax.input_files import require_unicode
from data_pipeline.errors import InputError
from data_pipeline.finetuning.examples import ChoiceExample
from data_pipeline.sources.json_text import parse_object, read_text

NUM_OPTIONS = 4
_LETTERS = ("A", "B", "C", "D")


class RaceGroup(StrEnum):
    """Questions for middle school, for high school, or for both."""

    MIDDLE = "middle"
    HIGH = "high"
    ALL = "all"


def read_race(directory: Path, split: str, group: RaceGroup = RaceGroup.ALL) -> list[ChoiceExample]:
    """Read the questions of a split: middle school first, with files sorted by name.

    Args:
        directory: the directory with `RACE/{train,dev,test}/{middle,high}/*.txt`, or `RACE` itself.
            A file has one passage, or one per line.
        split: `train`, `dev` or `test`.
        group: the school.

    Raises:
        InputError: there are no such files; a passage is not such JSON, lacks a field, is empty or
            repeated; the numbers of questions, of lists of options and of answers differ; a
            question is empty or does not have four options; or an answer is not A, B, C or D. The
            message names the file and the line.

    Example: `{"id": "high1.txt", "article": "It rains.", "questions": ["Is it _ ?"], "options":
    [["wet", "dry", "hot", "new"]], "answers": ["A"]}` is `ChoiceExample("high1.txt/0", "It rains.",
    "Is it _ ?", ("wet", "dry", "hot", "new"), 0, "high")`.
    """
    root = directory / "RACE" if (directory / "RACE").is_dir() else directory
    groups = [RaceGroup.MIDDLE, RaceGroup.HIGH] if group is RaceGroup.ALL else [group]
    examples: list[ChoiceExample] = []
    places: dict[str, str] = {}
    for school in groups:
        paths = sorted((root / split / school).glob("*.txt"))
        if not paths:
            raise InputError(f"{root / split / school} has no passage (*.txt)")
        for path in paths:
            for place, record in _read_passages(path):
                name = _require(record, "id", str, place)
                if name in places:
                    raise InputError(f"{place}: the passage {name} is in {places[name]} too")
                places[name] = place
                examples += _to_examples(record, name, school, place)
    return examples


def _read_passages(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    text = read_text(path)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if len(lines) > 1 and lines[0][1].strip() == "{":
        lines = [(1, text)]  # a single object spread over many lines
    for number, line in lines:
        place = f"{path}:{number}"
        record = parse_object(line, str(path), number)
        require_unicode(record, place, error=InputError)
        yield place, record


def _to_examples(
    record: Mapping[str, Any], name: str, school: str, place: str
) -> Iterator[ChoiceExample]:
    article = _require(record, "article", str, place)
    questions = _require(record, "questions", list, place)
    options = _require(record, "options", list, place)
    answers: list[Any] = [None] * len(questions)
    if "answers" in record:
        answers = _require(record, "answers", list, place)
    if not len(questions) == len(options) == len(answers):
        raise InputError(
            f"{place}: {len(questions)} questions, {len(options)} lists of options and "
            f"{len(answers)} answers"
        )
    for number, (question, choices, answer) in enumerate(
        zip(questions, options, answers, strict=True)
    ):
        where = f"{place}: question {number}"
        if not isinstance(question, str) or not question.strip():
            raise InputError(f"{where}: expected a text, found {question!r}")
        if not isinstance(choices, list) or not all(isinstance(text, str) for text in choices):
            raise InputError(f"{where}: options must be a list of texts")
        if len(choices) != NUM_OPTIONS:
            raise InputError(f"{where}: expected {NUM_OPTIONS} options, found {len(choices)}")
        if answer is not None and answer not in _LETTERS:
            raise InputError(f"{where}: the answer must be A, B, C or D, found {answer!r}")
        label = None if answer is None else _LETTERS.index(answer)
        yield ChoiceExample(f"{name}/{number}", article, question, tuple(choices), label, school)


def _require(record: Mapping[str, Any], field: str, kind: type, place: str) -> Any:
    value = record.get(field)
    if not isinstance(value, kind):
        what = "a text" if kind is str else "a list"
        raise InputError(f"{place}: {field} must be {what}, found {value!r:.40}")
    if isinstance(value, str) and not value.strip():
        raise InputError(f"{place}: {field} is empty")
    return value


def join_option(question: str, option: str) -> str:
    """Insert the option into the question's blank, or append it if there is no blank.

    Example: `join_option("It is _ .", "wet")` is `"It is wet ."`; `join_option("Why?", "So.")` is
    `"Why? So."`.
    """
    return question.replace("_", option) if "_" in question else f"{question} {option}"


class ChoiceRow(NamedTuple):
    """A row `[CLS] context [SEP] question with option [SEP]`, without padding."""

    input_ids: Int32[np.ndarray, " length"]
    token_type_ids: Int32[np.ndarray, " length"]


def lay_out_choice(
    context_ids: Sequence[int] | Int32[np.ndarray, " context"],
    option_ids: Sequence[int] | Int32[np.ndarray, " option"],
    *,
    cls_id: int,
    sep_id: int,
    max_seq_length: int = 512,
    max_qa_length: int = 128,
) -> ChoiceRow:
    """Lay out a context and one of the options as a row.

    The last `max_qa_length` tokens of the question with the option (`join_option`) are kept, and as
    many of the first tokens of the context as then fit.

    Args:
        context_ids: tokens of the context.
        option_ids: tokens of the question with the option.
        cls_id: the id of [CLS].
        sep_id: the id of [SEP].
        max_seq_length: maximum number of tokens in the row.
        max_qa_length: maximum number of tokens of the question with the option.

    Raises:
        InputError: the lengths leave no room for the context.

    Example: context 11 12 13 and option 7 8 9, in rows of 7 with 2 tokens of the option, give the
    ids `2 11 12 3 8 9 3` and the segment ids `0 0 0 0 1 1 1`.
    """
    option_ids = np.asarray(option_ids, np.int32)[max(0, len(option_ids) - max_qa_length) :]
    room = max_seq_length - len(option_ids) - 3
    if room < 1 or max_qa_length < 1:
        raise InputError(
            f"max_seq_length={max_seq_length} leaves no room for a context beside an option of "
            f"{len(option_ids)} tokens (max_qa_length={max_qa_length})"
        )
    context_ids = np.asarray(context_ids, np.int32)[:room]
    ids = np.concatenate([[cls_id], context_ids, [sep_id], option_ids, [sep_id]])
    types = np.arange(len(ids)) >= len(context_ids) + 2
    return ChoiceRow(ids.astype(np.int32), types.astype(np.int32))


def group_accuracies(
    examples: Sequence[ChoiceExample], predictions: Sequence[int] | Int32[np.ndarray, " examples"]
) -> dict[str, float]:
    """Compute the accuracy on all questions, and on those of each school, if there are any.

    Args:
        examples: examples with labels.
        predictions: indices of options.

    Returns:
        `accuracy`, `middle_accuracy`, `high_accuracy`.
    """
    correct = np.array([e.label == p for e, p in zip(examples, predictions, strict=True)])
    groups = np.array([example.group for example in examples])
    accuracies = {"accuracy": float(correct.mean())}
    for group in (RaceGroup.MIDDLE, RaceGroup.HIGH):
        if (groups == group).any():
            accuracies[f"{group}_accuracy"] = float(correct[groups == group].mean())
    return accuracies
