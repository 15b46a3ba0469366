"""The parameters that a new run starts from: another run's, fitted to other depths and groups."""

from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import PyTree

from albert_jax.checkpoint import restore_params
from data_pipeline.errors import InputError
from experiments.config import ExperimentConfig, InitGroups
from experiments.workdir import CHECKPOINTS, read_config


def warm_start_params(init_from: str, groups: InitGroups, shapes: PyTree) -> PyTree:
    """Another run's parameters for a model of the given shapes; neither step nor optimizer state.

    Shared layers fit any depth. Where layers have copies of their own, `from_first` fills all of
    them with the first one, and otherwise there must be as many as before.

    Args:
        init_from: the other run's workdir, or one of its checkpoints, such as
            `<workdir>/checkpoints/5000`.
        groups: which copies are filled from which.
        shapes: what the new model wants.

    Returns:
        Host arrays, one for each of `shapes`.

    Raises:
        InputError: names or shapes differ; all of them are listed.
    """
    workdir, step = _split_step(epath.Path(init_from))
    read_config(workdir, ExperimentConfig)
    stored = _by_name(restore_params(workdir / CHECKPOINTS, step))
    wanted = _by_name(shapes)
    faults = [f"{name} is missing" for name in wanted.keys() - stored.keys()]
    faults += [f"{name} is not wanted" for name in stored.keys() - wanted.keys()]

    def fit(path: Any, shape: jax.ShapeDtypeStruct) -> Any:
        name = _name(path)
        found = stored.get(name)
        if found is None:
            return None
        if "layers" in name.split("/") and groups is InitGroups.FROM_FIRST:
            found = np.broadcast_to(found[:1], (shape.shape[0], *found.shape[1:]))
        if found.shape != shape.shape:
            faults.append(f"{name} has shape {found.shape}, the model wants {shape.shape}")
        return found

    params = jax.tree_util.tree_map_with_path(fit, shapes)
    if faults:
        listed = "; ".join(sorted(faults))
        raise InputError(f"--config.run.init_from={init_from} does not fit the model: {listed}")
    return params


def _split_step(path: epath.Path) -> tuple[epath.Path, int | None]:
    if path.parent.name == CHECKPOINTS and path.name.isdigit():
        return path.parent.parent, int(path.name)
    return path, None


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _by_name(tree: PyTree) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
