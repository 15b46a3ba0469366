"""Fine-tuning batches, the contract between data and step: one class for each kind of task.

Rows that only fill up a batch have weight 0 and count in no loss and no metric.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jax import Array
from jaxtyping import Float32, Int32
from numpy.typing import DTypeLike

from albert_jax.batch import check_fields

_Fields = dict[str, tuple[DTypeLike, tuple[str, ...]]]

_ROWS = ("batch",)
_TOKENS = ("batch", "length")
_COMMON: _Fields = {
    "input_ids": (np.int32, _TOKENS),
    "attention_mask": (np.int32, _TOKENS),
    "token_type_ids": (np.int32, _TOKENS),
    "weights": (np.float32, _ROWS),
}


def _several_texts(axis: str) -> _Fields:
    """Return the common fields of examples that have several texts each, along an axis."""
    texts: tuple[DTypeLike, tuple[str, ...]] = (np.int32, ("batch", axis, "length"))
    return _COMMON | {name: texts for name in _COMMON if name != "weights"}


class ClassificationBatch(NamedTuple):
    """Texts, or pairs of texts, with a class, a score or several labels each.

    Example with two texts of class 1, and a row that fills up the batch::

        input_ids       2 41 52  3      2 63  3  0      2 41 52  3
        attention_mask  1  1  1  1      1  1  1  0      1  1  1  1
        token_type_ids  0  0  0  0      0  0  0  0      0  0  0  0
        labels          1               1               1
        weights         1               1               0
    """

    input_ids: Int32[Array, "batch length"]
    attention_mask: Int32[Array, "batch length"]  # 0: padding
    token_type_ids: Int32[Array, "batch length"]  # 0: [CLS] A [SEP], 1: B [SEP]
    # A class (int32), a score (float32), or 1 for each label that applies (float32, one more axis).
    labels: Int32[Array, " batch"] | Float32[Array, " batch"] | Float32[Array, "batch labels"]
    weights: Float32[Array, " batch"]  # 0: a row that fills up the batch

    @classmethod
    def from_numpy(cls, arrays: Mapping[str, np.ndarray]) -> "ClassificationBatch":
        """Build a batch from a loader's dict, and check its fields.

        Raises:
            TypeError: a field is missing or unknown.
            ValueError: a field's shape or type breaks the contract.
        """
        batch = cls(**arrays)  # type: ignore[arg-type]  # on the host, until a step takes it
        several = arrays["labels"].ndim > 1
        dtype = np.int32 if arrays["labels"].dtype == np.int32 and not several else np.float32
        labels: _Fields = {"labels": (dtype, ("batch", "labels") if several else _ROWS)}
        check_fields(arrays, _COMMON | labels)
        return batch


class TaggingBatch(NamedTuple):
    """Sentences with a tag for each word, at the word's first token."""

    input_ids: Int32[Array, "batch length"]
    attention_mask: Int32[Array, "batch length"]
    token_type_ids: Int32[Array, "batch length"]
    labels: Int32[Array, "batch length"]  # the tag at first tokens
    label_mask: Int32[Array, "batch length"]  # 1: a word's first token
    weights: Float32[Array, " batch"]

    @classmethod
    def from_numpy(cls, arrays: Mapping[str, np.ndarray]) -> "TaggingBatch":
        """Build a checked batch; see `ClassificationBatch.from_numpy`."""
        batch = cls(**arrays)  # type: ignore[arg-type]
        check_fields(
            arrays, _COMMON | {"labels": (np.int32, _TOKENS), "label_mask": (np.int32, _TOKENS)}
        )
        return batch


class SpanBatch(NamedTuple):
    """Questions and parts of a text, with the answer's positions: [CLS] Q [SEP] text [SEP]."""

    input_ids: Int32[Array, "batch length"]
    attention_mask: Int32[Array, "batch length"]
    token_type_ids: Int32[Array, "batch length"]
    p_mask: Int32[Array, "batch length"]  # 1: no answer starts or ends here; 0: [CLS] and text
    start_positions: Int32[Array, " batch"]  # 0 if there is no answer
    end_positions: Int32[Array, " batch"]  # of the answer's last token
    is_impossible: Int32[Array, " batch"]  # 1: no answer in this part of the text
    weights: Float32[Array, " batch"]

    @classmethod
    def from_numpy(cls, arrays: Mapping[str, np.ndarray]) -> "SpanBatch":
        """Build a checked batch; see `ClassificationBatch.from_numpy`."""
        batch = cls(**arrays)  # type: ignore[arg-type]
        rows = ("start_positions", "end_positions", "is_impossible")
        fields: _Fields = dict.fromkeys(rows, (np.int32, _ROWS))
        check_fields(arrays, _COMMON | fields | {"p_mask": (np.int32, _TOKENS)})
        return batch


class MultipleChoiceBatch(NamedTuple):
    """Questions with several choices each, and a row of tokens for every choice."""

    input_ids: Int32[Array, "batch choices length"]
    attention_mask: Int32[Array, "batch choices length"]
    token_type_ids: Int32[Array, "batch choices length"]
    labels: Int32[Array, " batch"]  # index of the right choice
    weights: Float32[Array, " batch"]

    @classmethod
    def from_numpy(cls, arrays: Mapping[str, np.ndarray]) -> "MultipleChoiceBatch":
        """Build a checked batch; see `ClassificationBatch.from_numpy`."""
        batch = cls(**arrays)  # type: ignore[arg-type]
        check_fields(arrays, _several_texts("choices") | {"labels": (np.int32, _ROWS)})
        return batch


class EmbeddingBatch(NamedTuple):
    """Texts that belong together: an anchor, a positive, and perhaps a hard negative.

    Example with two anchors that have the same positive, as its number shows::

        text_ids  1 2      3 2
    """

    input_ids: Int32[Array, "batch texts length"]
    attention_mask: Int32[Array, "batch texts length"]
    token_type_ids: Int32[Array, "batch texts length"]
    text_ids: Int32[Array, "batch texts"]  # a number for each text, the same for equal ones
    scores: Float32[Array, " batch"]  # for scored pairs, higher if more alike; otherwise 0
    weights: Float32[Array, " batch"]

    @classmethod
    def from_numpy(cls, arrays: Mapping[str, np.ndarray]) -> "EmbeddingBatch":
        """Build a checked batch; see `ClassificationBatch.from_numpy`."""
        batch = cls(**arrays)  # type: ignore[arg-type]
        own: _Fields = {"text_ids": (np.int32, ("batch", "texts")), "scores": (np.float32, _ROWS)}
        check_fields(arrays, _several_texts("texts") | own)
        return batch


class Seq2SeqBatch(NamedTuple):
    """Sources with targets: what a decoder writes about what the encoder reads.

    Example with the targets ``7 9`` and ``5`` (2 starts a target, 3 ends it)::

        decoder_input_ids  2 7 9 0      2 5 0 0
        labels             7 9 3 0      5 3 0 0
        label_weights      1 1 1 0      1 1 0 0
    """

    input_ids: Int32[Array, "batch source"]
    attention_mask: Int32[Array, "batch source"]
    token_type_ids: Int32[Array, "batch source"]
    decoder_input_ids: Int32[Array, "batch target"]  # from the start token on
    labels: Int32[Array, "batch target"]  # the token that follows each
    label_weights: Float32[Array, "batch target"]  # 0: padding, and rows that fill up the batch

    @classmethod
    def from_numpy(cls, arrays: Mapping[str, np.ndarray]) -> "Seq2SeqBatch":
        """Build a checked batch; see `ClassificationBatch.from_numpy`."""
        batch = cls(**arrays)  # type: ignore[arg-type]
        tokens = ("batch", "target")
        sources = {name: of for name, of in _COMMON.items() if name != "weights"}
        targets: _Fields = {
            "decoder_input_ids": (np.int32, tokens),
            "labels": (np.int32, tokens),
            "label_weights": (np.float32, tokens),
        }
        check_fields(arrays, sources | targets)
        return batch


TaskBatch = (
    ClassificationBatch
    | TaggingBatch
    | SpanBatch
    | MultipleChoiceBatch
    | EmbeddingBatch
    | Seq2SeqBatch
)
