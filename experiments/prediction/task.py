"""What every task of `experiments.predict` is made of: options, a loaded model, results."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import PyTree

from albert_jax.pretrained import directory_of
from data_pipeline import AlbertTokenizer
from data_pipeline.errors import InputError
from experiments.prediction.inference import EncodedRow, Inference
from experiments.prediction.inputs import RawInput


class Pooling(StrEnum):
    """Which vector stands for a text."""

    POOLED = "pooled"  # the pooler's: the first piece's through a layer of its own
    FIRST = "first"  # the last layer's, of [CLS]
    MEAN = "mean"  # the mean of the last layer's, [CLS] and [SEP] included


@dataclasses.dataclass(frozen=True)
class PredictionOptions:
    """How to predict."""

    model: str  # what `from_pretrained` reads
    dtype: DTypeLike = jnp.float32
    truncate: bool = False  # texts that are too long
    top_k: int = 5  # candidates for each gap or question
    pooling: Pooling = Pooling.POOLED
    # Questions with a higher null score are not answered; None: as the model's report says, or all
    # are answered.
    null_threshold: float | None = None


Result = dict[str, Any]
# Results with the numbers of their examples, in any order.
NumberedResults = Iterator[tuple[int, Result]]


class PredictionTask(NamedTuple):
    """What `experiments.predict` can be asked for.

    Attributes:
        predict: examples to results.
        format: a result in words, several lines where it needs them.
    """

    predict: Callable[[Sequence[RawInput], PredictionOptions], NumberedResults]
    format: Callable[[Result], str]


class LoadedModel(NamedTuple):
    """A model that was read, with its tokenizer."""

    model: Any
    params: PyTree
    tokenizer: AlbertTokenizer

    def encode(
        self,
        examples: Sequence[RawInput],
        *,
        fields: Sequence[str] = ("text",),
        truncate: bool,
        mask_words: bool = False,
    ) -> list[EncodedRow]:
        """Rows of one or two fields each.

        Raises:
            InputError: a field is missing or empty, or the row is too long.
        """
        return [self._encode_one(example, fields, truncate, mask_words) for example in examples]

    def infer(
        self,
        function: Callable[..., PyTree],
        rows: Sequence[EncodedRow],
        *,
        tokens_per_batch: int | None = None,
    ) -> Iterator[tuple[int, PyTree]]:
        """The outputs of each row with its number, in any order; see `Inference`.

        Args:
            function: is given the model, its parameters and a batch.
            rows: what `encode` gives.
            tokens_per_batch: see `Inference`.
        """
        inference = Inference(
            functools.partial(function, self.model),
            self.params,
            max_length=self.model.config.max_position_embeddings,
            tokens_per_batch=tokens_per_batch,
        )
        return inference(rows)

    def _encode_one(
        self, example: RawInput, fields: Sequence[str], truncate: bool, mask_words: bool
    ) -> EncodedRow:
        texts = [example.text(field) for field in fields]
        try:
            row = self.tokenizer.encode_row(
                *texts,
                truncation=truncate,
                max_length=self.model.config.max_position_embeddings,
                mask_words=mask_words,
            )
        except InputError as error:
            said = str(error).replace("ask for truncation", "give --truncate")
            raise InputError(f"{example.source}: {said}") from None
        return {name: array for name, array in row.items() if name != "offsets"}


def load_model(kind: type[Any], options: PredictionOptions) -> LoadedModel:
    """Reads a model and the tokenizer beside it.

    Args:
        kind: the class, such as `AlbertModel`.
        options: name the path.

    Raises:
        InputError: there is no tokenizer, or it is not the model's.
    """
    model, params = kind.from_pretrained(options.model, dtype=options.dtype)
    tokenizer = AlbertTokenizer.from_pretrained(str(directory_of(options.model)))
    if tokenizer.vocab_size != model.config.vocab_size:
        raise InputError(
            f"--model={options.model}: its tokenizer has {tokenizer.vocab_size} pieces, its model "
            f"{model.config.vocab_size}"
        )
    return LoadedModel(model, params, tokenizer)
