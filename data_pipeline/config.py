"""Configuration of pre-training batches: pairs, rows and masks."""

import dataclasses
from enum import StrEnum

from albert_jax.settings import FieldError, check_settings, setting

SHORTEST_ROW = 8
LONGEST_ROW = 65536  # limited by the storage format of a plan


class Masking(StrEnum):
    """Unit of masking: n-grams of words, words, single tokens, or geometric word spans."""

    NGRAM = "ngram"
    WHOLE_WORD = "whole_word"
    TOKEN = "token"
    SPAN = "span"


class Corruption(StrEnum):
    """Unit for which [MASK], a random token or the original is sampled (80/10/10), if any."""

    PER_PIECE = "per_piece"  # each token
    PER_SPAN = "per_span"  # each masked span as a whole
    ALWAYS_MASK = "always_mask"  # nothing is sampled: all become [MASK] (ELECTRA)


class SentenceObjective(StrEnum):
    """Sentence-level objective: sentence order, BERT's next sentence, or none (Table 5).

    To add an objective whose label is 1 for swapped segments, for a second segment from another
    document, or for both, it is enough to add a member.

    Attributes:
        metric_name: prefix of its metrics (``sentence_order_accuracy``); None if it has none.
        swaps: True if half of the pairs have their segments swapped.
        random_segments: True if half of the pairs have a second segment from another document.
    """

    metric_name: str | None
    swaps: bool
    random_segments: bool

    def __new__(
        cls, value: str, metric_name: str | None, swaps: bool, random_segments: bool
    ) -> "SentenceObjective":
        member = str.__new__(cls, value)
        member._value_, member.metric_name = value, metric_name
        member.swaps, member.random_segments = swaps, random_segments
        return member

    SOP = "sop", "sentence_order", True, False
    NSP = "nsp", "next_sentence", False, True
    NONE = "none", None, False, False


class SingleSentence(StrEnum):
    """Treatment of a chunk that holds a single sentence and so has no order to predict.

    `split` cuts it in two for the masked LM only; `random_document` pairs it with text of another
    document and labels that as swapped, as the released generator does even for sentence order.
    """

    SPLIT = "split"
    RANDOM_DOCUMENT = "random_document"


class Packing(StrEnum):
    """Number of pairs in a row: one, or as many as fit."""

    UNPACKED = "unpacked"
    PACKED = "packed"


class MaskReach(StrEnum):
    """How far words and n-grams reach: within a segment, or across its [SEP] as in the release."""

    SEGMENT = "segment"
    PAIR = "pair"


class RandomReplacement(StrEnum):
    """Tokens that may replace a masked one: ordinary tokens, or any as in the release."""

    ORDINARY = "ordinary"
    ANY = "any"


class WordStartRule(StrEnum):
    """Which tokens start a word: those after a space and punctuation, or the released rule."""

    SPACE = "space"
    LEGACY = "legacy"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Corpus, pairs, rows and masks; the defaults are the paper's, with the errors of the released
    generator corrected (`legacy` restores them).

    Raises:
        FieldError: a value is not allowed.
    """

    corpus_dir: str = setting("", "directory written by data_pipeline.build_corpus")
    decay_corpus_dir: str = setting(
        "", "corpus of the last steps, the decay of warmup_stable_decay; empty: corpus_dir"
    )
    records_dir: str = setting(
        "", "batches imported from released record files, instead of corpus_dir"
    )
    plan_dir: str = setting(
        "", "cache of plans; empty: `plans` in the corpus directory, if it is writable"
    )

    # Pairs and rows.
    max_seq_length: int = setting(
        512, "length of a row, with special tokens", at_least=SHORTEST_ROW, at_most=LONGEST_ROW
    )
    packing: Packing = setting(Packing.UNPACKED, "one pair per row, or as many as fit")
    max_pairs_per_row: int = setting(16, "most pairs of a packed row", at_least=1, at_most=256)
    short_seq_prob: float = setting(
        0.1, "fraction of documents cut at a random shorter length", at_least=0, at_most=1
    )
    sentence_objective: SentenceObjective = setting(
        SentenceObjective.SOP, "sentence order, next sentence, or none"
    )
    single_sentence: SingleSentence = setting(
        SingleSentence.SPLIT, "pair for a single sentence: cut in two, or another document's text"
    )
    num_plan_variants: int = setting(
        1, "ways of cutting the documents, one per epoch in turn", at_least=1, at_most=64
    )

    # Masks.
    masking: Masking = setting(Masking.NGRAM, "unit of masking")
    masked_lm_prob: float = setting(
        0.15,
        "fraction of a pair's tokens to predict, special tokens counted",
        at_least=0,
        at_most=1,
    )
    max_predictions_per_seq: int = setting(
        20, "prediction slots of a row", at_least=1, at_most=LONGEST_ROW
    )
    ngram: int = setting(3, "longest n-gram, in words", at_least=1, at_most=16)
    favor_shorter_ngram: bool = setting(True, "p(n) proportional to 1/n; else the reverse")
    corruption: Corruption = setting(
        Corruption.PER_PIECE,
        "sample the 80/10/10 corruption for each token or for each span, or always mask",
    )
    mask_reach: MaskReach = setting(
        MaskReach.SEGMENT, "words and n-grams within a segment, or across its [SEP]"
    )
    random_replacement: RandomReplacement = setting(
        RandomReplacement.ORDINARY, "random replacements: ordinary tokens, or any"
    )
    word_start_rule: WordStartRule = setting(
        WordStartRule.SPACE, "tokens that start a word: after spaces, or the released rule"
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.max_predictions_per_seq > self.max_seq_length:
            most = f"at most max_seq_length ({self.max_seq_length})"
            raise FieldError("max_predictions_per_seq", most, self.max_predictions_per_seq)

    @property
    def max_num_tokens(self) -> int:
        """Maximum number of tokens in a pair, without its [CLS] and two [SEP]."""
        return self.max_seq_length - 3

    def legacy(self) -> "DataConfig":
        """Return this configuration with the errors of the released generator restored."""
        return dataclasses.replace(
            self,
            single_sentence=SingleSentence.RANDOM_DOCUMENT,
            mask_reach=MaskReach.PAIR,
            random_replacement=RandomReplacement.ANY,
            word_start_rule=WordStartRule.LEGACY,
        )
