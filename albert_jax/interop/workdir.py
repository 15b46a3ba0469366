"""Workdirs of this project as models: configuration, head and the parameters of a checkpoint."""

import dataclasses
import json

from etils import epath

from albert_jax.config import HeadConfig
from albert_jax.input_files import read_json_object, require_fields
from albert_jax.interop.names import WeightsError, native_mapping
from albert_jax.interop.stored_weights import StoredWeights, flatten, read_albert_config
from albert_jax.settings import FieldError

ALBERT_CONFIG_FILE = "albert_config.json"
HEAD_FILE = "head.json"
CHECKPOINTS = "checkpoints"


def split_step(path: epath.Path) -> tuple[epath.Path, int | None]:
    """Split a path into workdir and step.

    Example: ``runs/a/checkpoints/500`` is step 500 of ``runs/a``.
    """
    if path.parent.name == CHECKPOINTS and path.name.isdigit():
        return path.parent.parent, int(path.name)
    return path, None


def is_workdir(path: epath.Path) -> bool:
    """Return True if `read_workdir` can read a path."""
    return (path / ALBERT_CONFIG_FILE).exists() and (path / CHECKPOINTS).exists()


def read_workdir(path: epath.Path, step: int | None) -> StoredWeights:
    """Read the parameters of one checkpoint.

    Args:
        path: the workdir.
        step: step of the checkpoint; None for the best one, see `resolve_step`.

    Raises:
        WeightsError: the configuration cannot be read.
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    # Imported here, as Orbax takes seconds to import and no other format needs it.
    from albert_jax.training.checkpoint import resolve_step, restore_params

    config = read_albert_config(path / ALBERT_CONFIG_FILE)
    architecture, head = read_head(path / HEAD_FILE)
    directory = path / CHECKPOINTS
    step = resolve_step(directory, step)
    params = flatten(restore_params(directory, step))
    return StoredWeights(
        f"{directory}/{step}", config, head, architecture, step, params, native_mapping(config)
    )


def read_head(file: epath.Path) -> tuple[str | None, HeadConfig | None]:
    """Read the class of a fine-tuned model and the configuration of its head.

    Both are None without the file, as in a workdir of pre-training.

    Raises:
        WeightsError: the file was not written by `write_head`.
    """
    if not file.exists():
        return None, None
    values = read_json_object(file, error=WeightsError, drop_nulls=True)
    require_fields(values, {"architecture": str, "labels": list}, str(file), error=WeightsError)
    architecture = values.pop("architecture")
    try:
        return architecture, HeadConfig(**values)
    except (FieldError, TypeError) as error:  # TypeError: of an unknown field
        raise WeightsError(f"{file}: {error}") from error


def write_head(file: epath.Path, architecture: str, head: HeadConfig) -> None:
    """Write a workdir's ``head.json``.

    Example: ``{"architecture": "AlbertForTokenClassification", "labels": ["B", "I", "O"],
    "problem_type": "single_label_classification", "classifier_dropout_prob": 0.1}``
    """
    values = {"architecture": architecture, **dataclasses.asdict(head)}
    file.write_text(json.dumps(values, indent=2) + "\n")
