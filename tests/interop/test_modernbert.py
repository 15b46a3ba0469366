"""Windows, their turns and rotary angles against transformers' ModernBERT, layer by layer."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax import AlbertConfig
from albert_jax.attention import Attention, AttentionMask, make_attention_fn
from albert_jax.config import PositionEncoding
from albert_jax.positions import position_encoder

pytestmark = pytest.mark.interop

HEADS, WIDTH, LAYERS, LENGTH = 4, 8, 5, 24
CONFIG = AlbertConfig(
    hidden_size=HEADS * WIDTH,
    num_attention_heads=HEADS,
    num_hidden_layers=LAYERS,
    position_encoding=PositionEncoding.ROTARY,
    rotary_base=160_000.0,
    attention_window=8,
    global_every=3,
)


def modernbert() -> Any:
    from transformers import ModernBertConfig, ModernBertModel

    config = ModernBertConfig(
        vocab_size=50,
        hidden_size=HEADS * WIDTH,
        intermediate_size=16,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        local_attention=8,
        initializer_range=0.5,  # so large that scores differ
        attn_implementation="eager",
        **{f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")},
    )
    return ModernBertModel(config).eval()


def test_each_layer_attends_as_in_modernbert() -> None:
    import torch

    torch.manual_seed(0)
    theirs = modernbert()
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    for layer in theirs.layers:
        layer.attn.register_forward_hook(
            lambda _, inputs, kwargs, outputs: seen.append(
                ((inputs or (kwargs["hidden_states"],))[0].numpy(), outputs[0].numpy())
            ),
            with_kwargs=True,
        )
    real = np.array([[1] * LENGTH, [1] * 17 + [0] * 7])
    ids = np.random.default_rng(0).integers(1, 50, size=real.shape)
    with torch.no_grad():
        theirs(torch.tensor(ids), attention_mask=torch.tensor(real))
    assert len(seen) == LAYERS
    for number, (layer, (hidden, expected)) in enumerate(zip(theirs.layers, seen, strict=True)):
        kernels = [
            kernel.detach().numpy() for kernel in (layer.attn.Wqkv.weight, layer.attn.Wo.weight)
        ]
        context = attend(CONFIG, number, hidden @ kernels[0].T, real)
        ours = np.asarray(context).reshape(hidden.shape) @ kernels[1].T
        np.testing.assert_allclose(ours[real > 0], expected[real > 0], rtol=1e-4, atol=1e-4)
        everywhere = dataclasses.replace(CONFIG, attention_window=0)
        without = np.asarray(attend(everywhere, number, hidden @ kernels[0].T, real))
        is_same = np.allclose(without.reshape(hidden.shape) @ kernels[1].T, ours, atol=1e-3)
        assert is_same is (number in (0, 3))


def attend(config: AlbertConfig, number: int, projected: np.ndarray, real: np.ndarray) -> Any:
    """Our attention of an application, of projections to query, key and value side by side."""
    query, key, value = jnp.split(jnp.asarray(projected), 3, axis=-1)
    local = not config.is_global(number)
    mask = AttentionMask(jnp.asarray(real), reach=config.attention_reach if local else None)
    heads = [x.reshape(*x.shape[:2], HEADS, WIDTH) for x in (query, key, value)]
    rotated = [position_encoder(config).rotate(x, local=local) for x in heads[:2]]
    return make_attention_fn(Attention.XLA, mask)(*rotated, heads[2])
