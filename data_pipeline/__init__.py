"""The text, from documents to batches, with TensorFlow and NumPy but never JAX."""

import os
from typing import TYPE_CHECKING

from albert_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipeline.tokenizers.albert import AlbertTokenizer

# Before TensorFlow is imported: it greets on stderr, where progress and errors belong. Of oneDNN,
# which changes no operation that is used here, it speaks whatever the level.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

__getattr__, __all__ = lazy_exports(__name__, {"tokenizers.albert": ["AlbertTokenizer"]})
