"""Beam search against one written in Python over lists, on tables of random logits."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_decoders import DECODER

from albert_jax import GenerationOptions
from albert_jax.decoder.config import Gpt2Config
from albert_jax.generation.beam_search import search_beams

EOS, START = DECODER.eos_token_id, DECODER.bos_token_id
HISTORIES, EXAMPLES = 50, 42


def next_history(history: Any, token: Any) -> Any:
    """The key of a text so far: logits depend on all of its tokens."""
    return (history * 7 + token + 1) % HISTORIES


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum(dtype=np.float32))


def banned_tokens(tokens: list[int], options: GenerationOptions) -> set[int]:
    """Tokens that must not come next."""
    size, banned = options.no_repeat_ngram_size, set()
    text = [START, *tokens]
    if size:
        ngrams = [tuple(text[i : i + size]) for i in range(len(text) - size + 1)]
        banned = {gram[-1] for gram in ngrams if [*gram[:-1]] == text[len(text) - size + 1 :]}
    return banned | ({EOS} if len(tokens) < options.min_new_tokens else set())


def search_in_lists(table: np.ndarray, options: GenerationOptions) -> tuple[float, list[int]]:
    """Beam search, step by step, with lists of (score, tokens)."""
    beams, longest = options.num_beams, options.max_new_tokens
    early, penalty = str(options.early_stopping), options.length_penalty
    running: list[tuple[float, list[int]]] = [(np.float32(0), [])]
    finished: list[tuple[float, list[int]]] = []
    for length in range(1, longest + 1):
        candidates = []
        for total, tokens in running:
            history = functools.reduce(next_history, [START, *tokens], 0)
            log_probs = log_softmax(table[history])
            banned = banned_tokens(tokens, options)
            for token, log_prob in enumerate(log_probs):
                if token not in banned:
                    candidates.append((total + log_prob, [*tokens, token]))
        candidates = sorted(candidates, key=lambda one: -one[0])[: 2 * beams]
        full_before = len(finished) == beams
        running = []
        for rank, (total, tokens) in enumerate(candidates):
            if tokens[-1] == EOS or length == longest:
                if rank < beams and not (early == "true" and full_before):
                    finished.append((total / np.float32(length) ** penalty, tokens))
            elif len(running) < beams:
                running.append((total, tokens))
        finished = sorted(finished, key=lambda one: -one[0])[:beams]
        if length == longest:
            break
        if len(finished) == beams:
            reach = longest if early == "never" and penalty > 0 else length
            if early == "true" or running[0][0] / reach**penalty <= finished[-1][0]:
                break
    return finished[0]


def search_compiled(tables: np.ndarray, config: Gpt2Config, options: GenerationOptions) -> Any:
    """The same by `search_beams`, whose cache knows each row's source and history."""
    sources = np.repeat(np.arange(len(tables)), options.num_beams)

    def step(tokens: Any, history: Any) -> Any:
        history = next_history(history, tokens)
        return jnp.asarray(tables)[sources, history], history

    def reorder(history: Any, parents: Any) -> Any:
        by_source = history.reshape(parents.shape)
        return jnp.take_along_axis(by_source, parents, axis=1).reshape(-1)

    start = jnp.zeros(len(sources), jnp.int32)
    return search_beams(step, reorder, start, len(tables), config, options)


@pytest.mark.parametrize(
    ("vocabulary", "options"),
    [
        (8, {"num_beams": 4, "max_new_tokens": 5}),
        (12, {"num_beams": 2, "early_stopping": "true", "length_penalty": 2.0}),
        (10, {"num_beams": 3, "early_stopping": "never", "length_penalty": 1.5}),
        (30, {"num_beams": 5, "length_penalty": 0.0, "min_new_tokens": 3}),
        (20, {"num_beams": 4, "length_penalty": -1.0, "no_repeat_ngram_size": 2}),
        (14, {"num_beams": 3, "early_stopping": "never", "length_penalty": 0.0}),
    ],
)
def test_beam_search_is_that_of_lists(vocabulary: int, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(vocabulary)
    tables = rng.normal(size=(EXAMPLES, HISTORIES, vocabulary)).astype(np.float32) * 1.5
    tables[:, :, EOS] += rng.normal(size=(EXAMPLES, 1)) + 1  # some end soon, some late
    chosen = GenerationOptions(**{"max_new_tokens": 9, **options})
    config = Gpt2Config(vocab_size=vocabulary, bos_token_id=START, eos_token_id=EOS)
    sequences, scores = jax.jit(lambda: search_compiled(tables, config, chosen))()
    lengths = set()
    for example, table in enumerate(tables):
        score, tokens = search_in_lists(table, chosen)
        padding = [config.pad_token_id] * (chosen.max_new_tokens - len(tokens))
        assert sequences[example].tolist() == [START, *tokens, *padding], example
        np.testing.assert_allclose(scores[example], score, rtol=1e-4)
        lengths.add(len(tokens))
    assert len(lengths) > 2
