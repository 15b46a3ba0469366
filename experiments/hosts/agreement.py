"""Agreement of the processes of a run on what they compute."""

import hashlib
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from experiments.cli.config_dicts import Config
from experiments.cli.dataclass_forms import flatten, to_dict
from experiments.cli.versions import LIBRARIES, installed_versions

Facts = Mapping[str, str]

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("albert_jax", "data_pipeline", "experiments")
_DATA = ("configs", "sweeps")  # not compared as files: the resolved configuration is compared
# JAX options, set by environment variables, that results depend on.
_JAX_OPTIONS = (
    *("jax_enable_x64", "jax_default_matmul_precision"),
    *("jax_default_prng_impl", "jax_threefry_partitionable"),
)
_MOST_LISTED = 5


def experiment_facts(config: Config) -> dict[str, str]:
    """Return what all processes of a run must have in common besides its data, by name.

    These are every setting except the locations of files, which may differ from host to host; every
    source file of the project; JAX's options; and the versions of Python and of the libraries.
    """
    places = {*config.LOCATIONS, "run.compile_cache_dir"}
    settings = flatten(to_dict(config))
    libraries = installed_versions(LIBRARIES) | {"python": platform.python_version()}
    return {
        **{
            f"--config.{name}": str(value) for name, value in settings.items() if name not in places
        },
        **{name: str(getattr(jax.config, name)) for name in _JAX_OPTIONS},
        **{f"version of {name}": version for name, version in libraries.items()},
        **{f"source file {name}": digest for name, digest in _source_files()},
    }


def find_differences(facts: Mapping[int, Facts]) -> list[str]:
    """Return a phrase for each fact that is not the same on all processes.

    Example: ``{0: {"seed": "1"}, 1: {"seed": "2"}, 2: {"seed": "1"}}`` gives
    ``["seed is 1 on processes 0 and 2, 2 on process 1"]``.

    Args:
        facts: the facts of each process, by its number.
    """
    names = dict.fromkeys(name for own in facts.values() for name in own)
    found = []
    for name in names:
        holders: dict[str, list[int]] = {}
        for process in sorted(facts):
            holders.setdefault(facts[process].get(name, "missing"), []).append(process)
        if len(holders) > 1:
            values = (f"{value} on {name_processes(who)}" for value, who in holders.items())
            found.append(f"{name} is {', '.join(values)}")
    return found


def format_differences(differences: list[str]) -> str:
    """Return the error about differences, the first few of them listed."""
    listed = "; ".join(differences[:_MOST_LISTED])
    more = len(differences) - _MOST_LISTED
    rest = f"; and {more} more" if more > 0 else ""
    return f"the processes of this run differ: {listed}{rest}"


def name_processes(numbers: Iterable[int]) -> str:
    """Return a phrase that names processes.

    Example: ``[0, 2, 5]`` gives ``processes 0, 2 and 5``.
    """
    *most, last = sorted(numbers)
    if not most:
        return f"process {last}"
    return f"processes {', '.join(map(str, most))} and {last}"


def _source_files() -> Iterable[tuple[str, Any]]:
    """Yield the name of each source file and the beginning of its SHA-256."""
    for package in _PACKAGES:
        for path in sorted((_ROOT / package).rglob("*.py")):
            name = path.relative_to(_ROOT)
            if not {*_DATA} & {*name.parts}:
                yield str(name), hashlib.sha256(path.read_bytes()).hexdigest()[:12]
