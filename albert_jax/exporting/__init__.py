"""Exporting: inference of a model, parameters included, as one file of StableHLO or ONNX."""

from typing import TYPE_CHECKING

from albert_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from albert_jax.exporting.onnx_model import write_onnx
    from albert_jax.exporting.stablehlo import write_stablehlo

__getattr__, __all__ = lazy_exports(
    __name__, {"onnx_model": ["write_onnx"], "stablehlo": ["write_stablehlo"]}
)
