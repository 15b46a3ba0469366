"""Tokenizers: SentencePiece and WordPiece vocabularies, and model inputs made from texts."""

from data_pipeline.tokenizers.albert import AlbertTokenizer, Padding
from data_pipeline.tokenizers.loading import load_tokenizer
from data_pipeline.tokenizers.normalization import normalize
from data_pipeline.tokenizers.sentencepiece import SentencePieceTokenizer, train_sentencepiece
from data_pipeline.tokenizers.tokenizer import Tokenizer
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer

__all__ = [
    "AlbertTokenizer",
    "Padding",
    "SentencePieceTokenizer",
    "Tokenizer",
    "WordPieceTokenizer",
    "load_tokenizer",
    "normalize",
    "train_sentencepiece",
]
