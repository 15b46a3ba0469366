"""The wheel: built, installed elsewhere and used there, without the source tree."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("albert_jax", "data_pipeline", "experiments")
PYTHONS = [name for v in (11, 12, 13) if shutil.which(name := f"python3.{v}")]


def run_elsewhere(command, cwd, **environment):
    """Run a command in a directory outside the source tree, and return its output."""
    result = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy, so that nothing is left in the source tree."""
    source = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run_elsewhere([*build, f"--wheel-dir={source}/dist", "."], source)
    (built,) = (source / "dist").iterdir()
    return built


def test_shipped_configs_and_sweeps_are_found_by_name_from_an_installed_wheel(wheel, tmp_path):
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", f"--target={site}"]
    run_elsewhere([*pip, wheel], tmp_path)
    here = {"PYTHONPATH": str(site)}
    found = run_elsewhere(
        [sys.executable, "-c", f"import {', '.join(PACKAGES)}; print(experiments.__file__)"],
        tmp_path,
        **here,
    )
    assert found.startswith(str(site))
    assert all((site / name / "py.typed").exists() for name in PACKAGES)
    launch_files = {path.name for path in Path("experiments/launch").iterdir()}
    assert {path.name for path in (site / "experiments/launch").iterdir()} == launch_files
    names = run_elsewhere([site / "bin/albert-pretrain", "--list_configs"], tmp_path, **here)
    assert "albert_base " in names and "finetune/sst2 " in names
    plan = run_elsewhere(
        [
            site / "bin/albert-sweep",
            "--sweep=parameter_sharing",
            "--size=small",
            "--dry_run",
            "--corpus_dir=corpus",
            "--workdir=sweep",
            "--points=0",
            "--task_dir=sst2=SST-2",
        ],
        tmp_path,
        **here,
    )
    assert "  0  128-all, seed 12345" in plan


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
def test_a_wheel_in_an_empty_environment_builds_trains_and_evaluates(wheel, python, tmp_path):
    run_elsewhere([python, "-m", "venv", tmp_path / "venv"], tmp_path)
    scripts = tmp_path / "venv" / "bin"
    run_elsewhere([scripts / "pip", "install", "--quiet", wheel], tmp_path)
    run_elsewhere([scripts / "pip", "check"], tmp_path)
    run_elsewhere(
        [
            scripts / "albert-build-corpus",
            f"--input={ROOT}/docs/*.md",
            "--format=text",
            "--vocab_size=600",
            "--held_out=0.2",
            "--output_dir=corpus",
        ],
        tmp_path,
    )
    run_elsewhere(
        [
            scripts / "albert-pretrain",
            "--config=albert_tiny_cpu",
            "--workdir=run",
            "--config.data.corpus_dir=corpus",
            "--config.model.vocab_size=600",
            "--config.optimizer.num_train_steps=4",
            "--config.optimizer.num_warmup_steps=1",
            "--config.run.evaluate_every=4",
            "--config.run.checkpoint_every=4",
        ],
        tmp_path,
    )
    assert "masked LM" in run_elsewhere([scripts / "albert-evaluate", "--workdir=run"], tmp_path)
