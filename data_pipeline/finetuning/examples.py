"""Examples of the fine-tuning tasks as their readers give them: text, not yet ids."""

from typing import NamedTuple


class TextExample(NamedTuple):
    """A text, or a pair of texts, with what is to be told about it.

    Attributes:
        id: as the file or the submission names it; unique within a split.
        text_a: the only or first text, as it stands in the file.
        text_b: the second one; None where the task has one text.
        label: number of the class (its place among the task's labels), or the score of a
            regression; None where it is not known, as in test splits.
    """

    id: str
    text_a: str
    text_b: str | None
    label: int | float | None


class Answer(NamedTuple):
    """An answer as it stands in its context.

    Attributes:
        text: its characters.
        start: where in the context the first of them stands, counted in characters.
    """

    text: str
    start: int


class QuestionExample(NamedTuple):
    """A question about a context, answered by a span of it or not at all (SQuAD).

    Attributes:
        id: unique within a file.
        question: as asked.
        context: the paragraph.
        answers: what people answered, none if `is_impossible`; several, also equal ones, in files
            for evaluation.
        is_impossible: whether the context has no answer; never True in version 1.1.
        article: title of the article of the context; questions of one article are not independent.
    """

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    is_impossible: bool = False
    article: str = ""


class ChoiceExample(NamedTuple):
    """A question with options, one of them right according to the context (RACE).

    Attributes:
        id: passage and number of the question in it, such as `high19088.txt/0`.
        context: the passage.
        question: with or without a blank (`_`) that the option fills.
        options: in their order.
        label: number of the right one, from 0; None where it is not known.
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
        words: as the file divides the text.
        tags: of the words; None where they are not known.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...] | None
