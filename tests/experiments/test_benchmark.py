"""The benchmark: recordings, fair turns, metrics, and a whole run without TensorFlow."""

import io
import itertools
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tiny_tasks
from commands import ROOT
from compilation import XLA_FLAGS
from echoes import make_experiment, with_part, write_echoes

from albert_jax.devices.flops import pretraining_flops_per_row
from albert_jax.settings import FieldError
from data_pipeline.errors import InputError
from experiments.benchmarks.batches import record, replay, with_shape
from experiments.benchmarks.data import read_batches
from experiments.benchmarks.finetune import measure_finetuning
from experiments.benchmarks.profile import group_by_origin
from experiments.benchmarks.timing import (
    Candidate,
    StepKind,
    Windows,
    measurement_rows,
    time_candidates,
)
from experiments.tasks.task_settings import TaskName


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark")
    config = make_experiment(write_echoes(path / "corpus"), num_train_steps=60)
    batches = read_batches(config, 3)
    record(batches, path / "batches.npz")
    return config, batches, path / "batches.npz"


def test_a_recording_gives_its_batches_and_the_experiment_their_shape(recorded):
    config, batches, path = recorded
    other = with_shape(config, batch=64, length=8)
    assert (other.global_batch_size, other.data.max_seq_length) == (64, 8)
    assert replay(path, config)[0] == config
    again, replayed = replay(path, other)
    assert again == config, "the shape is the recording's"
    assert replayed.source == batches.source == "corpus, packed"
    for before, after in zip(batches.batches, replayed.batches, strict=True):
        assert before.keys() == after.keys()
        for name, field in before.items():
            np.testing.assert_array_equal(after[name], field)
    assert replayed.is_packed
    assert replayed.pairs_per_batch > config.global_batch_size
    filled = np.mean([(batch["sequence_ids"] > 0).sum() for batch in batches.batches])
    assert replayed.tokens_per_batch == filled


def test_recordings_that_are_damaged_or_do_not_fit_the_model_are_rejected(recorded, tmp_path):
    config, _, path = recorded
    cut = tmp_path / "cut.npz"
    cut.write_bytes(path.read_bytes()[:-100])
    np.savez(tmp_path / "other.npz", input_ids=np.zeros((1, 2, 8), np.int32))
    for file in (tmp_path / "absent.npz", cut, tmp_path / "other.npz"):
        with pytest.raises(InputError, match=f"--replay={file} is not a recording"):
            replay(file, config)
    with pytest.raises(InputError, match=r"uses token 2\d, --config.model.vocab_size is 20"):
        replay(path, with_part(config, "model", vocab_size=20))


def test_no_recording_asks_for_more_memory_than_it_has(recorded, tmp_path):
    config, _, path = recorded
    with np.load(path) as stored:
        arrays = dict(stored)
    for count, message in (
        (1 << 40, "does not have the elements of its shape"),  # 4 TiB
        (0, "does not have the elements of its shape"),
    ):
        ids, shape = io.BytesIO(), arrays["input_ids"].shape
        np.save(ids, arrays["input_ids"])
        header = ids.getvalue().replace(f"({shape[0]},".encode(), f"({count},".encode(), 1)
        file = tmp_path / "changed.npz"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in arrays.items():
                content = io.BytesIO()
                np.save(content, array)
                written = header if name == "input_ids" else content.getvalue()
                archive.writestr(f"{name}.npy", written)
        with pytest.raises(InputError, match=f"--replay={file} is not a recording.*{message}"):
            replay(file, config)


def test_a_given_length_has_slots_for_15_percent(recorded):
    config = with_part(recorded[0], "model", max_position_embeddings=512)
    for length, slots in ((128, 20), (512, 77)):
        assert with_shape(config, length=length).data.max_predictions_per_seq == slots
    with pytest.raises(FieldError, match="max_position_embeddings"):
        with_shape(config, length=513)


class Clock:
    """A clock that advances with the work of candidates only."""

    def __init__(self):
        self.now, self.turns = 0.0, []

    def candidate(self, name, work, durations):
        def run(steps):
            self.turns.append((name, steps))
            self.now += steps * next(durations)

        return Candidate(name, work, run)


def test_candidates_take_turns(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    slow = clock.candidate("slow", StepKind.TRAIN, itertools.chain([9, 2, 2, 3, 2], []))
    fast = clock.candidate("fast", StepKind.TRAIN, itertools.chain([9, 0.5, 0.5, 1, 0.5], []))
    samples = time_candidates([slow, fast], Windows(3, 4.0))
    assert samples == [[2, 3, 2], [0.5, 1, 0.5]]
    assert clock.turns[4:] == [
        *(("slow", 2), ("fast", 8)),
        *(("fast", 8), ("slow", 2)),
        *(("slow", 2), ("fast", 8)),
    ]


def test_metrics_of_a_step(recorded):
    config, batches, _ = recorded
    clock = Clock()
    names = (("ours", StepKind.TRAIN), ("theirs", StepKind.TRAIN), ("theirs", StepKind.FORWARD))
    candidates = [clock.candidate(name, work, itertools.repeat(1)) for name, work in names]
    samples = [[2, 4, 2], [3, 4, 4], [1, 1, 1]]
    rows = measurement_rows(
        candidates, samples, config, batches, peak_flops=1e9, num_alternatives=2
    )
    pairs = batches.batches[0]["sentence_order_labels"].shape[1]
    flops = 16 * pretraining_flops_per_row(config.model, length=32, predictions=5, pairs=pairs)
    assert [row["milliseconds"] for row in rows] == [2000, 4000, 1000]
    assert rows[0]["rows_per_second"] == 8
    assert rows[0]["tokens_per_second"] == pytest.approx(batches.tokens_per_batch / 2, rel=1e-3)
    assert rows[0]["gflops_per_second"] == pytest.approx(flops / 2e9, rel=1e-3)
    assert rows[2]["gflops_per_second"] == pytest.approx(flops / 3e9, rel=1e-3)
    assert rows[0]["share_of_peak"] == pytest.approx(flops / 2e9, rel=1e-2)
    # Turn by turn 1.5, 1 and 2 times as fast.
    assert [row["times_fastest_rival"] for row in rows] == [1.5, 1, 1]
    unknown = measurement_rows(
        candidates[:1], samples[:1], config, batches, peak_flops=None, num_alternatives=0
    )
    assert unknown[0]["share_of_peak"] == "unknown"
    assert "times_fastest_rival" not in unknown[0]


def test_triton_is_loaded_before_tensorflow(tmp_path):
    (tmp_path / "triton.py").write_text(
        "import sys; print('triton', 'tensorflow' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-m", "experiments.benchmark", "--what=encode", "--against=torch"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    first, *_, last = done.stderr.splitlines()
    assert (first, done.returncode) == ("triton False", 2), done.stderr
    assert last.startswith("error: --what=encode needs --model")


def test_a_recording_is_measured_where_there_is_no_tensorflow(recorded, tmp_path):
    _, _, path = recorded
    code = (
        "import runpy, sys; sys.modules['tensorflow'] = None; "
        "sys.argv[0] = 'benchmark'; runpy.run_module('experiments.benchmark', run_name='__main__')"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-c", code, "--what=step", f"--replay={path}"),
            f"--config={ROOT}/tests/experiments/echo_config.py",
            *("--num_windows=2", "--window_seconds=0.1", f"--profile={tmp_path}"),
        ],
        cwd=ROOT,
        env=os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": f"{ROOT}:{ROOT}/tests/experiments:{ROOT}/tests/data_pipeline",
        }
        | {"XLA_FLAGS": XLA_FLAGS},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    assert [row["work"] for row in rows] == ["train", "forward"]
    for row in rows:
        assert (row["rows"], row["length"], row["batches"]) == (16, 32, "corpus, packed")
        assert 0 < row["fastest"] <= row["milliseconds"] <= row["slowest"]
        assert row["compile_seconds"] > 0
        assert row["memory_gib"] > 0
        assert f"--replay={path}" in row["command"]
        assert row["versions"]["jax"]
    assert list(tmp_path.rglob("*.xplane.pb"))
    # The longest operations of so small a step need not include matmuls, but include layers.
    assert lines.count("| operation | number | ms a step | share | origin |") == 2
    assert any("FeedForward/" in line and ", backward |" in line for line in lines)


def test_operations_of_layers_that_are_compiled_as_one_are_added_up():
    program = """
  %dot.1 = f32[2]{0} dot(%a), metadata={op_name="jit(step)/jvp(M)/encoder/closed_call/query/dot"}
  %dot.7 = f32[2]{0} dot(%b), metadata={op_name="jit(step)/jvp(M)/encoder/closed_call/query/dot"}
  ROOT %dot.8 = f32[2]{0} dot(%c), metadata={op_name="jit(step)/transpose(jvp(M))/x/query/dot"}
"""
    times = {"dot.1": 3, "dot.7": 4, "dot.8": 5, "copy.2": 1}
    summed, numbers = group_by_origin(times, program)
    forward, backward = ("dot", "closed_call/query/dot"), ("dot", "x/query/dot, backward")
    assert summed == {forward: 7, backward: 5, ("copy", ""): 1}
    assert numbers == {forward: 2, backward: 1, ("copy", ""): 1}


@pytest.mark.slow
def test_finetuning_is_measured_in_examples(tmp_path):
    tokenizer = tiny_tasks.write_tokenizer(tmp_path / "tokenizer")
    texts = tiny_tasks.write_texts(tmp_path, {"good": "yes", "bad": "no"})
    config = tiny_tasks.make_finetuning(TaskName.TEXT, tokenizer, data=texts)
    (row,) = measure_finetuning(config, num_batches=2, against_torch=False, windows=Windows(1, 0.1))
    assert row["batches"] == 2
    assert row["examples_per_second"] > 0
    assert 0.4 < row["positions_filled"] <= 1
    assert row["times_rival"] is None
