"""Small encoder-decoders of every kind with random parameters."""

import dataclasses
from typing import Any

import jax
import numpy as np
from tiny_models import TINY

from albert_jax import AlbertForConditionalGeneration, Gpt2Config

DECODER = Gpt2Config(
    vocab_size=13,
    n_positions=40,
    n_embd=6,
    n_layer=2,
    n_head=3,
    bos_token_id=1,
    eos_token_id=2,
)
# The settings that a decoder tied to TINY needs.
TIED = {"n_embd": 4, "n_head": 2, "n_inner": 5, "tie_to_encoder": True}
SCALED = {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True}


def make_decoder(**changes: Any) -> AlbertForConditionalGeneration:
    """An encoder-decoder with these changes to the decoder."""
    return AlbertForConditionalGeneration(TINY, dataclasses.replace(DECODER, **changes))


def draw_params(model: Any, seed: int = 0, dtype: Any = np.float32) -> Any:
    """Random parameters, biases and scales included, no two alike."""
    rng = np.random.default_rng(seed)

    def draw(path: Any, shape: Any) -> np.ndarray:
        noise = rng.normal(size=shape.shape)
        return (1 + 0.2 * noise if path[-1].key == "scale" else 0.5 * noise).astype(dtype)

    shapes = jax.eval_shape(model.initialize, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def draw_talkative_params(model: Any, seed: int = 0, dtype: Any = np.float32) -> Any:
    """The same for a decoder in which layers and positions count for more, so that it does not
    repeat a token forever."""
    params = draw_params(model, seed, dtype)
    decoder = params["decoder"]
    decoder["layers"] = jax.tree.map(lambda x: 3 * x, decoder["layers"])
    decoder["position_embeddings"]["embedding"] *= 3
    decoder["layer_norm"]["bias"] *= 0.2
    return params


def draw_sources(batch: int, length: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
    """Random sources, all but the first with padding at the end."""
    ids = np.random.default_rng(seed).integers(TINY.vocab_size, size=(batch, length))
    ends = length - np.arange(batch)[:, None] % (length - 1)
    mask = np.arange(length)[None] < ends
    return {"input_ids": ids.astype(np.int32), "attention_mask": mask.astype(np.int32)}


def draw_targets(batch: int, length: int, seed: int = 1) -> np.ndarray:
    """Random targets, from the start token on."""
    ids = np.random.default_rng(seed).integers(3, DECODER.vocab_size, size=(batch, length))
    ids[:, 0] = DECODER.bos_token_id
    return ids.astype(np.int32)
