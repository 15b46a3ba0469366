"""The pre-training batch, which is the contract between data and step; checks of batches."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Float32, Int32
from numpy.typing import DTypeLike


class TeacherPredictions(NamedTuple):
    """The tokens that another model finds most probable at each slot, the most probable first."""

    token_ids: Int32[Array, "batch predictions top"]
    log_probs: Float32[Array, "batch predictions top"]  # over the whole vocabulary


class PretrainingBatch(NamedTuple):
    """B rows of S positions with P prediction slots, each holding up to M segment pairs.

    An unpacked row holds one pair (M = 1). Example with B = 1, S = 12, P = 2, M = 2, two pairs of
    five and six tokens in one row and a padding token at the end (2 is [CLS], 3 is [SEP], 4 is
    [MASK])::

        input_ids                 2 41  3 52  3   2 63 64  3  4  3   0
        token_type_ids            0  0  0  1  1   0  0  0  0  1  1   0
        position_ids              0  1  2  3  4   0  1  2  3  4  5   0
        sequence_ids              1  1  1  1  1   2  2  2  2  2  2   0
        masked_lm_positions       9  0
        masked_lm_ids            75  0
        masked_lm_weights         1  0
        sentence_order_positions  0  5
        sentence_order_labels     0  1
        sentence_order_weights    1  1
    """

    input_ids: Int32[Array, "batch length"]
    token_type_ids: Int32[Array, "batch length"]  # 0: [CLS] A [SEP], 1: B [SEP]
    position_ids: Int32[Array, "batch length"]  # restart at 0 in each pair
    sequence_ids: Int32[Array, "batch length"]  # 0: padding, 1 to M: the pair of the row
    masked_lm_positions: Int32[Array, "batch predictions"]
    masked_lm_ids: Int32[Array, "batch predictions"]  # the original tokens
    masked_lm_weights: Float32[Array, "batch predictions"]  # 0: an unused slot
    sentence_order_positions: Int32[Array, "batch pairs"]  # of each pair's [CLS]
    sentence_order_labels: Int32[Array, "batch pairs"]  # 0: in order, 1: swapped
    sentence_order_weights: Float32[Array, "batch pairs"]  # 0: the row holds fewer pairs
    teacher: TeacherPredictions | None = None  # only in distillation; loaders leave it None

    @classmethod
    def shapes(cls, **sizes: int) -> "PretrainingBatch":
        """Return the shapes and types of a batch, to compile for.

        Args:
            sizes: `batch`, `length`, `predictions` and `pairs`.
        """
        fields = (
            jax.ShapeDtypeStruct([sizes[axis] for axis in axes], dtype)
            for dtype, axes in FIELDS.values()
        )
        return cls(*fields)  # type: ignore[arg-type]

    def row_inputs(self) -> dict[str, Any]:
        """Return the arguments of a model that describe the rows."""
        names = ("input_ids", "token_type_ids", "position_ids", "sequence_ids")
        return {name: getattr(self, name) for name in (*names, "sentence_order_positions")}

    @classmethod
    def from_numpy(cls, arrays: Mapping[str, np.ndarray]) -> "PretrainingBatch":
        """Build a batch from a loader's dict, and check its shapes and types.

        Raises:
            TypeError: a field is missing or unknown.
            ValueError: a field's shape or type breaks the contract.
        """
        batch = cls(**arrays)  # type: ignore[arg-type]  # on the host, until a step takes it
        check_fields(arrays, FIELDS)
        return batch


def check_fields(
    arrays: Mapping[str, np.ndarray], fields: Mapping[str, tuple[DTypeLike, tuple[str, ...]]]
) -> None:
    """Check the types and axes of a batch's fields.

    Args:
        arrays: the fields.
        fields: type and axes of each; an axis must have the same size wherever it occurs.

    Raises:
        ValueError: one is wrong; the message names it.
    """
    sizes: dict[str, tuple[str, int]] = {}
    for name, array in arrays.items():
        dtype, axes = fields[name]
        if array.dtype != dtype or array.ndim != len(axes):
            plural = "axis" if len(axes) == 1 else "axes"
            raise ValueError(
                f"batch field {name} must be {np.dtype(dtype).name} with {len(axes)} {plural}, "
                f"got {array.dtype} of shape {array.shape}"
            )
        for axis, size in zip(axes, array.shape, strict=True):
            first, expected = sizes.setdefault(axis, (name, size))
            if size != expected:
                raise ValueError(
                    f"batch field {name} has {axis} size {size}, {first} has {expected}"
                )


def _second_axis(name: str) -> str:
    if name.startswith("masked_lm"):
        return "predictions"
    return "pairs" if name.startswith("sentence_order") else "length"


# Type and axes of the fields that every batch has.
FIELDS: Mapping[str, tuple[DTypeLike, tuple[str, ...]]] = {
    name: (np.float32 if name.endswith("_weights") else np.int32, ("batch", _second_axis(name)))
    for name in PretrainingBatch._fields
    if name != "teacher"
}
