"""The command, for TPU slices and hosts of GPUs that are described, not present."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT

# Rows that splash attention takes, and heads of a width that it does.
SIZES = (
    *("--config.data.max_seq_length=128", "--config.model.max_position_embeddings=128"),
    *("--config.model.hidden_size=128", "--config.model.hidden_dropout_prob=0"),
    *("--config.model.intermediate_size=128", "--config.data.corpus_dir="),
)


def needs(package: str) -> pytest.MarkDecorator:
    there = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not there, reason=f"needs {package}")


def compile_rows(directory: Path, *arguments: str) -> tuple[str, list[dict[str, Any]]]:
    """Run the command as a user does, who need not know of `JAX_PLATFORMS`."""
    inherited = os.environ.get("PYTHONPATH", "")
    path = [ROOT, ROOT / "tests/experiments", ROOT / "tests/data_pipeline", inherited]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    environment.pop("JAX_PLATFORMS")
    config = f"--config={ROOT}/tests/experiments/echo_config.py"
    output = directory / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "experiments.compile", config, *SIZES, *arguments),
            f"--output={output}",
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(output.read_text())["rows"]


@pytest.mark.tpu
@needs("libtpu")
def test_slices_are_reported_without_a_device(tmp_path: Path) -> None:
    said, (one, two) = compile_rows(tmp_path, "--topology=v5e:2x2", "--num_slices=1,2")
    assert "attention: splash" in said
    assert (one["devices"], one["mesh"]) == (4, "4 x 1 x 1")
    assert (two["devices"], two["mesh"]) == (8, "8 x 1 x 1")
    for row in (one, two):
        parameters = row["parameters_mb"] * 1e6
        assert row["fits"] == "yes"
        assert 0 < row["gib_needed"] < row["gib_usable"] < 16
        # Inside a slice each parameter once, and a few scalars; nothing in a loop.
        sizes = row["collective_bytes"]["data"]
        reduced = sizes["all-reduce"] + sizes.get("reduce-scatter", 0)
        assert parameters <= reduced <= 1.1 * parameters
        assert not any("in loops" in kind for kind in sizes)
        assert row["predicted_ms"] > 0
    assert "send" not in one["collective_bytes"]["data"]
    assert 0 < two["collective_bytes"]["data"]["send"] <= 2 * parameters
    assert one["network_ms"] == 0 < two["network_ms"]


@pytest.mark.cuda
@needs("jax_cuda12_plugin")
def test_hosts_of_gpus_are_reported_without_a_device(tmp_path: Path) -> None:
    half = ("--config.run.dtype=bfloat16", "--config.run.sequence_slots=2")
    said, (row,) = compile_rows(tmp_path, "--topology=h200:2", "--num_slices=2", *half)
    assert "attention: cudnn, 2 sequence slots a row; fused layers" in said
    assert (row["devices"], row["mesh"], row["fits"]) == (4, "4 x 1 x 1", "yes")
    parameters, key_bias = row["parameters_mb"] * 1e6, 4 * 128  # whose gradient is known to be zero
    reduced = row["collective_bytes"]["data"]["all-reduce"]
    assert parameters - key_bias <= reduced <= 1.1 * parameters
    assert row["links_ms"] > 0
    assert row["network_ms"] > 0, "the gradients cross the hosts"
