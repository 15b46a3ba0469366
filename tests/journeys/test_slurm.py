"""Four nodes of a Slurm cluster: a job that its time limit ends, queued again, and one alone."""

import itertools
import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from journey import ROOT, Journey

NODES = 4
PRETRAIN = (
    "python -m experiments.pretrain --config=albert_tiny_cpu --config.data.corpus_dir=corpus "
    "--config.model.vocab_size=600 --config.optimizer.num_train_steps=30 "
    "--config.optimizer.num_warmup_steps=5 --config.run.evaluate_every=30 "
    "--config.run.checkpoint_every=10 --config.run.evaluation_pairs=64 "
)


def job_number() -> int:
    """A number from which JAX derives a port that is free here."""
    for number in itertools.count(100):
        with socket.socket() as free:
            if free.connect_ex(("localhost", number % 4096 + 61440)):
                return number
    raise AssertionError


def srun(journey: Journey, command: str) -> list["subprocess.Popen[str]"]:
    """Start a task on each of four nodes, in the environment that ``srun`` gives it."""
    number = job_number()
    return [
        journey.start(
            command,
            SLURM_JOB_ID=str(number),
            SLURM_NTASKS=str(NODES),
            SLURM_STEP_NODELIST="localhost,node[2-4]",
            SLURM_STEP_NUM_NODES=str(NODES),
            SLURM_PROCID=str(task),
            SLURM_LOCALID="0",
        )
        for task in range(NODES)
    ]


def end(tasks: list["subprocess.Popen[str]"]) -> tuple[list[int], list[str]]:
    said = [task.communicate()[0] for task in tasks]
    return [task.returncode for task in tasks], said


def last_validation(workdir: Path) -> dict[str, float]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["split"] == "validation"][-1]


@pytest.mark.slow
@pytest.mark.minutes(10)
def test_four_slurm_nodes(journey: Journey) -> None:
    journey.run(
        f"python -m data_pipeline.build_corpus --input='{ROOT}/docs/*.md' --format=text "
        "--vocab_size=600 --held_out=0.2 --output_dir=corpus"
    )
    with journey.timed("srun, up to the time limit"):
        tasks = srun(journey, f"{PRETRAIN} --workdir=run")
        while not list(journey.here.glob("run/checkpoints/10/*")):
            assert all(task.poll() is None for task in tasks), end(tasks)
            time.sleep(0.2)
        for task in tasks:
            task.send_signal(signal.SIGTERM)
        statuses, said = end(tasks)
    assert statuses == [75] * NODES, said
    assert "stopped and saved at step" in said[0]
    assert not any("at step" in text for text in said[1:])  # one node logs

    with journey.timed("srun, queued again"):
        statuses, said = end(srun(journey, f"{PRETRAIN} --workdir=run"))
    assert statuses == [0] * NODES, said

    journey.run(f"{PRETRAIN} --workdir=alone")
    together, alone = (last_validation(journey.here / name) for name in ("run", "alone"))
    assert together["step"] == alone["step"] == 30
    for name in ("masked_lm_loss", "sentence_order_loss", "context_gap"):
        assert together[name] == pytest.approx(alone[name], rel=1e-3, abs=1e-4)
