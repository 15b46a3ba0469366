"""StableHLO: inference that `jax.export.deserialize` reads back without this project.

Example, in a process that has only JAX::

    exported = jax.export.deserialize(bytearray(Path("model.stablehlo").read_bytes()))
    outputs = exported.call(input_ids, attention_mask, token_type_ids)  # int32 [batch, length]
    outputs["logits"]
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export

from albert_jax.exporting.inference import LENGTH, ExportedModel, infer, write_signature
from albert_jax.model import AlbertModel

STABLEHLO_FILE = "model.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(directory: Path, exported: ExportedModel) -> None:
    """Write ``model.stablehlo`` and ``signature.json``, for any batch and any length.

    Args:
        directory: an empty directory.
        exported: the model.
    """
    model = exported.model
    params = exported.params["albert"] if isinstance(model, AlbertModel) else exported.params
    params = jax.tree.map(jnp.asarray, dict(params))
    longest = exported.config.longest_row
    shortest = exported.shortest_row
    constraints = [f"{LENGTH} >= {shortest}"] if shortest > 1 else []
    constraints += [] if longest is None else [f"{LENGTH} <= {longest}"]
    shapes = exported.input_shapes().values()
    names = sorted({axis for shape in shapes for axis in shape})
    sizes = export.symbolic_shape(", ".join(names), constraints=constraints)
    axes = dict(zip(names, sizes, strict=True))
    rows = [jax.ShapeDtypeStruct([axes[axis] for axis in shape], jnp.int32) for shape in shapes]
    function = jax.jit(functools.partial(infer, model, params))
    graph = export.export(function, platforms=PLATFORMS)(*rows)
    (directory / STABLEHLO_FILE).write_bytes(graph.serialize())
    write_signature(
        directory,
        exported,
        format="stablehlo",
        file=STABLEHLO_FILE,
        platforms=list(PLATFORMS),
        jax=jax.__version__,
        input_dtype="int32",
    )
