"""Devices that are described but not present, to compile for: NVIDIA GPUs and slices of TPUs."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.experimental import topologies

from albert_jax.attention.cudnn import private_cudnn
from albert_jax.attention.traced_platform import traced_for
from albert_jax.devices.specifications import SPECIFICATIONS

# What XLA's compiler asks about a GPU, in its own names and units (bytes, GHz). From the makers'
# data sheets and the limits of compute capability 9.0.
_HOPPER: Mapping[str, int] = {
    "core_count": 132,
    "fpus_per_core": 128,
    "l2_cache_size": 50 * 2**20,
    "shared_memory_per_core": 228 * 2**10,
    "shared_memory_per_block": 48 * 2**10,
    "shared_memory_per_block_optin": 227 * 2**10,
    "registers_per_core_limit": 2**16,
    "registers_per_block_limit": 2**16,
    "threads_per_core_limit": 2048,
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "thread_dim_limit_x": 1024,
    "thread_dim_limit_y": 1024,
    "thread_dim_limit_z": 64,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 2**16 - 1,
    "block_dim_limit_z": 2**16 - 1,
    "device_address_bits": 64,
}
DESCRIBED_GPUS = ("NVIDIA H100", "NVIDIA H200")
_CAPABILITY = 9.0  # of these
# For programs whose machine code is not examined: unoptimized, it takes a quarter of the time.
UNOPTIMIZED_CODE: Mapping[str, int | bool] = {
    "xla_backend_optimization_level": 0,
    "xla_gpu_disable_gpuasm_optimizations": True,
}
# What libtpu would ask a TPU machine for, or complain about if there is none.
_NO_TPU_MACHINE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # beside other processes: there is no device to share
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}


def described_gpus(
    name: str = "NVIDIA H200", *, devices: int = 1, hosts: int = 1
) -> list[jax.Device]:
    """Return GPUs that programs can be lowered and compiled for, but not run on.

    They need JAX's plugin for CUDA, cuDNN and ptxas, but no GPU and no driver. If there is no GPU,
    JAX must be set to the platform ``cpu``. Trace under `described_devices`. No kernel is chosen by
    timing, so a program shows what it reads and writes, but not how fast.

    Args:
        name: one of `DESCRIBED_GPUS`.
        devices: number of GPUs of a host.
        hosts: number of hosts, each one process.

    Raises:
        NotImplementedError: the plugin is not installed.
    """
    known = SPECIFICATIONS[name]
    size, bandwidth = known.memory, int(known.memory_bandwidth or 0)
    limits = {**_HOPPER, "device_memory_size": size, "memory_bandwidth": bandwidth}
    target = f"""
        platform_name: "CUDA"
        device_description_str: "{name}"
        dnn_version_info {{ major: 9 minor: 10 }}
        gpu_device_info {{
            name: "{name}"
            clock_rate_ghz: 1.98
            cuda_compute_capability {{ major: 9 feature_extension: ACCELERATED_FEATURES }}
            driver_version: "12.9.0"
            runtime_version: "12.9.0"
            compile_time_toolkit_version: "12.9.0"
            dnn_version: "9.10.0"
            {" ".join(f"{field}: {value}" for field, value in limits.items())}
        }}
    """
    shape = f"1x{hosts}x{devices}"
    described = topologies.get_topology_desc(
        shape, platform="cuda", target_config=target, topology=shape
    )
    return described.devices


def described_tpus(topology: str, *, slices: int = 1) -> list[jax.Device]:
    """Return TPU chips that programs can be lowered and compiled for, but not run on.

    They need libtpu, but no TPU. Trace under `described_devices`.

    Args:
        topology: version and shape of a slice, such as ``v5e:8x8`` or ``v5p:4x4x4``.
        slices: number of slices.

    Raises:
        RuntimeError: libtpu is not installed, or it knows no such topology.
    """
    for name, value in _NO_TPU_MACHINE.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {"num_slices": slices}
    version, _, shape = topology.partition(":")
    if version == "v4":  # both cores of a chip as one device, as JAX has them
        options["chip_config_name"] = "megacore"
    sizes = [int(size) for size in shape.split("x")]
    if max(sizes) == 1:  # by default, a host has four chips
        options["chips_per_host_bounds"] = [1, 1, 1]
    return topologies.get_topology_desc(topology, platform="tpu", **options).devices


def is_described(device: jax.Device) -> bool:
    """Return True for a device that is described but not present."""
    return type(device.client).__name__.startswith("CompileOnly")


@contextlib.contextmanager
def described_devices(device: jax.Device) -> Iterator[None]:
    """Answer for a described device when a function that is traced asks which devices are here.

    Caches are cleared, so nothing that was traced for another platform is used again.

    Args:
        device: one of the devices to trace for.
    """
    with contextlib.ExitStack() as exits:
        if is_described(device):
            jax.clear_caches()
            exits.callback(jax.clear_caches)
            exits.enter_context(traced_for(device.platform))
            if device.platform == "gpu":
                exits.enter_context(_described_capability())
        yield


@contextlib.contextmanager
def _described_capability() -> Iterator[None]:
    """Answer for JAX's first device whether cuDNN may be called; there is no public way to."""
    cudnn: Any = private_cudnn()
    answers = {
        "check_compute_capability": lambda least: float(least) <= _CAPABILITY,
        "is_cuda_compute_capability_equal": lambda exact: float(exact) == _CAPABILITY,
    }
    asked = {name: getattr(cudnn, name) for name in answers if hasattr(cudnn, name)}
    try:
        for name in asked:
            setattr(cudnn, name, answers[name])
        yield
    finally:
        for name, function in asked.items():
            setattr(cudnn, name, function)
