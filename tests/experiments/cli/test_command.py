"""Commands: exit statuses, one-line errors, and what they print about themselves."""

import errno
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import pytest
from config_files import BASE

from albert_jax.settings import FieldError
from albert_jax.training.checkpoint import NonFiniteStateError
from albert_jax.training.checkpoint.integrity import CheckpointError
from albert_jax.training.determinism import DeterminismError
from data_pipeline.errors import InputError
from experiments.cli.command import call
from experiments.run.config import ExperimentConfig


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("a mistake\nof two lines"), 2),
        (FieldError("ngram", "a whole number >= 1", 0), 2),
        (CheckpointError("every checkpoint is damaged"), 2),
        (OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl"), 2),
        (OSError(errno.ENAMETOOLONG, "File name too long", "metrics.jsonl"), 2),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "metrics.jsonl"), 2),
        (OSError(errno.EROFS, "Read-only file system", "metrics.jsonl"), 2),
        (OSError(errno.ENOTDIR, "Not a directory", "/dev/null/x"), 2),
        (OSError(errno.EIO, "Input/output error", "metrics.jsonl"), 2),
        (RuntimeError("a library: a.tfrecord; No space left on device"), 2),
        (RuntimeError("a library: a.tfrecord; Permission denied"), 2),
        (NonFiniteStateError("step 7 is not finite"), 3),
        (DeterminismError("step 8 is wrong on cpu:3", []), 6),
        (KeyboardInterrupt("interrupted"), 130),
    ],
)
def test_errors_that_a_user_can_fix_become_one_line_and_a_status(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise error

    assert call(main) == code
    assert capsys.readouterr().err == f"error: {error}\n".replace("\nof", " of")


def test_an_error_of_a_setting_names_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    def main(field: str = "data.plan_dir") -> None:
        raise FieldError(field, "a directory", "x")

    assert call(main, ExperimentConfig) == 2
    message = "must be a directory, got 'x'\n"
    assert capsys.readouterr().err == f"error: --config.data.plan_dir {message}"
    assert call(lambda: main("length"), ExperimentConfig) == 2
    assert capsys.readouterr().err == f"error: length {message}"


def test_a_bug_of_the_program_keeps_its_traceback() -> None:
    for bug in (
        RuntimeError("a bug"),
        ValueError("a bug"),
        OSError(errno.EBADF, "a bug"),
        KeyError("a bug"),
    ):

        def main(bug: Exception = bug) -> None:
            raise bug

        with pytest.raises(type(bug), match="a bug"):
            call(main)


def test_results_that_cannot_be_printed_are_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert call(lambda: print("accuracy 0.9")) == 2
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device\n"


COMMAND = """
from absl import flags
from experiments.cli.command import run
from experiments.cli.config_flag import define_config_flag, read_config_flag
from experiments.cli.exit_codes import ExitCode
from experiments.run.config import ExperimentConfig

CONFIG = define_config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "where the run is kept", required=True)

def main():
    print(read_config_flag(CONFIG, ExperimentConfig).model.hidden_size)
    return ExitCode.PREEMPTED

run(main, ExperimentConfig)
"""


def run_command(tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "output", "errors"),
    [
        (["--workdir=x", "--config.model.hidden_size=1536"], 75, "1536\n", ""),
        (
            ["--workdir=x", "--config.sed=1"],
            2,
            "",
            "error: there is no flag --config.sed; did you mean --config.seed?\n",
        ),
        (
            ["--workdir=x", f"--config.{'a' * 5_000}=1"],
            2,
            "",
            f"error: there is no flag --config.{'a' * 3974} …\n",
        ),
        (
            ["--workdir=x", "--config="],
            2,
            "",
            "error: --config=: there is no such file or name (--list_configs lists the names)\n",
        ),
        (["--workdir=x", "y"], 2, "", "error: 'y' is no flag; a flag is written --name=value\n"),
    ],
)
def test_a_command_ends_with_one_line_and_its_code(
    tmp_path: Path, arguments: Sequence[str], code: int, output: str, errors: str
) -> None:
    done = run_command(tmp_path, f"--config={BASE}", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (code, output, errors)


def test_a_command_lists_its_settings_before_anything_is_opened(tmp_path: Path) -> None:
    done = run_command(tmp_path, "--list_config=optimizer")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\n  --config.optimizer.learning_rate=0.00176\n" in done.stdout
    assert "--config.model" not in done.stdout


def test_a_command_prints_the_versions_that_an_issue_needs(tmp_path: Path) -> None:
    done = run_command(tmp_path, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    versions = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert versions["albert-jax"].startswith("0.1.0, commit ")
    assert versions["jax"] == jax.__version__
    assert versions["python"] == platform.python_version()
    assert {"jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "platform"} < set(versions)
    assert any(name.startswith("tensorflow") for name in versions)


def test_help_names_the_config_flag_and_how_its_settings_are_listed(tmp_path: Path) -> None:
    done = run_command(tmp_path, "--help")
    assert done.returncode == 0
    for flag in ("--config:", "--list_config:", "--[no]version:", "--workdir:"):
        assert f"\n  {flag}" in done.stdout
