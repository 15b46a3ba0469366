"""Set before anything is imported: eight simulated devices, and checks of stated shapes."""

import os
from pathlib import Path

from jaxtyping import install_import_hook

os.environ["JAX_PLATFORMS"] = "cpu"
# Unoptimized machine code: a test compiles for longer than it computes.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

# Not the configurations: they take strings for choices and check for themselves.
install_import_hook(
    [
        ".".join(path.with_suffix("").parts)
        for package in ("albert_jax", "data_pipeline")
        for path in Path(package).rglob("[a-z]*.py")
        if path.stem != "config"
    ],
    "beartype.beartype",
)
