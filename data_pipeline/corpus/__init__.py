"""Corpora: directories of token shards, their metadata and their readers."""

from data_pipeline.corpus.metadata import CorpusError, CorpusMetadata
from data_pipeline.corpus.reader import Corpus, open_corpus
from data_pipeline.corpus.sentence_index import SentenceIndex
from data_pipeline.corpus.splits import Split

__all__ = ["Corpus", "CorpusError", "CorpusMetadata", "SentenceIndex", "Split", "open_corpus"]
