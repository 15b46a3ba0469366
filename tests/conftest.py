"""Settings before anything is imported: simulated devices, one compilation cache, shape checks."""

import atexit
import gc
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from compilation import XLA_FLAGS
from jaxtyping import install_import_hook

# The Triton that a torch for CUDA brings along ends the process if it is loaded after TensorFlow:
# see `load_triton` of the benchmark, which cannot be imported yet.
if importlib.util.find_spec("triton"):
    importlib.import_module("triton")

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {XLA_FLAGS}"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["HF_HUB_OFFLINE"] = "1"  # what looks like a name on the hub is not looked up there
# What one test or process has compiled, no other compiles again: workers and commands inherit this.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    cache = tempfile.mkdtemp(prefix="albert-jax-tests-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# Locks and markers of corpora; a user's own cache stays as it is, and keeps Matplotlib's fonts.
home_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("MPLCONFIGDIR", str(home_cache / "matplotlib"))
user_cache = tempfile.mkdtemp(prefix="albert-jax-tests-cache-")
atexit.register(shutil.rmtree, user_cache, ignore_errors=True)
os.environ["XDG_CACHE_HOME"] = user_cache

# Not the configurations: they take strings for choices and check for themselves.
install_import_hook(
    [
        ".".join(path.with_suffix("").parts)
        for package in ("albert_jax", "data_pipeline")
        for path in Path(package).rglob("[a-z]*.py")
        if "config" not in path.with_suffix("").parts
    ],
    "beartype.beartype",
)
importlib.import_module("albert_jax.devices.compile_cache").use_compile_cache(
    os.environ["JAX_COMPILATION_CACHE_DIR"]
)


def pytest_collection_finish() -> None:
    """Let the garbage collector skip what was imported, and run less often."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
