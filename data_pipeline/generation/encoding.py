"""Encoding of pairs: sources for the encoder, targets with a separate vocabulary."""

from collections.abc import Sequence

import numpy as np

from data_pipeline.errors import InputError
from data_pipeline.finetuning.encoded_examples import EncodedExamples
from data_pipeline.finetuning.encoding import encode_texts
from data_pipeline.finetuning.examples import TextExample
from data_pipeline.generation.encoded_pairs import EncodedPairs, PairShape
from data_pipeline.generation.examples import TextPair
from data_pipeline.tokenizers.albert import AlbertTokenizer
from data_pipeline.tokenizers.targets.target_tokenizer import TargetTokenizer


def encode_sources(
    tokenizer: AlbertTokenizer, pairs: Sequence[TextPair], *, max_seq_length: int
) -> EncodedExamples:
    """Encode sources as `[CLS] source [SEP]`; an empty source becomes `[CLS] [SEP]`.

    Args:
        tokenizer: the tokenizer of the encoder.
        pairs: at least one pair.
        max_seq_length: maximum number of tokens in a source, including special tokens; the rest is
            cut off.
    """
    texts = [TextExample(pair.id, pair.source, None, None) for pair in pairs]
    encoded = encode_texts(tokenizer, texts, max_seq_length=max_seq_length, regression=False)
    return encoded._replace(values={})


def encode_targets(
    tokenizer: TargetTokenizer, pairs: Sequence[TextPair], *, max_length: int, truncate: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Encode and concatenate targets, each from its start token to its end token.

    Args:
        tokenizer: the tokenizer of the decoder.
        pairs: at least one pair; a pair without a target has only the start token.
        max_length: maximum number of tokens in a target, including the end token.
        truncate: True to cut longer targets, which then have no end token; False to refuse them.

    Returns:
        The ids, and where each target starts and the last one ends.

    Raises:
        InputError: a target is too long.
    """
    flat, lengths = tokenizer.encode_lines([pair.target or "" for pair in pairs])
    has_target = np.array([pair.target is not None for pair in pairs])
    whole = np.where(has_target, lengths.astype(np.int64) + 1, 0)  # including the end token
    if not truncate and whole.max() > max_length:
        first = int(np.argmax(whole > max_length))
        raise InputError(
            f"the target of example {pairs[first].id} has {whole[first]} tokens with the one that "
            f"ends it, {np.count_nonzero(whole > max_length)} of {len(pairs)} targets have more "
            f"than {max_length}: raise --config.targets.max_length, or cut them with "
            "--config.targets.truncate"
        )
    kept = np.minimum(whole, max_length)
    starts = np.concatenate([[0], np.cumsum(kept + 1)])
    ids = np.full(starts[-1], tokenizer.eos_id, np.int32)
    ids[starts[:-1]] = tokenizer.bos_id
    # The words of a target come after its start token, up to its end or the cut.
    words = np.minimum(lengths, kept)
    numbers = np.arange(words.sum()) - np.repeat(np.cumsum(words) - words, words)
    source = np.repeat(np.cumsum(lengths, dtype=np.int64) - lengths, words) + numbers
    ids[np.repeat(starts[:-1] + 1, words) + numbers] = flat[source]
    return ids, starts


class PairEncoder:
    """Encodes the splits of a task, with batches shaped to fit the training examples.

    Args:
        sources: the tokenizer of the encoder.
        targets: the tokenizer of the decoder.
        training: the training examples, at least one.
        max_source: see `encode_sources`.
        max_target: see `encode_targets`.
        truncate: see `encode_targets`.
        positions: number of positions of the decoder, the maximum length of padded targets.

    Attributes:
        training: the training examples, encoded.

    Raises:
        InputError: a target is too long.
    """

    def __init__(
        self,
        sources: AlbertTokenizer,
        targets: TargetTokenizer,
        training: Sequence[TextPair],
        *,
        max_source: int,
        max_target: int,
        truncate: bool,
        positions: int,
    ) -> None:
        self._sources, self._targets = sources, targets
        self._max_source, self._max_target, self._truncate = max_source, max_target, truncate
        encoded, ids, starts = self._encode(training)
        tokens = max(1.0, float(np.mean(np.diff(starts) - 1)))
        ratio = max(0.125, float(np.mean(encoded.lengths)) / tokens)
        self._shape = PairShape(ratio, max_source, positions)
        self.training = EncodedPairs(encoded, ids, starts, targets.pad_id, self._shape)

    def __call__(self, pairs: Sequence[TextPair]) -> EncodedPairs:
        """Encode another split.

        Raises:
            InputError: a target is too long.
        """
        return EncodedPairs(*self._encode(pairs), self._targets.pad_id, self._shape)

    def _encode(self, pairs: Sequence[TextPair]) -> tuple[EncodedExamples, np.ndarray, np.ndarray]:
        sources = encode_sources(self._sources, pairs, max_seq_length=self._max_source)
        ids, starts = encode_targets(
            self._targets, pairs, max_length=self._max_target, truncate=self._truncate
        )
        return sources, ids, starts
