"""Greedy search and sampling: one token after another, each text on its own.

A text's random keys depend only on the seed, the example and the position, so that it is the same
in any batch and on any number of hosts.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Float32, Int

from albert_jax.decoder.config import Gpt2Config
from albert_jax.generation.config import GenerationOptions
from albert_jax.generation.processors import restrict, warp
from albert_jax.tasks.distillation.top_k import top_k

# (last token of each row, cache) -> (logits of the next one, cache with the last one)
Step = Callable[[Int[Array, " rows"], Any], tuple[Float[Array, "rows vocabulary"], Any]]
Texts = tuple[Int[Array, "batch longest"], Float32[Array, " batch"]]


class _State(NamedTuple):
    tokens: Int[Array, "batch longest"]
    length: Int[Array, ""]  # of the texts that have not ended
    log_probs: Float32[Array, " batch"]
    lengths: Int[Array, " batch"]  # of generated tokens, including the end
    ended: Bool[Array, " batch"]
    cache: Any


def write_one_by_one(
    step: Step,
    cache: Any,
    example_ids: Int[Array, " batch"],
    key: Array,
    config: Gpt2Config,
    options: GenerationOptions,
) -> Texts:
    """Generate a text for each row.

    Args:
        step: the decoder.
        cache: the decoder's cache before the first token.
        example_ids: numbers that distinguish the random keys of rows.
        key: random key of the seed.
        config: special tokens.
        options: see `GenerationOptions`.

    Returns:
        The texts, from the start token on, padded, and their log probabilities, divided by their
        lengths to the power `length_penalty`.
    """
    keys = jax.vmap(lambda example: jax.random.fold_in(key, example))(example_ids)
    batch, longest = len(example_ids), options.max_new_tokens + 1

    def is_open(state: _State) -> Bool[Array, ""]:
        return (state.length < longest) & ~state.ended.all()

    def write_next(state: _State) -> _State:
        last = jax.lax.dynamic_index_in_dim(state.tokens, state.length - 1, 1, keepdims=False)
        logits, cache = step(last, state.cache)
        logits = logits.astype(jnp.float32)
        allowed = restrict(logits, state.tokens, state.length, config.eos_token_id, options)
        chosen = _choose(allowed, keys, state.length, options)
        log_probs = jnp.take_along_axis(logits, chosen[:, None], axis=1)[:, 0]
        log_probs -= jax.nn.logsumexp(logits, axis=1)
        written = jnp.where(state.ended, config.pad_token_id, chosen)
        return _State(
            jax.lax.dynamic_update_index_in_dim(state.tokens, written, state.length, 1),
            state.length + 1,
            state.log_probs + jnp.where(state.ended, 0, log_probs),
            state.lengths + ~state.ended,
            state.ended | (chosen == config.eos_token_id),
            cache,
        )

    tokens = jnp.full((batch, longest), config.pad_token_id, jnp.int32)
    start = _State(
        tokens.at[:, 0].set(config.bos_token_id),
        jnp.ones((), jnp.int32),
        jnp.zeros(batch, jnp.float32),
        jnp.zeros(batch, jnp.int32),
        jnp.zeros(batch, bool),
        cache,
    )
    end = jax.lax.while_loop(is_open, write_next, start)
    return end.tokens, end.log_probs / end.lengths.astype(jnp.float32) ** options.length_penalty


def _choose(
    logits: Float32[Array, "batch vocabulary"],
    keys: Array,
    position: Int[Array, ""],
    options: GenerationOptions,
) -> Int[Array, " batch"]:
    """Return the next tokens: the most probable ones, or random ones."""
    if options.temperature == 0:
        return top_k(logits, 1)[1][:, 0]
    keys = jax.vmap(lambda key: jax.random.fold_in(key, position))(keys)
    return jax.vmap(jax.random.categorical)(keys, warp(logits, options)).astype(jnp.int32)
