"""Raw inputs of predictions, and their rows of ids."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from albert_jax.config import Pooling
from data_pipeline.errors import InputError
from data_pipeline.finetuning.encoded_examples import EncodedExamples
from data_pipeline.tokenizers.albert import AlbertTokenizer

# One row of a model's inputs by name. The last axis of each array is along the tokens; an axis of
# choices may precede it.
EncodedRow = Mapping[str, np.ndarray]


class RawInput(NamedTuple):
    """An input of a prediction.

    Attributes:
        fields: `text` and whatever else the task needs, by the names of the flags.
        source: where the input comes from, for error messages.
    """

    fields: Mapping[str, Any]
    source: str

    def text(self, name: str = "text") -> str:
        """Return the text of a field.

        Raises:
            InputError: the field is missing, empty or not a text.
        """
        value = self.fields.get(name)
        if not isinstance(value, str):
            found = "is missing" if value is None else f"must be a text, got {value!r}"
            raise InputError(f"{self.source}: {name} {found}")
        if not value.strip():
            raise InputError(f"{self.source}: {name} is empty")
        return value


class EncodedInput(NamedTuple):
    """An example of a prediction with its rows.

    Attributes:
        example: what `RawPrediction.read` returned for it.
        rows: inputs of the model, at least one.
        layout: what `RawPrediction.decode` needs to know about the rows.
    """

    example: Any
    rows: Sequence[EncodedRow]
    layout: Any = None


@dataclasses.dataclass(frozen=True)
class PredictionOptions:
    """Options of a prediction."""

    model: str  # a path for `from_pretrained`
    dtype: DTypeLike = jnp.float32
    truncate: bool = False  # texts that are too long
    top_k: int = 5  # candidates for each [MASK] or question
    pooling: Pooling | None = None  # of a vector; None: the model's own
    # Questions with a higher null score get no answer. None takes the threshold of the model's
    # report; without one, every question gets an answer.
    null_threshold: float | None = None
    # Options of a decoder, by their names in `GenerationOptions`. Those not given are the model's
    # own.
    generation: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def read_texts(inputs: Sequence[RawInput], *, paired: bool | None = None) -> list[RawInput]:
    """Keep the text of each input, or both texts of a pair.

    Args:
        inputs: the inputs.
        paired: True to read pairs; None reads pairs if any input has a second text.

    Raises:
        InputError: a text is missing or empty.
    """
    if paired is None:
        paired = any("text_pair" in given.fields for given in inputs)
    names = ("text", "text_pair") if paired else ("text",)
    return [RawInput({name: given.text(name) for name in names}, given.source) for given in inputs]


def encode_texts(
    texts: Sequence[RawInput],
    tokenizer: AlbertTokenizer,
    *,
    max_length: int,
    truncate: bool,
    mask_words: bool = False,
) -> list[EncodedRow]:
    """Encode what `read_texts` returned, one row each.

    Args:
        texts: texts and pairs.
        tokenizer: the model's tokenizer.
        max_length: the most tokens of a row.
        truncate: cut longer texts.
        mask_words: read [MASK] in a text as the mask token.

    Raises:
        InputError: a row is too long, or a text cannot be encoded.
    """

    def encode(text: RawInput) -> EncodedRow:
        try:
            row = tokenizer.encode_row(
                *text.fields.values(),
                truncation=truncate,
                max_length=max_length if truncate else None,
                mask_words=mask_words,
            )
        except InputError as error:
            raise InputError(f"{text.source}: {error}") from None
        if (length := len(row["input_ids"])) > max_length:
            raise InputError(
                f"{text.source}: it has {length} tokens with the special ones, and may have "
                f"{max_length}: shorten it or give --truncate"
            )
        return {name: array for name, array in row.items() if name != "offsets"}

    return [encode(text) for text in texts]


def split_rows(encoded: EncodedExamples) -> list[EncodedRow]:
    """Return the row of each example without padding.

    Fields without a token axis are left out.
    """
    names = [*encoded.sequences, "attention_mask"]
    rows: list[EncodedRow] = []
    for number, length in enumerate(encoded.lengths.tolist()):
        batch = encoded.take(np.array([number]), length=length, batch_size=1)
        rows.append({name: batch[name][0] for name in names})
    return rows
