"""Samples of a model's predictions: gaps in held-out text, and what fills them."""

import functools

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Int, PyTree

from albert_jax.batch import PretrainingBatch
from albert_jax.model import AlbertForPreTraining
from albert_jax.tasks.pretraining import apply_to_batch
from data_pipeline.tokenizers.tokenizer import Tokenizer
from experiments.pages.samples import Sample, Token

NUM_SAMPLES = 6
_MOST_TOKENS = 70  # of a sample that are shown; the model reads the whole row
_CANDIDATES = 4


def fill_gaps(
    model: AlbertForPreTraining,
    params: PyTree,
    batch: dict[str, np.ndarray],
    tokenizer: Tokenizer,
    mesh: Mesh,
) -> list[Sample]:
    """Mask all tokens that are predicted in the rows of a batch, and let the model fill the gaps.

    All processes of a run call it together, on the same rows.

    Args:
        model: the model.
        params: its parameters.
        batch: fields of a `PretrainingBatch`; empty rows are left out.
        tokenizer: the tokenizer of the corpus.
        mesh: the devices.
    """
    used = batch["sequence_ids"].any(axis=1)
    rows = {name: array[used] for name, array in batch.items()}
    ids, slots = rows["input_ids"].copy(), np.nonzero(rows["masked_lm_weights"])
    ids[slots[0], rows["masked_lm_positions"][slots]] = tokenizer.mask_id
    rows["input_ids"] = ids
    everywhere = NamedSharding(mesh, PartitionSpec())
    step = jax.jit(
        functools.partial(_candidates, model, top=min(_CANDIDATES, tokenizer.vocab_size)),
        out_shardings=everywhere,
    )
    probabilities, guesses = map(np.asarray, step(params, PretrainingBatch.from_numpy(rows)))
    return [
        _read_row({name: array[row] for name, array in rows.items()}, p, g, tokenizer)
        for row, (p, g) in enumerate(zip(probabilities, guesses, strict=True))
    ]


def _candidates(
    model: AlbertForPreTraining, params: PyTree, batch: PretrainingBatch, *, top: int
) -> tuple[Float[Array, "rows slots top"], Int[Array, "rows slots top"]]:
    outputs = apply_to_batch(model, params, batch, output_sop_logits=False)
    return jax.lax.top_k(jax.nn.softmax(outputs.prediction_logits), top)


def _read_row(
    row: dict[str, np.ndarray], probabilities: np.ndarray, guesses: np.ndarray, tokenizer: Tokenizer
) -> Sample:
    """Return the first tokens of a row, without special ones; gaps come with candidates."""
    used = row["masked_lm_weights"] > 0
    slots = {int(row["masked_lm_positions"][slot]): slot for slot in np.flatnonzero(used)}
    tokens = []
    for position in np.flatnonzero(row["sequence_ids"])[: _MOST_TOKENS + 1]:
        id = int(row["input_ids"][position])
        if position in slots:
            slot = slots[int(position)]
            text, separate = _show(int(row["masked_lm_ids"][slot]), tokenizer)
            names = (_show(int(guess), tokenizer)[0] for guess in guesses[slot])
            chances = (round(float(p), 4) for p in probabilities[slot])
            tokens.append(Token(text, separate, tuple(zip(names, chances, strict=True))))
        elif id not in (tokenizer.cls_id, tokenizer.sep_id):
            tokens.append(Token(*tokenizer.surface_form(id)))
    return tokens


def _show(id: int, tokenizer: Tokenizer) -> tuple[str, bool]:
    """Return a token's text, a mark if it is only a space, and whether a space precedes it."""
    text, separate = tokenizer.surface_form(id)
    return text or "\N{OPEN BOX}", separate
