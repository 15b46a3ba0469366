"""Examples of the fine-tuning tasks as text, in the form that their readers return."""

from typing import NamedTuple


class TextExample(NamedTuple):
    """A text, or a pair of texts, with its label.

    Attributes:
        id: its name in the file or the submission; unique within a split.
        text_a: the only text or the first one, as in the file.
        text_b: the second text; None if the task has one text.
        label: index of the class among the task's labels, or the score of a regression; None if
            unknown, as in test splits.
    """

    id: str
    text_a: str
    text_b: str | None
    label: int | float | None


class Answer(NamedTuple):
    """An answer as a span of its context.

    Attributes:
        text: the characters of the answer.
        start: position of its first character in the context.
    """

    text: str
    start: int


class QuestionExample(NamedTuple):
    """A question about a context, answered by a span of the context or not at all (SQuAD).

    Attributes:
        id: unique within a file.
        question: the text of the question.
        context: the paragraph.
        answers: the annotators' answers; empty if `is_impossible`. Evaluation files have several
            per question, some of them equal.
        is_impossible: True if the context has no answer; never True in version 1.1.
        article: title of the context's article; questions about the same article are not
            independent.
    """

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    is_impossible: bool = False
    article: str = ""


class ChoiceExample(NamedTuple):
    """A question with options, one of which is correct according to the context (RACE).

    Attributes:
        id: the passage and the index of the question in it, such as `high19088.txt/0`.
        context: the passage.
        question: the question, with or without a blank (`_`) that the option fills.
        options: the options, in file order.
        label: index of the correct option, from 0; None if unknown.
        group: `middle` or `high`, the school that the question was written for.
    """

    id: str
    context: str
    question: str
    options: tuple[str, ...]
    label: int | None
    group: str


class TaggedExample(NamedTuple):
    """The words of a sentence with a tag for each, such as `B-LOC` or `O`.

    Attributes:
        words: the words, as in the file.
        tags: the tags of the words; None if unknown.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...] | None
