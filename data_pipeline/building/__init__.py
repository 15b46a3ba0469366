"""Building corpora: documents read, deduplicated, encoded and written, resumably."""

from data_pipeline.building.builder import CorpusBuilder
from data_pipeline.building.config import BuildConfig

__all__ = ["BuildConfig", "CorpusBuilder"]
