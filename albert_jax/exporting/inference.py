"""Inference of a model: its inputs, its outputs by name, and their description in JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jax import Array
from jaxtyping import Int, PyTree

from albert_jax.config import AlbertConfig, HeadConfig
from albert_jax.interop.names import WeightsError
from albert_jax.interop.stored_weights import flatten, unflatten
from albert_jax.layers import AnyArray
from albert_jax.model import AlbertForPreTraining, AlbertModel
from albert_jax.tasks.models import (
    AlbertForConditionalSpan,
    AlbertForMaskedLM,
    AlbertForMultipleChoice,
    AlbertForQuestionAnswering,
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
)

SIGNATURE_FILE = "signature.json"
BATCH, CHOICES, LENGTH = "batch", "choices", "length"
INDICES = ("start_indices", "end_indices")  # outputs that are integers, of the inputs' type

Axis = str | int  # a symbolic size, or a fixed one

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_HIDDEN_STATE, _POOLED = "last_hidden_state", "pooler_output"
_MODELS: Mapping[str, Any] = {
    model_class.__name__: model_class
    for model_class in (
        AlbertModel,
        AlbertForPreTraining,
        AlbertForMaskedLM,
        AlbertForSequenceClassification,
        AlbertForTokenClassification,
        AlbertForQuestionAnswering,
        AlbertForMultipleChoice,
        AlbertForConditionalSpan,
    )
}


class ExportedModel(NamedTuple):
    """A model to be exported; made by `prepare_export`.

    Attributes:
        model: a model of a class that can be exported.
        params: its parameters and no others, by their names in a model with heads.
    """

    model: Any
    params: Mapping[str, Any]

    @property
    def architecture(self) -> str:
        """The name of the model's class."""
        return type(self.model).__name__

    @property
    def config(self) -> AlbertConfig:
        """The encoder's configuration."""
        return self.model.config

    @property
    def head(self) -> HeadConfig | None:
        """The labels of the classifier, if there is one."""
        return self.model.head if self.architecture.endswith("Classification") else None

    @property
    def has_pooler(self) -> bool:
        """True if the model has the pooler."""
        return "pooler" in self.params["albert"]

    @property
    def shortest_row(self) -> int:
        """The fewest tokens that a row may have: as many as a beam has starts or ends."""
        model = self.model
        if isinstance(model, AlbertForConditionalSpan):
            return max(model.start_n_top, model.end_n_top)
        return 1

    def input_shapes(self) -> dict[str, tuple[str, ...]]:
        """Return the shape of each input, in order."""
        if isinstance(self.model, AlbertForMultipleChoice):
            return dict.fromkeys(_INPUTS, (BATCH, CHOICES, LENGTH))
        has_mask = isinstance(self.model, AlbertForConditionalSpan)
        return dict.fromkeys((*_INPUTS, *(["p_mask"] if has_mask else [])), (BATCH, LENGTH))

    def output_shapes(self) -> dict[str, tuple[Axis, ...]]:
        """Return the shape of each output: hidden states, and what the heads compute."""
        config, rows = self.config, (BATCH, LENGTH)
        if isinstance(self.model, AlbertForMultipleChoice):
            return {"logits": (BATCH, CHOICES)}
        shapes: dict[str, tuple[Axis, ...]] = {_HIDDEN_STATE: (*rows, config.hidden_size)}
        if self.has_pooler:
            shapes[_POOLED] = (BATCH, config.hidden_size)
        match self.model:
            case AlbertForPreTraining():
                shapes["prediction_logits"] = (*rows, config.vocab_size)
                shapes["sop_logits"] = (BATCH, 2)
            case AlbertForMaskedLM():
                shapes["logits"] = (*rows, config.vocab_size)
            case AlbertForSequenceClassification(head=head):
                shapes["logits"] = (BATCH, head.num_labels)
            case AlbertForTokenClassification(head=head):
                shapes["logits"] = (*rows, head.num_labels)
            case AlbertForQuestionAnswering():
                shapes |= {"start_logits": rows, "end_logits": rows}
            case AlbertForConditionalSpan(start_n_top=starts, end_n_top=ends):
                shapes |= dict.fromkeys(("start_log_probs", "start_indices"), (BATCH, starts))
                shapes |= dict.fromkeys(("end_log_probs", "end_indices"), (BATCH, starts, ends))
                shapes["answer_logits"] = (BATCH,)
        return shapes


def prepare_export(
    architecture: str, config: AlbertConfig, head: HeadConfig | None, params: Mapping[str, Any]
) -> ExportedModel:
    """Return a model of the class of that name, with only those parameters that it has.

    Args:
        architecture: the name of the class.
        config: the encoder's configuration.
        head: labels of a classifier; two unnamed ones if there is none.
        params: parameters by their names in a model with heads.

    Raises:
        WeightsError: the class is not known, or a parameter is missing.
    """
    if architecture not in _MODELS:
        raise WeightsError(
            f"{architecture} is not known here and cannot be exported; these can: "
            f"{', '.join(_MODELS)}"
        )
    fields: dict[str, Any] = {"config": config}
    if "classifier" in params and architecture.endswith("Classification"):
        fields["head"] = head or HeadConfig()
    if architecture == AlbertModel.__name__:
        fields["add_pooling_layer"] = "pooler" in params["albert"]
    model = _MODELS[architecture](**fields)
    flat, wanted = flatten(params), model.parameter_shapes()
    if missing := sorted(wanted.keys() - flat.keys()):
        raise WeightsError(f"parameters of {architecture} are missing: {', '.join(missing)}")
    return ExportedModel(model, unflatten({name: flat[name] for name in wanted}))


def infer(
    model: Any,
    params: PyTree,
    input_ids: Int[AnyArray, "*batch length"],
    attention_mask: Int[AnyArray, "*batch length"],
    token_type_ids: Int[AnyArray, "*batch length"],
    p_mask: Int[AnyArray, "*batch length"] | None = None,
) -> dict[str, Array]:
    """Compute the outputs that `ExportedModel.output_shapes` lists.

    Args:
        model: an `ExportedModel.model`.
        params: its own parameters; those of a bare encoder are not nested under ``albert``.
        input_ids: ids of the tokens.
        attention_mask: 1 for a real token, 0 for padding.
        token_type_ids: 0 for the first segment, 1 for the second.
        p_mask: for a conditional span: 1 where no answer may start or end.
    """
    bound = model.bind({"params": params})
    if isinstance(model, AlbertForMultipleChoice):
        return {"logits": bound(input_ids, attention_mask, token_type_ids).logits}
    encoder = bound if isinstance(model, AlbertModel) else bound.albert
    encoded = encoder(input_ids, attention_mask, token_type_ids)
    outputs = {_HIDDEN_STATE: encoded.last_hidden_state}
    if encoded.pooler_output is not None:
        outputs[_POOLED] = encoded.pooler_output
    if isinstance(model, AlbertForPreTraining):
        outputs["prediction_logits"] = bound.predict_tokens(encoded.last_hidden_state)
        outputs["sop_logits"] = bound.sop_classifier(encoded.pooler_output)
    elif not isinstance(model, AlbertModel):
        mask = {} if p_mask is None else {"p_mask": p_mask}
        scores = vars(bound.score(encoded, deterministic=True, **mask))
        outputs |= {name: score for name, score in scores.items() if name != "hidden_states"}
    return outputs


def write_signature(directory: Path, exported: ExportedModel, **details: Any) -> None:
    """Write ``signature.json``: names, types and shapes of inputs and outputs, and the labels.

    Args:
        directory: directory of the exported file.
        exported: the model.
        details: details of the format, including ``input_dtype``.
    """
    dtype = details.pop("input_dtype")
    content = {
        "architecture": exported.architecture,
        **details,
        "inputs": [
            {"name": name, "dtype": dtype, "shape": list(shape)}
            for name, shape in exported.input_shapes().items()
        ],
        "outputs": [
            {
                "name": name,
                "dtype": dtype if name in INDICES else "float32",
                "shape": list(shape),
            }
            for name, shape in exported.output_shapes().items()
        ],
        "shortest_length": exported.shortest_row,
        "longest_length": exported.config.longest_row,  # null: no limit
    }
    if exported.head is not None:
        content["labels"] = list(exported.head.labels)
        content["problem_type"] = str(exported.head.problem_type)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (directory / SIGNATURE_FILE).write_text(text, encoding="utf-8")
