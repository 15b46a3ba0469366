"""The command, for TPU slices that are described and not there."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT

pytestmark = [
    pytest.mark.tpu,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu"),
]
# Rows that splash attention takes, and heads of a width that it does.
SIZES = (
    *("--config.data.max_seq_length=128", "--config.model.max_position_embeddings=128"),
    *("--config.model.hidden_size=128", "--config.model.hidden_dropout_prob=0"),
)


def test_two_slices_are_reported_without_a_device(tmp_path: Path) -> None:
    path = os.pathsep.join(
        [str(ROOT), *(f"{ROOT}/tests/{one}" for one in ("experiments", "data_pipeline"))]
    )
    environment = os.environ | {
        "PYTHONPATH": f"{path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    }
    del environment["JAX_PLATFORMS"]  # the user need not know of it
    done = subprocess.run(
        [
            *(sys.executable, "-m", "experiments.compile"),
            *(f"--config={ROOT}/tests/experiments/echo_config.py", "--config.data.corpus_dir="),
            *("--topology=v5e:2x2", "--num_slices=1,2", f"--output={tmp_path}/report.json"),
            *SIZES,
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "attention: splash" in done.stdout
    one, two = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert (one["devices"], one["mesh"], two["devices"], two["mesh"]) == (
        *(4, "4 x 1 x 1"),
        *(8, "8 x 1 x 1"),
    )
    for row in (one, two):
        parameters = row["parameters_mb"] * 1e6
        assert row["fits"] == "yes"
        assert 0 < row["gib_needed"] < row["gib_usable"] < 16
        # Inside a slice each parameter once, and a few scalars; nothing in a loop.
        assert parameters <= row["collective_bytes"]["data"]["all-reduce"] <= 1.1 * parameters
        assert not any("in loops" in kind for kind in row["collective_bytes"]["data"])
        assert row["predicted_ms"] > 0
    assert "send" not in one["collective_bytes"]["data"]
    assert 0 < two["collective_bytes"]["data"]["send"] <= 2 * parameters
    assert one["network_ms"] == 0 < two["network_ms"]
