"""The config files, for tests that read them."""

import runpy
from pathlib import Path

from experiments.cli.config_dicts import from_config_dict
from experiments.run.config import ExperimentConfig

CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"
BASE = str(CONFIGS / "albert_base.py")


def load(name: str) -> ExperimentConfig:
    return from_config_dict(
        runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](), ExperimentConfig
    )
