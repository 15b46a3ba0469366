"""A graph of ONNX operations, built one after another; each parameter is stored once."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from albert_jax.exporting.inference import INDICES
from albert_jax.interop.names import WeightsError

OPSET = 20  # the first with Gelu
_IR_VERSION = 9  # of that opset's first release
_LARGEST_FILE = 2**31 - 2**20  # bytes: one protobuf message, minus the graph's description


def import_onnx() -> Any:
    """Return the package `onnx`.

    Raises:
        WeightsError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise WeightsError(
            "the onnx format needs the package onnx: pip install 'albert-jax[onnx]'"
        ) from error
    return onnx


class OnnxGraph:
    """Nodes and stored arrays. A value of the graph is the name of an array.

    Args:
        params: parameters by name; only those that are asked for are stored.
    """

    def __init__(self, params: Mapping[str, np.ndarray]) -> None:
        self._onnx = import_onnx()
        self._params = params
        self._nodes: list[Any] = []
        self._stored: dict[str, np.ndarray] = {}

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node with one output, and return the output.

        Args:
            kind: kind of operation, such as ``MatMul``.
            inputs: values.
            name: name of the output; by default a new one.
            attributes: attributes of the operation.
        """
        name = name or f"{kind}_{len(self._nodes)}"
        node = self._onnx.helper.make_node(kind, inputs, [name], name=name, **attributes)
        self._nodes.append(node)
        return name

    def dense(
        self,
        x: str,
        path: str,
        block: tuple[int, int] | None = None,
        *,
        bias: bool = True,
        name: str | None = None,
    ) -> str:
        """Add a dense layer; see `parameter`.

        Args:
            x: its input.
            path: path of its parameters.
            block: which copy and which inner block of a layer's parameters.
            bias: False for a layer without one.
            name: name of the output; by default a new one.
        """
        kernel = self.parameter(f"{path}/kernel", block)
        if not bias:
            return self.op("MatMul", x, kernel, name=name)
        added = self.parameter(f"{path}/bias", block)
        return self.op("Add", self.op("MatMul", x, kernel), added, name=name)

    def layer_norm(
        self, x: str, path: str, epsilon: float, block: tuple[int, int] | None = None
    ) -> str:
        """Add a layer norm over the last axis; arguments as in `dense`."""
        scale = self.parameter(f"{path}/scale", block)
        bias = self.parameter(f"{path}/bias", block)
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)

    def top_k(self, x: str, count: int, values: str, indices: str) -> None:
        """Add the choice of the highest values along the last axis, the highest first.

        Args:
            x: input whose last axis has at least `count` entries.
            count: number of values.
            values, indices: names of the outputs.
        """
        inputs = [x, self.constant(f"most_{count}", [count])]
        node = self._onnx.helper.make_node("TopK", inputs, [values, indices], name=values, axis=-1)
        self._nodes.append(node)

    def parameter(self, path: str, block: tuple[int, int] | None = None) -> str:
        """Return a parameter, stored when it is first asked for.

        Args:
            path: its name, such as ``albert/pooler/kernel``.
            block: which copy and which inner block of a layer's parameters.
        """
        name = path if block is None else f"{path}/{block[0]}/{block[1]}"
        if name not in self._stored:
            value = self._params[path] if block is None else self._params[path][block]
            self._stored[name] = np.ascontiguousarray(value, np.float32)
        return name

    def constant(self, name: str, value: float | int | Sequence[int]) -> str:
        """Return a constant: a float as float32, integers as int64."""
        dtype = np.float32 if isinstance(value, float) else np.int64
        self._stored[name] = np.asarray(value, dtype)
        return name

    def to_model(
        self,
        inputs: Mapping[str, tuple[str | int, ...]],
        outputs: Mapping[str, tuple[str | int, ...]],
        metadata: Mapping[str, str],
    ) -> Any:
        """Return the checked model.

        Args:
            inputs: int64 arrays, name -> shape.
            outputs: name -> shape; those of `INDICES` are int64, the others float32.
            metadata: properties of the model.

        Raises:
            WeightsError: it is larger than a file of this format may be.
        """
        size = sum(value.nbytes for value in self._stored.values())
        if size > _LARGEST_FILE:
            raise WeightsError(
                f"the parameters take {size / 2**30:.1f} GiB, a file of the onnx format holds 2"
            )
        helper, types = self._onnx.helper, self._onnx.TensorProto
        graph = helper.make_graph(
            self._nodes,
            "albert",
            [helper.make_tensor_value_info(x, types.INT64, shape) for x, shape in inputs.items()],
            [
                helper.make_tensor_value_info(
                    x, types.INT64 if x in INDICES else types.FLOAT, shape
                )
                for x, shape in outputs.items()
            ],
            [self._onnx.numpy_helper.from_array(x, name) for name, x in self._stored.items()],
        )
        model = helper.make_model(
            graph,
            producer_name="albert-jax",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
        )
        helper.set_model_props(model, dict(metadata))
        self._onnx.checker.check_model(model, full_check=True)
        return model
