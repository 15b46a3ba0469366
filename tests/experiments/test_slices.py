"""Four processes on this machine stand for four slices: they compute what one process does."""

import socket
from pathlib import Path

import numpy as np
import pytest
from commands import assert_same_params, start
from echoes import write_echoes

from experiments.metrics.metrics_file import read_metrics

STEPS = 12


@pytest.mark.slow
def test_processes_as_slices_compute_what_one_process_does(tmp_path: Path) -> None:
    corpus = write_echoes(tmp_path / "corpus", documents=200, held_out=40)
    flags = [
        f"--config.optimizer.num_train_steps={STEPS}",
        *("--config.run.log_every=1", "--config.run.skip_spike_sigmas=6"),
        "--config.run.check_determinism_every=6",
    ]
    one = start(corpus, tmp_path / "one", *flags, devices=4)
    assert one.communicate(timeout=900)[1] is not None
    assert one.returncode == 0

    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    shared = [f"--coordinator_address={address}", "--num_processes=4", "--config.run.dcn_data=4"]
    four = [
        start(corpus, tmp_path / "four", *flags, *shared, f"--process_id={number}")
        for number in range(4)
    ]
    said = [process.communicate(timeout=900)[1] for process in four]
    assert [process.returncode for process in four] == [0] * 4, said

    losses = [
        [e["loss"] for e in read_metrics(tmp_path / name) if e["split"] == "train"]
        for name in ("one", "four")
    ]
    assert len(losses[0]) == STEPS
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    # Adam makes steps of gradients that are rounding alone, such as those of the keys' biases.
    assert_same_params(tmp_path / "four", tmp_path / "one", rtol=1e-4)
