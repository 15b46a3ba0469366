"""SQuAD files, versions 1.1 and 2.0, and a split of their questions by article."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from albert_jax.durable_files import hash_text
from albert_jax.input_files import require_unicode, shorten
from data_pipeline.errors import InputError
from data_pipeline.finetuning.examples import Answer, QuestionExample
from data_pipeline.sources.json_text import parse_object, read_text


def read_squad(path: Path) -> list[QuestionExample]:
    """Read the questions of a file in file order.

    Args:
        path: a JSON file in SQuAD format, possibly compressed. Questions without `is_impossible`
            are answerable (version 1.1).

    Raises:
        InputError: the file is missing, is not such JSON or has no question; a question or a
            context is empty; an id is repeated; or an answerable question has no answer, or one
            that is not at its position in the context. The message names file, line and question.

    Example: the context `In 1066 or so.` with the question `When?`, answered by `1066` at 3, gives
    one example with `answers=(Answer("1066", 3),)`.
    """
    text = read_text(path)
    record = parse_object(text, str(path), 1)
    require_unicode(record, str(path), error=InputError)
    examples: dict[str, QuestionExample] = {}
    for example in _walk(record, text, str(path)):
        if example.id in examples:
            line = _find_line(text, example.id)
            raise InputError(f"{path}:{line}: question {example.id}: its id is repeated")
        examples[example.id] = example
    if not examples:
        raise InputError(f"{path} has no question")
    return list(examples.values())


def _walk(record: Mapping[str, Any], text: str, path: str) -> Iterator[QuestionExample]:
    for number, article in enumerate(_list(record, "data", path)):
        place = f"{path}: article {number}"
        title = _text(article, "title", place) if "title" in article else str(number)
        place = f"{path}: article {title!r}"
        for paragraph in _list(article, "paragraphs", place):
            context = _text(paragraph, "context", place)
            for question in _list(paragraph, "qas", place):
                name = _text(question, "id", place)
                try:
                    yield _read_question(question, context, title)
                except InputError as error:
                    raise InputError(f"{path}:{_find_line(text, name)}: {error}") from None


def _find_line(text: str, name: str) -> int:
    """Return the line of the first occurrence of an id."""
    return text.count("\n", 0, max(text.find(json.dumps(name)), 0)) + 1


def _read_question(question: Mapping[str, Any], context: str, title: str) -> QuestionExample:
    place = f"question {question['id']}"
    impossible = question.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise InputError(
            f"{place}: is_impossible must be true or false, found {shorten(impossible)}"
        )
    answers = []
    for answer in _list(question, "answers", place):
        text, start = _text(answer, "text", place), answer.get("answer_start")
        if not isinstance(start, int) or isinstance(start, bool) or start < 0:
            raise InputError(f"{place}: answer_start must be a position, found {shorten(start)}")
        if not context.startswith(text, start):
            raise InputError(
                f"{place}: the answer {text!r} is not at {start} in its context, which has "
                f"{context[start : start + len(text)]!r}"
            )
        answers.append(Answer(text, start))
    if impossible and answers:
        raise InputError(f"{place}: it is impossible and has an answer")
    if not impossible and not answers:
        raise InputError(f"{place}: it is answerable and has no answer")
    return QuestionExample(
        question["id"],
        _text(question, "question", place),
        context,
        tuple(answers),
        impossible,
        title,
    )


def split_by_article(
    examples: Sequence[QuestionExample],
) -> tuple[list[QuestionExample], list[QuestionExample]]:
    """Split questions into halves with no article in common: to choose a threshold, and to report.

    In the order of their titles' hashes, articles alternate between the halves, so the halves
    depend only on the set of articles.

    Raises:
        InputError: there is only one article.
    """
    articles = {example.article for example in examples}
    if len(articles) < 2:
        raise InputError(
            "a single article cannot be split to choose the null threshold on part of it"
        )
    chosen = set(sorted(articles, key=hash_text)[::2])
    return (
        [example for example in examples if example.article in chosen],
        [example for example in examples if example.article not in chosen],
    )


def _list(record: Mapping[str, Any], key: str, place: str) -> list[Any]:
    """Return the list of objects under a key."""
    values = record.get(key)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise InputError(f"{place}: {key} must be a list of objects")
    return values


def _text(record: Mapping[str, Any], key: str, place: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise InputError(f"{place}: {key} must be a text, found {shorten(value)}")
    if not value.strip():
        raise InputError(f"{place}: {key} is empty")
    return value
