"""Runs: configuration, working directory, devices, logs, and training itself."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "config": ["ExperimentConfig", "PhaseConfig", "PhasesConfig", "RunConfig"],
        "curriculum": ["Curriculum", "Phase", "phases_of"],
        "training": ["Run"],
        "workdir": ["Workdir", "open_workdir", "read_config"],
    },
)
