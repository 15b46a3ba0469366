"""Products of vectors with parameters, in the type of their operands, in bfloat16 or in float8."""

from albert_jax.matmuls.dense_matmul import Matmuls, matmul
from albert_jax.matmuls.support import unsupported_reason
from albert_jax.matmuls.verification import check_float8

__all__ = ["Matmuls", "check_float8", "matmul", "unsupported_reason"]
