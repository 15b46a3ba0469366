"""Times of the hosts of a run: their range in its metrics, and the name of a slow one.

All hosts take the same time for a step, because each waits for the others in it. They differ in the
part of a step's time that a host spends itself, without waiting for its devices, and in how much of
that part its devices had to wait.
"""

import socket
import statistics
from collections.abc import Callable, Mapping
from typing import NamedTuple

from experiments.hosts import this_member

# Names in the metrics of training; a slow host is found by `SLOWNESS`.
SLOWNESS = "host_stall_share"
NAMES = ("seconds_per_step", "host_seconds_per_step", "loader_wait_share", SLOWNESS)
# A host is slow if the share of time that its devices wait for it exceeds the others' by this ...
SLOW_SHARE = 0.15
# ... and the same host is named again only after this many reports.
REPORTS_BETWEEN = 20

_EXCHANGE_SECONDS = 5.0  # longest wait for the times of the others to arrive


class HostReport(NamedTuple):
    """Times of one host since its last report."""

    host: str
    times: Mapping[str, float]  # one for each of `NAMES`


class HostTimes:
    """The times of all processes of a run, gathered at each report.

    They take the connections of the signs of life, not those of the devices.

    Args:
        say: prints a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._reports, self._named = 0, (-1, 0)  # who was named, in which report

    def exchange(self, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Send this process's times to process 0, which returns those of all as metrics.

        All processes call this after the same steps; only process 0 waits.

        Args:
            step: the step.
            metrics: metrics of training, with `NAMES`.
        """
        if (member := this_member()) is None:
            return {}
        own = {"host": socket.gethostname(), "times": {name: metrics[name] for name in NAMES}}
        gathered = member.gather(f"times at step {step}", own, _EXCHANGE_SECONDS)
        if gathered is None:
            return {}
        reports = {number: HostReport(**one) for number, one in gathered.items()}
        if len(reports) < member.place.num_processes:
            self._say(f"warning: not all processes reported their times at step {step}")
            return {}
        self._name_slow(reports)
        return summarize_hosts(reports)

    def _name_slow(self, reports: Mapping[int, HostReport]) -> None:
        self._reports += 1
        process = find_slow(reports)
        named, when = self._named
        if process is None or (process == named and self._reports < when + REPORTS_BETWEEN):
            return
        self._named = process, self._reports
        self._say(f"warning: {describe_slow(process, reports)}")


def summarize_hosts(reports: Mapping[int, HostReport]) -> dict[str, float]:
    """Return the range of each time, and the process with the highest.

    Example: a loader wait of 0.1, 0.5 and 0.2 on processes 0, 1 and 2 is ``loader_wait_share_min``
    0.1, ``loader_wait_share_median`` 0.2, ``loader_wait_share_max`` 0.5 and
    ``loader_wait_share_max_process`` 1.
    """
    metrics: dict[str, float] = {}
    for name in NAMES:
        values = {number: report.times[name] for number, report in reports.items()}
        metrics |= {
            f"{name}_min": min(values.values()),
            f"{name}_median": statistics.median(values.values()),
            f"{name}_max": max(values.values()),
            f"{name}_max_process": max(values, key=values.__getitem__),
        }
    return metrics


def find_slow(reports: Mapping[int, HostReport]) -> int | None:
    """Return the process that the others wait for, if there is one."""
    shares = {number: report.times[SLOWNESS] for number, report in reports.items()}
    slowest = max(shares, key=shares.__getitem__)
    rest = [share for number, share in shares.items() if number != slowest]
    return slowest if shares[slowest] - statistics.median(rest) >= SLOW_SHARE else None


def describe_slow(process: int, reports: Mapping[int, HostReport]) -> str:
    """Describe a slow process.

    Example: ``process 3 (node7) is slow: its devices wait for it 40% of the time, those of the
    others 2%; it needs 0.21 s a step itself, 1.8 times their median, of which 0.18 s for data``
    """
    host, times = reports[process]
    others = [report.times for number, report in reports.items() if number != process]
    share = statistics.median(one[SLOWNESS] for one in others)
    median = statistics.median(one["host_seconds_per_step"] for one in others)
    own = times["host_seconds_per_step"]
    data = times["loader_wait_share"] * times["seconds_per_step"]
    return (
        f"process {process} ({host}) is slow: its devices wait for it {times[SLOWNESS]:.0%} of the "
        f"time, those of the others {share:.0%}; it needs {own:.3g} s a step itself, "
        f"{own / max(median, 1e-9):.1f} times their median, of which {data:.3g} s for data"
    )
