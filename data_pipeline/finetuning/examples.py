"""Examples of the fine-tuning tasks as text, as returned by their readers."""

from typing import NamedTuple


class TextExample(NamedTuple):
    """A text, or a pair of texts, with its label.

    Attributes:
        id: its name in the file or the submission; unique within a split.
        text_a: the only or first text, as in the file.
        text_b: the second text; None if the task has one text.
        label: index of the class among the task's labels, or the score of a regression; None where
            unknown, as in test splits.
    """

    id: str
    text_a: str
    text_b: str | None
    label: int | float | None


class Answer(NamedTuple):
    """An answer as a span of its context.

    Attributes:
        text: its characters.
        start: position of the first one in the context, in characters.
    """

    text: str
    start: int


class QuestionExample(NamedTuple):
    """A question about a context, answered by a span of it or not at all (SQuAD).

    Attributes:
        id: unique within a file.
        question: its text.
        context: the paragraph.
        answers: the annotators' answers, none if `is_impossible`; files for evaluation have
            several, some of them equal.
        is_impossible: True if the context has no answer; never True in version 1.1.
        article: title of the context's article; questions of one article are not independent.
    """

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    is_impossible: bool = False
    article: str = ""


class ChoiceExample(NamedTuple):
    """A question with options, one of them correct according to the context (RACE).

    Attributes:
        id: passage and index of the question in it, such as `high19088.txt/0`.
        context: the passage.
        question: with or without a blank (`_`) that the option fills.
        options: in the order of the file.
        label: index of the correct option, from 0; None where unknown.
        group: `middle` or `high`, the school that the question was written for.
    """

    id: str
    context: str
    question: str
    options: tuple[str, ...]
    label: int | None
    group: str


class TaggedExample(NamedTuple):
    """A sentence in words with a tag for each, such as `B-LOC` or `O`.

    Attributes:
        words: as in the file.
        tags: of the words; None where unknown.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...] | None
