"""Tagged words: CoNLL files, rows of tokens, and entity scores by the rules of conlleval."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from data_pipeline.errors import InputError
from data_pipeline.finetuning.examples import TaggedExample
from data_pipeline.sources.text_files import decode_lines, find_file

_DOCUMENT_START = "-DOCSTART-"


def read_conll(path: Path, tags: Sequence[str] | None = None) -> list[TaggedExample]:
    """Read sentences with one word per line, in the first column, and its tag in the last column.

    Columns are separated by white space, sentences by blank lines; `-DOCSTART-` lines are skipped.

    Args:
        path: the file, possibly compressed.
        tags: the allowed tags; None allows all, as for a training file.

    Raises:
        InputError: the file is missing, empty or not UTF-8; lines have different numbers of columns
            or only one; or a tag is not allowed. The message names the file and the line.

    Example: the lines `U.N. NNP B-ORG`, `official NN O` and a blank line give
    `TaggedExample(("U.N.", "official"), ("B-ORG", "O"))`.
    """
    allowed = None if tags is None else set(tags)
    examples: list[TaggedExample] = []
    sentence: list[tuple[str, str]] = []
    columns = 0
    for number, line in decode_lines(find_file(path)):
        cells = line.split()
        if cells and cells[0] != _DOCUMENT_START:
            place = f"{path}:{number}"
            columns = columns or len(cells)
            if len(cells) != columns or columns < 2:
                wanted = f"{columns} columns" if columns > 1 else "a word and a tag"
                raise InputError(f"{place}: expected {wanted}, found {len(cells)}")
            if allowed is not None and cells[-1] not in allowed:
                raise InputError(f"{place}: tag {cells[-1]!r} is none of {', '.join(tags or ())}")
            sentence.append((cells[0], cells[-1]))
        elif sentence:
            examples.append(TaggedExample(*zip(*sentence, strict=True)))
            sentence = []
    if sentence:
        examples.append(TaggedExample(*zip(*sentence, strict=True)))
    if not examples:
        raise InputError(f"{path} has no sentence")
    return examples


def discover_tags(examples: Iterable[TaggedExample]) -> tuple[str, ...]:
    """Return the tags of the examples in index order, i.e. alphabetically."""
    return tuple(sorted({tag for example in examples for tag in example.tags or ()}))


class TaggedRow(NamedTuple):
    """A row `[CLS] words [SEP]` with a sentence or a part of one, without padding.

    Attributes:
        input_ids: the tokens.
        first_word: index of the row's first word in the sentence.
        word_positions: position in the row of the first token of each word.
    """

    input_ids: Int32[np.ndarray, " length"]
    first_word: int
    word_positions: Int32[np.ndarray, " words"]


def lay_out_words(
    word_ids: Sequence[Sequence[int]],
    *,
    cls_id: int,
    sep_id: int,
    unk_id: int,
    max_seq_length: int = 512,
) -> list[TaggedRow]:
    """Lay out the words of a sentence in as many rows as needed, without splitting a word.

    A word without tokens becomes the unknown token; a word longer than a row is truncated.

    Args:
        word_ids: tokens of each word.
        cls_id: the id of [CLS].
        sep_id: the id of [SEP].
        unk_id: the id that stands for a word without tokens.
        max_seq_length: maximum number of tokens in a row.

    Raises:
        InputError: rows are too short for a word.

    Example: words 7 8 | (none) | 9 with unknown 1 give one row with ids `2 7 8 1 9 3` and words at
    `1 3 4`; rows of 5 are `2 7 8 1 3` and `2 9 3`.
    """
    capacity = max_seq_length - 2
    if capacity < 1:
        raise InputError(f"max_seq_length={max_seq_length} leaves no room for a word")
    words = [(list(ids) or [unk_id])[:capacity] for ids in word_ids]
    ends = np.cumsum([len(ids) for ids in words])
    rows = []
    first = 0
    while first < len(words):
        begin = ends[first] - len(words[first])
        end = int(np.searchsorted(ends, begin + capacity, side="right"))
        starts = ends[first:end] - [len(ids) for ids in words[first:end]]
        ids = [cls_id, *(token for word in words[first:end] for token in word), sep_id]
        rows.append(
            TaggedRow(np.array(ids, np.int32), first, (1 + starts - begin).astype(np.int32))
        )
        first = end
    return rows


class Entity(NamedTuple):
    """Consecutive words that name a single thing.

    Attributes:
        kind: the kind of entity, such as `LOC`.
        first, last: indices of the first and last word.
    """

    kind: str
    first: int
    last: int


def find_entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities that the tags of a sentence mark, by the rules of conlleval.

    The tags may be IOB1 (`B-` only between neighbors of the same kind), IOB2 (`B-` at every start)
    or BIOES (`E-` at an end, `S-` for a single word). Tags that are valid in none of them are read
    as by conlleval: a change of kind, or a tag after `O` or an end, starts an entity.

    Raises:
        ValueError: a tag is neither `O` nor `B-`, `I-`, `E-` or `S-` followed by a kind.

    Example: `I-LOC I-LOC O B-PER I-PER B-PER` gives `LOC` 0 to 1, `PER` 3 to 4 and `PER` 5 to 5.
    """
    entities = []
    first = 0
    before, kind_before = "O", ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, kind = _split_tag(tag)
        changes = kind != kind_before
        if before != "O" and (before in "ES" or prefix in "OBS" or changes):
            entities.append(Entity(kind_before, first, place - 1))
        if prefix != "O" and (prefix in "BS" or before in "OES" or changes):
            first = place
        before, kind_before = prefix, kind
    return entities


def _split_tag(tag: str) -> tuple[str, str]:
    if not _is_entity_tag(tag):
        raise ValueError(f"tag {tag!r} marks no entity: expected O or B-, I-, E-, S- and a kind")
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def _is_entity_tag(tag: str) -> bool:
    return tag == "O" or (tag[:2] in ("B-", "I-", "E-", "S-") and len(tag) > 2)


def marks_entities(tags: Iterable[str]) -> bool:
    """Return True if tags mark entities rather than, say, parts of speech."""
    distinct = set(tags)
    return bool(distinct - {"O"}) and all(map(_is_entity_tag, distinct))


class EntityScores(NamedTuple):
    """Counts of entities; precision, recall and F1 are 0 if undefined.

    Attributes:
        correct: number of predicted entities with the same kind and words as a label.
        predicted: number of entities in the predictions.
        actual: number of entities in the labels.
    """

    correct: int
    predicted: int
    actual: int

    @property
    def precision(self) -> float:
        """The fraction of predicted entities that are correct."""
        return self.correct / max(self.predicted, 1)

    @property
    def recall(self) -> float:
        """The fraction of actual entities that are predicted."""
        return self.correct / max(self.actual, 1)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.correct / max(self.predicted + self.actual, 1)


def score_entities(
    predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]
) -> tuple[EntityScores, dict[str, EntityScores]]:
    """Compare the entities of all sentences.

    Args:
        predictions: predicted tags of each sentence.
        labels: actual tags of each sentence.

    Returns:
        Scores over all entities, and over the entities of each kind.

    Raises:
        ValueError: a tag is not an entity tag, or the numbers of tags of a sentence differ.
    """
    correct, predicted, actual = Counter[str](), Counter[str](), Counter[str]()
    for guess, label in zip(predictions, labels, strict=True):
        if len(guess) != len(label):
            raise ValueError(f"{len(guess)} tags were predicted for {len(label)} words")
        found, expected = find_entities(guess), find_entities(label)
        predicted.update(entity.kind for entity in found)
        actual.update(entity.kind for entity in expected)
        correct.update(entity.kind for entity in set(found) & set(expected))
    kinds = {
        kind: EntityScores(correct[kind], predicted[kind], actual[kind])
        for kind in sorted(predicted.keys() | actual.keys())
    }
    return EntityScores(correct.total(), predicted.total(), actual.total()), kinds
