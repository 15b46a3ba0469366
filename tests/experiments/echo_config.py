"""The experiment on echoes as a config file, for tests that start the command."""

from pathlib import Path

from echoes import make_experiment
from ml_collections import ConfigDict

from experiments.cli.config_dicts import to_config_dict


def get_config() -> ConfigDict:
    return to_config_dict(
        make_experiment(Path(), num_train_steps=60, evaluate_every=30, checkpoint_every=5)
    )
