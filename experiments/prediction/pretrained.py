"""What can be asked of a pre-trained model: words for gaps, vectors, the order of two texts."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, PyTree

from albert_jax import AlbertForMaskedLM, AlbertForPreTraining, AlbertModel
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.albert import MASK_WORD
from experiments.prediction.inference import default_tokens_per_batch
from experiments.prediction.inputs import RawInput
from experiments.prediction.task import (
    NumberedResults,
    Pooling,
    PredictionOptions,
    PredictionTask,
    Result,
    load_model,
)

_CANDIDATE_SCORES = 1 << 27  # scores of candidates for gaps that a batch may have


def fill_masks(examples: Sequence[RawInput], options: PredictionOptions) -> NumberedResults:
    """The likeliest pieces for each [MASK] of a text."""
    for example in examples:
        if MASK_WORD not in example.text():
            raise InputError(f"{example.source}: there is no {MASK_WORD} in {example.text()!r}")
    loaded = load_model(AlbertForMaskedLM, options)
    tokenizer = loaded.tokenizer
    rows = loaded.encode(examples, truncate=options.truncate, mask_words=True)
    counts = [int((row["input_ids"] == tokenizer.mask_id).sum()) for row in rows]
    for example, count in zip(examples, counts, strict=True):
        if not count:
            raise InputError(f"{example.source}: no {MASK_WORD} is left of the truncated text")
    slots = max(counts)
    scores = slots * tokenizer.vocab_size
    function = functools.partial(
        _fill,
        mask_id=tokenizer.mask_id,
        slots=slots,
        top_k=min(options.top_k, tokenizer.vocab_size),
    )
    pieces = min(default_tokens_per_batch(), 16 * max(1, _CANDIDATE_SCORES // scores))
    for number, (probabilities, ids) in loaded.infer(function, rows, tokens_per_batch=pieces):
        text = examples[number].text()
        masks = []
        for mask in range(counts[number]):
            candidates = zip(ids[mask].tolist(), probabilities[mask].tolist(), strict=True)
            masks.append(
                [
                    {
                        "piece": tokenizer.tokenizer.tokens[id],
                        "probability": probability,
                        "text": _fill_in(text, mask, *tokenizer.tokenizer.surface_form(id)),
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


def format_masks(result: Result) -> str:
    """The text, and below it the candidates of each gap."""
    lines = [result["text"]]
    for number, candidates in enumerate(result["masks"]):
        for place, candidate in enumerate(candidates):
            label = f"{MASK_WORD} {number + 1}" if place == 0 else ""
            lines.append(f"  {label:<10}{candidate['probability']:7.1%}  {candidate['piece']}")
    return "\n".join(lines)


def embed(examples: Sequence[RawInput], options: PredictionOptions) -> NumberedResults:
    """A vector for each text, or for each pair where there are pairs."""
    paired = any("text_pair" in example.fields for example in examples)
    fields = ("text", "text_pair") if paired else ("text",)
    texts = [{field: example.text(field) for field in fields} for example in examples]
    loaded = load_model(AlbertModel, options)
    rows = loaded.encode(examples, fields=fields, truncate=options.truncate)
    function = functools.partial(embed_rows, pooling=options.pooling)
    for number, vector in loaded.infer(function, rows):
        yield number, {**texts[number], "embedding": vector}


def embed_rows(
    model: AlbertModel, params: PyTree, batch: dict[str, Any], *, pooling: Pooling
) -> Float[Array, "rows hidden"]:
    """The vector of each row of a batch."""
    outputs: Any = model.apply({"params": params}, **batch)
    if pooling is Pooling.POOLED:
        return outputs.pooler_output.astype(jnp.float32)
    hidden = outputs.last_hidden_state.astype(jnp.float32)
    if pooling is Pooling.FIRST:
        return hidden[:, 0]
    weights = batch["attention_mask"].astype(jnp.float32)
    return jnp.einsum("rlh,rl->rh", hidden, weights) / weights.sum(axis=1, keepdims=True)


def format_embedding(result: Result) -> str:
    """The text, and how its vector begins."""
    vector = np.asarray(result["embedding"])
    numbers = " ".join(f"{value:.3f}" for value in vector[:8])
    return f"{result['text']}\n  {len(vector)} numbers: {numbers} ..."


def order_sentences(examples: Sequence[RawInput], options: PredictionOptions) -> NumberedResults:
    """Whether the second text follows the first, or the first the second."""
    fields = ("text", "text_pair")
    texts = [{field: example.text(field) for field in fields} for example in examples]
    loaded = load_model(AlbertForPreTraining, options)
    rows = loaded.encode(examples, fields=fields, truncate=options.truncate)
    for number, (in_order, swapped) in loaded.infer(_order, rows):
        yield number, {**texts[number], "in_order": float(in_order), "swapped": float(swapped)}


def _order(
    model: AlbertForPreTraining, params: PyTree, batch: dict[str, Any]
) -> Float[Array, "rows 2"]:
    outputs: Any = model.apply({"params": params}, **batch)
    return jax.nn.softmax(outputs.sop_logits)


def format_order(result: Result) -> str:
    """Both texts, and the likelier order."""
    right = result["in_order"] >= result["swapped"]
    said = "in order" if right else "swapped"
    return (
        f"{result['text']}\n{result['text_pair']}\n"
        f"  {said} ({max(result['in_order'], result['swapped']):.1%})"
    )


PRETRAINING_TASKS: dict[str, PredictionTask] = {
    "fill-mask": PredictionTask(fill_masks, format_masks),
    "encode": PredictionTask(embed, format_embedding),
    "sentence-order": PredictionTask(order_sentences, format_order),
}
