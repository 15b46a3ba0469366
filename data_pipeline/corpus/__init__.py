"""Corpora: directories of token shards, and the builder that writes them."""
