"""TensorBoard: scalars, pictures and hyperparameters, in event files of the workdir."""

import time
from collections.abc import Mapping

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import hparams_pb

from experiments.metrics.event_files import EventFile, remove_events_after
from experiments.metrics.tracker import Ending, TrackedRun


class TensorBoardTracker:
    """The tracker `tensorboard`."""

    rewinds = True

    def start(self, run: TrackedRun) -> str:
        """Remove what the run repeats, and write its settings as hyperparameters."""
        remove_events_after(run.workdir, run.first_step if run.run_id is not None else -1)
        self._events = EventFile(run.workdir)
        # The plugin does not accept None. It shows runs with the same settings as one group.
        settings = {n: "none" if v is None else v for n, v in run.settings.items()}
        if settings:
            now = time.time()
            self._events.write(0, now, hparams_pb(settings, start_time_secs=now))
        return "events"

    def log_metrics(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Write scalars."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in metrics.items()]
        self._events.write(step, seconds, Summary(value=values))

    def log_picture(self, step: int, name: str, png: bytes) -> None:
        """Write a picture."""
        image = Summary.Image(encoded_image_string=png)
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        self._events.write(step, time.time(), summary)

    def end(self, ending: Ending) -> None:
        """Do nothing: every event is in its file already."""
