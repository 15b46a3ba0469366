"""Processors of logits, and draws."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from tiny_decoders import DECODER

from albert_jax import GenerationOptions
from albert_jax.generation.processors import ban_repeated_ngrams, keep_nucleus, restrict, warp
from albert_jax.generation.sampling import write_one_by_one
from albert_jax.settings import FieldError

LOGITS = np.log(np.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]], np.float32))


def kept(logits: Any) -> list[list[int]]:
    """The tokens that may come, for each row."""
    return [np.flatnonzero(np.isfinite(row)).tolist() for row in np.asarray(logits)]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_is_completed_twice(size: int) -> None:
    rng = np.random.default_rng(size)
    tokens = rng.integers(3, size=(40, 8)).astype(np.int32)
    scores, ban = np.zeros((40, 3), np.float32), jax.jit(ban_repeated_ngrams, static_argnums=3)
    for length in (1, 2, 3, 7):
        found = kept(ban(scores, tokens, jnp.int32(length), size))
        for row, allowed in zip(tokens[:, :length].tolist(), found, strict=True):
            grams = {tuple(row[i : i + size]) for i in range(length - size + 1)}
            ends = row[max(0, length - size + 1) :]
            expected = [t for t in range(3) if (*ends, t) not in grams]
            assert allowed == expected, (row, size)


def test_texts_do_not_end_before_their_least_length() -> None:
    options = GenerationOptions(min_new_tokens=2)
    logits, tokens = jnp.asarray(LOGITS), jnp.zeros((2, 5), jnp.int32)
    for length, allowed in ((1, [0, 1]), (2, [0, 1]), (3, [0, 1, 2])):
        assert kept(restrict(logits, tokens, jnp.int32(length), 2, options)) == [allowed] * 2


def test_temperature_comes_before_top_k_and_that_before_top_p() -> None:
    warped = warp(jnp.asarray(LOGITS), GenerationOptions(temperature=2.0, top_k=2, top_p=0.5))
    # Of the two most probable, roots of 0.5 and 0.3: 0.56 and 0.44; one has half of the sum.
    assert kept(warped) == [[0], [2]]
    np.testing.assert_allclose(warped[0, 0], LOGITS[0, 0] / 2)
    assert kept(warp(jnp.asarray(LOGITS), GenerationOptions(temperature=1.0, top_k=2))) == [
        [0, 2],
        [0, 1, 2],  # the first two are alike
    ]
    assert kept(keep_nucleus(jnp.asarray(LOGITS[:1]), 0.7)) == [[0, 2]]
    assert kept(keep_nucleus(jnp.asarray(LOGITS[:1]), 1e-6)) == [[0]]


def test_draws_are_from_the_distribution_and_follow_their_example() -> None:
    """The logits are the same at every step; a text ends after three tokens."""
    options = GenerationOptions(max_new_tokens=3, temperature=0.7, top_k=9, top_p=0.95, seed=5)
    logits = np.random.default_rng(0).normal(size=DECODER.vocab_size).astype(np.float32)
    logits[DECODER.eos_token_id] = -1e9

    @functools.partial(jax.jit, static_argnums=1)
    def write(examples: Any, options: GenerationOptions) -> Any:
        def step(tokens: Any, cache: Any) -> Any:
            return jnp.broadcast_to(logits, (len(tokens), len(logits))), cache

        key = jax.random.key(options.seed)
        return write_one_by_one(step, (), examples, key, DECODER, options)

    tokens, scores = write(np.arange(3000), options)
    warped = np.asarray(warp(jnp.asarray(logits)[None], options)[0], np.float64)
    probabilities = np.exp(warped) / np.exp(warped).sum()
    some = probabilities > 0
    assert 3 < some.sum() < 10
    for position in (1, 3):
        counts = np.bincount(tokens[:, position], minlength=len(logits))
        assert counts[~some].sum() == 0
        expected = probabilities[some] * 3000
        assert scipy.stats.chisquare(counts[some], expected).pvalue > 1e-3
    pairs = np.bincount(tokens[:, 1] * 13 + tokens[:, 2], minlength=169).reshape(13, 13)
    assert scipy.stats.chi2_contingency(pairs[some][:, some]).pvalue > 1e-3  # independent
    log_probs = np.asarray(jax.nn.log_softmax(logits))[tokens[:, 1:]]
    np.testing.assert_allclose(scores, log_probs.mean(1), rtol=1e-5)
    again, _ = write(np.arange(2999, -1, -1), options)
    np.testing.assert_array_equal(again, tokens[::-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_new_tokens": 70}, r"min_new_tokens must be at most max_new_tokens \(64\), got 70"),
        ({"num_beams": 2, "temperature": 1.0}, "num_beams must be 1 where temperature is above 0"),
        ({"top_k": 5}, "top_k must be 0 unless temperature is above 0, got 5"),
        ({"top_p": 0.5}, r"top_p must be 1.0 unless temperature is above 0, got 0.5"),
        ({"early_stopping": "maybe"}, "early_stopping must be one of true, false, never"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        GenerationOptions(**options)
