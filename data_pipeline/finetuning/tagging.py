"""Words with tags: CoNLL files, rows of word pieces, and entities scored as conlleval does."""

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
    """Reads sentences: a word a line, in the first column, with its tag in the last.

    White space parts the columns, blank lines part sentences, `-DOCSTART-` lines are left out.

    Args:
        path: the file, also compressed.
        tags: those that there may be; None for all, as in a file for training.

    Raises:
        InputError: the file is missing, empty or not UTF-8, lines have different numbers of
            columns or only one, or a tag is none of `tags`. The message names file and line.

    Example: the lines `U.N. NNP B-ORG`, `official NN O` and a blank one are
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
    """The tags of the examples in the order of their numbers: by letter."""
    return tuple(sorted({tag for example in examples for tag in example.tags or ()}))


class TaggedRow(NamedTuple):
    """A row `[CLS] words [SEP]` of a sentence or a part of one, not padded.

    Attributes:
        input_ids: the pieces.
        first_word: number of the sentence's first word in this row.
        word_positions: where in the row the first piece of each word stands.
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
    """Lays the words of a sentence out in as many rows as they need; every word is in one of them.

    A word without pieces becomes an unknown one, a word longer than a row is cut.

    Args:
        word_ids: pieces of each word.
        cls_id: what opens a row.
        sep_id: what ends it.
        unk_id: stands for a word without pieces.
        max_seq_length: pieces that a row may have.

    Raises:
        InputError: rows are too short for a word.

    Example: words 7 8 | (none) | 9 with unknown 1 are one row, ids `2 7 8 1 9 3`, words at
    `1 3 4`; in rows of 5 they are `2 7 8 1 3` and `2 9 3`.
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
        ids = [cls_id, *(piece for word in words[first:end] for piece in word), sep_id]
        rows.append(
            TaggedRow(np.array(ids, np.int32), first, (1 + starts - begin).astype(np.int32))
        )
        first = end
    return rows


class Entity(NamedTuple):
    """A run of words of one kind.

    Attributes:
        kind: such as `LOC`.
        first, last: numbers of its words.
    """

    kind: str
    first: int
    last: int


def find_entities(tags: Sequence[str]) -> list[Entity]:
    """The entities that the tags of a sentence mark, by the rules of conlleval.

    The tags may be IOB1 (`B-` only between neighbors of a kind), IOB2 (`B-` at every beginning) or
    BIOES (`E-` at an end, `S-` for a single word). Tags that no such scheme allows are read as
    conlleval reads them: what changes kind, or follows nothing, begins an entity.

    Raises:
        ValueError: a tag is neither `O` nor one of `B-`, `I-`, `E-`, `S-` and a kind.

    Example: `I-LOC I-LOC O B-PER I-PER B-PER` are `LOC` 0 to 1, `PER` 3 to 4 and `PER` 5 to 5.
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
    """Whether tags are such as mark entities, rather than parts of speech and the like."""
    different = set(tags)
    return bool(different - {"O"}) and all(map(_is_entity_tag, different))


class EntityScores(NamedTuple):
    """How many entities were found; precision, recall and F1 are 0 where there is nothing.

    Attributes:
        right: of the same kind and the same words as one that is there.
        found: in the predictions.
        present: in the labels.
    """

    right: int
    found: int
    present: int

    @property
    def precision(self) -> float:
        """The share of the found ones that are right."""
        return self.right / max(self.found, 1)

    @property
    def recall(self) -> float:
        """The share of the present ones that are found."""
        return self.right / max(self.present, 1)

    @property
    def f1(self) -> float:
        """The harmonic mean of both."""
        return 2 * self.right / max(self.found + self.present, 1)


def score_entities(
    predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]
) -> tuple[EntityScores, dict[str, EntityScores]]:
    """Compares entities of all sentences.

    Args:
        predictions: tags of each sentence.
        labels: the right ones.

    Returns:
        Of all entities, and of each kind.

    Raises:
        ValueError: a tag marks no entity, or a sentence has more tags than the other side's.
    """
    right, found, present = Counter[str](), Counter[str](), Counter[str]()
    for guessed, true in zip(predictions, labels, strict=True):
        if len(guessed) != len(true):
            raise ValueError(f"{len(guessed)} tags were predicted for {len(true)} words")
        entities, expected = find_entities(guessed), find_entities(true)
        found.update(entity.kind for entity in entities)
        present.update(entity.kind for entity in expected)
        right.update(entity.kind for entity in set(entities) & set(expected))
    kinds = {
        kind: EntityScores(right[kind], found[kind], present[kind])
        for kind in sorted(found.keys() | present.keys())
    }
    return EntityScores(right.total(), found.total(), present.total()), kinds
