"""GPUs that are described and not there, to compile for."""

from collections.abc import Mapping

import jax
from jax.experimental import topologies

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
_MEMORY = {  # bytes, and bytes a second
    "NVIDIA H100": (80 * 10**9, 3_350 * 10**9),
    "NVIDIA H200": (141 * 10**9, 4_800 * 10**9),
}
DESCRIBED_GPUS = tuple(_MEMORY)


def described_gpu(name: str = "NVIDIA H200") -> jax.Device:
    """Return a GPU that programs can be lowered and compiled for, and nothing be computed on.

    It needs JAX's plugin for CUDA, cuDNN and ptxas, but no GPU and no driver; where none is there,
    ``JAX_PLATFORMS`` must be ``cpu``. Trace under `jax.default_device`, so that Triton's kernels
    are chosen. No kernel is chosen by timing: a program tells what it reads and writes, not how
    fast.

    Args:
        name: one of `DESCRIBED_GPUS`.

    Raises:
        NotImplementedError: the plugin is not installed.
    """
    size, bandwidth = _MEMORY[name]
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
    described = topologies.get_topology_desc(
        "1x1x1", platform="cuda", target_config=target, topology="1x1x1"
    )
    return described.devices[0]
