"""Corpus building: reading, deduplicating, encoding and writing documents, resumably."""

from data_pipeline.building.builder import CorpusBuilder
from data_pipeline.building.config import BuildConfig

__all__ = ["BuildConfig", "CorpusBuilder"]
