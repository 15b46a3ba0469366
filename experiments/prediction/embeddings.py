"""Vectors of texts, and the similarity of two texts as the cosine of their vectors."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import Array
from jaxtyping import Float, Float32, PyTree

from albert_jax import AlbertForEmbedding, Pooling
from albert_jax.interop.names import WeightsError
from albert_jax.pretrained import directory_of
from albert_jax.tasks.embedding_files import VectorForm, read_vector_form
from experiments.prediction.inference import Inference
from experiments.prediction.task import LoadedModel, NumberedResults, PredictionTask, load_model
from experiments.tasks.raw_inputs import PredictionOptions, RawInput, encode_texts, read_texts
from experiments.tasks.task import Result


class Embedder(NamedTuple):
    """A model that makes a vector of a text.

    Attributes:
        loaded: the model with its tokenizer.
        inference: computes the vectors of rows.
        truncate: cut texts that are too long.
    """

    loaded: LoadedModel
    inference: Inference
    truncate: bool

    def vectors(
        self, texts: Sequence[RawInput]
    ) -> Iterator[tuple[int, Float32[np.ndarray, " hidden"]]]:
        """Yield the vector of each text, or of each pair of texts, with its number, in any order.

        Raises:
            InputError: a text is too long.
        """
        loaded = self.loaded
        rows = encode_texts(
            texts, loaded.tokenizer, max_length=loaded.max_length, truncate=self.truncate
        )
        yield from self.inference(rows)


def open_embedder(options: PredictionOptions, default: Pooling) -> Embedder:
    """Load a model with the pooling of `options`, else with its own, else with the default.

    Vectors are normalized only if the pooling is the model's own and its files say so.

    Raises:
        WeightsError: there is no model, or it lacks what its pooling needs.
        InputError: there is no tokenizer, or it is not the model's.
    """
    form = VectorForm(options.pooling or default, False)
    if options.pooling is None:
        form = read_vector_form(directory_of(options.model)) or form
    try:
        loaded = load_model(AlbertForEmbedding, options, **form._asdict())
    except WeightsError as error:
        without = form.pooling is Pooling.POOLED and "pooler" in str(error)
        hint = "; --pooling=mean and --pooling=first need no pooler" if without else ""
        raise WeightsError(f"{error}{hint}") from error
    inference = Inference(
        functools.partial(embed_rows, loaded.model), loaded.params, max_length=loaded.max_length
    )
    return Embedder(loaded, inference, options.truncate)


def embed_rows(
    model: AlbertForEmbedding, params: PyTree, batch: dict[str, Any]
) -> Float[Array, "rows hidden"]:
    """Compute the vector of each row of a batch."""
    outputs: Any = model.apply({"params": params}, **batch)
    return outputs.embeddings


def embed(inputs: Sequence[RawInput], options: PredictionOptions) -> NumberedResults:
    """Compute the vector of each text, or of each pair of texts."""
    texts = read_texts(inputs)
    for number, vector in open_embedder(options, Pooling.POOLED).vectors(texts):
        yield number, {**texts[number].fields, "embedding": vector}


def format_embedding(result: Result) -> str:
    """Format the text and the beginning of its vector."""
    vector = np.asarray(result["embedding"])
    numbers = " ".join(f"{value:.3f}" for value in vector[:8])
    return f"{result['text']}\n  {len(vector)} numbers: {numbers} ..."


def compare(inputs: Sequence[RawInput], options: PredictionOptions) -> NumberedResults:
    """Compute the cosine of the two texts' vectors for each pair; equal texts are encoded once."""
    pairs = read_texts(inputs, paired=True)
    embedder = open_embedder(options, Pooling.MEAN)
    numbers: dict[str, int] = {}
    texts: list[RawInput] = []
    waiting: dict[int, list[int]] = {}
    for pair, given in enumerate(pairs):
        for text in given.fields.values():
            if text not in numbers:
                numbers[text] = len(texts)
                texts.append(RawInput({"text": text}, given.source))
            waiting.setdefault(numbers[text], []).append(pair)
    computed: dict[int, np.ndarray] = {}
    for number, vector in embedder.vectors(texts):
        computed[number] = vector / max(float(np.linalg.norm(vector)), 1e-12)
        for pair in dict.fromkeys(waiting[number]):
            both = [numbers[text] for text in pairs[pair].fields.values()]
            if all(one in computed for one in both):
                cosine = float(computed[both[0]] @ computed[both[1]])
                yield pair, {**pairs[pair].fields, "similarity": cosine}


def format_similarity(result: Result) -> str:
    """Format both texts and their similarity."""
    return f"{result['text']}\n{result['text_pair']}\n  {result['similarity']:.4f}"


EMBEDDING_TASKS: dict[str, PredictionTask] = {
    "encode": PredictionTask(embed, format_embedding),
    "similarity": PredictionTask(compare, format_similarity),
}
