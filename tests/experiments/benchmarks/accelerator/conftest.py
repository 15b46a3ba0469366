"""Recordings of the language of echoes."""

import pytest
from echoes import make_experiment, with_part, write_echoes

from experiments.benchmarks.accelerator.recordings import record_all


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    path = tmp_path_factory.mktemp("accelerator")
    config = make_experiment(write_echoes(path / "corpus"), num_train_steps=60)
    record_all(config, str(path / "corpus"), path / "rec", shapes=[(8, 32)], num_batches=2)
    config = with_part(config, "model", hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    return config, path / "corpus", path / "rec"
