"""The splits of a corpus: blocks of encoded documents, held-out text, and shards with counts."""
