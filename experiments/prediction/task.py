"""The record of a prediction task, and a loaded model with its tokenizer."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from jaxtyping import PyTree

from albert_jax.pretrained import directory_of
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.albert import AlbertTokenizer
from experiments.prediction.inference import Inference
from experiments.tasks.raw_inputs import EncodedRow, PredictionOptions, RawInput
from experiments.tasks.task import Result

# Results with the numbers of their inputs, in any order.
NumberedResults = Iterator[tuple[int, Result]]


class PredictionTask(NamedTuple):
    """One value of `experiments.predict --task`.

    Attributes:
        predict: yields the results of raw inputs. Raises InputError if an input or the model is
            unusable.
        format: formats a result as lines of text.
    """

    predict: Callable[[Sequence[RawInput], PredictionOptions], NumberedResults]
    format: Callable[[Result], str]


class LoadedModel(NamedTuple):
    """A model with its parameters and its tokenizer."""

    model: Any
    params: PyTree
    tokenizer: AlbertTokenizer

    @property
    def max_length(self) -> int:
        """The most tokens of a row."""
        return self.model.config.max_position_embeddings

    def infer(
        self,
        function: Callable[..., PyTree],
        rows: Sequence[EncodedRow],
        *,
        tokens_per_batch: int | None = None,
    ) -> Iterator[tuple[int, PyTree]]:
        """Yield the outputs of each row with the row's number, in any order; see `Inference`.

        Args:
            function: a function of the model, its parameters and a batch.
            rows: rows of any lengths.
            tokens_per_batch: see `Inference`.
        """
        inference = Inference(
            functools.partial(function, self.model),
            self.params,
            max_length=self.max_length,
            tokens_per_batch=tokens_per_batch,
        )
        return inference(rows)


def load_model(model_class: type[Any], options: PredictionOptions, **fields: Any) -> LoadedModel:
    """Load a model and the tokenizer beside it.

    Args:
        model_class: the model's class, such as `AlbertModel`.
        options: the options, which name the path and the dtype.
        fields: fields of the model, such as `add_pooling_layer`.

    Raises:
        InputError: there is no tokenizer, or it is not the model's.
    """
    model, params = model_class.from_pretrained(options.model, dtype=options.dtype, **fields)
    tokenizer = AlbertTokenizer.from_pretrained(str(directory_of(options.model)))
    if tokenizer.vocab_size != model.config.vocab_size:
        raise InputError(
            f"--model={options.model}: its tokenizer has {tokenizer.vocab_size} tokens, its model "
            f"{model.config.vocab_size}"
        )
    return LoadedModel(model, params, tokenizer)
