"""Generation of texts for sources: greedy search, sampling or beam search, compiled as one loop."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int, PyTree

from albert_jax.decoder.cache import DecoderCache
from albert_jax.generation.beam_search import search_beams
from albert_jax.generation.config import GenerationOptions
from albert_jax.generation.encoder_decoder import AlbertForConditionalGeneration
from albert_jax.generation.sampling import write_one_by_one
from albert_jax.layers import AnyArray


@flax.struct.dataclass
class GenerationOutput:
    """The output of `generate`.

    Attributes:
        sequences: token ids, the start token first, padded after the token that ends a text.
        scores: log probability of each text, divided by its length to the power `length_penalty`.
    """

    sequences: Int[AnyArray, "batch longest"]
    scores: Float32[AnyArray, " batch"]


def generate(
    model: AlbertForConditionalGeneration,
    params: PyTree,
    inputs: Mapping[str, Any],
    options: GenerationOptions | None = None,
    *,
    example_ids: Int[AnyArray, " batch"] | None = None,
) -> GenerationOutput:
    """Write a text for each source.

    It is compiled once for a model, shape of inputs and options; a new seed does not recompile it.

    Args:
        model: the model.
        params: its parameters.
        inputs: `input_ids` and, where needed, `attention_mask` and `token_type_ids`, ``[batch,
            source]`` each.
        options: options of generation; by default greedy search.
        example_ids: numbers of the examples, from which sampling derives random keys; by default
            0, 1, 2, ... An example has the same text in any batch.

    Raises:
        FieldError: the model cannot write such texts.
    """
    options = options or GenerationOptions()
    options.check(model.decoder_config)
    if example_ids is None:
        example_ids = np.arange(len(inputs["input_ids"]), dtype=np.int32)
    key, unseeded = jax.random.key(options.seed), dataclasses.replace(options, seed=0)
    return _generate(model, unseeded, params, dict(inputs), example_ids, key)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _generate(
    model: AlbertForConditionalGeneration,
    options: GenerationOptions,
    params: PyTree,
    inputs: dict[str, Any],
    example_ids: Any,
    key: Any,
) -> GenerationOutput:
    variables, config = {"params": params}, model.decoder_config
    layers: Any = model.apply(variables, method="unstack")

    def step(tokens: Any, cache: DecoderCache) -> tuple[Any, DecoderCache]:
        decoded: Any = model.apply(variables, tokens[:, None], cache, layers, method="decode")
        logits, cache = decoded
        return logits[:, 0], cache

    length, beams = options.max_new_tokens, options.num_beams
    cache: Any = model.apply(variables, **inputs, length=length, beams=beams, method="encode")
    if beams == 1:
        ids = jnp.asarray(example_ids)
        return GenerationOutput(*write_one_by_one(step, cache, ids, key, config, options))
    batch = len(example_ids)
    return GenerationOutput(
        *search_beams(step, DecoderCache.reorder, cache, batch, config, options)
    )
