"""What makes runs in tests short: one device of the simulated ones, and no pictures."""

import jax
import pytest
from jax.sharding import Mesh

from albert_jax.devices.mesh import make_mesh
from experiments.run import execution
from experiments.run import training as training_run


def use_one_device(patch: pytest.MonkeyPatch) -> Mesh:
    """Use one device: several are tested with the step, and would only cost time in runs."""
    mesh = make_mesh(devices=jax.devices()[:1])
    patch.setattr(execution, "make_mesh", lambda **_: mesh)
    return mesh


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Skip the pictures, the page and the samples of pre-training, which take a while."""
    patch.setattr(training_run, "draw_run", lambda *_: None)
    patch.setattr(training_run.Run, "_finish", lambda *_: None)
