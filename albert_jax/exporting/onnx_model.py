"""ALBERT's inference in operations of ONNX, written out from the parameters.

Converters of JAX functions do not work here: jax2onnx 0.17 fails on symbolic lengths and cannot be
installed beside our Orbax, and tf2onnx has no path from current JAX. Only about a dozen kinds of
operations are needed.
"""

import functools
import math
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import numpy as np

from albert_jax.config import FeedForwardKind, HiddenAct, Norm, NormKind, PositionEncoding
from albert_jax.exporting.inference import ExportedModel, write_signature
from albert_jax.exporting.onnx_graph import OPSET, OnnxGraph
from albert_jax.exporting.onnx_span_head import add_conditional_span
from albert_jax.interop.names import WeightsError, check_plain_layers
from albert_jax.interop.stored_weights import flatten
from albert_jax.model import AlbertForPreTraining
from albert_jax.tasks.models import (
    AlbertForConditionalSpan,
    AlbertForMaskedLM,
    AlbertForMultipleChoice,
    AlbertForQuestionAnswering,
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
)

ONNX_FILE = "model.onnx"
_EXPORTABLE: Mapping[str, tuple[StrEnum | int, ...]] = {
    "position_encoding": (PositionEncoding.ABSOLUTE, PositionEncoding.NONE),
    "norm": (Norm.POST, Norm.PRE),
    "norm_kind": (NormKind.LAYER,),
    "feed_forward": (FeedForwardKind.MLP,),
    "attention_window": (0,),
}
_EMBEDDINGS, _LAYERS = "albert/embeddings", "albert/encoder/layers"

Block = tuple[int, int] | None  # copy and inner block of a layer's parameters


def write_onnx(directory: Path, exported: ExportedModel) -> None:
    """Write ``model.onnx`` and ``signature.json``, for any batch and any length.

    Args:
        directory: an empty directory.
        exported: the model.

    Raises:
        WeightsError: the package onnx is missing, or the model cannot be exported.
    """
    try:
        check_plain_layers(exported.config)
    except WeightsError as error:
        raise WeightsError(f"no onnx export; convert it first: {error}") from error
    for name, exportable in _EXPORTABLE.items():
        if (found := getattr(exported.config, name)) not in exportable:
            raise WeightsError(
                f"{name}={found} has no onnx export; these have one: "
                f"{', '.join(map(str, exportable))}; --to=stablehlo holds every model"
            )
    graph = OnnxGraph(flatten(exported.params))
    _AlbertGraph(graph, exported).add_outputs()
    metadata = {"architecture": exported.architecture}
    model = graph.to_model(exported.input_shapes(), exported.output_shapes(), metadata)
    (directory / ONNX_FILE).write_bytes(model.SerializeToString())
    write_signature(
        directory, exported, format="onnx", file=ONNX_FILE, opset=OPSET, input_dtype="int64"
    )


class _AlbertGraph:
    """The model's layers, added to a graph.

    Args:
        graph: an empty graph with the model's parameters.
        exported: the model.
    """

    def __init__(self, graph: OnnxGraph, exported: ExportedModel) -> None:
        self._graph, self._exported, self._config = graph, exported, exported.config
        self._dense = graph.dense

    def add_outputs(self) -> None:
        """Add the encoder, the pooler and the heads, with results named like the outputs."""
        hidden = self._encode()
        pooled = "pooler_output"
        if self._exported.has_pooler:
            first = self._graph.op("Gather", hidden, self._scalar("first", 0), axis=1)
            self._graph.op("Tanh", self._dense(first, "albert/pooler"), name=pooled)
        match self._exported.model:
            case AlbertForPreTraining():
                self._add_masked_lm(hidden, "prediction_logits")
                self._dense(pooled, "sop_classifier", name="sop_logits")
            case AlbertForMaskedLM():
                self._add_masked_lm(hidden, "logits")
            case AlbertForSequenceClassification():
                self._dense(pooled, "classifier", name="logits")
            case AlbertForTokenClassification():
                self._dense(hidden, "classifier", name="logits")
            case AlbertForMultipleChoice():
                examples = self._graph.op("Shape", "input_ids", end=2)
                scores = self._dense(pooled, "classifier")
                self._graph.op("Reshape", scores, examples, name="logits")
            case AlbertForConditionalSpan() as model:
                add_conditional_span(self._graph, model, hidden)
            case AlbertForQuestionAnswering():
                logits = self._dense(hidden, "qa_outputs")
                for number, name in enumerate(("start_logits", "end_logits")):
                    self._graph.op("Gather", logits, self._scalar(name, number), axis=2, name=name)

    def _encode(self) -> str:
        graph, config = self._graph, self._config
        hidden = self._embed()
        if config.has_embedding_mapping:
            hidden = self._dense(hidden, "albert/encoder/embedding_hidden_mapping_in")
        mask = self._mask()
        layers = config.num_hidden_layers
        for layer in range(layers):
            attention = layer * config.attention_copies // layers
            feed_forward = layer * config.feed_forward_copies // layers
            for inner in range(config.inner_group_num):
                hidden = self._attend(hidden, mask, (attention, inner))
                hidden = self._feed_forward(hidden, (feed_forward, inner))
        if config.norm is Norm.PRE:
            hidden = self._normalize(hidden, "albert/encoder/layer_norm")
        return graph.op("Identity", hidden, name="last_hidden_state")

    def _embed(self) -> str:
        graph = self._graph
        input_ids, types = self._rows("input_ids"), self._rows("token_type_ids")
        words = graph.op("Gather", self._table("word"), input_ids)
        types = graph.op("Gather", self._table("token_type"), types)
        embedded = graph.op("Add", words, types)
        if self._config.position_encoding is PositionEncoding.ABSOLUTE:
            start, axis = graph.constant("start", [0]), graph.constant("table_rows", [0])
            length = graph.op("Shape", input_ids, start=1, end=2)
            positions = graph.op("Slice", self._table("position"), start, length, axis)
            embedded = graph.op("Add", embedded, positions)
        return self._normalize(embedded, f"{_EMBEDDINGS}/layer_norm")

    def _rows(self, name: str) -> str:
        """Return an input as rows, [batch, length], with a row for each choice of an example."""
        graph = self._graph
        if not isinstance(self._exported.model, AlbertForMultipleChoice):
            return name
        length = graph.op("Shape", name, start=2)
        shape = graph.op("Concat", graph.constant("all", [-1]), length, axis=0)
        return graph.op("Reshape", name, shape)

    def _mask(self) -> str:
        """Return 0 for a real token and the lowest number for padding: [batch, 1, 1, length]."""
        graph = self._graph
        real = graph.op("Cast", self._rows("attention_mask"), to=9)  # TensorProto.BOOL
        real = graph.op("Unsqueeze", real, graph.constant("heads_and_queries", [1, 2]))
        lowest = graph.constant("lowest", float(np.finfo(np.float32).min))
        return graph.op("Where", real, graph.constant("zero", 0.0), lowest)

    def _attend(self, hidden: str, mask: str, block: Block) -> str:
        """Add the attention half of a layer."""
        graph, config, path = self._graph, self._config, f"{_LAYERS}/attention"
        heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
        norm = functools.partial(self._normalize, path=f"{path}/layer_norm", block=block)
        inputs = norm(hidden) if config.norm is Norm.PRE else hidden
        by_head = graph.constant("by_head", [0, 0, heads, width])

        def project(name: str, order: list[int]) -> str:
            projected = self._dense(inputs, f"{path}/{name}", block)
            return graph.op("Transpose", graph.op("Reshape", projected, by_head), perm=order)

        query, key = project("query", [0, 2, 1, 3]), project("key", [0, 2, 3, 1])
        scores = graph.op("MatMul", query, key)
        scores = graph.op("Div", scores, graph.constant("width_root", math.sqrt(width)))
        probabilities = graph.op("Softmax", graph.op("Add", scores, mask), axis=-1)
        context = graph.op("MatMul", probabilities, project("value", [0, 2, 1, 3]))
        context = graph.op("Transpose", context, perm=[0, 2, 1, 3])
        rejoined = graph.constant("rejoined", [0, 0, config.hidden_size])
        context = graph.op("Reshape", context, rejoined)
        output = graph.op("Add", hidden, self._dense(context, f"{path}/dense", block))
        return output if config.norm is Norm.PRE else norm(output)

    def _feed_forward(self, hidden: str, block: Block) -> str:
        """Add the feed-forward half of a layer."""
        config, path = self._config, f"{_LAYERS}/feed_forward"
        norm = functools.partial(self._normalize, path=f"{path}/layer_norm", block=block)
        inputs = norm(hidden) if config.norm is Norm.PRE else hidden
        wide = self._activate(self._dense(inputs, f"{path}/intermediate", block))
        output = self._graph.op("Add", hidden, self._dense(wide, f"{path}/output", block))
        return output if config.norm is Norm.PRE else norm(output)

    def _add_masked_lm(self, hidden: str, name: str) -> None:
        """Add the logits of all positions."""
        graph = self._graph
        x = self._activate(self._dense(hidden, "predictions/dense"))
        x = self._normalize(x, "predictions/layer_norm")
        tied = self._config.tie_word_embeddings
        table = self._table("word") if tied else graph.parameter("predictions/decoder")
        logits = graph.op("MatMul", x, graph.op("Transpose", table, perm=[1, 0]))
        graph.op("Add", logits, graph.parameter("predictions/bias"), name=name)

    def _table(self, name: str) -> str:
        return self._graph.parameter(f"{_EMBEDDINGS}/{name}_embeddings/embedding")

    def _scalar(self, name: str, index: int) -> str:
        self._graph.constant(f"{name}_index", index)
        return f"{name}_index"

    def _normalize(self, x: str, path: str, block: Block = None) -> str:
        return self._graph.layer_norm(x, path, self._config.layer_norm_eps, block)

    def _activate(self, x: str) -> str:
        match self._config.hidden_act:
            case HiddenAct.GELU:
                return self._graph.op("Gelu", x, approximate="tanh")
            case HiddenAct.GELU_ERF:
                return self._graph.op("Gelu", x, approximate="none")
            case HiddenAct.RELU:
                return self._graph.op("Relu", x)
            case HiddenAct.TANH:
                return self._graph.op("Tanh", x)
            case HiddenAct.LINEAR:
                return x
