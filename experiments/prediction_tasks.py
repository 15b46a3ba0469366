"""What can be asked of a pre-trained model: words for gaps, vectors, the order of two texts."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int, PyTree

from albert_jax import AlbertForMaskedLM, AlbertForPreTraining, AlbertModel
from albert_jax.pretrained import directory_of
from data_pipeline import AlbertTokenizer
from data_pipeline.albert_tokenizer import MASK_WORD
from data_pipeline.errors import InputError
from experiments.inference import Inference, Row
from experiments.prediction_input import Example

_CANDIDATE_SCORES = 1 << 27  # scores of candidates for gaps that a batch may have
_PIECES_PER_BATCH = 16384


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
Numbered = Iterator[tuple[int, Result]]


class Task(NamedTuple):
    """What `experiments.predict` can be asked for.

    Attributes:
        predict: examples to results.
        describe: a result in words, several lines where it needs them.
    """

    predict: Callable[[Sequence[Example], PredictionOptions], Numbered]
    describe: Callable[[Result], str]


class Loaded(NamedTuple):
    """A model that was read, with its tokenizer."""

    model: Any
    params: PyTree
    tokenizer: AlbertTokenizer

    def encode(
        self,
        examples: Sequence[Example],
        *,
        fields: Sequence[str] = ("text",),
        truncate: bool,
        mask_words: bool = False,
    ) -> list[Row]:
        """Rows of one or two fields each.

        Raises:
            InputError: a field is missing or empty, or the row is too long.
        """
        return [self._encode_one(example, fields, truncate, mask_words) for example in examples]

    def _encode_one(
        self, example: Example, fields: Sequence[str], truncate: bool, mask_words: bool
    ) -> Row:
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


def load(kind: type[Any], options: PredictionOptions) -> Loaded:
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
    return Loaded(model, params, tokenizer)


def fill_masks(examples: Sequence[Example], options: PredictionOptions) -> Numbered:
    """The likeliest pieces for each [MASK] of a text."""
    for example in examples:
        if MASK_WORD not in example.text():
            raise InputError(f"{example.source}: there is no {MASK_WORD} in {example.text()!r}")
    loaded = load(AlbertForMaskedLM, options)
    tokenizer = loaded.tokenizer
    rows = loaded.encode(examples, truncate=options.truncate, mask_words=True)
    counts = [int((row["input_ids"] == tokenizer.mask_id).sum()) for row in rows]
    for example, count in zip(examples, counts, strict=True):
        if not count:
            raise InputError(f"{example.source}: no {MASK_WORD} is left of the truncated text")
    slots = max(counts)
    scores = slots * tokenizer.vocab_size
    infer = Inference(
        functools.partial(
            _fill,
            loaded.model,
            mask_id=tokenizer.mask_id,
            slots=slots,
            top_k=min(options.top_k, tokenizer.vocab_size),
        ),
        loaded.params,
        max_length=loaded.model.config.max_position_embeddings,
        pieces_per_batch=min(_PIECES_PER_BATCH, 16 * max(1, _CANDIDATE_SCORES // scores)),
    )
    for number, (probabilities, ids) in infer(rows):
        text = examples[number].text()
        masks = []
        for mask in range(counts[number]):
            candidates = zip(ids[mask].tolist(), probabilities[mask].tolist(), strict=True)
            masks.append(
                [
                    {
                        "piece": tokenizer.tokenizer.pieces[id],
                        "probability": probability,
                        "text": _fill_in(text, mask, *tokenizer.tokenizer.write_piece(id)),
                    }
                    for id, probability in candidates
                ]
            )
        yield number, {"text": text, "masks": masks}


def _fill(
    model: AlbertForMaskedLM,
    params: PyTree,
    batch: dict[str, Any],
    *,
    mask_id: int,
    slots: int,
    top_k: int,
) -> tuple[Float[Array, "rows slots top"], Int[Array, "rows slots top"]]:
    def find(ids: Array) -> Array:
        return jnp.nonzero(ids == mask_id, size=slots, fill_value=0)[0]

    positions = jax.vmap(find)(batch["input_ids"])
    outputs: Any = model.apply({"params": params}, **batch, masked_lm_positions=positions)
    return jax.lax.top_k(jax.nn.softmax(outputs.logits), top_k)


def _fill_in(text: str, mask: int, word: str, apart: bool) -> str:
    """The text with a word in one of its gaps; other gaps stay.

    Example: "s" that does not stand apart, in gap 0 of "The cat [MASK] and [MASK].", gives
    "The cats and [MASK]."
    """
    parts = text.split(MASK_WORD)
    before, after = (MASK_WORD.join(some) for some in (parts[: mask + 1], parts[mask + 1 :]))
    return (before if apart else before.rstrip()) + word + after


def describe_masks(result: Result) -> str:
    """The text, and below it the candidates of each gap."""
    lines = [result["text"]]
    for number, candidates in enumerate(result["masks"]):
        for place, candidate in enumerate(candidates):
            label = f"{MASK_WORD} {number + 1}" if place == 0 else ""
            lines.append(f"  {label:<10}{candidate['probability']:7.1%}  {candidate['piece']}")
    return "\n".join(lines)


def embed(examples: Sequence[Example], options: PredictionOptions) -> Numbered:
    """A vector for each text, or for each pair where there are pairs."""
    paired = any("text_pair" in example.fields for example in examples)
    fields = ("text", "text_pair") if paired else ("text",)
    texts = [{field: example.text(field) for field in fields} for example in examples]
    loaded = load(AlbertModel, options)
    rows = loaded.encode(examples, fields=fields, truncate=options.truncate)
    infer = Inference(
        functools.partial(_embed, loaded.model, pooling=options.pooling),
        loaded.params,
        max_length=loaded.model.config.max_position_embeddings,
        pieces_per_batch=_PIECES_PER_BATCH,
    )
    for number, vector in infer(rows):
        yield number, {**texts[number], "embedding": vector}


def _embed(
    model: AlbertModel, params: PyTree, batch: dict[str, Any], *, pooling: Pooling
) -> Float[Array, "rows hidden"]:
    outputs: Any = model.apply({"params": params}, **batch)
    if pooling is Pooling.POOLED:
        return outputs.pooler_output.astype(jnp.float32)
    hidden = outputs.last_hidden_state.astype(jnp.float32)
    if pooling is Pooling.FIRST:
        return hidden[:, 0]
    weights = batch["attention_mask"].astype(jnp.float32)
    return jnp.einsum("rlh,rl->rh", hidden, weights) / weights.sum(axis=1, keepdims=True)


def describe_embedding(result: Result) -> str:
    """The text, and how its vector begins."""
    vector = np.asarray(result["embedding"])
    numbers = " ".join(f"{value:.3f}" for value in vector[:8])
    return f"{result['text']}\n  {len(vector)} numbers: {numbers} ..."


def order_sentences(examples: Sequence[Example], options: PredictionOptions) -> Numbered:
    """Whether the second text follows the first, or the first the second."""
    fields = ("text", "text_pair")
    texts = [{field: example.text(field) for field in fields} for example in examples]
    loaded = load(AlbertForPreTraining, options)
    infer = Inference(
        functools.partial(_order, loaded.model),
        loaded.params,
        max_length=loaded.model.config.max_position_embeddings,
        pieces_per_batch=_PIECES_PER_BATCH,
    )
    rows = loaded.encode(examples, fields=fields, truncate=options.truncate)
    for number, (in_order, swapped) in infer(rows):
        yield number, {**texts[number], "in_order": float(in_order), "swapped": float(swapped)}


def _order(
    model: AlbertForPreTraining, params: PyTree, batch: dict[str, Any]
) -> Float[Array, "rows 2"]:
    outputs: Any = model.apply({"params": params}, **batch)
    return jax.nn.softmax(outputs.sop_logits)


def describe_order(result: Result) -> str:
    """Both texts, and the likelier order."""
    right = result["in_order"] >= result["swapped"]
    said = "in order" if right else "swapped"
    return (
        f"{result['text']}\n{result['text_pair']}\n"
        f"  {said} ({max(result['in_order'], result['swapped']):.1%})"
    )


PRETRAINING_TASKS: dict[str, Task] = {
    "fill-mask": Task(fill_masks, describe_masks),
    "encode": Task(embed, describe_embedding),
    "sentence-order": Task(order_sentences, describe_order),
}
