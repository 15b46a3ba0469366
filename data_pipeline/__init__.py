"""The text, from documents to batches, with TensorFlow and NumPy but never JAX."""

from typing import TYPE_CHECKING

from albert_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipeline.tokenizers.albert import AlbertTokenizer

__getattr__, __all__ = lazy_exports(__name__, {"tokenizers.albert": ["AlbertTokenizer"]})
