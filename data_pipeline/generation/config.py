"""Settings of targets: their files, their vocabulary, and how they are learned."""

import dataclasses

from albert_jax.settings import check_settings, setting
from data_pipeline.config import LONGEST_ROW


@dataclasses.dataclass(frozen=True)
class TargetsConfig:
    """Targets of translation and summarization: texts that a decoder learns to write.

    If `data.train_file` is a table (tsv, csv, jsonl), its targets are in one of its columns. If it
    is a file of lines, the targets are in another file with as many lines, `train_file`. The same
    holds for dev and test.

    Raises:
        FieldError: a value is not allowed.
    """

    train_file: str | None = setting(None, "one target per line, for the lines of data.train_file")
    dev_file: str | None = setting(None, "likewise for data.dev_file")
    test_file: str | None = setting(
        None, "likewise for data.test_file; without it, that is translated and not scored"
    )
    column: str = setting("target", "column of a table, or feature of a data set, with the target")
    dataset: str | None = setting(
        None, "data set of TFDS, with data.source=tfds; data.text_column is its feature of sources"
    )

    tokenizer: str | None = setting(
        None,
        "vocabulary of targets: a .model of SentencePiece, a directory of GPT-2; none: trained on "
        "the training targets, or that of run.init_decoder_from",
    )
    vocab_size: int = setting(
        8000, "tokens of the vocabulary that is trained", at_least=8, at_most=1_000_000
    )
    pad_token: str | None = setting(
        None, "padding, where the vocabulary has none of its own (GPT-2); a new token is appended"
    )
    max_length: int = setting(
        128, "tokens of the longest target, its end included", at_least=1, at_most=LONGEST_ROW
    )
    truncate: bool = setting(False, "cut longer targets instead of refusing them")

    label_smoothing: float = setting(
        0.1, "probability that is spread over all tokens", at_least=0, below=1
    )
    evaluation_examples: int = setting(
        500, "first dev examples that evaluations score by greedy search", at_least=1
    )

    def __post_init__(self) -> None:
        check_settings(self)
