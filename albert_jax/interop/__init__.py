"""Interoperability: weights and configurations of Hugging Face and of the released TF1 code."""

from typing import TYPE_CHECKING

from albert_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from albert_jax.interop.huggingface import read_huggingface, write_huggingface
    from albert_jax.interop.names import WeightsError
    from albert_jax.interop.stored_weights import StoredWeights
    from albert_jax.interop.tensorflow_checkpoint import read_tensorflow, write_tensorflow
    from albert_jax.interop.workdir import read_workdir

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "huggingface": ["read_huggingface", "write_huggingface"],
        "names": ["WeightsError"],
        "stored_weights": ["StoredWeights"],
        "tensorflow_checkpoint": ["read_tensorflow", "write_tensorflow"],
        "workdir": ["read_workdir"],
    },
)
