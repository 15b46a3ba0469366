"""Weights as a file holds them, and fitting them to the parameters that a model wants."""

import dataclasses
import json
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from flax.traverse_util import unflatten_dict
from jaxtyping import PyTree

from albert_jax.config import AlbertConfig, HeadConfig
from albert_jax.interop.names import FlatTree, ParameterSlice, WeightsError

_MOST_LISTED = 40  # names in an error


@dataclasses.dataclass(frozen=True)
class StoredWeights:
    """What a directory holds.

    Attributes:
        source: the directory, for messages.
        config: the encoder's configuration, from the file beside the weights.
        head: what its classifier tells apart, if it has one.
        architecture: the class that it was saved from (``AlbertForMaskedLM``), where that is known.
        step: training steps taken, where that is known.
        tensors: by the names of the file's format.
        mapping: every name that the format has for a model of this configuration.
    """

    source: str
    config: AlbertConfig
    head: HeadConfig | None
    architecture: str | None
    step: int | None
    tensors: Mapping[str, np.ndarray]
    mapping: Mapping[str, ParameterSlice]

    def faults(self, wanted: Collection[str]) -> list[str]:
        """What keeps the wanted parameters from being read: missing, misshapen, unknown names."""
        faults = [
            f"{name} is unknown" for name in sorted(self.tensors.keys() - self.mapping.keys())
        ]
        for name, target in self.mapping.items():
            tensor = self.tensors.get(name)
            if tensor is None and target.path in wanted:
                faults.append(f"{name} is missing")
            elif tensor is not None and not target.fits(tensor):
                shape = ", ".join("any" if size is None else str(size) for size in target.shape)
                faults.append(f"{name} has shape {tensor.shape}, its configuration says ({shape})")
        return faults

    def available(self) -> set[str]:
        """The parameters of which there is at least a part."""
        return {self.mapping[name].path for name in self.tensors.keys() & self.mapping.keys()}

    def read(self, wanted: Collection[str]) -> FlatTree:
        """The wanted parameters that are there whole and in shape, in the type of the file."""
        whole: FlatTree = {}
        stacks: dict[str, dict[tuple[int, int], np.ndarray]] = {}
        broken = set()
        for name, target in self.mapping.items():
            if target.path not in wanted:
                continue
            tensor = self.tensors.get(name)
            if tensor is None or not target.fits(tensor):
                broken.add(target.path)
                continue
            parameter = tensor.T if target.transposed else tensor
            if target.block is None:
                whole[target.path] = np.ascontiguousarray(parameter)
            else:
                stacks.setdefault(target.path, {})[target.block] = parameter
        whole |= {path: _stack(slots) for path, slots in stacks.items() if path not in broken}
        return whole

    def read_all(self) -> FlatTree:
        """Every parameter that is there.

        Raises:
            WeightsError: something is unknown, misshapen, or there in part; all of it is listed.
        """
        found = self.available()
        self.raise_faults(self.faults(found))
        return self.read(found)

    def raise_faults(self, faults: list[str]) -> None:
        """Raises a `WeightsError` that lists the faults, if there are any."""
        if faults:
            rest = len(faults) - _MOST_LISTED
            more = f"; and {rest} more" if rest > 0 else ""
            raise WeightsError(f"{self.source}: {'; '.join(faults[:_MOST_LISTED])}{more}")


def _stack(slices: Mapping[tuple[int, int], np.ndarray]) -> np.ndarray:
    """``[copies, inner, ...]`` from its slices by copy and inner block."""
    copies, inner = (1 + max(axis) for axis in zip(*slices, strict=True))
    rows = [np.stack([slices[copy, block] for block in range(inner)]) for copy in range(copies)]
    return np.stack(rows)


def flatten(params: PyTree) -> dict[str, Any]:
    """Leaves by name. Example: ``{"pooler": {"bias": b}}`` gives ``{"pooler/bias": b}``."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def unflatten(params: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    return unflatten_dict({tuple(path.split("/")): leaf for path, leaf in params.items()})


def read_albert_config(file: epath.Path) -> AlbertConfig:
    """Reads an ``albert_config.json``, local or remote.

    Raises:
        WeightsError: there is none, or it is no configuration.
    """
    try:
        return AlbertConfig.from_dict(json.loads(file.read_text()))
    except FileNotFoundError as error:
        raise WeightsError(f"there is no {file}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{file}: {error}") from error
