"""Weights of any format, read as the parameters of a model."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from flax.traverse_util import unflatten_dict
from jaxtyping import PyTree

from albert_jax.config import AlbertConfig, HeadConfig
from albert_jax.decoder.config import Gpt2Config
from albert_jax.input_files import read_json_object
from albert_jax.interop.names import FlatTree, ParameterSlice, WeightsError
from albert_jax.settings import FieldError

ENCODER = ("albert/embeddings/", "albert/encoder/")  # prefixes of what every model has
GENERATOR = "generator/"  # prefix of what a generator of replaced tokens does not share
DECODER = ("decoder/", "enc_to_dec_proj/")  # of a decoder, and of the layer before it

_MAX_LISTED = 40  # faults in an error message


@dataclasses.dataclass(frozen=True)
class StoredWeights:
    """Tensors under the names of their format, with the configuration stored beside them.

    Attributes:
        source: the directory, for messages.
        config: the encoder's configuration.
        head: the classifier's configuration, if there is a classifier.
        architecture: the class that was saved (``AlbertForMaskedLM``), if known.
        step: number of training steps taken, if known.
        tensors: tensors by the names of the format.
        mapping: every name that the format has for a model of this configuration.
        decoder: the decoder's configuration, if there is a decoder.
    """

    source: str
    config: AlbertConfig
    head: HeadConfig | None
    architecture: str | None
    step: int | None
    tensors: Mapping[str, np.ndarray]
    mapping: Mapping[str, ParameterSlice]
    decoder: Gpt2Config | None = None

    def faults(self, wanted: Collection[str]) -> list[str]:
        """List what is wrong: unknown names, wrong shapes, missing parts of wanted parameters."""
        faults = [
            f"{name} is unknown" for name in sorted(self.tensors.keys() - self.mapping.keys())
        ]
        for name, target in self.mapping.items():
            tensor = self.tensors.get(name)
            if tensor is None and target.path in wanted:
                faults.append(f"{name} is missing")
            elif tensor is not None and not target.fits(tensor):
                shape = ", ".join("any" if size is None else str(size) for size in target.shape)
                faults.append(
                    f"{name} has shape {tensor.shape}, its configuration requires ({shape})"
                )
        return faults

    def available(self) -> set[str]:
        """Return the parameters of which at least a part is stored."""
        return {self.mapping[name].path for name in self.tensors.keys() & self.mapping.keys()}

    def read(self, wanted: Collection[str]) -> FlatTree:
        """Return the wanted parameters that are complete and of the right shape, in their dtype."""
        params: FlatTree = {}
        stacks: dict[str, dict[tuple[int, int], np.ndarray]] = {}
        incomplete = set()
        for name, target in self.mapping.items():
            if target.path not in wanted:
                continue
            tensor = self.tensors.get(name)
            if tensor is None or not target.fits(tensor):
                incomplete.add(target.path)
                continue
            parameter = tensor.T if target.transposed else tensor
            if target.block is None:
                params[target.path] = np.ascontiguousarray(parameter)
            else:
                stacks.setdefault(target.path, {})[target.block] = parameter
        params |= {path: _stack(slots) for path, slots in stacks.items() if path not in incomplete}
        return params

    def read_all(self) -> FlatTree:
        """Return every parameter that is stored, which must include those of an encoder.

        Raises:
            WeightsError: a name is unknown, a shape wrong, or a part missing; all are listed.
        """
        found = self.available()
        if not found:
            raise WeightsError(
                f"{self.source} holds no weights: none of its tensors is a parameter"
            )
        names = (target.path for target in self.mapping.values())
        encoder = {name for name in names if name.startswith(ENCODER)}
        self.raise_faults(self.faults(found | encoder))
        return self.read(found)

    def raise_faults(self, faults: list[str]) -> None:
        """Raise a `WeightsError` that lists the faults, if there are any."""
        if faults:
            rest = len(faults) - _MAX_LISTED
            more = f"; and {rest} more" if rest > 0 else ""
            raise WeightsError(f"{self.source}: {'; '.join(faults[:_MAX_LISTED])}{more}")


def _stack(slices: Mapping[tuple[int, int], np.ndarray]) -> np.ndarray:
    """Stack slices by [copy, inner] to ``[copies, inner, ...]``."""
    copies, inner = (1 + max(axis) for axis in zip(*slices, strict=True))
    rows = [np.stack([slices[copy, block] for block in range(inner)]) for copy in range(copies)]
    return np.stack(rows)


def flatten(params: PyTree) -> dict[str, Any]:
    """Return leaves by name. Example: ``{"pooler": {"bias": b}}`` gives ``{"pooler/bias": b}``."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def unflatten(params: Mapping[str, Any]) -> dict[str, Any]:
    """Invert `flatten`."""
    return unflatten_dict({tuple(path.split("/")): leaf for path, leaf in params.items()})


def read_albert_config(file: epath.Path) -> AlbertConfig:
    """Read an ``albert_config.json``, local or remote.

    Raises:
        WeightsError: it does not exist, or is not a configuration.
    """
    values = read_json_object(file, error=WeightsError, drop_nulls=True)
    try:
        return AlbertConfig.from_dict(values)
    except FieldError as error:
        raise WeightsError(f"{file}: {error}") from error
