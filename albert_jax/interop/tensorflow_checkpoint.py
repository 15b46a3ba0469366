"""Checkpoints of the released code: ``albert_config.json`` and a TensorFlow bundle.

TensorFlow is imported only when a bundle is read or written.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from etils import epath

from albert_jax.config import (
    AlbertConfig,
    EmbeddingMapping,
    HeadConfig,
    HiddenAct,
    ParameterSharing,
    ProblemType,
)
from albert_jax.interop.names import (
    FlatTree,
    WeightsError,
    check_layer_groups,
    export_tensors,
    num_groups_in_file,
    tensorflow_mapping,
)
from albert_jax.interop.stored_weights import StoredWeights, read_albert_config
from albert_jax.interop.workdir import ALBERT_CONFIG_FILE

CHECKPOINT = "model.ckpt-best"

_HUB_PREFIX = "module/"
_STEP = "global_step"
# Optimizer slots and other training state.
_NO_PARAMETER = re.compile(
    r".*/(adam_[mv]|lamb_[mv]|Adam(_1)?|AdamW(_1)?|LAMB(_1)?|Momentum)|beta[12]_power|save_counter"
    r"|_CHECKPOINTABLE_OBJECT_GRAPH",
    re.IGNORECASE,
)


def find_checkpoint(path: epath.Path) -> tuple[epath.Path, epath.Path] | None:
    """Return the configuration file and the prefix of the checkpoint at a path; None without one.

    The path is a released directory, a TF-Hub module (``assets/`` and ``variables/``), or a prefix
    (``albert_base/model.ckpt-best``). Of several checkpoints in a directory, the one called best is
    chosen, or else the one of the most steps.
    """
    if path.name and path.with_name(path.name + ".index").exists():
        return path.parent / ALBERT_CONFIG_FILE, path
    for config, directory in (
        (path / ALBERT_CONFIG_FILE, path),
        (path / "assets" / ALBERT_CONFIG_FILE, path / "variables"),
    ):
        if config.exists() and directory.exists():
            found = [file.name.removesuffix(".index") for file in directory.glob("*.index")]
            if found:
                return config, directory / max(found, key=_preference)
    return None


def _preference(name: str) -> tuple[bool, int, str]:
    steps = re.search(r"-(\d+)$", name)
    return name.endswith("-best"), int(steps[1]) if steps else -1, name


def read_tensorflow(config_file: epath.Path, prefix: epath.Path) -> StoredWeights:
    """Read the parameters of a checkpoint, without optimizer slots.

    Raises:
        WeightsError: the configuration or the checkpoint cannot be read, or the released code would
            assign layers to different groups.
    """
    config = read_albert_config(config_file)
    check_layer_groups(config, _group, "the released code's")
    tensors = {name.removeprefix(_HUB_PREFIX): x for name, x in _read_bundle(prefix).items()}
    step = tensors.pop(_STEP, None)
    head = None
    if "output_bias" in tensors:
        labels = tuple(f"LABEL_{i}" for i in range(len(tensors["output_bias"])))
        kind = ProblemType.REGRESSION if len(labels) == 1 else ProblemType.SINGLE_LABEL
        head = HeadConfig(labels, kind)
    return StoredWeights(
        source=str(prefix),
        config=config,
        head=head,
        architecture=None,
        step=None if step is None else int(step),
        tensors=tensors,
        mapping=tensorflow_mapping(config),
    )


def _read_bundle(prefix: epath.Path) -> FlatTree:
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(prefix))
        variables = reader.get_variable_to_shape_map()
        names = [name for name in variables if not _NO_PARAMETER.fullmatch(name)]
        stored = sum(file.stat().length for file in prefix.parent.glob(f"{prefix.name}.data-*"))
        if sum(math.prod(variables[name]) for name in names) > stored:  # each has at least a byte
            raise ValueError("it names more elements than its files have bytes")
        return {name: np.asarray(reader.get_tensor(name)) for name in names}
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError, OSError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"checkpoint {prefix} cannot be read: {reason}") from error


def write_tensorflow(
    directory: Path, params: Mapping[str, np.ndarray], config: AlbertConfig, *, step: int = 0
) -> None:
    """Write ``albert_config.json`` and ``model.ckpt-best`` with the released names.

    Args:
        directory: an empty directory.
        params: parameters by our names.
        config: the encoder's configuration; layers that share nothing become groups of one.
        step: written as ``global_step``, as in the released files.

    Raises:
        WeightsError: the released code has no such model.
    """
    config = dataclasses.replace(
        config, num_hidden_groups=num_groups_in_file(config), parameter_sharing=ParameterSharing.ALL
    )
    check_layer_groups(config, _group, "the released code's")
    for name, is_unsupported, only in (
        ("hidden_act", config.hidden_act is HiddenAct.GELU_ERF, "the tanh form of gelu"),
        ("tie_word_embeddings", not config.tie_word_embeddings, "true"),
        ("layer_norm_eps", config.layer_norm_eps != 1e-12, "1e-12"),
        (
            "embedding_mapping",
            config.embedding_mapping is EmbeddingMapping.ALWAYS
            and config.embedding_size == config.hidden_size,
            "when_needed, where embedding_size is hidden_size",
        ),
    ):
        if is_unsupported:
            raise WeightsError(
                f"model.{name}={getattr(config, name)}: the released code supports only {only}"
            )
    config = dataclasses.replace(config, embedding_mapping=EmbeddingMapping.WHEN_NEEDED)
    tensors = export_tensors(params, tensorflow_mapping(config))
    config.to_json_file(directory / ALBERT_CONFIG_FILE)
    _write_bundle(directory / CHECKPOINT, {**tensors, _STEP: np.array(step, np.int64)})


def _write_bundle(prefix: Path, tensors: Mapping[str, np.ndarray]) -> None:
    import tensorflow as tf

    names = sorted(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(tensors[name]) for name in names],
    )


def _group(layer: int, layers: int, groups: int) -> int:
    """Return the group of a layer in the released code, with its rounding."""
    return int(layer / layers * groups)
