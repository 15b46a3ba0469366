"""The text, from documents to batches, with TensorFlow and NumPy but never JAX."""

import os
from typing import TYPE_CHECKING

from albert_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipeline.tokenizers.albert import AlbertTokenizer

# Set before TensorFlow is imported, which would otherwise log to stderr, where progress and errors
# belong. It mentions oneDNN at every log level; no operation used here needs oneDNN.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

__getattr__, __all__ = lazy_exports(__name__, {"tokenizers.albert": ["AlbertTokenizer"]})
