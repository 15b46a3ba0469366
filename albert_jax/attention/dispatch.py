"""Which attention is used: what a device can do, what is picked for it, and whether it is right."""

import functools
from enum import StrEnum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Int

from albert_jax.attention.blocked import SHORTEST_BLOCKED, blocked_attention
from albert_jax.attention.fused import SPLASH_LANES, cudnn_attention, splash_attention
from albert_jax.attention.reference import (
    AttentionFn,
    dot_product_attention,
    packed_mask,
    padding_mask,
)
from albert_jax.config import AlbertConfig, PositionEncoding
from albert_jax.layers import AnyArray

_CHECK_SEED = 0
_HOPPER = 9.0  # the compute capability from which cuDNN takes packed rows


class Attention(StrEnum):
    """How attention is computed."""

    AUTO = "auto"  # what fits the device: blocked, cudnn, splash, or else xla
    XLA = "xla"  # anywhere, any knob: scores of all queries and keys, as the reference has them
    BLOCKED = "blocked"  # for CPUs: long rows a few heads at a time, short ones as xla
    CUDNN = "cudnn"  # NVIDIA GPUs, in half precision
    SPLASH = "splash"  # TPUs: Pallas's kernel


def make_attention_fn(
    attention: Attention,
    *,
    attention_mask: Int[AnyArray, "batch length"] | None = None,
    sequence_ids: Int[AnyArray, "batch length"] | None = None,
    max_sequences: int | None = None,
) -> AttentionFn:
    """Attention that knows who may attend to whom in these rows.

    Args:
        attention: one that `choose_attention` found to fit.
        attention_mask: 1 for a real piece. Fused attention wants all padding behind the real ones.
        sequence_ids: which sequence of a packed row a piece belongs to, 0 for padding.
        max_sequences: sequences that a packed row may have.

    Raises:
        ValueError: `auto` was not settled, or the rows are not told as this one wants it.
    """
    if attention is Attention.AUTO:
        raise ValueError("attention=auto must be settled by choose_attention first")
    if attention is Attention.XLA:
        return _reference(attention_mask, sequence_ids)
    if sequence_ids is None:
        max_sequences = 1
    if attention is Attention.CUDNN and max_sequences is None:
        raise ValueError("cudnn must know how many sequences a row may have: pooled_positions")
    ids = attention_mask if sequence_ids is None else sequence_ids

    def attend(
        query: Array,
        key: Array,
        value: Array,
        *,
        relative: Any = None,
        dropout_rate: float = 0.0,
        dropout_key: Array | None = None,
    ) -> Array:
        if relative is not None or (dropout_key is not None and dropout_rate > 0):
            raise ValueError(f"{attention} knows neither relative positions nor dropout")
        all_real = jnp.ones(query.shape[:2], jnp.int32)
        told = all_real if ids is None else jnp.asarray(ids, jnp.int32)
        if attention is Attention.BLOCKED:
            if query.shape[1] < SHORTEST_BLOCKED:
                return _reference(attention_mask, sequence_ids)(query, key, value)
            seen = all_real if sequence_ids is None else told
            return blocked_attention(query, key, value, seen, told)
        if attention is Attention.SPLASH:
            return splash_attention(query, key, value, told)
        assert max_sequences is not None
        return cudnn_attention(query, key, value, told, max_sequences=max_sequences)

    return attend


def _reference(
    attention_mask: Int[AnyArray, "batch length"] | None,
    sequence_ids: Int[AnyArray, "batch length"] | None,
) -> AttentionFn:
    mask = None
    if sequence_ids is not None:
        mask = packed_mask(sequence_ids)
    elif attention_mask is not None:
        mask = padding_mask(attention_mask)
    return functools.partial(dot_product_attention, mask=mask)


class AttentionWorkload(NamedTuple):
    """What is asked of an attention, and of which device."""

    config: AlbertConfig
    dtype: DTypeLike
    lengths: tuple[int, ...]  # that rows have; none: any
    packed: bool
    device: jax.Device
    partitioned: bool = False  # whether run.tensor cuts arrays over devices

    @property
    def width(self) -> int:
        """Of a head."""
        return self.config.hidden_size // self.config.num_attention_heads


def unsupported_reason(attention: Attention, work: AttentionWorkload) -> str | None:
    """Why an attention cannot do the work, or None if it can."""
    if attention is Attention.XLA:
        return None
    config, dtype = work.config, jnp.dtype(work.dtype)
    if config.position_encoding is PositionEncoding.RELATIVE_LOCAL:
        return "it does not know learned relative positions (model.position_encoding)"
    if config.attention_probs_dropout_prob > 0:
        return (
            "it has no dropout that follows the run's seed: model.attention_probs_dropout_prob "
            f"must be 0, it is {config.attention_probs_dropout_prob}"
        )
    if attention is Attention.BLOCKED:
        return "it cannot be cut over devices: run.tensor must be 1" if work.partitioned else None
    if attention is Attention.SPLASH:
        if work.device.platform != "tpu":
            return f"it is for TPUs, this is a {work.device.platform}"
        if dtype == jnp.float64:
            return "it computes in float32 or bfloat16"
        if not work.lengths:
            return f"rows must be a multiple of {SPLASH_LANES} long, these are of any length"
        if others := [length for length in work.lengths if length % SPLASH_LANES]:
            return f"rows must be a multiple of {SPLASH_LANES} long, they are {others[0]}"
        if work.partitioned:
            return "it cannot be cut over devices: run.tensor must be 1"
        return None
    if work.device.platform != "gpu":
        return f"it is for NVIDIA GPUs, this is a {work.device.platform}"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"it computes in bfloat16 or float16, run.dtype is {dtype.name}"
    if work.width % 8 or work.width > 128:
        return f"heads must have a width of 8, 16, ..., 128, they have {work.width}"
    capability = float(getattr(work.device, "compute_capability", 0))
    if work.packed and capability < _HOPPER:
        return f"packed rows need compute capability {_HOPPER}, this GPU has {capability}"
    return None


def choose_attention(wanted: Attention, work: AttentionWorkload) -> tuple[Attention, str]:
    """The attention to use, and a line about it for people.

    One that is a kernel of its own is compared with the reference on the very device before it is
    used, once.

    Raises:
        ValueError: the wanted one cannot do the work here, or does it wrong.
    """
    fitting = {"cpu": Attention.BLOCKED, "gpu": Attention.CUDNN, "tpu": Attention.SPLASH}
    tried = fitting.get(work.device.platform, Attention.XLA)
    if wanted is not Attention.AUTO:
        tried = wanted
    why = unsupported_reason(tried, work)
    if why is None and tried in (Attention.XLA, Attention.BLOCKED):
        return tried, f"attention: {tried}"
    if why is None:
        try:
            error = deviation(tried, work)
        except RuntimeError as failure:  # of the library or its compiler: old, or for other chips
            why = f"it fails on this device: {str(failure).partition(chr(10))[0]}"
        else:
            if error <= tolerance(work):
                line = f"attention: {tried}, within {error:.1g} of the reference on this device"
                return tried, line
            why = f"it is {error:.1g} off the reference on this device, {tolerance(work)} allowed"
    if wanted is Attention.AUTO:
        return Attention.XLA, f"attention: xla; not {tried}: {why}"
    raise ValueError(f"{tried} cannot be used: {why}; xla and auto can")


def tolerance(work: AttentionWorkload) -> float:
    """How far a fused attention may be off: by its precision, far below what a leak would give."""
    if work.device.platform == "cpu":
        return 1e-5 if jnp.dtype(work.dtype) == jnp.float32 else 2e-2
    return 2e-2  # products of float32 are not exact on accelerators either


def deviation(attention: Attention, work: AttentionWorkload) -> float:
    """The largest relative error of an attention, of its result and of all three gradients.

    It is taken against the float32 reference on two rows of three sequences and padding (of one
    sequence where rows are not packed), over the real pieces, for each length that rows have.
    """
    errors = [_deviation(attention, work, length) for length in work.lengths or (SPLASH_LANES,)]
    return max(errors, key=_badness)


def _badness(error: float) -> float:
    return np.inf if np.isnan(error) else error


def _deviation(attention: Attention, work: AttentionWorkload, length: int) -> float:
    sizes = [length // 2, length // 4, length // 8]
    ids = np.repeat([1, 2, 3, 0], [*sizes, length - sum(sizes)])
    rows = np.stack([ids, np.where(ids == 3, 0, ids)]).astype(np.int32)
    if not work.packed:
        rows = (rows > 0).astype(np.int32)
    keys = jax.random.split(jax.random.key(_CHECK_SEED), 4)
    shape = (*rows.shape, work.config.num_attention_heads, work.width)
    dtype = jnp.dtype(work.dtype)
    *operands, slope = (jax.random.normal(key, shape).astype(dtype) for key in keys)
    slope = jnp.where((rows > 0)[:, :, None, None], slope, 0)

    def results(attention: Attention, dtype: DTypeLike) -> tuple[Array, ...]:
        attend = make_attention_fn(
            attention, sequence_ids=rows, max_sequences=3 if work.packed else 1
        )

        @jax.jit
        def run(operands: list[Array], slope: Array) -> tuple[Array, ...]:
            value, pull = jax.vjp(attend, *operands)
            return value * (slope != 0), *pull(slope)

        with jax.default_device(work.device):
            return run([x.astype(dtype) for x in operands], slope.astype(dtype))

    with jax.default_matmul_precision("float32"):
        expected = results(Attention.XLA, jnp.promote_types(dtype, jnp.float32))
    errors = [
        float(np.linalg.norm(np.subtract(a, e, dtype=np.float64)) / np.linalg.norm(e))
        for a, e in zip(results(attention, dtype), expected, strict=True)
    ]
    return max(errors, key=_badness)
