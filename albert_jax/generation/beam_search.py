"""Beam search as in transformers: the same texts with the same scores.

Each step has 2 K candidates, the best continuations of the K running texts. The first K of them may
finish, with the token that ends a text; the best K that do not end keep running. At the maximum
length all finish. The score of a finished text is the sum of its log probabilities, divided by a
power of its length, which includes the end token but not the start token. The best K finished texts
are kept.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float32, Int

from albert_jax.decoder.config import Gpt2Config
from albert_jax.generation.config import EarlyStopping, GenerationOptions
from albert_jax.generation.processors import restrict
from albert_jax.generation.sampling import Step, Texts
from albert_jax.tasks.distillation.top_k import top_k

_LOWEST = -1e9  # below any score

# (cache, for each beam the beam of its source whose text it continues) -> cache
Reorder = Callable[[Any, Int[Array, "batch beams"]], Any]


class _Beams(NamedTuple):
    """K texts of each source, best first."""

    tokens: Int[Array, "batch beams longest"]
    scores: Float32[Array, "batch beams"]

    def best(self, indices: Int[Array, "batch chosen"]) -> "_Beams":
        """Return the texts of these indices."""
        return _Beams(
            jnp.take_along_axis(self.tokens, indices[:, :, None], axis=1),
            jnp.take_along_axis(self.scores, indices, axis=1),
        )

    def and_others(self, others: "_Beams") -> "_Beams":
        """Return these texts and then others."""
        return _Beams(*(jnp.concatenate(both, 1) for both in zip(self, others, strict=True)))


class _State(NamedTuple):
    length: Int[Array, ""]  # of the running texts, including the start token
    running: _Beams  # scores are sums of log probabilities
    finished: _Beams
    is_finished: Bool[Array, "batch beams"]
    can_improve: Bool[Array, " batch"]
    cache: Any


def search_beams(
    step: Step,
    reorder: Reorder,
    cache: Any,
    batch: int,
    config: Gpt2Config,
    options: GenerationOptions,
) -> Texts:
    """Return the best text of each source and its score.

    Args:
        step: the decoder, on ``batch * num_beams`` rows, with those of a source together.
        reorder: gives the rows of a cache the texts of other rows.
        cache: the decoder's cache before the first token.
        batch: number of sources.
        config: special tokens.
        options: see `GenerationOptions`.
    """
    longest, stops_early = options.max_new_tokens + 1, options.early_stopping is EarlyStopping.TRUE

    def is_open(state: _State) -> Bool[Array, ""]:
        full = state.is_finished.all(1) & stops_early
        return (state.length < longest) & (state.can_improve & ~full).any()

    def search_on(state: _State) -> _State:
        candidates, parents, cache = _extend(state, step, config, options)
        new = candidates.tokens[:, :, state.length]
        ends = (new == config.eos_token_id) | (state.length + 1 == longest)

        unfinished = candidates.scores + jnp.where(ends, _LOWEST, 0)
        scores, best = jax.lax.top_k(unfinished, options.num_beams)
        running = candidates.best(best)._replace(scores=scores)
        finished, is_finished = _finish(state, candidates, ends, options)
        state = _State(
            state.length + 1,
            running,
            finished,
            is_finished,
            state.can_improve,
            reorder(cache, jnp.take_along_axis(parents, best, axis=1)),
        )
        return state._replace(can_improve=state.can_improve & _may_improve(state, options))

    end = jax.lax.while_loop(is_open, search_on, _start(batch, cache, config, options))
    return end.finished.tokens[:, 0], end.finished.scores[:, 0]


def _start(batch: int, cache: Any, config: Gpt2Config, options: GenerationOptions) -> _State:
    """Return a state in which only the first beam counts, since all are still equal."""
    shape = (batch, options.num_beams)
    tokens = jnp.full((*shape, options.max_new_tokens + 1), config.pad_token_id, jnp.int32)
    tokens = tokens.at[:, :, 0].set(config.bos_token_id)
    none = jnp.full(shape, _LOWEST, jnp.float32)
    return _State(
        jnp.ones((), jnp.int32),
        _Beams(tokens, none.at[:, 0].set(0)),
        _Beams(tokens, none),
        jnp.zeros(shape, bool),
        jnp.ones(batch, bool),
        cache,
    )


def _extend(
    state: _State, step: Step, config: Gpt2Config, options: GenerationOptions
) -> tuple[_Beams, Int[Array, "batch candidates"], Any]:
    """Return the best 2 K continuations, the beams that they continue, and the cache."""
    batch, beams, longest = state.running.tokens.shape
    tokens = state.running.tokens.reshape(-1, longest)
    last = jax.lax.dynamic_index_in_dim(tokens, state.length - 1, 1, keepdims=False)
    logits, cache = step(last, state.cache)
    logits = logits.astype(jnp.float32)
    allowed = restrict(logits, tokens, state.length, config.eos_token_id, options)
    highest, new = top_k(allowed, 2 * beams)  # of each row; they include those of its source
    log_probs = highest - jax.nn.logsumexp(logits, axis=1, keepdims=True)
    totals = log_probs.reshape(batch, beams, -1) + state.running.scores[:, :, None]
    scores, indices = jax.lax.top_k(totals.reshape(batch, -1), 2 * beams)
    parents = indices // (2 * beams)
    new = jnp.take_along_axis(new.reshape(batch, -1), indices, axis=1)
    continued = jnp.take_along_axis(state.running.tokens, parents[:, :, None], axis=1)
    continued = jax.lax.dynamic_update_index_in_dim(continued, new, state.length, 2)
    return _Beams(continued, scores), parents, cache


def _finish(
    state: _State,
    candidates: _Beams,
    ends: Bool[Array, "batch candidates"],
    options: GenerationOptions,
) -> tuple[_Beams, Bool[Array, "batch beams"]]:
    """Return the best K finished texts, including those that finish now."""
    beams = options.num_beams
    finish = ends & (jnp.arange(2 * beams) < beams)
    length = state.length.astype(jnp.float32)  # without the start token, with the new one
    scores = candidates.scores / length**options.length_penalty
    closed = ~state.can_improve
    if options.early_stopping is EarlyStopping.TRUE:
        closed |= state.is_finished.all(1)
    scores += jnp.where(closed[:, None], _LOWEST, 0)
    scores += jnp.where(finish, 0, _LOWEST)
    all_finished = state.finished.and_others(_Beams(candidates.tokens, scores))
    _, best = jax.lax.top_k(all_finished.scores, beams)
    is_finished = jnp.concatenate([state.is_finished, finish], 1)
    return all_finished.best(best), jnp.take_along_axis(is_finished, best, axis=1)


def _may_improve(state: _State, options: GenerationOptions) -> Bool[Array, " batch"]:
    """Return True where the best running text could still beat a finished one.

    Its length is the current one, or the longest if it may get better by getting longer.
    """
    length = (state.length - 1).astype(jnp.float32)
    if options.early_stopping is EarlyStopping.NEVER and options.length_penalty > 0:
        length = jnp.float32(options.max_new_tokens)
    best = state.running.scores[:, :1] / length**options.length_penalty
    worst = state.finished.scores.min(1, keepdims=True)
    return (best > jnp.where(state.is_finished, worst, _LOWEST)).any(1)
