"""Thousands of tiny steps that evaluate and save every 50: memory and descriptors stay flat.

They are read from outside, at each evaluation after the first 500 steps, when everything is
compiled and warm.
"""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from echoes import write_echoes

from experiments.metrics.metrics_file import METRICS_FILE
from tests.campaigns import ROOT
from tests.campaigns.campaign import Campaign
from tests.campaigns.forked import ForkedCommand, import_commands

EVERY, WARM = 50, 500
# Allowed above the medians of the first evaluations after the warm-up.
DESCRIPTORS, MEGABYTES = 8, 60.0


class Use(NamedTuple):
    """What a process uses after a step."""

    step: int
    megabytes: float
    descriptors: int


def watch(process: ForkedCommand, workdir: Path) -> Iterator[Use]:
    """Yield the use of a run at each of its evaluations, until it ends."""
    seen = 0
    while process.poll() is None:
        last = last_evaluation(workdir / METRICS_FILE)
        if last > seen:
            seen = last
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            descriptors = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
            yield Use(last, pages * 4096 / 1e6, descriptors)
        process.wait_for(lambda: False, 0.05)


def last_evaluation(metrics: Path) -> int:
    """Return the last step that was evaluated; 0 before the first one."""
    if not metrics.exists():
        return 0
    with metrics.open("rb") as file:
        file.seek(max(0, metrics.stat().st_size - 4000))
        lines = file.read().split(b"\n")[1:-1]
    entries = [json.loads(line) for line in lines if line.startswith(b'{"step"')]
    return max((e["step"] for e in entries if e["split"] == "validation"), default=0)


def main() -> None:
    """Train, and compare what is used with what was used in the beginning."""
    campaign = Campaign("long_run", count=5000, description=str(__doc__).partition("\n")[0])
    import_commands()
    with campaign.directory() as directory:
        write_echoes(directory / "echoes")
        flags = [
            f"--config={ROOT}/tests/experiments/echo_config.py",
            f"--config.data.corpus_dir={directory}/echoes",
            f"--workdir={directory}/run",
            f"--config.optimizer.num_train_steps={campaign.count}",
            f"--config.run.evaluate_every={EVERY}",
            f"--config.run.checkpoint_every={EVERY}",
            f"--config.run.log_every={EVERY}",
        ]
        environment = {"JAX_COMPILATION_CACHE_DIR": f"{directory}/compiled"}
        process = ForkedCommand(
            ["experiments.pretrain", *flags], directory / "output.txt", environment, seconds=7200
        )
        uses = [use for use in watch(process, directory / "run") if use.step >= WARM]
        if process.wait() != 0 or len(uses) < 20:
            fault = f"status {process.status}, {len(uses)} measured: {process.printed()}"
            campaign.count_case("run", fault, number=0)
            campaign.finish()
        megabytes = statistics.median(use.megabytes for use in uses[:5])
        descriptors = statistics.median(use.descriptors for use in uses[:5])
        for use in uses[5:]:
            more = use.megabytes - megabytes
            fault = f"step {use.step}: {more:.0f} MB more than in the beginning"
            campaign.count_case("memory", fault if more > MEGABYTES else None, number=0)
            more = use.descriptors - descriptors
            fault = f"step {use.step}: {more:.0f} descriptors more than in the beginning"
            campaign.count_case("descriptors", fault if more > DESCRIPTORS else None, number=0)
        print(f"{uses[0]} ... {uses[-1]}", flush=True)
    campaign.finish()


if __name__ == "__main__":
    main()
