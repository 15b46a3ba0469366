"""One run on 4 processes, then 2, then 4 again, one of them struck each time: no step differs.

When one is killed, stopped or terminated at a random moment, all processes end as documented.
Restarted in another number, they take each step on the same rows and with the same loss as in an
undisturbed run. How far losses differ by the order in which floats are summed is measured by
undisturbed runs of 4, 2 and 1 processes. A run whose numbers of processes change by plan, at the
same steps as in the disturbed run, must be the same bit for bit. Then two more runs must name the
process that loads its batches slowly.
"""

import random
import signal
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from commands import assert_same_params

from tests.campaigns.campaign import Campaign
from tests.campaigns.elastic_run import ElasticRun, build_corpus, fault_of_losses
from tests.campaigns.forked import import_commands, succeeds
from tests.campaigns.joined_processes import Rows
from tests.campaigns.strikes import Strike, choose_strike, fault_of_end

SIZES = (4, 2)
STEPS_PER_START = 7
NAMING_SECONDS = 300.0  # for a slow process to be named
_ROW = "{:>5} {:>9}  {:28} {:>6}  {:>5} {:>7} {:>6}  {:16} {:>7}"
_HEADER = _ROW.format(
    *("start", "processes", "what happened to one", "number"),
    *("from", "reached", "saved", "statuses", "seconds"),
)


class Segment(NamedTuple):
    """Steps that one start has taken, and no later one has repeated."""

    processes: int
    end: int


class Disturbance:
    """The starts of a run. In each of them except the last, one process is struck.

    Args:
        run: the run.
        campaign: counts the starts, and seeds what happens.
        reference: the rows of all steps.

    Attributes:
        history: on how many processes its steps were taken.
        repeated: steps that were begun and not saved.
        seconds: times from each strike to the end of all processes, by what happened.
    """

    def __init__(self, run: ElasticRun, campaign: Campaign, reference: Rows) -> None:
        self._run, self._campaign, self._reference = run, campaign, reference
        self.history: list[Segment] = []
        self.repeated = 0
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def train(self) -> None:
        """Start it on 4 and 2 processes in turn, and finally undisturbed to its end."""
        choose, starts = random.Random(self._campaign.seed), 2 * self._campaign.count
        print(_HEADER, flush=True)
        for number in range(starts):
            # On average what is left for each start, but for the last ones' share.
            left = self._run.steps - STEPS_PER_START - self._run.saved()
            most = min(left, 2 * left // (starts - number))
            count = SIZES[number % len(SIZES)]
            self._start(count, choose_strike(choose, count, most))
        self._start(SIZES[0], None)

    def _start(self, count: int, strike: Strike | None) -> None:
        before, seconds = self._run.saved(), 0.0
        statuses: list[int] = []
        with self._run.start(count) as joined:
            try:
                if strike is None:
                    statuses = joined.wait()
                    fault = f"they ended {statuses}" if any(statuses) else None
                else:
                    statuses, seconds = strike.execute(joined, before)
                    fault = fault_of_end(strike, joined, statuses, seconds)
            except TimeoutError as error:
                fault = str(error)
            taken = [joined.rows(number) for number in range(count)]
            begun = not any("before the first step" in e for e in joined.errors(0))
        reached = max(max(rows, default=before) for rows in taken)
        saved = self._run.saved()
        fault = fault or self._fault_of_rows(taken, before)
        if (strike is None or strike.what == "terminate") and begun and saved != reached:
            fault = fault or f"step {saved} is the last that was saved, not {reached}"
        if (self._run.workdir / "checkpoints/damaged").exists():
            fault = fault or "a checkpoint was damaged"
        if saved > before:
            self.history.append(Segment(count, saved))
        self.repeated += reached - saved
        kind = "none, to the end" if strike is None else f"{strike.what} while {strike.phase}"
        self.seconds[kind].append(seconds)
        victim = "" if strike is None else strike.victim
        ended = " ".join(map(str, statuses))
        numbers = (before, reached, saved, ended, f"{seconds:.1f}")
        print(_ROW.format(self._run.starts, count, kind, victim, *numbers), flush=True)
        fault = fault and f"start {self._run.starts}, {strike}: {fault}"
        self._campaign.count_case(f"{count} processes: {kind}", fault)

    def _fault_of_rows(self, taken: list[Rows], before: int) -> str | None:
        """Compare the rows that the processes of a start have loaded with those of the steps."""
        for number, rows in enumerate(taken):
            if list(rows) != list(range(before + 1, before + 1 + len(rows))):
                return f"process {number} took the steps {list(rows)} from checkpoint {before} on"
        for step in {step for rows in taken for step in rows}:
            there = [rows[step] for rows in taken if step in rows]
            loaded = {number: digest for rows in there for number, digest in rows.items()}
            if sum(map(len, there)) != len(loaded):
                return f"a row of step {step} was loaded twice"
            expected = self._reference[step]
            if len(there) == len(taken) and loaded.keys() != expected.keys():
                return f"step {step} had the rows {sorted(loaded)}"
            if any(expected[number] != digest for number, digest in loaded.items()):
                return f"step {step} had other rows"
        return None


def fault_of_replay(place: Path, run: ElasticRun, history: list[Segment]) -> str | None:
    """Take the same steps on the same numbers of processes by plan, and compare bit by bit."""
    planned = ElasticRun(place, "planned", run.steps)
    for number, segment in enumerate(history):
        ends = f"--config.optimizer.num_train_steps={segment.end}"
        more = ("--config.run.change_num_train_steps",) if number else ()
        planned.complete(segment.processes, ends, "--config.run.checkpoint_every=1000", *more)
    losses, expected = run.losses(), planned.losses()
    differing = [n for n in range(run.steps) if losses[n] != expected[n]]
    if differing:
        return f"the losses of the steps {[n + 1 for n in differing]} differ"
    result = place / "compared.txt"
    if not succeeds(lambda: assert_same_params(run.workdir, planned.workdir), result):
        return f"other parameters: {result.read_text()}"
    return None


def fault_of_naming(place: Path, count: int, slow: int) -> str | None:
    """Train with a slow process until it is named, and then terminate it."""
    run = ElasticRun(place, f"slow{count}", 10_000)
    with run.start(count, "--config.run.log_every=5", slow=slow) as joined:
        named = joined.wait_for(lambda: slow in joined.named_slow(), NAMING_SECONDS)
        print(f"of {count} processes, {slow} is slow; named: {joined.named_slow()}", flush=True)
        if not named:
            return f"process {slow} was not named: {joined.printed(0)[-1500:]}"
        joined.signal(slow, signal.SIGTERM)
        statuses = joined.wait()
    return f"they ended {statuses}" if set(statuses) != {75} else None


def summarize(disturbance: Disturbance) -> None:
    """Print how long it took until all processes had ended."""
    print(f"\n{disturbance.repeated} steps were begun and not saved, and taken again")
    print("what happened to one           times   seconds until all had ended: median, longest")
    for kind, seconds in sorted(disturbance.seconds.items()):
        middle, longest = sorted(seconds)[len(seconds) // 2], max(seconds)
        print(f"{kind:28} {len(seconds):7}   {middle:6.1f} {longest:6.1f}")


def main() -> None:
    """Strike, restart, compare."""
    campaign = Campaign(
        "elastic_hosts",
        count=20,
        description=str(__doc__).splitlines()[0],
        sequence="cycles",
    )
    import_commands()
    steps = (2 * campaign.count + 1) * STEPS_PER_START
    with campaign.directory() as place:
        build_corpus(place / "corpus")
        undisturbed = {n: ElasticRun(place, f"undisturbed{n}", steps) for n in (4, 2, 1)}
        rows = {count: run.complete(count) for count, run in undisturbed.items()}
        same = all(other == rows[1] for other in rows.values())
        campaign.count_case("rows by processes", None if same else "undisturbed runs differ")
        run = ElasticRun(place, "disturbed", steps)
        disturbance = Disturbance(run, campaign, rows[1])
        disturbance.train()
        summarize(disturbance)
        try:
            fault = fault_of_losses(run.losses(), [one.losses() for one in undisturbed.values()])
        except ValueError as error:
            fault = str(error)
        campaign.count_case("losses of undisturbed runs", fault)
        try:
            fault = fault_of_replay(place, run, disturbance.history)
        except (RuntimeError, ValueError) as error:
            fault = str(error)
        campaign.count_case("bits of a planned run", fault)
        for count in SIZES:
            slow = random.Random(campaign.seed).randrange(count)
            campaign.count_case("a slow process", fault_of_naming(place, count, slow))
    campaign.finish()


if __name__ == "__main__":
    main()
