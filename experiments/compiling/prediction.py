"""The predicted time of a training step: a model of four terms, none of which overlaps another.

    matmuls      dense matmuls, floating-point operations / (0.73 x peak)
    attention    scores and contexts, operations / (0.19 x peak)
    passes       bytes that all other kernels read and write / (0.47 x memory bandwidth)
    collectives  by rings, bytes / (0.5 x bandwidth of links or network in one direction)

Operations are those of the model, including what `run.remat` recomputes; bytes are those of the
compiled program; peaks and bandwidths are the makers' (`albert_jax.devices.specifications`). The
first three fractions come from ALBERT-base in packed rows of 512, with slots and fused layers, on
an H200. Its kernels were profiled (experiments/LOG.md): 46.9 ms of matmuls, 20.1 ms of attention,
20.2 ms of anything else. **They are used for all devices. No TPU and no network was measured**,
and the fraction for links is a guess, so predictions for several devices are correct only to an
order of magnitude.
"""

from collections.abc import Iterable
from typing import NamedTuple

from albert_jax.config import AlbertConfig
from albert_jax.devices.collectives import Collective
from albert_jax.devices.flops import attention_flops, pretraining_flops_per_row
from albert_jax.devices.specifications import Specification
from albert_jax.encoder import Remat

MATMULS, ATTENTION, PASSES, LINKS = 0.73, 0.19, 0.47, 0.5  # fractions of the makers' figures
MODEL = (
    f"time = dense matmuls at {MATMULS} of the peak + attention at {ATTENTION} of it + bytes "
    f"between matmuls at {PASSES} of the memory's bandwidth + collectives by rings at {LINKS} of "
    "the links' or the network's in one direction; fractions are those of base on an H200, and a "
    "guess for links and for TPUs, none of which was measured"
)


class StepOperations(NamedTuple):
    """Floating-point operations of a step on each device, forward and backward."""

    dense: float  # of matmuls with parameters
    attention: float  # of scores and contexts
    counted: float  # of both without recomputation, the basis of fractions of the peak


class Prediction(NamedTuple):
    """Seconds of a step."""

    matmuls: float
    attention: float
    passes: float
    links: float  # collectives inside a slice or a host
    network: float  # those between slices or hosts

    @property
    def total(self) -> float:
        """Seconds of the whole step."""
        return sum(self)


def step_operations(
    model: AlbertConfig,
    remat: Remat,
    *,
    rows: int,
    devices: int,
    generator: AlbertConfig | None = None,
    **row: int,
) -> StepOperations:
    """Return the operations of a step on each of its devices.

    Full rematerialization repeats the forward pass of the layers. Rematerialization of all but the
    results of matmuls repeats the forward pass of attention only.

    Args:
        model: the model's sizes.
        remat: what the backward pass recomputes.
        rows: rows of the global batch.
        devices: number of all devices.
        generator: see `pretraining_flops_per_row`.
        row: `length`, `predictions` and `pairs`, see `pretraining_flops_per_row`.
    """
    share = rows / devices
    counted = share * pretraining_flops_per_row(model, generator=generator, **row)
    encoders = [model] if generator is None else [generator, model]
    attention = share * 3 * sum(attention_flops(one, row["length"]) for one in encoders)
    dense = counted - attention
    again = 1 + 1 / 3
    return StepOperations(
        dense * (again if remat is Remat.FULL else 1),
        attention * (1 if remat is Remat.NONE else again),
        counted,
    )


def predict_step(
    operations: StepOperations,
    bytes_between_matmuls: int,
    collectives: Iterable[Collective],
    known: Specification,
) -> Prediction | None:
    """Return the time of a step by the model of this module; None if figures are missing.

    Example: 7.3e14 operations of dense matmuls on a device with a peak of 1e15 take a second.

    Args:
        operations: operations of the step on a device.
        bytes_between_matmuls: bytes of the step on a device.
        collectives: collectives of the compiled step.
        known: the maker's figures of the device.
    """
    bandwidths = known.memory_bandwidth, known.link_bandwidth, known.network_bandwidth
    memory, link, network = (bandwidth or 0.0 for bandwidth in bandwidths)
    if not (memory and link and network):
        return None
    shares = [ring_bytes(collective) for collective in collectives]
    return Prediction(
        operations.dense / (MATMULS * known.peak_flops),
        operations.attention / (ATTENTION * known.peak_flops),
        bytes_between_matmuls / (PASSES * memory),
        sum(inside for inside, _ in shares) / (LINKS * link),
        sum(between for _, between in shares) / (LINKS * network),
    )


def ring_bytes(collective: Collective) -> tuple[float, float]:
    """Return the bytes that a device sends in a step over its links, and over the network.

    A ring of n devices sends (n - 1) / n of an array to gather or to scatter it, twice that to sum
    it. A collective over several slices or hosts takes three rings: inside each of them, between
    them for parts of the array, and inside again.

    Example: for a sum of 8 MB over 4 devices of one host, each sends 12 MB. Over 2 hosts of 4
    devices, each sends 12 MB inside its host and 2 MB between hosts.
    """
    size = float(collective.bytes_per_step)
    devices, parts = max(collective.devices, 1), max(collective.parts, 1)
    if collective.kind == "send":  # what a device sends to other slices
        return 0.0, size
    if collective.kind == "collective-permute":
        return (size, 0.0) if parts == 1 else (0.0, size)
    rounds = 2 if collective.kind == "all-reduce" else 1
    inside = devices / parts
    return (
        rounds * (inside - 1) / inside * size,
        rounds * (parts - 1) / parts * size / inside,
    )
