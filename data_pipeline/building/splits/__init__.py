"""The splits of a corpus: blocks of encoded documents, held-out text, shards and their counts."""
