"""Support of fused layers, and their verification on the device at the start of a run."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.typing import DTypeLike

from albert_jax.attention.implementation import AttentionWorkload
from albert_jax.config import AlbertConfig, HiddenAct, Norm
from albert_jax.fused_layers import gelu as fused_gelu
from albert_jax.fused_layers import layer_norm as fused_norm
from albert_jax.fused_layers import verification
from albert_jax.fused_layers.verification import check_fused_layers, unsupported_reason

CONFIG = AlbertConfig(
    hidden_size=24,
    num_attention_heads=2,
    intermediate_size=48,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


def workload(config: AlbertConfig, dtype: DTypeLike, device: Any, **rest: Any) -> AttentionWorkload:
    return AttentionWorkload(config, dtype, rest.pop("lengths", ()), False, device, **rest)


def verify(*lengths: int) -> float:
    return check_fused_layers(workload(CONFIG, jnp.bfloat16, jax.devices()[0], lengths=lengths))


def test_the_verification_accepts_the_kernels() -> None:
    assert 0 < verify() < 1e-2
    assert 0 < verify(12) < 1e-2


@pytest.mark.parametrize("fault", ["gelu", "norm", "norm's gradient", "not finite"])
def test_the_verification_rejects_a_wrong_kernel(
    monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    if fault == "gelu":
        monkeypatch.setattr(fused_gelu, "_derivative", lambda x: 1.1 * jax.nn.sigmoid(1.7 * x))
    elif fault == "not finite":
        monkeypatch.setattr(fused_gelu, "_derivative", lambda x: x * jnp.nan)
    else:
        # Scale and bias, or mean and inverse deviation.
        name, first = ("_forward_kernel", 3) if fault == "norm" else ("_backward_kernel", 2)
        real = getattr(fused_norm, name)

        def wrong(*refs: Any, **options: Any) -> None:
            swapped = list(refs)
            swapped[first : first + 2] = refs[first + 1], refs[first]
            real(*swapped, **options)

        monkeypatch.setattr(fused_norm, name, wrong)
    with pytest.raises(ValueError, match=r"^they are .* off the plain layers .* 0\.02 allowed"):
        verify()


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (RuntimeError("no such instruction\nand a long dump"), "no such instruction"),
        (Exception("no such operation"), "no such operation"),  # Pallas's are no RuntimeErrors
        (AssertionError(), "AssertionError"),
    ],
)
def test_a_kernel_that_fails_is_an_error_in_words(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, words: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(fused_norm.pallas, "pallas_call", fail)
    with pytest.raises(ValueError, match=f"^they fail on this device: {words}$"):
        verify()


def gpu(capability: str = "9.0") -> Any:
    return SimpleNamespace(platform="gpu", compute_capability=capability)


@pytest.mark.parametrize(
    ("changes", "dtype", "device", "partitioned", "words"),
    [
        ({}, jnp.bfloat16, gpu(), False, None),
        ({"norm": Norm.PRE}, jnp.float16, gpu("8.0"), False, None),
        ({}, jnp.bfloat16, SimpleNamespace(platform="cpu"), False, "NVIDIA GPUs, this is a cpu"),
        ({}, jnp.bfloat16, gpu("7.5"), False, "compute capability 8.0, this one is '7.5'"),
        ({}, jnp.bfloat16, gpu("gfx90a"), False, "compute capability 8.0, this one is 'gfx90a'"),
        ({}, jnp.float32, gpu(), False, "run.dtype is float32"),
        ({}, jnp.bfloat16, gpu(), True, "run.tensor must be 1"),
        (
            {"hidden_dropout_prob": 0.1, "hidden_act": HiddenAct.RELU},
            jnp.bfloat16,
            gpu(),
            False,
            "nothing to fuse",
        ),
    ],
)
def test_the_reason_why_layers_cannot_be_fused(
    changes: dict[str, Any], dtype: DTypeLike, device: Any, partitioned: bool, words: str | None
) -> None:
    config = dataclasses.replace(CONFIG, **changes)
    reason = unsupported_reason(workload(config, dtype, device, partitioned=partitioned))
    assert (reason is None) if words is None else (reason is not None and words in reason)


def test_without_pallas_s_triton_backend_layers_cannot_be_fused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verification, "triton", None)
    reason = unsupported_reason(workload(CONFIG, jnp.bfloat16, gpu()))
    assert reason == f"JAX {jax.__version__} does not have jax.experimental.pallas.triton"
