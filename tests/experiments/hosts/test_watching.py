"""Parts of joined processes that need no process: comparison, stopping, limits of the watchdog."""

import threading
from collections.abc import Iterator

import pytest
from absl import flags
from echoes import make_experiment, with_part

from data_pipeline.errors import InputError
from experiments.hosts import define_host_flags, watchdog
from experiments.hosts.agreement import (
    experiment_facts,
    find_differences,
    format_differences,
    name_processes,
)
from experiments.hosts.place import find_place
from experiments.hosts.stop_call import StopCall
from experiments.hosts.watchdog import COMPILING, TRAINING, Watchdog


def test_differences_name_what_differs_and_on_which_processes() -> None:
    facts = {0: {"seed": "1", "a": "x"}, 1: {"seed": "2", "a": "x"}, 2: {"seed": "1"}}
    assert find_differences(facts) == [
        "seed is 1 on processes 0 and 2, 2 on process 1",
        "a is x on processes 0 and 1, missing on process 2",
    ]
    assert find_differences({0: {"seed": "1"}, 1: {"seed": "1"}}) == []
    assert name_processes([2, 0, 5]) == "processes 0, 2 and 5"
    many = format_differences([f"{number} differs" for number in range(8)])
    assert many.endswith("4 differs; and 3 more")


def test_what_processes_have_in_common_are_settings_code_and_versions(tmp_path) -> None:
    config = make_experiment(tmp_path, num_train_steps=70)
    facts = experiment_facts(config)
    assert facts["--config.optimizer.num_train_steps"] == "70"
    assert "version of jax" in facts
    assert "source file albert_jax/model.py" in facts
    # Places may differ from host to host, with everything else the same.
    elsewhere = with_part(config, "data", corpus_dir="elsewhere")
    elsewhere = with_part(elsewhere, "run", compile_cache_dir="elsewhere")
    assert experiment_facts(elsewhere) == facts
    other = with_part(config, "optimizer", learning_rate=0.5)
    assert find_differences({0: facts, 1: experiment_facts(other)}) == [
        "--config.optimizer.learning_rate is 0.01 on process 0, 0.5 on process 1"
    ]


def test_processes_that_are_apart_stop_at_the_same_call() -> None:
    ahead, behind = StopCall(), StopCall()
    for _ in range(5):
        assert not ahead.reached()
    assert not behind.reached()
    call = max(ahead.hold(), behind.hold()) + 1
    waiting = threading.Thread(target=ahead.reached)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()  # no process gets past the call before it is settled
    ahead.settle(call)
    behind.settle(call)
    waiting.join(10)
    assert ahead._calls == call == 6
    assert [behind.reached() for _ in range(7)] == [False] * 4 + [True] * 3


def test_limits_follow_the_median_step_and_tell_activities_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: clock[0])
    dog = Watchdog(None)
    assert dog.limit(TRAINING) == 3600  # nothing is known about the first steps
    for step in range(6):
        clock[0] += 30 + (1000 if step == 3 else 0)
        dog.advance()
        with dog.during("evaluating"):  # no part of the step
            clock[0] += 500
    assert dog.limit(TRAINING) == 20 * 30
    assert dog.limit("evaluating") == 20 * 500
    assert dog.limit("saving") == 12 * 20 * 30
    assert dog.limit(COMPILING) == float("inf")
    for _ in range(128):
        clock[0] += 1
        dog.advance()
    assert dog.limit(TRAINING) == 300
    assert Watchdog(7).limit(TRAINING) == 7
    assert Watchdog(7).limit("saving") == 12 * 7


@pytest.fixture
def host_flags() -> Iterator[flags.FlagValues]:
    before = set(flags.FLAGS)
    define_host_flags()
    yield flags.FLAGS
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--num_processes=2"], "several hosts need all of --coordinator_address, --num_proc"),
        (
            ["--coordinator_address=localhost:1", "--num_processes=2", "--process_id=2"],
            "--process_id must be from 0 to 1, got 2",
        ),
        (
            ["--coordinator_address=localhost", "--num_processes=2", "--process_id=1"],
            "--coordinator_address must be HOST:PORT, got 'localhost'",
        ),
    ],
)
def test_host_flags_that_do_not_fit_are_reported(
    host_flags: flags.FlagValues, given: list[str], message: str
) -> None:
    host_flags(["pretrain", *given])
    with pytest.raises(InputError, match=f"^{message}"):
        find_place()


def test_flags_and_launchers_give_the_place_of_a_process(
    host_flags: flags.FlagValues, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_flags(["pretrain"])
    assert find_place() is None
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "3")
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", "1")
    place = find_place()
    assert place is not None
    assert (place.process, place.num_processes, place.host) == (3, 4, "10.96.0.1")
    assert place.local_device_ids == [1]
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "1")
    place = find_place()
    assert place is not None and place.local_device_ids is None
    host_flags(
        ["pretrain", *["--coordinator_address=[::1]:80", "--num_processes=2", "--process_id=1"]]
    )
    place = find_place()
    assert place is not None
    assert (place.process, place.num_processes, place.host, place.port) == (1, 2, "::1", 80)


@pytest.mark.parametrize(
    ("tasks", "devices"), [("1(x2)", None), ("8(x2)", [0]), ("1,8", [0]), ("1", None)]
)
def test_a_task_of_slurm_that_is_alone_on_its_node_has_all_devices(
    host_flags: flags.FlagValues,
    monkeypatch: pytest.MonkeyPatch,
    tasks: str,
    devices: list[int] | None,
) -> None:
    host_flags(["pretrain"])
    for name, value in {
        "JOB_ID": "7",
        "STEP_NODELIST": "node[1-2]",
        "NTASKS": "2",
        "PROCID": "1",
        "LOCALID": "0",
        "STEP_TASKS_PER_NODE": tasks,
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    place = find_place()
    assert place is not None
    assert (place.process, place.host, place.local_device_ids) == (1, "node1", devices)
