"""What a pre-training batch is made of: every data knob, its type, default and bounds, once."""

import dataclasses
from enum import StrEnum
from typing import Any

from data_pipeline.errors import InputError


class Masking(StrEnum):
    """What is hidden together: n-grams of words, words, single pieces, or geometric word spans."""

    NGRAM = "ngram"
    WHOLE_WORD = "whole_word"
    TOKEN = "token"
    SPAN = "span"


class Corruption(StrEnum):
    """Whether each piece, or each span as one, draws its 80/10/10 fate."""

    PER_PIECE = "per_piece"
    PER_SPAN = "per_span"


class SentenceObjective(StrEnum):
    """What is asked of a pair: sentence order, BERT's next sentence, or nothing (Table 5)."""

    SOP = "sop"
    NSP = "nsp"
    NONE = "none"

    @property
    def metric_name(self) -> str | None:
        """Prefix of the objective's metrics (``sentence_order_accuracy``); None if it has none."""
        names = {SentenceObjective.SOP: "sentence_order", SentenceObjective.NSP: "next_sentence"}
        return names.get(self)


class SingleSentence(StrEnum):
    """What becomes of a chunk that holds one sentence, which has no order to predict.

    `split` cuts it in two for the masked LM alone; `random_document` pairs it with text of another
    document and calls that swapped, as the released generator does even for sentence order.
    """

    SPLIT = "split"
    RANDOM_DOCUMENT = "random_document"


class Packing(StrEnum):
    """Whether a row holds one pair, or as many as fit."""

    UNPACKED = "unpacked"
    PACKED = "packed"


class MaskReach(StrEnum):
    """Whether words and n-grams stay inside a segment, or run across its [SEP] as released."""

    SEGMENT = "segment"
    PAIR = "pair"


class RandomReplacement(StrEnum):
    """What a random replacement may be: an ordinary piece, or any piece as released."""

    ORDINARY = "ordinary"
    ANY = "any"


class WordStartRule(StrEnum):
    """Which pieces open a word: those after a space and punctuation marks, or the released rule."""

    SPACE = "space"
    LEGACY = "legacy"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """How a corpus becomes batches; the defaults are the paper's, with its generator's faults
    mended (`legacy` restores them).

    Raises:
        InputError: a value is out of range; the message names the flag, what it got and what it
            may be.
    """

    corpus_dir: str = ""  # what `data_pipeline.build_corpus` wrote
    # Batches imported from released record files, instead of corpus_dir.
    records_dir: str = ""
    plan_dir: str = ""  # where plans are cached; empty: `plans` in the corpus, if it is writable

    # Pairs and rows.
    max_seq_length: int = 512  # positions of a row, special tokens included
    packing: Packing = Packing.UNPACKED
    max_pairs_per_row: int = 16  # of a packed row
    short_seq_prob: float = 0.1  # share of documents cut at a random shorter length
    sentence_objective: SentenceObjective = SentenceObjective.SOP
    single_sentence: SingleSentence = SingleSentence.SPLIT
    num_plan_variants: int = 1  # ways of cutting the documents, taken in turn by the epochs

    # Masks.
    masking: Masking = Masking.NGRAM
    masked_lm_prob: float = 0.15  # share of a pair's pieces to predict, special tokens counted
    max_predictions_per_seq: int = 20  # prediction slots of a row
    ngram: int = 3  # most words of an n-gram
    favor_shorter_ngram: bool = True  # p(n) proportional to 1/n; else the reverse
    corruption: Corruption = Corruption.PER_PIECE
    mask_reach: MaskReach = MaskReach.SEGMENT
    random_replacement: RandomReplacement = RandomReplacement.ORDINARY
    word_start_rule: WordStartRule = WordStartRule.SPACE

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.type, type) and issubclass(field.type, StrEnum):
                object.__setattr__(self, field.name, _as_choice(field.type, field.name, value))
            elif field.name in _WHOLE_NUMBERS:
                _require_whole(field.name, value, *_WHOLE_NUMBERS[field.name])
            elif field.type is float:
                _require_share(field.name, value)
            elif field.type is bool and type(value) is not bool:
                raise InputError(f"--config.data.{field.name} must be True or False, got {value!r}")
        if self.max_predictions_per_seq > self.max_seq_length:
            raise InputError(
                f"--config.data.max_predictions_per_seq ({self.max_predictions_per_seq}) must be "
                f"at most --config.data.max_seq_length ({self.max_seq_length})"
            )

    @property
    def max_num_tokens(self) -> int:
        """Pieces of text that a pair may hold beside its [CLS] and two [SEP]."""
        return self.max_seq_length - 3

    def legacy(self) -> "DataConfig":
        """The same with every choice of the released generator that was mended here."""
        return dataclasses.replace(
            self,
            single_sentence=SingleSentence.RANDOM_DOCUMENT,
            mask_reach=MaskReach.PAIR,
            random_replacement=RandomReplacement.ANY,
            word_start_rule=WordStartRule.LEGACY,
        )


SHORTEST_ROW = 8
# The longest row is bounded by what a plan stores, the others by sense.
_WHOLE_NUMBERS = {
    "max_seq_length": (SHORTEST_ROW, 65536),
    "max_pairs_per_row": (1, 256),
    "num_plan_variants": (1, 64),
    "max_predictions_per_seq": (1, 65536),
    "ngram": (1, 16),
}


def _require_whole(name: str, value: Any, lowest: int, highest: int) -> None:
    if type(value) is not int or not lowest <= value <= highest:
        raise InputError(
            f"--config.data.{name} must be a whole number from {lowest} to {highest}, got {value!r}"
        )


def _require_share(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"--config.data.{name} must be a number from 0 to 1, got {value!r}")


def _as_choice(enum: type[StrEnum], name: str, value: Any) -> StrEnum:
    try:
        return enum(value)
    except ValueError:
        choices = ", ".join(enum)
        raise InputError(f"--config.data.{name} must be one of {choices}; got {value!r}") from None
