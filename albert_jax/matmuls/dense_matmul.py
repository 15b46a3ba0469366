"""The matrix product of vectors and a kernel, with its own backward pass.

The forward pass spells out what it computes, so that a rematerialization policy finds the product.

With bfloat16, all operands are rounded to it, even if everything else is float32, as a TPU does
with float32 by default. With float8, operands are E4M3 in the forward pass, and the gradient is
E5M2. Products are summed in float32, and results have the type of the given operands.
"""

import functools
from enum import StrEnum
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Float

from albert_jax.matmuls.float8 import E4M3, E5M2, dequantize, quantize


class Matmuls(StrEnum):
    """Type to which the operands of layers' matmuls with parameters are rounded."""

    SAME = "same"  # run.dtype
    BFLOAT16 = "bfloat16"  # faster than float32 on CPUs with instructions for it
    FLOAT8 = "float8"  # for NVIDIA GPUs with float8 units; emulated on CPUs


# With operands in float8, cuBLAS sums products with fewer bits than float32 unless told otherwise.
_PRECISION = {Matmuls.FLOAT8: jax.lax.Precision.HIGHEST}


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def matmul(
    x: Float[Array, "*batch inputs"],
    kernel: Float[Array, "inputs features"],
    matmuls: Matmuls = Matmuls.SAME,
) -> Float[Array, "*batch features"]:
    """Multiply each vector by the kernel.

    The kernel's gradient is one matrix product over all vectors as they are stored in memory. The
    one that JAX derives sums over several axes and comes out transposed, for which a CPU first
    writes the transpose of the other operand too.
    """
    return matmul_forward(x, kernel, matmuls)[0]


def matmul_forward(x: Array, kernel: Array, matmuls: Matmuls) -> tuple[Array, tuple[Any, Any]]:
    """Return `matmul` and the residuals of `matmul_backward`."""
    dtype = x.dtype
    residuals: tuple[Any, Any] = x, kernel
    if matmuls is Matmuls.FLOAT8:
        residuals = quantize(x, E4M3), quantize(kernel, E4M3)
        x, kernel = (dequantize(operand, dtype) for operand in residuals)
    elif matmuls is Matmuls.BFLOAT16:
        residuals = x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    product = jax.lax.dot_general(
        x,
        kernel,
        (((x.ndim - 1,), (0,)), ((), ())),
        precision=_PRECISION.get(matmuls),
        preferred_element_type=dtype,
    )
    return product, residuals


def matmul_backward(
    matmuls: Matmuls, residuals: tuple[Any, Any], cotangent: Array
) -> tuple[Array, Array]:
    """Return the gradients of `matmul`."""
    x, kernel = residuals
    dtype = cotangent.dtype
    if matmuls is Matmuls.FLOAT8:
        operands = x, kernel, quantize(cotangent, E5M2)
        x, kernel, cotangent = (dequantize(operand, dtype) for operand in operands)
    elif matmuls is Matmuls.BFLOAT16:
        cotangent = cotangent.astype(jnp.bfloat16)
    options: dict[str, Any] = {
        "precision": _PRECISION.get(matmuls),
        "preferred_element_type": dtype,
    }
    vectors, cotangents = (y.reshape(-1, y.shape[-1]) for y in (x, cotangent))
    if matmuls is Matmuls.BFLOAT16:
        of_kernel = jnp.matmul(_transpose_in_memory(vectors), cotangents, **options)
    else:
        of_kernel = jax.lax.dot_general(vectors, cotangents, (((0,), (0,)), ((), ())), **options)
    return jnp.matmul(cotangent, kernel.T, **options), of_kernel


def _transpose_in_memory(x: Array) -> Array:
    """Transpose a matrix; on CPUs, store the result row by row.

    XLA for CPUs turns a product that sums over the first axes of both operands into one in float32,
    at half the speed. It does so even if a transpose is written out, by merging the transpose into
    the product.
    """
    by_rows = functools.partial(with_layout_constraint, layouts=Layout((0, 1)))
    return jax.lax.platform_dependent(x.T, cpu=by_rows, default=lambda transpose: transpose)


matmul.defvjp(matmul_forward, matmul_backward)


def before_activation(x: Float[Array, "*shape"], matmuls: Matmuls) -> Float[Array, "*shape"]:
    """Keep XLA from fusing an activation into the matmul before it, if that is in float8.

    XLA fuses GELU and then fails, since cuBLAS has no such matmul that also returns GELU's input
    (jax 0.10.2: ``RET_CHECK failure ... !has_aux_output``).
    """
    return jax.lax.optimization_barrier(x) if matmuls is Matmuls.FLOAT8 else x
