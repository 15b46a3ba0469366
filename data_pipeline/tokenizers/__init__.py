"""Tokenizers: SentencePiece and WordPiece vocabularies, and model inputs from texts."""
