"""What makers state about their devices: speed, memory and links."""

from typing import NamedTuple

import jax


class Specification(NamedTuple):
    """Figures of one device as JAX counts devices, in bytes and in FLOP/s; None: unknown.

    Attributes:
        peak_flops: dense matmuls in bfloat16, without sparsity.
        memory: total memory.
        memory_bandwidth: per second, reading and writing together.
        link_bandwidth: per second in one direction, over all links to the devices of its slice or
            host (ICI, NVLink).
        network_bandwidth: per second in one direction, the device's share of the network between
            slices or hosts (DCN, InfiniBand).
    """

    peak_flops: float
    memory: int | None = None
    memory_bandwidth: float | None = None
    link_bandwidth: float | None = None
    network_bandwidth: float | None = None


_GIB = 2**30

# By the prefix of JAX's name of the device. NVIDIA: the data sheets "H200", "H100" (SXM, half of
# the value with sparsity) and "A100 Tensor Core GPU"; NVLink 900 GB/s in both directions; networks
# as in "DGX H100", 400 Gbit/s per GPU. TPUs: each version's page in the Cloud TPU documentation,
# where links are given in both directions, and the network of v5e and v6e for a pod of 256; v4's
# network is not given there, so v5p's is used. v2 and v3: half a chip, since a device is a core.
# Matmuls in float8 have twice the peak (1,979e12 on Hopper); shares are of this one for them too.
SPECIFICATIONS = {
    "NVIDIA H200": Specification(989e12, 141 * 10**9, 4.8e12, 450e9, 50e9),
    "NVIDIA H100": Specification(989e12, 80 * 10**9, 3.35e12, 450e9, 50e9),
    "NVIDIA A100": Specification(312e12),
    "TPU v2": Specification(22.5e12),
    "TPU v3": Specification(61.5e12),
    "TPU v4": Specification(275e12, 32 * _GIB, 1.2e12, 150e9, 6.25e9),
    "TPU v5 lite": Specification(197e12, 16 * _GIB, 0.819e12, 200e9, 3.125e9),
    "TPU v5": Specification(459e12, 95 * _GIB, 2.765e12, 600e9, 6.25e9),
    "TPU v6 lite": Specification(918e12, 32 * _GIB, 1.6e12, 400e9, 12.5e9),
}


def specification(device: jax.Device) -> Specification | None:
    """Return the figures of a device, or None if it is unknown.

    Example: a ``TPU v5 lite`` (v5e) has 16 GiB; the longest matching name counts, so it is not
    taken for a ``TPU v5`` (v5p).
    """
    matches = [name for name in SPECIFICATIONS if device.device_kind.startswith(name)]
    return SPECIFICATIONS[max(matches, key=len)] if matches else None
