"""Settings of fine-tuning tasks: the task, its examples, and the settings of each kind."""

import dataclasses
from enum import StrEnum

from albert_jax.config import Pooling, ProblemType
from albert_jax.settings import FieldError, check_settings, setting
from data_pipeline.config import LONGEST_ROW, SHORTEST_ROW
from data_pipeline.finetuning.glue import MalformedRows
from data_pipeline.finetuning.race import RaceGroup
from data_pipeline.finetuning.similarity.examples import PairFormat


class TaskName(StrEnum):
    """A fine-tuning task. GLUE tasks have their official names in lower case."""

    COLA = "cola"
    SST2 = "sst-2"
    MRPC = "mrpc"
    STSB = "sts-b"
    QQP = "qqp"
    MNLI = "mnli"
    QNLI = "qnli"
    RTE = "rte"
    WNLI = "wnli"
    TEXT = "text"  # text files of one's own, with classes or scores
    SQUAD = "squad"  # versions 1.1 and 2.0, distinguished by `span.head`
    RACE = "race"
    TAGGING = "tagging"  # words with tags, in CoNLL's columns
    TRANSLATION = "translation"  # scored by BLEU
    SUMMARIZATION = "summarization"  # scored by ROUGE
    EMBEDDING = "embedding"  # vectors of texts, near each other where texts are alike


# Tasks in which a decoder writes texts.
GENERATION_TASKS = (TaskName.TRANSLATION, TaskName.SUMMARIZATION)


class DataSource(StrEnum):
    """Source of the examples of a GLUE or generation task: files, or TFDS."""

    FILES = "files"
    TFDS = "tfds"


class RateSearch(StrEnum):
    """How to choose among learning rates.

    Either every seed runs with each rate, or the first seed runs with each rate, and the other
    seeds take its best one.
    """

    EVERY_SEED = "every_seed"
    FIRST_SEED = "first_seed"


class SpanHead(StrEnum):
    """How an answer is scored.

    Either its start and its end are scored, or an end is scored given its start, with another score
    for having no answer.
    """

    PLAIN = "plain"
    CONDITIONAL = "conditional"


@dataclasses.dataclass(frozen=True)
class TaskDataConfig:
    """Examples and how they are encoded.

    Raises:
        FieldError: a value is not allowed.
    """

    dir: str = setting("", "directory of the task's official files, or of TFDS data sets")
    source: DataSource = setting(DataSource.FILES, "source of a GLUE task's examples")
    diagnostic_dir: str | None = setting(
        None, "directory of AX, which a run on MNLI then predicts too"
    )
    malformed: MalformedRows = setting(MalformedRows.REFUSE, "treatment of malformed rows")

    # One's own files: of texts, questions (SQuAD) or tags. Texts: .tsv, .csv or .jsonl.
    train_file: str | None = setting(None, "file of texts, questions (SQuAD) or tags")
    dev_file: str | None = setting(None, "file of the same kind, to evaluate on")
    test_file: str | None = setting(None, "file of the same kind, to predict; needs no labels")
    text_column: str = setting("text", "column of the text")
    text_pair_column: str | None = setting(None, "column of the second text of a pair")
    label_column: str = setting("label", "column of the label")
    id_column: str | None = setting(None, "column of the id")
    problem_type: ProblemType = setting(ProblemType.SINGLE_LABEL, "classes, or scores (regression)")
    labels: str | None = setting(
        None, "labels, separated by commas; none: those of the training file"
    )

    tokenizer: str | None = setting(None, "tokenizer; none: that of run.init_from")
    max_seq_length: int = setting(
        512,
        "longest row, with special tokens; longer texts are cut; follows a model that reads less",
        at_least=SHORTEST_ROW,
        at_most=LONGEST_ROW,
    )
    num_lengths: int = setting(
        5,
        "most row lengths to pad to, each of which is compiled; short runs use fewer",
        at_least=1,
        at_most=LONGEST_ROW,
    )
    num_epochs: float | None = setting(
        None, "epochs, instead of optimizer.num_train_steps", above=0
    )
    max_train_examples: int | None = setting(
        None,
        "most training examples (of SQuAD, windows), drawn by `seed`, fewer out of more; none: all",
        at_least=1,
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.problem_type is ProblemType.MULTI_LABEL:
            kinds = f"{ProblemType.SINGLE_LABEL} or {ProblemType.REGRESSION} (one label a row)"
            raise FieldError("problem_type", kinds, str(self.problem_type))
        if (names := self.label_names) is not None:
            if len(set(names)) < max(2, len(names)) or not all(names):
                allowed = "at least two different names, separated by commas"
                raise FieldError("labels", allowed, self.labels)
            if self.problem_type is ProblemType.REGRESSION:
                raise FieldError("labels", "none with problem_type=regression", self.labels)

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """The names in `labels`; None if it is not given."""
        return None if self.labels is None else tuple(map(str.strip, self.labels.split(",")))


@dataclasses.dataclass(frozen=True)
class SpanConfig:
    """Question answering by a span of a text.

    Raises:
        FieldError: a value is not allowed.
    """

    head: SpanHead = setting(SpanHead.PLAIN, "conditional: also predict that there is no answer")
    max_query_length: int = setting(64, "tokens of a question that are kept", at_least=1)
    doc_stride: int = setting(128, "tokens from one window of a text to the next", at_least=1)
    n_best: int = setting(
        20, "candidate answers of a question that are kept", at_least=1, at_most=LONGEST_ROW
    )
    max_answer_length: int = setting(30, "tokens of the longest answer", at_least=1)
    start_n_top: int = setting(
        5,
        "starts for which the conditional head scores ends",
        at_least=1,
        at_most=LONGEST_ROW,
    )
    end_n_top: int = setting(
        5, "ends that it keeps for each start", at_least=1, at_most=LONGEST_ROW
    )
    null_threshold: float | None = setting(
        None,
        "score above which there is no answer; none: chosen on half of the articles, reported on "
        "the other half",
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclasses.dataclass(frozen=True)
class ChoiceConfig:
    """Questions with four options.

    Raises:
        FieldError: a value is not allowed.
    """

    group: RaceGroup = setting(RaceGroup.ALL, "passages of RACE to use")
    max_qa_length: int = setting(
        128, "last tokens of question and option that are kept", at_least=1
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclasses.dataclass(frozen=True)
class EmbeddingConfig:
    """Vectors of texts: which texts are alike, and how that is learned.

    Raises:
        FieldError: a value is not allowed.
    """

    train_format: PairFormat = setting(
        PairFormat.COLUMNS,
        "columns of data.train_file: data.text_column with data.text_pair_column and those below, "
        "STS-B's, or those of SNLI and MNLI",
    )
    dev_format: PairFormat = setting(
        PairFormat.COLUMNS, "columns of data.dev_file and data.test_file, likewise"
    )
    negative_column: str | None = setting(None, "column of a hard negative; empty: none of its own")
    score_column: str | None = setting(
        None, "column of a score: pairs are learned by the order of their scores"
    )
    pooling: Pooling = setting(
        Pooling.MEAN, "vector of a text: mean of its tokens, or that of [CLS]: first"
    )
    temperature: float = setting(0.05, "what cosines are divided by in the losses", above=0)
    candidates: int = setting(
        100, "pairs among which a positive is sought, where dev pairs have no scores", at_least=2
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.pooling is Pooling.POOLED:
            raise FieldError("pooling", f"{Pooling.MEAN} or {Pooling.FIRST}", str(self.pooling))
        if self.score_column is not None and self.negative_column is not None:
            raise FieldError("score_column", "none with negative_column", self.score_column)


@dataclasses.dataclass(frozen=True)
class DropoutConfig:
    """Dropout probabilities in fine-tuning.

    Raises:
        FieldError: a value is not allowed.
    """

    encoder: float | None = setting(
        None, "of hidden states and attention; none: as in the model's files", at_least=0, below=1
    )
    classifier: float = setting(0.1, "of the classifier's input", at_least=0, below=1)

    def __post_init__(self) -> None:
        check_settings(self)
