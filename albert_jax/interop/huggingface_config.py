"""Conversion between Hugging Face's ``config.json`` and our configurations."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from albert_jax.config import (
    MOST_LABELS,
    AlbertConfig,
    EmbeddingMapping,
    HeadConfig,
    HiddenAct,
    ParameterSharing,
    ProblemType,
)
from albert_jax.input_files import require_fields, shorten
from albert_jax.interop.names import WeightsError, check_layer_groups, num_groups_in_file

# By transformers' names. There "gelu" is the erf form, in the released files it is the tanh form.
_ACTIVATIONS = {
    "gelu_new": HiddenAct.GELU,
    "gelu_pytorch_tanh": HiddenAct.GELU,
    "gelu": HiddenAct.GELU_ERF,
    "relu": HiddenAct.RELU,
    "tanh": HiddenAct.TANH,
    "linear": HiddenAct.LINEAR,
}
# Fields of the same name and meaning in both.
_SHARED_FIELDS = tuple(
    field.name
    for field in dataclasses.fields(AlbertConfig)
    if field.name
    not in {
        *("hidden_act", "parameter_sharing", "embedding_mapping", "position_encoding"),
        *("max_relative_distance", "norm", "norm_kind", "feed_forward", "depth_rank"),
        *("rotary_base", "attention_window", "global_every"),
        *("depth_signal", "num_experts", "expert_rank", "experts_per_token", "expert_layers"),
        *("dense_biases", "initialization", "extra"),
    }
)
# Keys of the released files that no model reads; all other unknown keys are transformers' own.
_RELEASED_EXTRA = (
    "down_scale_factor",
    "net_structure_type",
    "gap_size",
    "num_memory_blocks",
    "layers_to_keep",
)
_WITH_LABELS = ("AlbertForSequenceClassification", "AlbertForTokenClassification")


def config_from_json(values: Mapping[str, Any]) -> AlbertConfig:
    """Convert the encoder's configuration.

    The defaults are ours, which are those of the released code. In transformers, embeddings are
    always mapped to the hidden size.

    Raises:
        WeightsError: it is not an ALBERT, the activation is unsupported, or transformers would
            assign layers to different groups.
        ValueError: a value is out of range.
    """
    if values.get("model_type") != "albert":
        raise WeightsError(f"model_type must be albert, got {values.get('model_type')!r}")
    fields = {name: values[name] for name in _SHARED_FIELDS if values.get(name) is not None}
    config = AlbertConfig(
        **fields,
        hidden_act=activation_from_json(values, "hidden_act", "gelu_new"),
        extra={name: values[name] for name in _RELEASED_EXTRA if name in values},
    )
    if config.embedding_size == config.hidden_size:
        config = dataclasses.replace(config, embedding_mapping=EmbeddingMapping.ALWAYS)
    check_layer_groups(config, _group, "transformers'")
    return config


def activation_from_json(values: Mapping[str, Any], name: str, default: str) -> HiddenAct:
    """Return the activation that a configuration names.

    Raises:
        WeightsError: it is not supported.
    """
    activation = values.get(name, default)
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise WeightsError(f"{name} must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}")
    return _ACTIVATIONS[activation]


def activation_to_json(activation: HiddenAct) -> str:
    """Return transformers' name of an activation, the first if it has several."""
    return next(name for name, known in _ACTIVATIONS.items() if known is activation)


def head_from_json(values: Mapping[str, Any]) -> HeadConfig:
    """Convert the head's configuration; two unnamed labels if there is none."""
    names = values.get("id2label")
    if names is None:
        count = values.get("num_labels", 2)
        require_fields({"num_labels": count}, {"num_labels": int}, "it", error=WeightsError)
        if count > MOST_LABELS:
            raise WeightsError(f"num_labels must be at most {MOST_LABELS}, got {count}")
        names = {str(i): f"LABEL_{i}" for i in range(count)}
    require_fields({"id2label": names}, {"id2label": dict}, "it", error=WeightsError)
    try:
        labels = tuple(names[key] for key in sorted(names, key=int))
    except ValueError:
        raise WeightsError(f"the keys of id2label must be numbers, got {shorten(names)}") from None
    kind = values.get("problem_type")
    if kind is None:
        kind = ProblemType.REGRESSION if len(labels) == 1 else ProblemType.SINGLE_LABEL
    dropout = values.get("classifier_dropout_prob", 0.1)
    return HeadConfig(labels, kind, dropout)


def to_json(
    config: AlbertConfig,
    head: HeadConfig | None,
    *,
    architecture: str,
    dtype: str,
    special_ids: tuple[int, int, int] = (0, 2, 3),
) -> dict[str, Any]:
    """Convert to transformers' configuration, with every size and in the types that it requires.

    Args:
        config: the encoder's configuration.
        head: the head's configuration, used if `architecture` has labels.
        architecture: transformers' class, such as ``AlbertForMaskedLM``.
        dtype: dtype of the weights, such as ``float32``.
        special_ids: ids of padding, [CLS] and [SEP].

    Raises:
        WeightsError: transformers does not support the parameter sharing.
    """
    ours = dataclasses.replace(
        config,
        num_hidden_groups=num_groups_in_file(config),
        parameter_sharing=ParameterSharing.ALL,
    )
    check_layer_groups(ours, _group, "transformers'")
    pad, bos, eos = special_ids
    values: dict[str, Any] = {"architectures": [architecture], "model_type": "albert"}
    for name in _SHARED_FIELDS:
        value = getattr(ours, name)
        values[name] = float(value) if _IS_FLOAT[name] else value
    values |= {
        "hidden_act": activation_to_json(config.hidden_act),
        "classifier_dropout_prob": 0.1 if head is None else float(head.classifier_dropout_prob),
        "pad_token_id": pad,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "dtype": dtype,
    }
    if head is not None and architecture in _WITH_LABELS:
        values |= {
            "id2label": {str(i): label for i, label in enumerate(head.labels)},
            "label2id": {label: i for i, label in enumerate(head.labels)},
            "problem_type": str(head.problem_type),
        }
    return values | {name: config.extra[name] for name in _RELEASED_EXTRA if name in config.extra}


_IS_FLOAT = {field.name: field.type is float for field in dataclasses.fields(AlbertConfig)}


def _group(layer: int, layers: int, groups: int) -> int:
    """Return the group of a layer in transformers, with its rounding."""
    return int(layer / (layers / groups))
