"""Campaigns: many random attacks of one kind, each counted as right or wrong.

    python -m tests.campaigns.kills --count=200 --seed=0

Each prints every wrong case with the command that repeats it, and ends with one line of JSON and
status 1 if any was wrong. `make test-campaigns` runs them all.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# As the tests: their tiny models and corpora, on a CPU, with quick and unoptimized machine code.
sys.path[:0] = [f"{ROOT}/tests/{room}" for room in ("experiments", "data_pipeline", "docs")]
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[:3]]),
}
