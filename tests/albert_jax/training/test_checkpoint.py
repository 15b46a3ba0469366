"""Checkpoints: saved states are restored, damaged ones are not, however the process is killed."""

import asyncio
import functools
import gc
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from albert_jax.training.checkpoint import (
    CheckpointError,
    Checkpoints,
    NonFiniteStateError,
    resolve_step,
    restore_params,
)
from albert_jax.training.config import OptimizerConfig
from albert_jax.training.optimizer import evaluated_parameters, make_optimizer
from albert_jax.training.train_step import create_train_state


class State(NamedTuple):
    """A stand-in for a training state: named parts, a nested optimizer state, a scalar."""

    step: Any
    params: Any
    opt_state: Any


def make_state(step: int, size: int = 20_000) -> State:
    """A state whose values depend on the step."""
    values = np.random.default_rng(step).standard_normal(size, dtype=np.float32)
    params = {"layer": {"kernel": jnp.asarray(values), "bias": jnp.full(3, step, jnp.float32)}}
    return State(jnp.int32(step), params, ({"m": params}, jnp.int32(step)))


def shapes(state: Any) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def assert_same(left: Any, right: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, left, right)


def save_steps(directory: Path, *steps: int, keep: int = 3) -> None:
    with Checkpoints(directory, keep=keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(step), finite=True)


def restore(directory: Path) -> State | None:
    with Checkpoints(directory, keep=3) as checkpoints:
        return checkpoints.restore(shapes(make_state(0)))


def largest_file(directory: Path) -> Path:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def flip_one_byte(checkpoint: Path) -> None:
    path = largest_file(checkpoint)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(checkpoint: Path) -> None:
    path = largest_file(checkpoint)
    path.write_bytes(path.read_bytes()[:-1])


def swap(left: Path, right: Path) -> None:
    left.rename(left.with_name("aside"))
    right.rename(left)
    left.with_name("aside").rename(right)


def without_step(checkpoint: Path) -> Path:
    """Give a checkpoint a manifest of the earlier format, which has only the files."""
    manifest = checkpoint / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text())["files"]))
    return checkpoint


def test_a_state_is_restored_with_its_documents_and_its_parameters_alone(
    tmp_path: Path,
) -> None:
    documents = {"albert_config": {"hidden_size": 7}}
    with Checkpoints(tmp_path, keep=3, documents=documents) as checkpoints:
        assert checkpoints.restore(shapes(make_state(0))) is None
        checkpoints.save(5, make_state(5), finite=jnp.ones(()))
    assert_same(restore(tmp_path), make_state(5))
    assert_same(restore_params(tmp_path), make_state(5).params)
    assert (tmp_path / "5/albert_config/metadata").read_text() == '{"hidden_size": 7}'


@pytest.mark.parametrize(
    "settings",
    [
        {"average_decay": 0.5},
        {"name": "schedule_free", "schedule": "warmup_stable_decay", "decay_share": 0.0}
        | {"num_warmup_steps": 0},
    ],
)
def test_the_mean_of_the_parameters_is_read_in_their_place(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    optimizer = make_optimizer(OptimizerConfig(**settings), global_batch_size=1)
    params = {"layers": {"kernel": jnp.ones((2, 1, 3, 4))}, "bias": jnp.arange(3.0)}
    updated = jax.tree.map(lambda x: x + 1, params)
    _, opt_state = optimizer.update(params, optimizer.init(params), params)
    state = create_train_state(updated, optimizer)._replace(opt_state=opt_state)
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(1, state.without_history(), finite=True)
    assert_same(restore_params(tmp_path, average=False), updated)
    assert_same(restore_params(tmp_path), evaluated_parameters(updated, opt_state))
    assert evaluated_parameters(updated, opt_state) is not updated


def test_an_item_that_some_runs_have_leaves_the_state_as_it_was(tmp_path: Path) -> None:
    history = {"losses": jnp.arange(4.0)}
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(1, make_state(1), finite=True)
        checkpoints.wait_until_finished()
        assert checkpoints.restore(shapes(history), item="history") is None
        checkpoints.save(2, make_state(2), finite=True, further={"history": history})
        checkpoints.wait_until_finished()
        assert_same(checkpoints.restore(shapes(history), item="history"), history)
        assert_same(checkpoints.restore(shapes(make_state(0))), make_state(2))
    one, two = (tmp_path / f"{step}/state/_METADATA" for step in (1, 2))
    assert one.read_text() == two.read_text()


@pytest.mark.parametrize(("devices_before", "devices_after"), [(1, 8), (8, 1), (8, 4)])
def test_a_state_is_restored_onto_another_sharding(
    tmp_path: Path, devices_before: int, devices_after: int
) -> None:
    def placed(state: State, devices: int) -> State:
        mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))

        def place(x: jax.Array) -> jax.Array:
            spec = PartitionSpec("data") if x.ndim and x.size % devices == 0 else PartitionSpec()
            return jax.device_put(x, NamedSharding(mesh, spec))

        return jax.tree.map(place, state)

    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(1, placed(make_state(1), devices_before), finite=True)
    wanted = shapes(placed(make_state(0), devices_after))
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        restored = checkpoints.restore(wanted)
    assert restored is not None
    assert_same(restored, make_state(1))
    assert jax.tree.map(lambda x: x.sharding, restored) == jax.tree.map(
        lambda x: x.sharding, wanted
    )
    assert len(restored.params["layer"]["kernel"].devices()) == devices_after


def test_the_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    accuracy = {10: 0.1, 20: 0.9, 40: 0.5}
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in range(10, 70, 10):
            metrics = {"masked_lm_accuracy": accuracy[step]} if step in accuracy else None
            checkpoints.save(step, make_state(step), finite=True, metrics=metrics)
        checkpoints.wait_until_finished()
        assert list(checkpoints.manager.all_steps()) == [20, 50, 60]
    assert (tmp_path / "best").read_text() == "20\n"
    assert_same(restore_params(tmp_path, 20), make_state(20).params)


def test_the_next_step_may_overwrite_the_state_while_it_is_written(tmp_path: Path) -> None:
    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state: Any) -> Any:
        return jax.tree.map(lambda x: x + 1, state)

    state = {f"tensor_{i}": jnp.zeros(1_000_000) for i in range(4)}
    with Checkpoints(tmp_path, keep=9) as checkpoints:
        for step in (10, 20, 30):
            for _ in range(10):
                state = train_step(state)
            checkpoints.save(step, state, finite=True)
    with Checkpoints(tmp_path, keep=9) as checkpoints:
        for step in (10, 20, 30):
            restored = checkpoints.manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes(state)))
            )
            for tensor in restored.state.values():
                np.testing.assert_array_equal(tensor, step)


def test_a_step_that_is_there_already_is_neither_replaced_nor_passed_over(tmp_path: Path) -> None:
    save_steps(tmp_path, 1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(CheckpointError, match=r"cannot save step 1 .* there is one already"):
        save_steps(tmp_path, 1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_state_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(1, make_state(1), finite=jnp.bool_(True))
        with pytest.raises(NonFiniteStateError, match=r"step 2 .* last good one is step 1"):
            checkpoints.save(2, make_state(2), finite=jnp.zeros(()))
    assert_same(restore(tmp_path), make_state(1))


def test_the_log_is_filtered_only_while_checkpoints_are_open(tmp_path: Path) -> None:
    filters = logging.getLogger("absl").filters
    before = list(filters)
    assert not any("orbax" in type(one).__name__.lower() for one in before)
    with Checkpoints(tmp_path, keep=1):
        assert len(filters) == len(before) + 1
    assert filters == before


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (flip_one_byte, r"state/.* does not have the SHA-256 that was written"),
        (truncate, r"state/.* has \d+ bytes, \d+ were written"),
        (lambda path: largest_file(path).unlink(), r"state/.* is missing"),
        (lambda path: (path / "manifest.json").unlink(), r"manifest\.json is missing"),
        (lambda path: (path / "manifest.json").write_text("{"), r"manifest\.json is not readable"),
        (
            lambda path: (path / "metrics/metrics").write_text("{"),
            r"metrics/metrics has 1 bytes, \d+ were written",
        ),
        (lambda path: (path / "manifest.json").write_text(""), r"manifest\.json is not readable"),
        (
            lambda path: (path / "manifest.json").write_text('{"step": 3, "files": {}}'),
            r"manifest\.json lists no files of a state",
        ),
        (
            lambda path: (path / "manifest.json").write_text("{}"),
            r"manifest\.json lists no files of a state",
        ),
        (lambda path: swap(path, path.parent / "1"), "it holds step 1"),
        (lambda path: swap(without_step(path), without_step(path.parent / "1")), "it holds step 1"),
    ],
    ids=[
        *("flipped", "truncated", "missing", "no manifest", "bad manifest", "metrics"),
        *("empty manifest", "no files", "no files, of before", "swapped", "swapped, of before"),
    ],
)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(
    tmp_path: Path,
    damage: Callable[[Path], object],
    named: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        for step in (1, 2, 3):
            metrics = {"masked_lm_accuracy": step / 10}
            checkpoints.save(step, make_state(step), finite=True, metrics=metrics)
    damage(tmp_path / "3")

    with pytest.raises(CheckpointError, match=rf"checkpoint 3 under .* is damaged: {named}"):
        restore_params(tmp_path, 3)
    assert_same(restore_params(tmp_path), make_state(2).params)

    with Checkpoints(tmp_path, keep=3) as checkpoints:
        assert_same(checkpoints.restore(shapes(make_state(0))), make_state(2))
        # The run resumes from there, and saves the same step again.
        checkpoints.save(3, make_state(3), finite=True)
    assert_same(restore(tmp_path), make_state(3))
    assert (tmp_path / "damaged" / "3").is_dir()
    assert "checkpoint 3 is damaged" in caplog.text


def test_a_checkpoint_of_before_with_a_manifest_without_a_step_is_restored(tmp_path: Path) -> None:
    save_steps(tmp_path, 1, 2)
    without_step(tmp_path / "2")
    assert_same(restore(tmp_path), make_state(2))
    assert not (tmp_path / "damaged").exists()


def test_a_renamed_checkpoint_is_damage(tmp_path: Path) -> None:
    """It would pass for steps that were never taken."""
    save_steps(tmp_path, 1, 2)
    (tmp_path / "2").rename(tmp_path / "9")
    with pytest.raises(CheckpointError, match=r"checkpoint 9 .* is damaged: it holds step 2"):
        restore_params(tmp_path, 9)
    assert_same(restore(tmp_path), make_state(1))


@pytest.mark.parametrize("content", [b"", b"\0\0\0", b"sixty\n", b"\xff\xfe", b"\xb2\n", b"-2\n"])
def test_a_damaged_mark_of_the_best_is_named_and_written_anew(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        for step in (1, 2):
            metrics = {"masked_lm_accuracy": 1 / step}
            checkpoints.save(step, make_state(step), finite=True, metrics=metrics)
    (tmp_path / "best").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"best is damaged: it must hold the step of"):
        resolve_step(epath.Path(tmp_path), None)
    assert_same(restore(tmp_path), make_state(2))
    assert f"{tmp_path}/best is damaged" in caplog.text
    assert "written anew: step 1" in caplog.text
    assert resolve_step(epath.Path(tmp_path), None) == 1


def test_a_mark_of_a_best_checkpoint_that_is_gone_is_removed(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(1, make_state(1), finite=True, metrics={"masked_lm_accuracy": 0.5})
        checkpoints.save(2, make_state(2), finite=True)
    flip_one_byte(tmp_path / "1")
    restore(tmp_path)
    assert not (tmp_path / "best").exists()
    assert resolve_step(epath.Path(tmp_path), None) == 2


def test_if_all_are_damaged_nothing_is_started_and_nothing_moved(tmp_path: Path) -> None:
    save_steps(tmp_path, 1, 2)
    flip_one_byte(tmp_path / "1")
    truncate(tmp_path / "2")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match=r"every .* is damaged: step 2 \(.*, step 1 \("):
        Checkpoints(tmp_path, keep=3)
    with pytest.raises(CheckpointError, match="every checkpoint"):
        restore_params(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_checkpoint_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint under"):
        restore_params(tmp_path / "nowhere")
    save_steps(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"no step 7 under .*, but \[1\]"):
        restore_params(tmp_path, 7)


def test_every_file_but_the_stamps_is_in_the_manifest(tmp_path: Path) -> None:
    """A flipped byte is found in any file that Orbax writes, except two that contain no data."""
    save_steps(tmp_path, 1)
    checkpoint = tmp_path / "1"
    files = [path for path in checkpoint.rglob("*") if path.is_file()]
    unseen = set()
    for path in files:
        content = path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        try:
            restore_params(tmp_path, 1)
            unseen.add(path.name)
        except CheckpointError:
            pass
        path.write_bytes(content)
    assert len(files) > 5
    assert unseen <= {"_CHECKPOINT_METADATA", "commit_success.txt"}


def run_script(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=Path(__file__).parent,
        # Use the code under test, whatever other copy is installed.
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


FULL_DISK = """
import resource, sys, time
from test_checkpoint import CheckpointError, Checkpoints, make_state
with Checkpoints(sys.argv[1], keep=3) as checkpoints:
    checkpoints.save(1, make_state(1), finite=True)
    checkpoints.wait_until_finished()
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    try:
        checkpoints.save(2, make_state(2), finite=True)
        while True:  # as the steps after it do; nothing waits for the save
            checkpoints.check()
            time.sleep(0.1)
    except CheckpointError as error:
        print(error)
"""


def test_a_full_disk_is_reported_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: a write that fails, on any machine."""
    output, errors = run_script(FULL_DISK, tmp_path).communicate(timeout=240)
    assert output == (
        f"cannot save step 2 under {tmp_path}: File too large; the last good one is step 1\n"
    ), errors
    assert "Save Finalize" not in errors  # Orbax's own report, from each of its threads
    assert_same(restore(tmp_path), make_state(1))


def test_writes_that_nobody_waits_for_any_more_print_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """This happens if the first of several writes failed, and Orbax left its event loop."""

    def finish_late() -> None:
        promise, future = tensorstore.Promise.new()

        async def wait() -> Any:
            return future.__await__()

        loop = asyncio.new_event_loop()
        waiting = loop.run_until_complete(wait())
        loop.close()
        promise.set_result(1)
        del waiting

    printed = sys.unraisablehook
    try:
        sys.unraisablehook = sys.__unraisablehook__  # not pytest's
        with Checkpoints(tmp_path, keep=1):
            finish_late()
        assert "Event loop" not in capfd.readouterr().err
        finish_late()
        assert "RuntimeError: Event loop is closed" in capfd.readouterr().err
    finally:
        sys.unraisablehook = printed


def test_errors_of_a_save_that_are_not_the_first_are_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def leave_an_error_behind(file: str) -> None:
        code = compile(
            "def fail():\n    raise OSError(28, 'No space left on device')", file, "exec"
        )
        names: dict[str, Any] = {}
        exec(code, names)
        loop = asyncio.new_event_loop()
        future = loop.create_future()
        try:
            names["fail"]()
        except OSError as error:
            future.set_exception(error)
        loop.close()
        del future
        gc.collect()

    with Checkpoints(tmp_path, keep=1):
        leave_an_error_behind("/site-packages/orbax/checkpoint/async_path.py")
        assert caplog.messages == []
        leave_an_error_behind("/home/me/program.py")
    leave_an_error_behind("/site-packages/orbax/checkpoint/async_path.py")
    assert len(caplog.messages) == 2


SAVE_FOR_EVER = """
import itertools, sys
from test_checkpoint import Checkpoints, make_state
with Checkpoints(sys.argv[1], keep=2) as checkpoints:
    first = (checkpoints.manager.latest_step() or 0) + 1
    for step in itertools.count(first):
        checkpoints.save(step, make_state(step, 300_000), finite=True)
        print(step, flush=True)
"""


@pytest.mark.slow
def test_killed_while_saving_it_opens_at_an_intact_checkpoint(tmp_path: Path) -> None:
    rng = random.Random(0)
    last = 0
    for _ in range(12):
        process = run_script(SAVE_FOR_EVER, tmp_path)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with Checkpoints(tmp_path, keep=2) as checkpoints:
            restored = checkpoints.restore(shapes(make_state(0, 300_000)))
        if restored is None:  # killed within the very first save
            continue
        assert int(restored.step) >= last
        last = int(restored.step)
        assert_same(restored, make_state(last, 300_000))
        assert not (tmp_path / "damaged").exists()
    assert last > 6  # one or so a kill, under load too


TWO_PROCESSES = """
import pathlib, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
jax.distributed.initialize(sys.argv[2], num_processes=2, process_id=int(sys.argv[3]))
from test_checkpoint import CheckpointError, Checkpoints, shapes
sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
values = jax.make_array_from_callback((4000,), sharding, lambda i: np.arange(4000.0)[i])
state = {"params": {"a": values.astype(jnp.float32)}}
result = pathlib.Path(sys.argv[4])
try:
    with Checkpoints(sys.argv[1], keep=2) as checkpoints:
        restored = checkpoints.restore(shapes(state))
        if restored is None:
            for step in (1, 2, 3):
                checkpoints.save(step, state, finite=True, metrics={"masked_lm_accuracy": 1 / step})
        else:
            same = all(
                bool((left.data == right.data).all())
                for left, right in zip(
                    restored["params"]["a"].addressable_shards,
                    state["params"]["a"].addressable_shards,
                    strict=True,
                )
            )
            result.write_text(f"restored {checkpoints.manager.latest_step()} {same}")
except CheckpointError as error:
    result.write_text(f"rejected: {error}")
"""


@pytest.mark.slow
def test_two_processes_save_verify_and_reject_together(tmp_path: Path) -> None:
    directory, results = tmp_path / "checkpoints", [tmp_path / "first", tmp_path / "second"]

    def run_both() -> list[str]:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        processes = [
            run_script(TWO_PROCESSES, directory, address, index, result)
            for index, result in enumerate(results)
        ]
        outputs = [process.communicate(timeout=120) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], outputs
        return [result.read_text() for result in results if result.exists()]

    assert run_both() == []
    assert sorted(path.name for path in directory.iterdir()) == ["1", "2", "3", "best"]
    assert run_both() == ["restored 3 True"] * 2
    flip_one_byte(directory / "3")
    assert run_both() == ["restored 2 True"] * 2
    flip_one_byte(directory / "1")
    flip_one_byte(directory / "2")
    first, second = run_both()
    assert first.startswith("rejected: every checkpoint under")
    assert second == "rejected: process 0 rejects the checkpoints; its message says why"
