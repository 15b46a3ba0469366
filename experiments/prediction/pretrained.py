"""Predictions of pre-trained models: words for [MASK], and the order of two texts."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PyTree

from albert_jax import AlbertForMaskedLM, AlbertForPreTraining
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.albert import MASK_WORD
from experiments.prediction.inference import default_tokens_per_batch
from experiments.prediction.task import LoadedModel, NumberedResults, PredictionTask, load_model
from experiments.tasks.raw_inputs import (
    EncodedRow,
    PredictionOptions,
    RawInput,
    encode_texts,
    read_texts,
)
from experiments.tasks.task import Result

_MAX_LOGITS = 1 << 27  # of a batch: masks times vocabulary


def _encode(
    texts: Sequence[RawInput], loaded: LoadedModel, options: PredictionOptions, **others: bool
) -> list[EncodedRow]:
    length, truncate = loaded.max_length, options.truncate
    return encode_texts(texts, loaded.tokenizer, max_length=length, truncate=truncate, **others)


def fill_masks(inputs: Sequence[RawInput], options: PredictionOptions) -> NumberedResults:
    """Predict the most probable tokens for each [MASK] of each text."""
    texts = read_texts(inputs, paired=False)
    for text in texts:
        if MASK_WORD not in text.text():
            raise InputError(f"{text.source}: there is no {MASK_WORD} in {text.text()!r}")
    loaded = load_model(AlbertForMaskedLM, options)
    mask_id, vocab_size = loaded.tokenizer.mask_id, loaded.tokenizer.vocab_size
    rows = _encode(texts, loaded, options, mask_words=True)
    counts = [int((row["input_ids"] == mask_id).sum()) for row in rows]
    for text, count in zip(texts, counts, strict=True):
        if not count:
            raise InputError(f"{text.source}: no {MASK_WORD} is left of the truncated text")
    slots = max(counts)
    top_k = min(options.top_k, vocab_size)
    function = functools.partial(_fill, mask_id=mask_id, slots=slots, top_k=top_k)
    most = 16 * max(1, _MAX_LOGITS // (slots * vocab_size))
    tokens = min(default_tokens_per_batch(), most)
    for number, outputs in loaded.infer(function, rows, tokens_per_batch=tokens):
        given = texts[number].text()
        masks = [
            _candidates(loaded, given, mask, *(array[mask].tolist() for array in outputs))
            for mask in range(counts[number])
        ]
        yield number, {"text": given, "masks": masks}


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


def _candidates(
    loaded: LoadedModel, text: str, mask: int, probabilities: Sequence[float], ids: Sequence[int]
) -> list[Result]:
    """Return the candidates for one [MASK] of a text, the most probable first."""
    tokenizer = loaded.tokenizer.tokenizer
    return [
        {
            "piece": tokenizer.tokens[id],
            "probability": probability,
            "text": _replace_mask(text, mask, *tokenizer.surface_form(id)),
        }
        for id, probability in zip(ids, probabilities, strict=True)
    ]


def _replace_mask(text: str, mask: int, word: str, separate: bool) -> str:
    """Replace one [MASK] of a text.

    Example: the suffix "s" (`separate` is False) for [MASK] 0 of "The cat [MASK] and [MASK]."
    gives "The cats and [MASK]."
    """
    parts = text.split(MASK_WORD)
    before, after = (MASK_WORD.join(some) for some in (parts[: mask + 1], parts[mask + 1 :]))
    return (before if separate else before.rstrip()) + word + after


def format_masks(result: Result) -> str:
    """Format the text, and below it the candidates for each [MASK]."""
    lines = [result["text"]]
    for number, candidates in enumerate(result["masks"]):
        for place, candidate in enumerate(candidates):
            label = f"{MASK_WORD} {number + 1}" if place == 0 else ""
            lines.append(f"  {label:<10}{candidate['probability']:7.1%}  {candidate['piece']}")
    return "\n".join(lines)


def order_sentences(inputs: Sequence[RawInput], options: PredictionOptions) -> NumberedResults:
    """Predict whether the two texts of each pair are in order or swapped."""
    texts = read_texts(inputs, paired=True)
    loaded = load_model(AlbertForPreTraining, options)
    for number, (in_order, swapped) in loaded.infer(_order, _encode(texts, loaded, options)):
        probabilities = {"in_order": float(in_order), "swapped": float(swapped)}
        yield number, {**texts[number].fields, **probabilities}


def _order(
    model: AlbertForPreTraining, params: PyTree, batch: dict[str, Any]
) -> Float[Array, "rows 2"]:
    outputs: Any = model.apply({"params": params}, **batch)
    return jax.nn.softmax(outputs.sop_logits)


def format_order(result: Result) -> str:
    """Format both texts and their more probable order."""
    label = "in order" if result["in_order"] >= result["swapped"] else "swapped"
    probability = max(result["in_order"], result["swapped"])
    return f"{result['text']}\n{result['text_pair']}\n  {label} ({probability:.1%})"


PRETRAINING_TASKS: dict[str, PredictionTask] = {
    "fill-mask": PredictionTask(fill_masks, format_masks),
    "sentence-order": PredictionTask(order_sentences, format_order),
}
