"""Support of float8, and its verification on the device at the start of a run."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.typing import DTypeLike

from albert_jax.config import AlbertConfig
from albert_jax.matmuls import check_float8, dense_matmul, unsupported_reason, verification

CONFIG = AlbertConfig(hidden_size=64, num_attention_heads=4, intermediate_size=256)


def device(kind: str, platform: str = "gpu", **more: Any) -> Any:
    return SimpleNamespace(platform=platform, device_kind=kind, **more)


H200, ADA = device("NVIDIA H200", compute_capability="9.0"), device("L4", compute_capability="8.9")
CPU = device("cpu", "cpu")


@pytest.mark.parametrize(
    ("changes", "dtype", "device", "tensor", "words"),
    [
        ({}, jnp.bfloat16, H200, 1, None),
        ({}, jnp.float32, ADA, 4, None),
        ({}, jnp.bfloat16, CPU, 1, None),
        ({}, jnp.bfloat16, device("NVIDIA A100", compute_capability="8.0"), 1, "is NVIDIA A100"),
        ({}, jnp.bfloat16, device("MI300X", compute_capability="gfx942"), 1, "this is MI300X"),
        ({}, jnp.bfloat16, device("TPU v5 lite", "tpu"), 1, "this is TPU v5 lite"),
        ({}, jnp.float64, CPU, 1, "run.dtype is float64"),
        ({"hidden_size": 72}, jnp.bfloat16, CPU, 1, "model.hidden_size must be a multiple of 16"),
        ({"intermediate_size": 100}, jnp.bfloat16, H200, 1, "model.intermediate_size must be"),
        ({}, jnp.bfloat16, H200, 8, "a multiple of 16 times run.tensor (8), it is 64"),
    ],
)
def test_the_reason_why_layers_cannot_multiply_in_float8(
    changes: dict[str, Any], dtype: DTypeLike, device: Any, tensor: int, words: str | None
) -> None:
    config = dataclasses.replace(CONFIG, **changes)
    reason = unsupported_reason(config, dtype, device, tensor=tensor)
    assert (reason is None) if words is None else (reason is not None and words in reason)


def test_the_verification_accepts_what_is_emulated_and_rejects_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = jax.devices()[0]
    assert 0.01 < check_float8(CONFIG, jnp.bfloat16, here, {}) < 0.1
    real = dense_matmul.quantize

    def with_wrong_scale(x: Any, dtype: Any) -> Any:
        tensor = real(x, dtype)
        return tensor._replace(scale=tensor.scale * 1.5)

    monkeypatch.setattr(dense_matmul, "quantize", with_wrong_scale)
    with pytest.raises(ValueError, match=r"^float8 is \S+ off float32 on this device, 0\.15 allow"):
        check_float8(CONFIG, jnp.bfloat16, here, {})


def test_a_device_whose_compiler_makes_other_matmuls_is_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match=r"^XLA makes 4 of 6 matmuls ones in float8 on this devi"):
        verification.check_calls('custom_call_target="__cublas$lt$matmul$f8"' * 4)
    verification.check_calls('custom_call_target="__cublas$lt$matmul$f8"' * 6)
    calls: list[str] = []
    monkeypatch.setattr(verification, "check_calls", calls.append)
    check_float8(CONFIG, jnp.bfloat16, jax.devices()[0], {})
    assert not calls, "CPUs emulate float8"
