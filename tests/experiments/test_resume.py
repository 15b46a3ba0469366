"""Killed at random moments and started again, a run ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands import RECORDED, assert_same_params, start
from echoes import write_echoes

KILLS = 20
STEPS = 1000


def read_hashes(file: Path) -> list[tuple[int, str]]:
    """Steps and the hashes of their rows, in the order in which they were taken."""
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return [(int(step), rows) for step, rows in (line.split(" ", 1) for line in lines)]


def run(corpus: Path, workdir: Path, hashes: Path) -> subprocess.Popen[str]:
    return start(
        corpus,
        workdir,
        f"--config.optimizer.num_train_steps={STEPS}",
        "--config.run.evaluate_every=500",
        program=RECORDED,
        BATCH_HASHES=str(hashes),
    )


def flip_one_byte(checkpoint: Path) -> None:
    files = [path for path in checkpoint.rglob("*") if path.is_file()]
    path = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
def test_kills_at_random_moments_and_a_flipped_byte_change_nothing(tmp_path: Path) -> None:
    corpus = write_echoes(tmp_path / "corpus")
    reference, hashes = tmp_path / "reference", tmp_path / "reference.txt"
    uninterrupted = run(corpus, reference, hashes)
    uninterrupted.communicate(timeout=300)
    assert uninterrupted.returncode == 0
    batches = dict(read_hashes(hashes))
    assert len(set(batches.values())) == STEPS

    moments, workdir = random.Random(0), tmp_path / "killed"
    reached, kills, unfinished_saves, damaged, errors = 0, 0, 0, False, ""
    for number in range(4 * KILLS):
        notes = tmp_path / f"{number}.txt"
        process = run(corpus, workdir, notes)
        if kills < KILLS:
            # In every fifth the kill may come before the first step, else in the midst of steps.
            while number % 5 and not read_hashes(notes) and process.poll() is None:
                time.sleep(0.02)
            time.sleep(moments.uniform(0, 6 if number % 5 == 0 else 3))
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        _, said = process.communicate(timeout=300)
        errors += said
        taken = read_hashes(notes)
        assert [batch for batch in taken if batches[batch[0]] != batch[1]] == []
        steps = [step for step, _ in taken]
        if steps:
            assert steps == list(range(steps[0], steps[-1] + 1))
            assert steps[0] <= reached + 1  # no step is left out
            reached = max(reached, steps[-1])
        unfinished_saves += any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said
        names = [path.name for path in workdir.glob("checkpoints/[0-9]*")]
        committed = sorted(int(name) for name in names if name.isdigit())
        if kills >= KILLS // 2 and len(committed) > 1 and not damaged:
            flip_one_byte(workdir / f"checkpoints/{committed[-1]}")
            damaged = True
    assert (kills, process.returncode, reached) == (KILLS, 0, STEPS)
    assert unfinished_saves, "no kill came in the midst of a save: choose other moments"
    assert damaged
    assert "is damaged" in errors
    assert_same_params(workdir, reference)
