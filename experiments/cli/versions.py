"""Versions of the code and of the libraries that results depend on, for reports and issues."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

LIBRARIES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"),
    *("tensorflow", "tensorflow-cpu", "tensorflow-datasets", "sentencepiece"),
)


def describe_versions() -> str:
    """Return lines of text: package and commit, Python, libraries, platform."""
    version = installed_versions(["albert-jax"]).get("albert-jax", "not installed")
    lines = {
        "albert-jax": f"{version}, commit {commit()}",
        "python": platform.python_version(),
        **installed_versions(LIBRARIES),
        "platform": platform.platform(),
    }
    return "\n".join(f"{name} {text}" for name, text in lines.items())


def installed_versions(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of those distributions that are installed, without importing them."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the commit of the running code, marked if the code has uncommitted changes."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or not a clone
        return "unknown"
    return done.stdout.strip()
