"""The text: from documents to batches. Knows TensorFlow and NumPy, never JAX."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_pipeline.tokenizers.albert import AlbertTokenizer

__all__ = ["AlbertTokenizer"]


def __getattr__(name: str) -> Any:
    """Loads the tokenizer when it is asked for: who reads batches needs none."""
    if name == "AlbertTokenizer":
        from data_pipeline.tokenizers.albert import AlbertTokenizer

        return AlbertTokenizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
