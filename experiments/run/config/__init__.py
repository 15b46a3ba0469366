"""Configuration of runs: training, phases, experiments, and settings that follow from others."""

from experiments.run.config.experiment import (
    ExperimentConfig,
)
from experiments.run.config.phases import (
    PhaseConfig,
    PhasesConfig,
)
from experiments.run.config.training_run import (
    LARGEST_SEED,
    MOST_ROWS,
    ComputeDtype,
    InitEmbeddings,
    InitGroups,
    ReductionDtype,
    RunConfig,
    TrainingRunConfig,
    check_batch_size,
)

__all__ = [
    "LARGEST_SEED",
    "MOST_ROWS",
    "ComputeDtype",
    "ExperimentConfig",
    "InitEmbeddings",
    "InitGroups",
    "PhaseConfig",
    "PhasesConfig",
    "ReductionDtype",
    "RunConfig",
    "TrainingRunConfig",
    "check_batch_size",
]
