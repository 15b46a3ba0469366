"""A slow host is named, exactly one, and only if the others wait for it."""

import pytest

from experiments.goodput import host_times
from experiments.goodput.host_times import (
    NAMES,
    HostReport,
    HostTimes,
    describe_slow,
    find_slow,
    summarize_hosts,
)


def report(host: str, own: float, wait: float, stall: float) -> HostReport:
    return HostReport(host, dict(zip(NAMES, (0.5, own, wait, stall), strict=True)))


SLOW = {
    0: report("a", 0.1, 0.02, 0.01),
    1: report("b", 0.1, 0.03, 0.05),
    2: report("c", 0.3, 0.40, 0.45),
    3: report("d", 0.1, 0.02, 0.03),
}
# It needs as long, but its devices are busy all the while.
HIDDEN = SLOW | {2: report("c", 0.3, 0.40, 0.05)}


def test_the_range_of_each_time_is_in_the_metrics() -> None:
    metrics = summarize_hosts(SLOW)
    assert metrics["host_seconds_per_step_min"] == 0.1
    assert metrics["host_seconds_per_step_median"] == 0.1
    assert metrics["host_seconds_per_step_max"] == 0.3
    assert metrics["loader_wait_share_max_process"] == 2
    assert metrics["loader_wait_share_median"] == pytest.approx(0.025)
    assert len(metrics) == 4 * len(NAMES)


def test_only_a_host_that_the_others_wait_for_is_slow() -> None:
    assert find_slow(SLOW) == 2
    assert find_slow(HIDDEN) is None
    assert find_slow({0: SLOW[0], 1: SLOW[2]}) == 1
    assert describe_slow(2, SLOW) == (
        "process 2 (c) is slow: its devices wait for it 45% of the time, those of the others 3%; "
        "it needs 0.3 s a step itself, 3.0 times their median, of which 0.2 s for data"
    )


def test_a_slow_host_is_named_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    times = HostTimes(said.append)
    assert times.exchange(10, dict.fromkeys(NAMES, 0.1)) == {}  # a process that is alone

    class Member:
        place = type("Place", (), {"num_processes": 4})

        def gather(self, *_: object) -> dict[int, dict[str, object]]:
            return {number: one._asdict() for number, one in gathered.items()}

    monkeypatch.setattr(host_times, "this_member", Member)
    gathered = HIDDEN
    assert times.exchange(10, SLOW[0].times)["host_stall_share_max"] == 0.05
    gathered = SLOW
    for step in range(2 * host_times.REPORTS_BETWEEN):
        times.exchange(step, SLOW[0].times)
    assert len(said) == 2 and all("process 2 (c) is slow" in line for line in said)
    gathered = {0: SLOW[0]}
    assert times.exchange(99, SLOW[0].times) == {}
    assert said[2] == "warning: not all processes reported their times at step 99"
