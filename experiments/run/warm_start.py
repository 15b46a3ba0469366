"""The parameters that pre-training starts from: any stored model's, fitted to other depths."""

import logging
from collections.abc import Mapping

import jax
import numpy as np
from etils import epath
from jaxtyping import PyTree

from albert_jax.config import AlbertConfig
from albert_jax.interop.names import FlatTree, WeightsError
from albert_jax.interop.stored_weights import StoredWeights, flatten, unflatten
from albert_jax.interop.workdir import CHECKPOINTS, is_workdir
from albert_jax.model import AlbertForPreTraining
from albert_jax.pretrained import open_weights
from albert_jax.training.integrity import newest_step
from data_pipeline.errors import InputError
from experiments.run.config import InitGroups

_ENCODER = ("albert/embeddings/", "albert/encoder/")  # all else is a head, or reads for one
# What changes no shape, and yet decides what the parameters compute.
_MUST_AGREE = ("num_attention_heads", "hidden_act", "layer_norm_eps")

_log = logging.getLogger(__name__)


def warm_start_params(
    init_from: str, groups: InitGroups, model: AlbertForPreTraining, seed: int, shapes: PyTree
) -> PyTree:
    """A stored model's parameters for another model; neither step nor optimizer state.

    Shared layers fit any depth. Where layers have copies of their own, `from_first` fills all of
    them with the first one, and otherwise there must be as many as before. Heads that are not there
    are drawn, and the log says which.

    Args:
        init_from: whatever `from_pretrained` reads; of a workdir the newest checkpoint, unless it
            is one of its checkpoints, such as `<workdir>/checkpoints/5000`.
        groups: which copies are filled from which.
        model: what the parameters are for.
        seed: what heads are drawn from.
        shapes: of the model's parameters.

    Returns:
        Float32 host arrays, one for each of `shapes`.

    Raises:
        InputError: there are no weights, or they do not fit; all of the faults are listed.
        CheckpointError: a workdir's checkpoint is damaged or missing.
    """
    flag = f"--config.run.init_from={init_from}"
    path = epath.Path(init_from)
    try:
        newest = newest_step(path / CHECKPOINTS) if is_workdir(path) else None
        stored = open_weights(path, step=newest)
    except WeightsError as error:
        raise InputError(f"{flag}: {error}") from error
    wanted = {name: leaf.shape for name, leaf in flatten(shapes).items()}
    found = stored.read(wanted)
    if groups is InitGroups.FROM_FIRST:
        for name in found.keys() & {name for name in wanted if "/layers/" in name}:
            copies = wanted[name][0]
            found[name] = np.broadcast_to(found[name][:1], (copies, *found[name].shape[1:]))
    faults = _disagreements(stored, model.config) | _misfits(stored, found, wanted)
    if faults:
        raise InputError(f"{flag} does not fit the model: {'; '.join(sorted(faults))}")
    params = {name: np.asarray(parameter, np.float32) for name, parameter in found.items()}
    if missing := sorted(wanted.keys() - found.keys()):
        _log.warning("%s has no %s: drawn at random", init_from, ", ".join(missing))
        fresh = flatten(jax.jit(model.initialize)(jax.random.key(seed)))
        params |= {name: np.asarray(fresh[name]) for name in missing}
    return unflatten(params)


def _disagreements(stored: StoredWeights, config: AlbertConfig) -> set[str]:
    """Where two configurations compute different things with the same parameters."""
    pairs = {name: (getattr(stored.config, name), getattr(config, name)) for name in _MUST_AGREE}
    return {
        f"{name} is {there} there, --config.model.{name} is {here}"
        for name, (there, here) in pairs.items()
        if there != here
    }


def _misfits(
    stored: StoredWeights, found: FlatTree, wanted: Mapping[str, tuple[int, ...]]
) -> set[str]:
    """What is damaged, what the encoder lacks or has too much, and what has another shape."""
    there = stored.available()
    faults = set(stored.faults(there))
    for name in there | wanted.keys():
        if name in found:
            if found[name].shape != wanted[name]:
                faults.add(f"{name} has shape {found[name].shape}, the model wants {wanted[name]}")
        elif name.startswith(_ENCODER):
            faults.add(f"{name} is {'missing' if name in wanted else 'not wanted'}")
    return faults
