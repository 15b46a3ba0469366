"""Vocabularies of targets, which a decoder writes: SentencePiece, and GPT-2's byte-level BPE."""

from data_pipeline.tokenizers.targets.byte_level import ByteLevelTargets
from data_pipeline.tokenizers.targets.loading import load_target_tokenizer
from data_pipeline.tokenizers.targets.sentencepiece import (
    SentencePieceTargets,
    train_target_tokenizer,
)
from data_pipeline.tokenizers.targets.target_tokenizer import TargetTokenizer

__all__ = [
    "ByteLevelTargets",
    "SentencePieceTargets",
    "TargetTokenizer",
    "load_target_tokenizer",
    "train_target_tokenizer",
]
