"""SIGKILL at random moments of training and of corpus building: nothing is lost, nothing changes.

A run is killed and started again until it ends; then its parameters and its held-out metrics must
be those of an undisturbed run, bit for bit. A corpus must be the same byte for byte. Half
of the kills come uniformly in time, the others in phases that are found by their traces.
"""

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from commands import assert_same_params
from echoes import write_echoes

from experiments.metrics.event_files import read_events
from experiments.metrics.metrics_file import METRICS_FILE, read_metrics
from tests.campaigns import ROOT
from tests.campaigns.campaign import Campaign
from tests.campaigns.forked import ForkedCommand, import_commands, succeeds

STEPS, SAVE_EVERY, EVALUATE_EVERY = 120, 10, 40
BUILDING_SHARE = 0.3
TRAINING_LANES = 2  # beside the one that builds
_SMALL_BLOCKS = f"{ROOT}/tests/campaigns/small_blocks.py"


class Phase(NamedTuple):
    """A phase: its trace, and how long after it a kill may come at most."""

    mark: Callable[[Path, Path], bool]  # of the directory and the file of what was printed
    seconds: float
    environment: tuple[tuple[str, str], ...] = ()


def _printed(text: str) -> Callable[[Path, Path], bool]:
    return lambda _, output: output.exists() and text in output.read_text(errors="replace")


def _present(pattern: str) -> Callable[[Path, Path], bool]:
    return lambda directory, _: any(directory.glob(pattern))


def _evaluates(workdir: Path, _: Path) -> bool:
    """True from the training metrics of an evaluated step until those of its evaluation."""
    file = workdir / METRICS_FILE
    lines = file.read_bytes().splitlines() if file.exists() else []
    try:
        last = json.loads(lines[-1]) if lines else {"split": None}
    except ValueError:  # half written
        return False
    return last["split"] == "train" and last["step"] % EVALUATE_EVERY == 0


TRAINING = {
    "starting": Phase(lambda *_: True, 3),
    "compiling": Phase(_printed(": at step "), 4, (("JAX_COMPILATION_CACHE_DIR", "{fresh}"),)),
    "saving": Phase(_present("checkpoints/*.orbax-checkpoint-tmp"), 0.1),
    "committing": Phase(_present("checkpoints/*.orbax-checkpoint-tmp/manifest.json"), 0.02),
    "evaluating": Phase(_evaluates, 0.5),
    "ending": Phase(_printed(f"step {STEPS:,}, validation"), 0.6),
}
BUILDING = {
    "vocabulary": Phase(_present("corpus.partial/work/vocabulary_sample.txt"), 0.5),
    "encoding": Phase(_present("corpus.partial/work/blocks"), 0.5),
    "shards": Phase(_present("corpus.partial/corpus/train"), 0.1),
    "journal": Phase(_present("corpus.partial/work/.journal.json.*"), 0.002),
    "finishing": Phase(_present("corpus.partial/corpus/metadata.json"), 0.01),
}


class Victim:
    """What is killed: how it is started, and what it must be like in the end."""

    phases: dict[str, Phase]

    def __init__(self, shared: Path, place: Path) -> None:
        self.shared, self.place = shared, place

    def start(self, directory: Path, output: Path, environment: dict[str, str]) -> ForkedCommand:
        raise NotImplementedError

    def fault(self, directory: Path) -> str | None:
        """Compare what a run has left with what an undisturbed one has."""
        raise NotImplementedError


class Training(Victim):
    phases = TRAINING

    def start(
        self, directory: Path, output: Path, environment: dict[str, str], *more: str
    ) -> ForkedCommand:
        flags = [
            f"--config={ROOT}/tests/experiments/echo_config.py",
            f"--config.data.corpus_dir={self.shared}/echoes",
            f"--workdir={directory}",
            f"--config.optimizer.num_train_steps={STEPS}",
            f"--config.run.evaluate_every={EVALUATE_EVERY}",
            f"--config.run.checkpoint_every={SAVE_EVERY}",
            *more,
        ]
        environment = {"JAX_COMPILATION_CACHE_DIR": f"{self.shared}/compiled"} | environment
        return ForkedCommand(["experiments.pretrain", *flags], output, environment)

    def fault(self, directory: Path) -> str | None:
        reference = self.shared / "Training"
        if (directory / "checkpoints/damaged").exists():
            return "a kill has damaged a checkpoint"
        entries, expected = read_metrics(directory), read_metrics(reference)
        steps = [(e["step"], e["split"]) for e in entries]
        if steps != [(e["step"], e["split"]) for e in expected]:
            return f"metrics.jsonl has {steps}"
        for entry, other in zip(entries, expected, strict=True):
            if entry["split"] == "validation" and entry | {"time": 0} != other | {"time": 0}:
                return f"step {entry['step']} was evaluated as {entry}, not {other}"
        files = directory.glob("events.out.tfevents.*")
        written = [event for file in files for event in read_events(file)]
        # Of metrics: there are settings and a picture, too.
        scalars = [e for e in written if any(v.HasField("simple_value") for v in e.summary.value)]
        events = [event.step for event in scalars]
        if sorted(events) != [step for step, _ in steps]:
            return f"TensorBoard has {sorted(events)}"
        if not succeeds(lambda: assert_same_params(directory, reference), self.place / "compared"):
            return f"other parameters: {(self.place / 'compared').read_text()}"
        return None


class Building(Victim):
    phases = BUILDING

    def start(self, directory: Path, output: Path, environment: dict[str, str]) -> ForkedCommand:
        flags = [
            f"--input={self.shared}/text/*.txt",
            *("--format=text", "--vocab_size=150", "--held_out=0.1", "--num_processes=1"),
            f"--output_dir={directory / 'corpus'}",
        ]
        return ForkedCommand([_SMALL_BLOCKS, *flags], output, environment)

    def fault(self, directory: Path) -> str | None:
        def files(corpus: Path) -> dict[str, bytes]:
            found = [path for path in corpus.rglob("*") if path.is_file()]
            return {str(path.relative_to(corpus)): path.read_bytes() for path in found}

        built, expected = files(directory / "corpus"), files(self.shared / "Building/corpus")
        differing = [n for n in {*built, *expected} if built.get(n) != expected.get(n)]
        return f"the corpus differs in {sorted(differing)}" if differing else None


def attack(victim: Victim, kills: int, seed: int) -> list[tuple[str, str | None]]:
    """Kill a victim so many times, over as many runs as it takes; return each kill and its fault.

    The kills of a run that ends wrong are all wrong.
    """
    choose, done, run = random.Random(seed), [], 0
    name = type(victim).__name__
    duration = float((victim.shared / f"{name}.seconds").read_text())
    while len(done) < kills:
        directory, pending, run = victim.place / str(run), [], run + 1
        fault, ended = None, False
        while not ended:
            output = victim.place / "output.txt"
            disturbed = len(done) + len(pending) < kills
            phase = choose.choice([*victim.phases, *["any"] * len(victim.phases)])
            environment = {}
            if disturbed and phase in victim.phases:
                fresh = victim.place / f"compiled{choose.random()}"
                environment = {
                    key: value.format(fresh=fresh)
                    for key, value in victim.phases[phase].environment
                }
            output.unlink(missing_ok=True)
            process = victim.start(directory, output, environment)
            if disturbed and _kill(process, victim, phase, directory, duration, choose):
                pending.append(f"{name.lower()}: {phase}")
                continue
            ended = True
            if process.wait() != 0:
                fault = f"status {process.status}, in {directory}: {process.printed()}"
        # A build that is killed after its last rename is complete, and refuses to start again.
        if fault and isinstance(victim, Building) and "exists already" in fault:
            fault = None
        fault = fault or victim.fault(directory)
        done += [(kind, fault) for kind in pending]
        if fault and not pending:
            done.append((f"{name.lower()}: undisturbed", fault))
        if fault is None:
            shutil.rmtree(directory)
    return done


def _kill(
    process: ForkedCommand,
    victim: Victim,
    phase: str,
    directory: Path,
    duration: float,
    choose: random.Random,
) -> bool:
    """Kill a process in a phase, or at any time; return False if it ended before."""
    if phase == "any":
        process.wait_for(lambda: False, choose.uniform(0, duration))
        return process.kill()
    mark, seconds, _ = victim.phases[phase]
    if choose.random() < 0.7:  # else in the first such phase of this start
        process.wait_for(lambda: False, choose.uniform(0, 0.7 * duration))
    if not process.wait_for(lambda: mark(directory, process.output), 60):
        return False
    process.wait_for(lambda: False, choose.uniform(0, seconds))
    return process.kill()


def prepare(shared: Path, kinds: Collection[type[Victim]]) -> None:
    """Make the text and the corpus, and what undisturbed runs leave, with the time they take."""
    write_echoes(shared / "echoes")
    choose, text = random.Random(7), shared / "text"
    text.mkdir()
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    words = ["".join(choose.choices(syllables, k=choose.randint(1, 3))) for _ in range(400)]
    for name in ("a.txt", "b.txt"):
        documents = [
            " ".join(
                " ".join(choose.choices(words, k=12)).capitalize() + "."
                for _ in range(choose.randint(3, 18))
            )
            for _ in range(600)
        ]
        (text / name).write_text("\n\n".join(documents) + "\n")
    for kind in kinds:
        victim, directory = kind(shared, shared), shared / kind.__name__
        victim.start(shared / "warm", shared / "output.txt", {}).wait()  # fills the compile cache
        shutil.rmtree(shared / "warm")
        start = time.monotonic()
        process = victim.start(directory, shared / "output.txt", {})
        if process.wait() != 0:
            raise RuntimeError(f"undisturbed, it ended with {process.status}: {process.printed()}")
        (shared / f"{kind.__name__}.seconds").write_text(str(time.monotonic() - start))


def main() -> None:
    """Kill in lanes, each a process that forks its victims; ``--only`` chooses one of them."""
    campaign = Campaign("kills", count=200, description=str(__doc__).splitlines()[0])
    import_commands()
    with campaign.directory() as place:
        building = round(BUILDING_SHARE * campaign.count)
        counts = np.diff(np.linspace(0, campaign.count - building, TRAINING_LANES + 1).astype(int))
        lanes = [(Building, building), *((Training, int(count)) for count in counts)]
        chosen = [n for n in range(len(lanes)) if campaign.only in (None, n)]
        prepare(place, {lanes[number][0] for number in chosen})
        pids = []
        for number in chosen:
            kind, kills = lanes[number]
            pid = os.fork()
            if pid == 0:
                lane = place / f"lane{number}"
                lane.mkdir()
                result = attack(kind(place, lane), kills, 1000 * campaign.seed + number)
                (place / f"lane{number}.json").write_text(json.dumps(result))
                os._exit(0)
            pids.append(pid)
        for number, pid in zip(chosen, pids, strict=True):
            os.waitpid(pid, 0)
            for kind, fault in json.loads((place / f"lane{number}.json").read_text()):
                campaign.count_case(kind, fault, number=number)
    campaign.finish()


if __name__ == "__main__":
    main()
