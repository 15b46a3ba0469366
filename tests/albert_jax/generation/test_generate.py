"""Generation by a model: its own next tokens, in any batch and on any number of devices."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tiny_decoders import DECODER, draw_sources, draw_talkative_params, make_decoder

from albert_jax import GenerationOptions, generate
from albert_jax.settings import FieldError

LONGEST = 18  # past a chunk of the cache
OPTIONS = {
    "sampling": GenerationOptions(LONGEST, temperature=0.8, top_k=7, top_p=0.9, seed=3),
    "beams": GenerationOptions(LONGEST, num_beams=3, early_stopping="never", length_penalty=0.5),
}
MODEL = make_decoder()
PARAMS = draw_talkative_params(MODEL, seed=4)


def test_greedy_search_takes_the_most_probable_token_without_a_cache() -> None:
    sources = draw_sources(8, seed=4)
    output = generate(MODEL, PARAMS, sources, GenerationOptions(LONGEST))
    tokens = np.asarray(output.sequences)
    logits = jax.jit(MODEL.apply)({"params": PARAMS}, **sources, decoder_input_ids=tokens[:, :-1])
    log_probs = np.asarray(jax.nn.log_softmax(logits.logits))
    ended = 0
    for row, text in enumerate(tokens.tolist()):
        assert text[0] == DECODER.bos_token_id
        new = text[1:]
        length = new.index(DECODER.eos_token_id) + 1 if DECODER.eos_token_id in new else LONGEST
        assert new[:length] == log_probs[row, :length].argmax(-1).tolist()
        assert set(new[length:]) <= {DECODER.pad_token_id}
        score = log_probs[row, np.arange(length), new[:length]].mean()
        np.testing.assert_allclose(output.scores[row], score, rtol=1e-4)
        ended += length < LONGEST
    assert 0 < ended < 8


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_text_is_the_same_alone_in_a_batch_and_on_eight_devices(kind: str) -> None:
    options, sources = OPTIONS[kind], draw_sources(8)
    together: Any = generate(MODEL, PARAMS, sources, options)
    mesh = Mesh(np.array(jax.devices()), "data")
    spread = jax.device_put(sources, NamedSharding(mesh, PartitionSpec("data")))
    apart = generate(MODEL, PARAMS, spread, options)
    np.testing.assert_array_equal(apart.sequences, together.sequences)
    for row in (0, 3, 6):
        one = {name: array[row : row + 1] for name, array in sources.items()}
        alone = generate(MODEL, PARAMS, one, options, example_ids=np.array([row], np.int32))
        np.testing.assert_array_equal(alone.sequences[0], together.sequences[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-5)
    assert len(np.unique(together.sequences, axis=0)) > 2
    if kind == "sampling":
        other = generate(MODEL, PARAMS, sources, dataclasses.replace(options, seed=4))
        assert (other.sequences != together.sequences).any(1).sum() > 4


def test_what_a_model_cannot_write_is_refused() -> None:
    for options, message in (
        ({"max_new_tokens": 41}, r"max_new_tokens must be at most n_positions \(40\), got 41"),
        ({"max_new_tokens": 4, "num_beams": 7}, r"num_beams must be at most half of vocab_size"),
    ):
        with pytest.raises(FieldError, match=message):
            generate(MODEL, PARAMS, draw_sources(1), GenerationOptions(**options))
