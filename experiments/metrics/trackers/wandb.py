"""Weights & Biases; WANDB_MODE=offline keeps everything in the workdir until `wandb sync`."""

import io
import os
from collections.abc import Mapping
from typing import Any

from albert_jax.input_files import is_remote
from experiments.metrics.tracker import Ending, TrackedRun


class WandbTracker:
    """The tracker `wandb`. W&B's environment variables, such as WANDB_PROJECT, apply."""

    rewinds = False

    def start(self, run: TrackedRun) -> str:
        """Start or resume a run of the project, `albert-jax` by default."""
        import wandb

        local = None if is_remote(run.workdir) or "WANDB_DIR" in os.environ else run.workdir
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "albert-jax"),
            name=os.environ.get("WANDB_NAME", run.name),
            dir=local,
            id=run.run_id,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off"),  # the progress bar is not a log
        )
        # A run's settings may change when it is resumed.
        self._run.config.update(dict(run.settings), allow_val_change=True)
        return str(self._run.id)

    def log_metrics(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Log metrics; all metrics of one step make one row."""
        self._run.log(dict(metrics), step=step)

    def log_picture(self, step: int, name: str, png: bytes) -> None:
        """Log a picture."""
        import wandb
        from PIL import Image

        self._run.log({name: wandb.Image(Image.open(io.BytesIO(png)))}, step=step)

    def end(self, ending: Ending) -> None:
        """Finish the run, as preempted if it can be resumed."""
        if ending is Ending.STOPPED:
            self._run.mark_preempting()
        self._run.finish(exit_code=0 if ending is Ending.COMPLETE else 1)
