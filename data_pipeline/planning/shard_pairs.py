"""The files of a planned shard; a pair takes 12 bytes, or more if its fields need them."""

import numpy as np

from data_pipeline.config import DataConfig, SingleSentence
from data_pipeline.corpus.splits import shard_name
from data_pipeline.memory_maps import MappedDirectory
from data_pipeline.planning.pairs import PAIR

START_DTYPE = np.dtype("<u4")


class PlannedShard:
    """The rows of a shard in one variant, memory-mapped.

    Args:
        directory: the directory of the plan.
        number: the number of the shard.
        variant: the variant of the plan.
        config: the settings that the plan was made with.

    Attributes:
        pairs: records of type `shard_pair_dtype(config)`, grouped by row.
        row_starts: uint32 [rows + 1], the first pair of each row, and the end.
    """

    def __init__(
        self, directory: MappedDirectory, number: int, variant: int, config: DataConfig
    ) -> None:
        pairs, starts = (f"{shard_name(number)}/{file}" for file in variant_files(variant))
        self.pairs = directory.map(pairs, shard_pair_dtype(config))
        self.row_starts = directory.map(starts, START_DTYPE)


def variant_files(variant: int) -> tuple[str, str]:
    """Return the names of the files of a shard's pairs and row starts in a variant."""
    return f"{variant:03d}.pairs.bin", f"{variant:03d}.row_starts.bin"


def shard_pair_dtype(config: DataConfig) -> np.dtype:
    """Return the type of a record: the fields of `PAIR`, relative to a shard.

    Before truncation, a pair has at most the text of two rows, so 16 bits suffice for lengths with
    rows of up to 32,768 positions. Fields for random second segments exist only if the settings
    produce any.

    Example: for rows of 512 with sentence order, `start` and `sentence` have 4 bytes, `length` and
    `sentences` 2.
    """
    length = "<u2" if 2 * config.max_num_tokens < 1 << 16 else "<u4"
    fields = {"start": "<u4", "sentence": "<u4", "length": length, "sentences": length}
    if _has_random_segments(config):
        fields |= {"other_start": "<u4", "other_length": length}
    return np.dtype(list(fields.items()))


def encode_pairs(pairs: np.ndarray, config: DataConfig) -> np.ndarray:
    """Encode a shard's pairs as records.

    A random second segment is cut to the text of two rows, since it may be a single very long
    sentence. At least half of that is truncated anyway.

    Args:
        pairs: records of type `PAIR` with addresses and sentence numbers relative to the shard.
        config: the settings that they were made with.
    """
    encoded = np.empty(len(pairs), shard_pair_dtype(config))
    for name in PAIR.names or ():
        values = pairs[name]
        if name == "other_length":
            values = np.minimum(values, 2 * config.max_num_tokens)
        if name in (encoded.dtype.names or ()):
            assert values.max(initial=0) <= np.iinfo(encoded.dtype[name]).max, name
            encoded[name] = values
        else:
            assert not values.any(), name
    return encoded


def decode_pairs(encoded: np.ndarray, *, first_token: int, first_sentence: int) -> np.ndarray:
    """Decode records of type `PAIR`, with addresses and sentence numbers in the split.

    Args:
        encoded: as returned by `encode_pairs`.
        first_token: address of the shard's first token.
        first_sentence: number of the shard's first sentence.
    """
    pairs = np.zeros(len(encoded), PAIR)
    for name in encoded.dtype.names or ():
        pairs[name] = encoded[name]
    pairs["start"] += first_token
    pairs["sentence"] += first_sentence
    pairs["other_start"][pairs["other_length"] > 0] += first_token
    return pairs


def _has_random_segments(config: DataConfig) -> bool:
    objective = config.sentence_objective
    return objective.random_segments or (
        config.single_sentence is SingleSentence.RANDOM_DOCUMENT and objective.swaps
    )
