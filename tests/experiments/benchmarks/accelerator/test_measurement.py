"""What is measured: recordings, sizes, attention, and a whole tiny model."""

import dataclasses
import json
import os
import subprocess
import sys

import jax.numpy as jnp
import pytest
from commands import ROOT
from compilation import XLA_FLAGS
from echoes import with_part
from measured_environment import MADE

from albert_jax.attention import AttentionImplementation
from albert_jax.attention.reference import REFERENCE
from data_pipeline.config import Packing
from data_pipeline.errors import InputError
from experiments.benchmarks.accelerator import steps
from experiments.benchmarks.accelerator.attention import (
    AttentionCandidate,
    AttentionRows,
    attention_candidates,
)
from experiments.benchmarks.accelerator.journal import Journal
from experiments.benchmarks.accelerator.measurement import Accelerator, measure_accelerator
from experiments.benchmarks.accelerator.plan import NotMeasured
from experiments.benchmarks.accelerator.recordings import (
    Shape,
    find_recordings,
    record_all,
    take_rows,
)
from experiments.benchmarks.timing import Candidate, StepKind, Windows

WINDOWS = Windows(1, 0.01)
PACKED = Shape(32, Packing.PACKED)


def test_wrong_attention_is_reported_with_its_error_and_not_timed(recordings):
    config, _, directory = recordings
    taken = take_rows(directory / "packed_32.npz", with_part(config, "run"), 2)
    rows = AttentionRows(*taken)
    right = rows.measure(AttentionCandidate("xla", REFERENCE), WINDOWS)
    assert right["right"] and right["error"] < 1e-5
    assert right["forward_milliseconds"] > 0
    assert right["training_milliseconds"] > 0

    def bind_without(mask):  # attends to other sequences too
        return REFERENCE.bind(mask._replace(sequence_ids=jnp.ones_like(mask.sequence_ids)))

    def bind_nan(mask):
        return lambda query, key, value: REFERENCE.bind(mask)(query, key, value) * jnp.nan

    for bind, error in ((bind_without, 0.1), (bind_nan, None)):
        wrong = AttentionImplementation(bind, lambda workload: None)
        row = rows.measure(AttentionCandidate("wrong", wrong), WINDOWS)
        assert (row["right"], row["forward_milliseconds"]) == (False, None)
        assert row["training_milliseconds"] is None
        assert row["error"] is None if error is None else row["error"] > error
    elsewhere = [one for one in attention_candidates() if one.implementation.platform == "gpu"]
    assert len(elsewhere) == 4
    for candidate in elsewhere:
        with pytest.raises(NotMeasured, match="for NVIDIA GPUs, this is a cpu"):
            rows.measure(candidate, WINDOWS)


def test_a_batch_that_needs_too_much_memory_is_halved(recordings, monkeypatch):
    config, _, directory = recordings

    def candidates(config, batches, kinds):
        if config.global_batch_size > 2:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
        return [Candidate("albert-jax", StepKind.TRAIN, lambda count: None, execution="xla")]

    monkeypatch.setattr(steps, "step_candidates", candidates)
    monkeypatch.setattr(steps, "time_candidates", lambda candidates, windows: [[0.5]])
    size = steps.Size("tiny", config, positions=8 * 32)
    (row,) = steps.measure_size(size, PACKED, directory / "packed_32.npz", WINDOWS)
    assert (row["rows"], row["note"]) == (2, "out of memory with 4 rows, 8 wanted")
    assert (row["size"], row["packing"], row["execution"]) == ("tiny", "packed", "xla")
    monkeypatch.setattr(steps, "is_out_of_memory", lambda error: False)
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        steps.measure_size(size, PACKED, directory / "packed_32.npz", WINDOWS)


def test_sizes_and_settings_are_those_of_the_code(monkeypatch):
    sizes = {name: steps.released_size(name) for name in steps.RELEASED}
    assert {size.rows_of(Shape(512, Packing.PACKED)) for size in sizes.values()} == {2}  # on a CPU
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    sizes = [steps.released_size(name) for name in steps.RELEASED]
    for length, rows in ((512, [128, 64, 32, 32]), (128, [512, 256, 128, 128])):
        assert [size.rows_of(Shape(length, Packing.PACKED)) for size in sizes] == rows
    assert {str(size.config.run.dtype) for size in sizes} == {"bfloat16"}
    assert [size.name for size in steps.choose_sizes(["xlarge", "base"])] == ["xlarge", "base"]
    with pytest.raises(InputError, match="--sizes: 'tiny' is none of base, large, xlarge, xxlarge"):
        steps.choose_sizes(["tiny"])
    for variant in (*steps.BASE_VARIANTS, steps.FLOAT8):  # settings that there are
        dataclasses.replace(sizes[0].config.run, **variant.run)


def test_recordings_are_kept_if_they_are_the_same(recordings):
    config, corpus, directory = recordings
    assert list(find_recordings(directory)) == [PACKED, Shape(32, Packing.UNPACKED)]
    before = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    (directory / "unpacked_32.npz").unlink()
    record_all(config, str(corpus), directory, shapes=[(8, 32)], num_batches=2)
    after = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    assert [path.name for path in before if before[path] == after[path]] == ["packed_32.npz"]
    with pytest.raises(InputError, match=r"2 batches of 8 rows of 32 of corpus.*not 2 of 4 of 32"):
        record_all(config, str(corpus), directory, shapes=[(4, 32)], num_batches=2)


def test_recordings_that_are_not_there_or_do_not_fit_are_named(recordings, tmp_path):
    config, _, directory = recordings
    size = steps.Size("tiny", config, 64)
    small = size._replace(config=with_part(config, "model", vocab_size=20))
    (tmp_path / "empty").mkdir()
    for sizes, replay, minutes, message in (
        ([size], directory, 0, "--minutes must be more than 0, got 0"),
        ([size], tmp_path / "absent", 1, "absent is no directory; --what=record_all"),
        ([size], tmp_path / "empty", 1, "empty has no recordings such as packed_512.npz"),
        ([small], directory, 1, r"uses token 2\d, --config.model.vocab_size is 20"),
    ):
        with pytest.raises(InputError, match=message):
            measure_accelerator(sizes, replay, tmp_path, minutes=minutes, windows=WINDOWS)
    assert not (tmp_path / "measurements.jsonl").exists()


def test_the_most_important_comes_first(recordings, tmp_path):
    config, _, directory = recordings
    sizes = [steps.Size(name, config, 64) for name in ("base", "xxlarge")]
    items = list(Accelerator(sizes, directory, WINDOWS).items(Journal(tmp_path, MADE)))
    names = [item.name for item in items]
    assert names[:6] == [
        "large product and copy",
        "step: base, 32 packed",
        "step: base, 32 unpacked",
        "profile: base, 32 packed",
        "beside transformers: base, 32 unpacked, compiled gathered",
        "step: xxlarge, 32 packed",
    ]
    assert len(set(names)) == len(names)
    assert {"attention: cudnn, slots, 32 packed", "products: base, 32 packed"} < set(names)


def run_command(*flags: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import runpy, sys; sys.modules['tensorflow'] = None; "
        "sys.argv[0] = 'benchmark'; runpy.run_module('experiments.benchmark', run_name='__main__')"
    )
    paths = f"{ROOT}:{ROOT}/tests/experiments:{ROOT}/tests/data_pipeline"
    return subprocess.run(
        [sys.executable, "-c", code, "--what=accelerator", *flags],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths, "XLA_FLAGS": XLA_FLAGS},
        capture_output=True,
        text=True,
    )


def test_a_mistake_is_one_line_and_status_2(recordings, tmp_path):
    done = run_command(f"--replay={recordings[2]}", f"--output={tmp_path}/out", "--minutes=0")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: --minutes must be more than 0, got 0"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_tiny_model_is_measured_whole(recordings, tmp_path):
    done = run_command(
        *(f"--config={ROOT}/tests/experiments/echo_config.py", f"--replay={recordings[2]}"),
        *(f"--output={tmp_path}", "--num_windows=1", "--window_seconds=0.1", "--minutes=20"),
        "--config.model.attention_probs_dropout_prob=0",
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "measurements.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert {row["kind"] for row in rows} == {"ceiling", "step", "profile", "attention"}
    steps_of = [row for row in rows if row["kind"] == "step"]
    assert {row["packing"] for row in steps_of} == {"packed", "unpacked"}
    assert all(row["memory_gib"] > 0 and row["rows"] == 8 for row in steps_of)
    (profile,) = [row for row in rows if row["kind"] == "profile"]
    for name in ("matmuls", "attention", "layer norm", "GELU", "head and loss", "optimizer"):
        assert profile["parts"][name]["milliseconds"] > 0, name
        assert profile["parts"][name]["bound_milliseconds"] > 0, name
    right = {row["implementation"] for row in rows if row["kind"] == "attention" and row["right"]}
    assert {"xla", "jax.nn.dot_product_attention, xla"} <= right
    report = (tmp_path / "README.md").read_text()
    assert "it is for NVIDIA GPUs, this is a cpu" in report
    assert "| time |" not in report
    assert (tmp_path / "accelerator.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "kernels.json").read_text())) > 20
