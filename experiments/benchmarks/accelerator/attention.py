"""Attention alone on recorded packed rows: each implementation is first checked, then timed."""

import functools
import inspect
import math
import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from albert_jax.attention import (
    Attention,
    AttentionFn,
    AttentionImplementation,
    AttentionMask,
    AttentionWorkload,
)
from albert_jax.attention.cudnn_slots import slots_needed
from albert_jax.attention.reference import REFERENCE
from albert_jax.attention.verification import tolerance, values_and_gradients
from albert_jax.devices.memory import memory_of
from experiments.benchmarks.accelerator.plan import NotMeasured
from experiments.benchmarks.batches import Batches
from experiments.benchmarks.report import rounded
from experiments.benchmarks.timing import Candidate, StepKind, Windows, repeat, time_candidates
from experiments.run.config import ExperimentConfig

_SEED = 0
_PALLAS_ARGUMENTS = ("segment_ids", "sm_scale", "block_sizes")


class AttentionCandidate(NamedTuple):
    """An implementation, ours or another, and whether it has sequence slots."""

    name: str
    implementation: AttentionImplementation
    slotted: bool = False


def attention_candidates() -> Iterator[AttentionCandidate]:
    """Yield our implementations, then JAX's own."""
    for attention in Attention:
        if attention.implementation is not None:
            yield AttentionCandidate(str(attention), attention.implementation)
            if attention is Attention.CUDNN:
                yield AttentionCandidate("cudnn, slots", attention.implementation, slotted=True)
    for backward in (32, 64):
        bind = functools.partial(_bind_pallas, backward=backward)
        pallas = AttentionImplementation(bind, _pallas_unsupported, platform="gpu")
        yield AttentionCandidate(f"JAX's Pallas kernel, backward in blocks of {backward}", pallas)
    for implementation in ("xla", "cudnn"):
        bind = functools.partial(_bind_jax, implementation=implementation)
        unsupported = functools.partial(_jax_unsupported, implementation=implementation)
        name = f"jax.nn.dot_product_attention, {implementation}"
        yield AttentionCandidate(name, AttentionImplementation(bind, unsupported))


def _bind_pallas(mask: AttentionMask, *, backward: int) -> AttentionFn:
    from jax.experimental.pallas.ops.gpu.attention import BlockSizes, mha

    def attend(query: Array, key: Array, value: Array) -> Array:
        batch, length, _, width = query.shape
        block = min(128, length)
        blocks = BlockSizes(block, block, *[min(backward, length)] * 4)
        context: Array = mha(
            *(query, key, value),
            segment_ids=mask.segment_ids(batch, length),
            sm_scale=1 / math.sqrt(width),
            block_sizes=blocks,
        )
        return context

    return attend


def _pallas_unsupported(workload: AttentionWorkload) -> str | None:
    if workload.device.platform != "gpu":
        return f"it is for NVIDIA GPUs, this is a {workload.device.platform}"
    try:
        from jax.experimental.pallas.ops.gpu.attention import BlockSizes, mha
    except ImportError as error:
        return f"JAX {jax.__version__} does not have it: {error}"
    known = inspect.signature(mha).parameters, inspect.signature(BlockSizes).parameters
    if not set(_PALLAS_ARGUMENTS) <= set(known[0]) or len(known[1]) != 6:
        return f"JAX {jax.__version__} does not have it in the form known here"
    return None


def _bind_jax(mask: AttentionMask, *, implementation: Any) -> AttentionFn:
    return functools.partial(
        jax.nn.dot_product_attention, mask=mask.dense(), implementation=implementation
    )


def _jax_unsupported(workload: AttentionWorkload, *, implementation: str) -> str | None:
    if implementation == "cudnn" and workload.device.platform != "gpu":
        return f"it is for NVIDIA GPUs, this is a {workload.device.platform}"
    return None


class AttentionRows:
    """Recorded packed rows with random operands, and the float32 reference's results on them.

    Args:
        config: the experiment, whose heads and type the operands have.
        batches: the rows; the first batch is used.
    """

    def __init__(self, config: ExperimentConfig, batches: Batches) -> None:
        self.ids = np.asarray(batches.batches[0]["sequence_ids"])
        self._ids_on_device = jnp.asarray(self.ids)
        self._most = batches.batches[0]["sentence_order_positions"].shape[1]
        self._workload = AttentionWorkload(
            config.model,
            config.run.dtype,
            (self.ids.shape[1],),
            packed=True,
            device=jax.local_devices()[0],
        )
        model = config.model
        shape = (*self.ids.shape, model.num_attention_heads, self._workload.head_width)
        keys = jax.random.split(jax.random.key(_SEED), 4)
        dtype = jnp.dtype(config.run.dtype)
        *self._operands, cotangent = (jax.random.normal(key, shape).astype(dtype) for key in keys)
        self._is_token = jnp.asarray(self.ids > 0)[:, :, None, None]
        self._cotangent = jnp.where(self._is_token, cotangent, 0)

    def measure(self, candidate: AttentionCandidate, windows: Windows) -> dict[str, Any]:
        """Return the row of an implementation. If it is wrong here, it has an error and no times.

        All rows are compared, not just a few, because a wrong index reads the next row's numbers.

        Raises:
            NotMeasured: it does not support these rows or this device.
        """
        work = self._workload._replace(slotted=candidate.slotted)
        if reason := candidate.implementation.reason_against(work):
            raise NotMeasured(reason)
        run = values_and_gradients(candidate.implementation, self._mask(candidate.slotted))
        arguments = self._ids_on_device, self._operands, self._cotangent
        compiled = run.lower(*arguments).compile()
        error = self._error(compiled(*arguments))
        row = {
            "kind": "attention",
            "implementation": candidate.name,
            "rows": len(self.ids),
            "length": self.ids.shape[1],
            "error": None if math.isnan(error) else rounded(error, 2),
            "right": error <= tolerance(work),  # False for NaN
            "forward_milliseconds": None,
            "training_milliseconds": None,
            "memory_gib": rounded((memory_of(compiled) or 0) / 2**30, 3),
        }
        if row["right"]:
            bind, mask = candidate.implementation.bind, self._mask(candidate.slotted)
            forward = jax.jit(lambda ids, x: bind(mask._replace(sequence_ids=ids))(*x))
            calls = {
                "forward_milliseconds": lambda: forward(self._ids_on_device, self._operands),
                "training_milliseconds": lambda: compiled(*arguments),
            }
            turns = [Candidate(name, StepKind.TRAIN, repeat(call)) for name, call in calls.items()]
            for name, samples in zip(calls, time_candidates(turns, windows), strict=True):
                row[name] = rounded(1e3 * statistics.median(samples))
        return row

    def _mask(self, slotted: bool) -> AttentionMask:
        slots = slots_needed(self.ids) if slotted else None
        return AttentionMask(max_sequences=self._most, sequence_slots=slots)

    @functools.cached_property
    def _expected(self) -> list[np.ndarray]:
        """Context and gradients of the reference in float32, on the host."""
        exact = jnp.promote_types(self._operands[0].dtype, jnp.float32)
        operands = [x.astype(exact) for x in self._operands]
        run = values_and_gradients(REFERENCE, self._mask(slotted=False))
        with jax.default_matmul_precision("float32"):
            return list(
                jax.device_get(run(self._ids_on_device, operands, self._cotangent.astype(exact)))
            )

    def _error(self, results: tuple[Array, ...]) -> float:
        """Return the largest relative error of context and gradients at tokens; NaN if one is."""
        errors = [
            _relative_error(result, jnp.asarray(expected), self._is_token)
            for result, expected in zip(results, self._expected, strict=True)
        ]
        return float(np.max(jax.device_get(errors)))  # NaN if there is one


@jax.jit
def _relative_error(result: Array, expected: Array, is_token: Array) -> Array:
    difference = jnp.where(is_token, result.astype(expected.dtype) - expected, 0)
    return jnp.linalg.norm(difference.ravel()) / jnp.linalg.norm(
        jnp.where(is_token, expected, 0).ravel()
    )
