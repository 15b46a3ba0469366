"""What a person wants to know of a finished corpus, in figures and in words."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipeline.corpus.chunks import cut_documents
from data_pipeline.corpus.reader import TRAIN, VALIDATION, Corpus, Split
from data_pipeline.tokenizers.tokenizer import Tokenizer

_ROW_LENGTH, _SPECIAL_TOKENS = 512, 3
_MOST_FREQUENT = 20
_TOKENS_AT_ONCE = 1 << 22
_DOCUMENTS_AT_ONCE = 1 << 14


def describe_training_text(corpus: Corpus, tokenizer: Tokenizer) -> dict[str, Any]:
    """Figures of the training text that are kept in the metadata.

    Returns:
        tokens_per_document; unknown_rate, the share of tokens that are the unknown piece;
        row_fill_512, the share of a row of 512 that one pair a row fills; most_frequent_pieces,
        piece -> count.
    """
    train = corpus.splits[TRAIN]
    counts = count_pieces(train, tokenizer.vocab_size)
    order = np.argsort(-counts, kind="stable")[:_MOST_FREQUENT]
    return {
        "tokens_per_document": round(train.num_tokens / train.num_documents, 1),
        "unknown_rate": float(f"{counts[tokenizer.unk_id] / counts.sum():.3g}"),
        "row_fill_512": round(measure_fill(train), 4),
        "most_frequent_pieces": {tokenizer.tokens[id]: int(counts[id]) for id in order.tolist()},
    }


def count_pieces(split: Split, vocab_size: int) -> np.ndarray:
    """How often each piece occurs: int64 [vocabulary]."""
    counts = np.zeros(vocab_size, np.int64)
    for shard in split.shards:
        for start in range(0, len(shard.tokens), _TOKENS_AT_ONCE):
            part = shard.tokens[start : start + _TOKENS_AT_ONCE]
            counts += np.bincount(part, minlength=vocab_size)
    return counts


def measure_fill(split: Split) -> float:
    """The share of a row of 512 that is no padding, with one full-length pair a row."""
    filled = rows = 0
    for lengths in _chunk_lengths(split, _ROW_LENGTH - _SPECIAL_TOKENS):
        filled += int(np.minimum(lengths, _ROW_LENGTH - _SPECIAL_TOKENS).sum())
        rows += len(lengths)
    return filled / (rows * _ROW_LENGTH) + _SPECIAL_TOKENS / _ROW_LENGTH


def format_report(corpus: Corpus) -> str:
    """The closing report of a build, several lines."""
    metadata, report = corpus.metadata, corpus.metadata.report
    lines = [
        f"{corpus.path}: {metadata.vocab_size:,} pieces, fingerprint {metadata.fingerprint[:16]}"
    ]
    lines.append(f"{'':20}{'documents':>14}{'sentences':>14}{'tokens':>16}")
    for split in (TRAIN, VALIDATION):
        rows = [(split, metadata.splits[split])]
        if len(metadata.sources) > 1:
            rows += [(f"  {source.name}", source.counts[split]) for source in metadata.sources]
        for name, counts in rows:
            lines.append(
                f"{name:20}{counts['documents']:14,}{counts['sentences']:14,}{counts['tokens']:16,}"
            )
    pieces = " ".join(list(report["most_frequent_pieces"]))
    lines += [
        f"{report['tokens_per_document']:,} tokens a document, "
        f"{100 * report['unknown_rate']:.3g} % unknown; "
        f"one pair fills {100 * report['row_fill_512']:.1f} % of a row of 512",
        f"most frequent pieces: {pieces}",
        f"dropped: {report['duplicate_documents']:,} duplicate documents; "
        f"{report['held_out_sentences_removed']:,} held-out sentences and "
        f"{report['held_out_documents_removed']:,} held-out documents that training has too",
    ]
    lines += [
        f"{what}: {report[name]:,}"
        for name, what in (
            ("replaced_lines", "lines with bad UTF-8, replaced"),
            ("skipped_lines", "lines with bad UTF-8, skipped"),
            ("cut_documents", "very long documents cut in several"),
        )
        if report[name]
    ]
    if not metadata.splits[VALIDATION]["documents"]:
        lines.append("nothing was held out, so nothing can be evaluated: give a larger --held_out")
    return "\n".join(lines)


def _chunk_lengths(split: Split, target: int) -> Iterator[np.ndarray]:
    """The tokens of each chunk into which documents are cut, without short ones."""
    for shard in split.shards:
        offsets = shard.sentence_offsets.astype(np.int64)
        for first in range(0, len(shard.document_sources), _DOCUMENTS_AT_ONCE):
            boundaries = shard.document_offsets[first : first + _DOCUMENTS_AT_ONCE + 1]
            boundaries = boundaries.astype(np.int64)
            targets = np.full(len(boundaries) - 1, target)
            chunks = cut_documents(offsets, boundaries[:-1], boundaries[1:], targets)
            yield offsets[chunks.ends] - offsets[chunks.firsts]
