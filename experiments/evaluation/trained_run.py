"""What is evaluated: configuration, corpus and parameters of a run or of any other model."""

from typing import NamedTuple

from absl import flags
from etils import epath
from jaxtyping import PyTree

from albert_jax.pretrained import PretrainedWeights, directory_of, read_pretrained
from albert_jax.settings import FieldError
from data_pipeline.config import DataConfig, SentenceObjective
from data_pipeline.corpus.reader import Corpus, open_corpus
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.pretrained import read_pretrained_tokenizer
from experiments.run.config import ExperimentConfig
from experiments.run.initial_parameters import describe_difference
from experiments.run.workdir import check_tokenizer, read_config


class TrainedRun(NamedTuple):
    """A run that has checkpoints, or a model with the configuration that it is evaluated with."""

    config: ExperimentConfig
    corpus: Corpus
    params: PyTree


def define_run_flags(*, required: bool = True) -> None:
    """Define the flags that name a run, its checkpoint and a corpus.

    Args:
        required: False if a model may be given in place of the run.
    """
    flags.DEFINE_string("workdir", None, "the run", required=required)
    flags.DEFINE_string("corpus_dir", None, "held-out text of another corpus than the run's own")
    flags.DEFINE_integer("step", None, "the checkpoint; by default the best one")


def open_trained_run(
    workdir: epath.PathLike, *, corpus_dir: str | None, step: int | None
) -> TrainedRun:
    """Open the run, checkpoint and corpus that the flags name.

    Args:
        workdir: the run.
        corpus_dir: a corpus to use instead of the run's own; None for the run's own.
        step: the checkpoint; None for the best one.

    Raises:
        InputError: there is no run or no corpus, or the corpus has another tokenizer.
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    config = read_config(workdir, ExperimentConfig)
    corpus = open_corpus(corpus_dir or config.data.corpus_dir)
    check_tokenizer(workdir, corpus)
    return TrainedRun(config, corpus, read_pretrained(workdir, step=step).params)


def open_model(model: str, *, corpus_dir: str, step: int | None) -> TrainedRun:
    """Open a model of any format, to be evaluated on rows of up to 512 tokens.

    Args:
        model: a path that `from_pretrained` reads, or a name on the hub.
        corpus_dir: a corpus of the model's vocabulary.
        step: the checkpoint of a workdir; None for the best one.

    Raises:
        InputError: there is no corpus or no tokenizer, the corpus has another vocabulary, or the
            model has no masked-LM head.
        WeightsError: there are no weights, or they are damaged.
        CheckpointError: a workdir's checkpoint is damaged or missing.
    """
    stored = read_pretrained(model, step=step)
    if "predictions" not in stored.params:
        raise InputError(f"--model={model} has no masked-LM head: there is nothing to evaluate")
    corpus = open_corpus(corpus_dir)
    tokenizer = read_pretrained_tokenizer(str(directory_of(model)))
    if difference := describe_difference(tokenizer, corpus.load_tokenizer()):
        raise InputError(
            f"--model={model} has another vocabulary than corpus {corpus.path}: {difference}; "
            f"build the corpus with --tokenizer={model}"
        )
    if corpus.metadata.vocab_size != stored.config.vocab_size:
        raise InputError(
            f"--model={model}: its tokenizer has {tokenizer.vocab_size} tokens, its model "
            f"{stored.config.vocab_size}"
        )
    try:
        return TrainedRun(_evaluation_config(stored, corpus), corpus, stored.params)
    except FieldError as error:
        raise InputError(f"--model={model}: {error}") from error


def _evaluation_config(stored: PretrainedWeights, corpus: Corpus) -> ExperimentConfig:
    """Return an experiment with the model's sizes and heads."""
    length = min(DataConfig.max_seq_length, stored.config.longest_row or DataConfig.max_seq_length)
    has_order = "sop_classifier" in stored.params
    data = DataConfig(
        corpus_dir=str(corpus.path),
        max_seq_length=length,
        max_predictions_per_seq=min(DataConfig.max_predictions_per_seq, length),
        sentence_objective=SentenceObjective.SOP if has_order else SentenceObjective.NONE,
    )
    return ExperimentConfig(model=stored.config, data=data)
