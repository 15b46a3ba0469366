"""Logits processors: which tokens may come next, and how probable they are.

They are applied in the order of this file; all but the first two are for sampling only. As in
transformers, a token that is banned has -inf.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float32, Int

from albert_jax.generation.config import GenerationOptions
from albert_jax.tasks.distillation.top_k import top_k

Logits = Float32[Array, "rows vocabulary"]


def restrict(
    scores: Logits,
    tokens: Int[Array, "rows longest"],
    length: Int[Array, ""],
    eos_token_id: int,
    options: GenerationOptions,
) -> Logits:
    """Ban repeated n-grams, and the end of texts that are still too short.

    Args:
        scores: logits or log probabilities.
        tokens: texts so far, from the start token on; what comes after `length` is ignored.
        length: length of the texts, including the start token.
        eos_token_id: the token that ends a text.
        options: `no_repeat_ngram_size`, `min_new_tokens`.
    """
    if 0 < options.no_repeat_ngram_size < tokens.shape[1]:
        scores = ban_repeated_ngrams(scores, tokens, length, options.no_repeat_ngram_size)
    if options.min_new_tokens > 0:
        too_short = length - 1 < options.min_new_tokens
        ends = jnp.arange(scores.shape[1]) == eos_token_id
        scores = jnp.where(too_short & ends, -jnp.inf, scores)
    return scores


def ban_repeated_ngrams(
    scores: Logits, tokens: Int[Array, "rows longest"], length: Int[Array, ""], size: int
) -> Logits:
    """Ban tokens that would complete an n-gram that the text already has, start token included.

    Example: after ``5 6 5`` bigrams ban 6, and 1-grams ban 5 and 6.
    """
    rows, longest = tokens.shape
    starts = jnp.arange(longest - size + 1)
    matches = jnp.broadcast_to(starts + size <= length, (rows, len(starts)))
    for number in range(size - 1):
        # An index before the text's start is clamped to it; no n-gram is complete then anyway.
        last = jax.lax.dynamic_index_in_dim(tokens, length - size + 1 + number, axis=1)
        matches &= tokens[:, number : number + len(starts)] == last
    banned = jnp.where(matches, tokens[:, size - 1 :], scores.shape[1])  # out of range: none
    return scores.at[jnp.arange(rows)[:, None], banned].set(-jnp.inf, mode="drop")


def warp(logits: Logits, options: GenerationOptions) -> Logits:
    """Divide by the temperature, and keep only the tokens to sample from."""
    logits /= options.temperature
    if options.top_k > 0:
        logits = keep_most_probable(logits, options.top_k)
    if options.top_p < 1:
        logits = keep_nucleus(logits, options.top_p)
    return logits


def keep_most_probable(logits: Logits, count: int) -> Logits:
    """Ban all tokens except the `count` highest and those as high as the last of these."""
    least = top_k(logits, min(count, logits.shape[1]))[0][:, -1:]
    return jnp.where(logits < least, -jnp.inf, logits)


def keep_nucleus(logits: Logits, probability: float) -> Logits:
    """Ban the least probable tokens, as many as sum to at most ``1 - probability``.

    At least one is left (Holtzman et al. 2020).

    Example: for tokens of probability 0.5, 0.3 and 0.2, a `probability` of 0.7 bans the third.
    """
    order = jnp.argsort(logits, axis=-1)
    ordered = jnp.take_along_axis(logits, order, axis=-1)
    sums = jnp.cumsum(jax.nn.softmax(ordered), axis=-1)
    banned = (sums <= 1 - probability).at[:, -1].set(False)
    rows = jnp.arange(logits.shape[0])[:, None]
    return jnp.where(jnp.zeros_like(banned).at[rows, order].set(banned), -jnp.inf, logits)
