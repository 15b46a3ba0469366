"""Training: losses, optimizer, the compiled step, the loop and checkpoints."""

from typing import TYPE_CHECKING

from albert_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from albert_jax.training.checkpoint import (
        CheckpointError,
        Checkpoints,
        NonFiniteStateError,
        newest_step,
        resolve_step,
        restore_params,
    )
    from albert_jax.training.config import OptimizerConfig, OptimizerName, ScheduleName
    from albert_jax.training.loop import Intervals, LoopHooks, train
    from albert_jax.training.losses import Ratio, cross_entropy, summarize
    from albert_jax.training.objective import Objective
    from albert_jax.training.optimizer import make_optimizer
    from albert_jax.training.parallel import (
        Parallelism,
        compile_eval_step,
        compile_predict_step,
        compile_train_step,
        initialize_state,
    )
    from albert_jax.training.schedule import make_schedule
    from albert_jax.training.train_step import TrainState, create_train_state
    from albert_jax.training.trust_ratio import trust_ratios

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "checkpoint": [
            *("CheckpointError", "Checkpoints", "NonFiniteStateError"),
            *("newest_step", "resolve_step", "restore_params"),
        ],
        "config": ["OptimizerConfig", "OptimizerName", "ScheduleName"],
        "loop": ["Intervals", "LoopHooks", "train"],
        "losses": ["Ratio", "cross_entropy", "summarize"],
        "objective": ["Objective"],
        "optimizer": ["make_optimizer"],
        "parallel": [
            *("Parallelism", "compile_eval_step", "compile_predict_step", "compile_train_step"),
            "initialize_state",
        ],
        "schedule": ["make_schedule"],
        "train_step": ["TrainState", "create_train_state"],
        "trust_ratio": ["trust_ratios"],
    },
)
