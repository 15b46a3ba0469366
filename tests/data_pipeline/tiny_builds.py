"""Builds of small corpora in the working directory, by the command."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from data_pipeline.build_corpus import main


def write_vocabulary(words: Iterable[str]) -> None:
    """Write a vocabulary of words, `vocab.txt`."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *words]
    Path("vocab.txt").write_text("\n".join(tokens) + "\n")


def build(documents: Sequence[str], output: str, *more: str) -> int:
    """Build a corpus of documents with `vocab.txt`, in one process; return the exit status."""
    text, file = "\n\n".join(documents) + "\n", Path("a.txt")
    if not file.exists() or file.read_text() != text:  # a build is resumed on the same file
        file.write_text(text)
    command = ["build_corpus", "--source=a:1:text:a.txt", f"--output_dir={output}"]
    shared = ["--tokenizer=vocab.txt", "--held_out=0", "--num_processes=1"]
    return main([*command, *shared, *more])
