"""Stored weights fitted to the parameters of a model."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import PyTree

from albert_jax.config import AlbertConfig, EmbeddingMapping
from albert_jax.interop.stored_weights import (
    ENCODER,
    GENERATOR,
    StoredWeights,
    flatten,
    unflatten,
)

_HEAD = "predictions/"
_MAPPING = "albert/encoder/embedding_hidden_mapping_in/"

_log = logging.getLogger(__name__)


@runtime_checkable
class ParametricModel(Protocol):
    """The interface to a model's parameters; every `PretrainedModel` has it."""

    PREFIX: ClassVar[str]

    @property
    def config(self) -> AlbertConfig: ...

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter, by its name in a model with a head."""

    def initialize(self, key: Array) -> PyTree:
        """Return random parameters."""


def fit_parameters(
    stored: StoredWeights,
    model: ParametricModel,
    *,
    seed: int,
    required: Sequence[str],
    read: Sequence[str] = ("",),
    initialized: Sequence[str] = (),
    dtype: DTypeLike = jnp.float32,
    strict: bool = True,
    from_first_group: bool = False,
) -> PyTree:
    """Fit stored weights to the parameters of a model. What is not stored is initialized.

    Args:
        stored: weights under the names of their format.
        model: the model that the parameters are for.
        seed: seed for what is initialized, which is logged.
        required: prefixes of the names of parameters that must be stored, such as
            ``albert/encoder/``; the empty string for all.
        read: prefixes of the names of parameters that are read if they are stored.
        initialized: prefixes of the names of parameters that are not read even if they are stored.
        dtype: dtype of the result.
        strict: False to log what does not fit, and to initialize it, instead of raising.
        from_first_group: fill all copies of a layer from the first one.

    Returns:
        Host arrays in the shapes of the model's parameters.

    Raises:
        WeightsError: weights are missing, unknown, damaged or of another shape, or the stored model
            computes something else with the same parameters; all reasons are listed.
    """
    shapes = model.parameter_shapes()
    readable = {
        name
        for name in shapes
        if name.startswith(tuple(read)) and not name.startswith(tuple(initialized))
    }
    found = stored.read(readable)
    if from_first_group:
        for name in found.keys() & {name for name in shapes if "/layers/" in name}:
            first = found[name][:1]
            found[name] = np.broadcast_to(first, (shapes[name][0], *first.shape[1:]))
    needed = {name for name in readable if name.startswith(tuple(required))}
    faults = [
        *_disagreements(stored.config, model.config),
        *stored.faults(needed | (readable & stored.available())),
        *_misfits(stored, model.config, found, shapes, needed),
    ]
    if strict:
        stored.raise_faults(faults)
    missing = sorted(n for n in shapes if n not in found or found[n].shape != shapes[n])
    if missing:
        reasons = "".join(f"{fault}; " for fault in faults)
        _log.warning(
            "%s: %sinitialized at random from seed %d: %s",
            *(stored.source, reasons, seed, ", ".join(missing)),
        )
        fresh = flatten(model.initialize(jax.random.key(seed)))
        found |= {name: fresh[name.removeprefix(model.PREFIX)] for name in missing}
    return unflatten(
        {name.removeprefix(model.PREFIX): np.asarray(found[name], dtype) for name in shapes}
    )


def _disagreements(stored: AlbertConfig, config: AlbertConfig) -> Iterator[str]:
    """Yield settings by which two models compute different things with the same parameters."""
    of_equal_shapes = ("feed_forward", "position_encoding")  # some choices have the same parameters
    for name in ("num_attention_heads", "hidden_act", "layer_norm_eps", *of_equal_shapes):
        there, here = getattr(stored, name), getattr(config, name)
        if there != here:
            yield f"{name} is {there} there, model.{name} is {here}"


def _misfits(
    stored: StoredWeights,
    config: AlbertConfig,
    found: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    needed: Collection[str],
) -> Iterator[str]:
    """Yield parameters of another shape, and those that one encoder has and the other lacks."""
    known = {target.path for target in stored.mapping.values()}
    head = {name for name in needed if name.startswith(_HEAD)}
    if head - found.keys() and any(name.startswith(GENERATOR + _HEAD) for name in stored.tensors):
        yield "its masked-LM head is that of a generator, and not of this encoder"
    for name in sorted(shapes):
        if name in found and found[name].shape != shapes[name]:
            yield f"{name} has shape {found[name].shape}, the model has {shapes[name]}"
        elif name in needed and name not in known:
            yield f"{name} is missing{_hint(name, config, EmbeddingMapping.WHEN_NEEDED)}"
    for name in sorted(stored.available() - shapes.keys()):
        if name.startswith(ENCODER):
            hint = _hint(name, config, EmbeddingMapping.ALWAYS)
            yield f"{name} is not a parameter of the model{hint}"


def _hint(name: str, config: AlbertConfig, mapping: EmbeddingMapping) -> str:
    """Name the setting with which the model has, or does not have, a parameter."""
    is_choice = name.startswith(_MAPPING) and config.embedding_size == config.hidden_size
    return f" (set model.embedding_mapping={mapping})" if is_choice else ""
