"""Checks that a teacher fits a run: it has the same token ids, and can read the run's rows."""

import logging

from data_pipeline.corpus.reader import Corpus
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.pretrained import MissingTokenizerError
from experiments.run.initial_parameters import describe_difference, read_stored_tokenizer

FLAG = "--config.distillation.teacher"

_log = logging.getLogger(__name__)


def check_teacher_vocabulary(source: str, vocab_size: int, corpus: Corpus) -> None:
    """Check that a teacher has the vocabulary of a corpus.

    Args:
        source: a directory with the teacher's tokenizer, or another path that `from_pretrained`
            reads. One without a tokenizer is accepted with a warning.
        vocab_size: number of tokens that the teacher predicts.
        corpus: the corpus of the run.

    Raises:
        InputError: it has another vocabulary; the message says what differs.
    """
    if difference := _describe_difference(source, vocab_size, corpus):
        raise InputError(
            f"{FLAG}={source} must have the vocabulary of corpus {corpus.path}: {difference}"
        )


def _describe_difference(source: str, vocab_size: int, corpus: Corpus) -> str:
    if vocab_size != corpus.metadata.vocab_size:
        return f"{vocab_size:,} tokens there, {corpus.metadata.vocab_size:,} here"
    ours = corpus.load_tokenizer()
    try:
        return describe_difference(read_stored_tokenizer(source, ours), ours)
    except MissingTokenizerError:
        _log.warning(
            "%s=%s has no tokenizer: take care that it is that of %s", FLAG, source, corpus.path
        )
        return ""


def check_rows(
    longest_row: int | None, type_vocab_size: int, lengths: list[int], source: str
) -> None:
    """Check that a teacher can read the rows of a run.

    Raises:
        InputError: it cannot.
    """
    if longest_row is not None and longest_row < max(lengths):
        raise InputError(
            f"{FLAG}={source} reads rows of {longest_row} tokens at most, and the run has rows of "
            f"{max(lengths)}: --config.data.max_seq_length={longest_row} has shorter ones"
        )
    if type_vocab_size < 2:
        raise InputError(f"{FLAG}={source} has {type_vocab_size} token type, and pairs have two")
