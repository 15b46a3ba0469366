"""The machines that may be named, and their devices, which need not be present."""

import importlib.metadata
import importlib.util
import math
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from albert_jax.devices.described import described_gpus, described_tpus
from data_pipeline.errors import InputError

# Axes of a slice and chips of a pod, by TPU version. From the Cloud TPU documentation.
_TPUS = {"v4": (3, 4096), "v5e": (2, 256), "v5p": (3, 8960), "v6e": (2, 256)}
_GPUS = {"h100": "NVIDIA H100", "h200": "NVIDIA H200"}
_MOST_GPUS, _MOST_SIMULATED, _MOST_SLICES = 8, 1024, 4096
_NAME = re.compile(r"(?P<kind>\w+):(?P<shape>\d+(?:x\d+)*)")
ALLOWED = (
    "v4:AxBxC, v5p:AxBxC, v5e:AxB, v6e:AxB (chips of a TPU slice, such as v5e:8x8), h100:N, h200:N "
    "(GPUs of a host, up to 8) or cpu:N (simulated devices)"
)


class Topology(NamedTuple):
    """A number of equal slices, or of hosts with GPUs.

    Attributes:
        name: the name as given, such as ``v5e:8x8``.
        slices: number of slices or hosts.
        platform: tpu, gpu or cpu.
        devices_per_slice: chips of a slice, or GPUs of a host.
    """

    name: str
    slices: int
    platform: str
    devices_per_slice: int

    def __str__(self) -> str:
        """Example: ``2 x v5e:8x8``."""
        return self.name if self.slices == 1 else f"{self.slices} x {self.name}"


def parse_topologies(names: Iterable[str], slices: Iterable[str]) -> list[Topology]:
    """Return each topology with each number of slices.

    Args:
        names: values of ``--topology``.
        slices: values of ``--num_slices``.

    Raises:
        InputError: one is unknown.

    Example: ``["v5e:8x8"]`` and ``["1", "2"]`` are 64 and 128 chips.
    """
    numbers = [_parse_slices(text) for text in slices]
    found = [_parse(name, number) for name in names for number in numbers]
    if not found:
        raise InputError(f"--topology must be {ALLOWED}, got nothing")
    return list(dict.fromkeys(found))


def _parse_slices(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,3}", text.strip()) or int(text) > _MOST_SLICES:
        allowed = f"whole numbers in [1, {_MOST_SLICES}], separated by commas"
        raise InputError(f"--num_slices must be {allowed}, got {text!r}")
    return int(text)


def _parse(name: str, slices: int) -> Topology:
    match = _NAME.fullmatch(name.strip())
    kind = match["kind"] if match else ""
    sizes = [int(size) for size in match["shape"].split("x")] if match else []
    devices = math.prod(sizes)
    if kind in _TPUS:
        axes, most = _TPUS[kind]
        if len(sizes) != axes or not 0 < devices <= most:
            shape = "x".join("ABC"[:axes])
            allowed = f"{kind}:{shape} with at most {most:,} chips, those of a pod"
            raise InputError(f"--topology must be {allowed}, got {name!r}")
        return Topology(name.strip(), slices, "tpu", devices)
    if kind in _GPUS and len(sizes) == 1 and 0 < devices <= _MOST_GPUS:
        return Topology(name.strip(), slices, "gpu", devices)
    if kind == "cpu" and len(sizes) == 1 and 0 < devices <= _MOST_SIMULATED:
        if slices > 1:
            raise InputError(f"--num_slices must be 1 for {name}, got {slices}")
        return Topology(name.strip(), slices, "cpu", devices)
    raise InputError(f"--topology must be {ALLOWED}, got {name!r}")


def prepare_process(topologies: Sequence[Topology]) -> None:
    """Let this process compute on the CPU alone, and find the compilers that `make` installed.

    Call it before JAX looks for devices. Otherwise JAX would look for them with the TPU library, if
    it is installed, and that library takes a lock.
    """
    jax.config.update("jax_platforms", "cpu")
    if any(t.platform != "cpu" for t in topologies):  # the cache cannot read them back
        jax.config.update("jax_enable_compilation_cache", False)
    simulated = max((t.devices_per_slice for t in topologies if t.platform == "cpu"), default=0)
    if simulated > 1:
        jax.config.update("jax_num_cpu_devices", simulated)
    for folder in ("libtpu", "cuda"):
        path = Path(sys.prefix) / folder  # from `make compilers-tpu`, `make compilers-cuda`
        if path.is_dir() and str(path) not in sys.path:
            sys.path.append(str(path))


def devices_of(topology: Topology) -> list[jax.Device]:
    """Return the devices of a topology.

    Raises:
        InputError: their compiler is not installed, or knows no such topology.
    """
    if topology.platform == "cpu":
        return jax.devices("cpu")[: topology.devices_per_slice]
    try:
        if topology.platform == "tpu":
            _check_compiler("libtpu", "TPUs", "tpu", "libtpu")
            return described_tpus(topology.name, slices=topology.slices)
        name = _GPUS[topology.name.partition(":")[0]]
        return described_gpus(name, devices=topology.devices_per_slice, hosts=topology.slices)
    except NotImplementedError as error:
        raise _missing("NVIDIA GPUs", "cuda", "jax-cuda12-plugin[with-cuda]") from error
    except RuntimeError as error:
        line = str(error).partition("\n")[0]
        raise InputError(f"--topology={topology.name}: its compiler knows none ({line})") from error


def _check_compiler(module: str, *words: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise _missing(*words)


def _missing(devices: str, target: str, requirement: str) -> InputError:
    """Return the error about a compiler that is not installed, with the version that JAX needs."""
    pins = importlib.metadata.requires("jax") or []
    found = [pin.partition(";")[0].strip() for pin in pins if pin.startswith(requirement)]
    pin = found[0] if found else requirement
    dependencies = "--no-deps " if target == "tpu" else ""
    return InputError(
        f"the compiler for {devices} is not installed: `make compiler-{target}`, or "
        f"`pip install {dependencies}--target DIR '{pin}'` and PYTHONPATH=DIR; no {target.upper()} "
        "device is needed"
    )
