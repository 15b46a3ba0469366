"""Data for generation: pairs of source and target, from files, tables and data sets."""

from data_pipeline.generation.examples import TextPair
from data_pipeline.generation.pair_tables import read_pair_table
from data_pipeline.generation.parallel_text import read_parallel_text
from data_pipeline.generation.tfds_pairs import read_tfds_pairs

__all__ = ["TextPair", "read_pair_table", "read_parallel_text", "read_tfds_pairs"]
