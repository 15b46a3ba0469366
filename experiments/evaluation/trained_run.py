"""A pre-training run that is evaluated: configuration, corpus and one checkpoint's parameters."""

from typing import NamedTuple

from absl import flags
from etils import epath
from jaxtyping import PyTree

from albert_jax.pretrained import read_pretrained
from data_pipeline.corpus.reader import Corpus, open_corpus
from experiments.run.config import ExperimentConfig
from experiments.run.workdir import check_tokenizer, read_config


class TrainedRun(NamedTuple):
    """A run that has checkpoints."""

    config: ExperimentConfig
    corpus: Corpus
    params: PyTree


def define_run_flags() -> None:
    """Define the flags that name a run, its checkpoint and a corpus."""
    flags.DEFINE_string("workdir", None, "the run", required=True)
    flags.DEFINE_string("corpus_dir", None, "held-out text of another corpus than the run's own")
    flags.DEFINE_integer("step", None, "the checkpoint; by default the best one")


def open_trained_run(
    workdir: epath.PathLike, *, corpus_dir: str | None, step: int | None
) -> TrainedRun:
    """Open what the flags name.

    Args:
        workdir: the run.
        corpus_dir: another corpus than that of the run, if any.
        step: the checkpoint; None for the best one.

    Raises:
        InputError: there is no run or no corpus, or the corpus has another tokenizer.
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    config = read_config(workdir, ExperimentConfig)
    corpus = open_corpus(corpus_dir or config.data.corpus_dir)
    check_tokenizer(workdir, corpus)
    return TrainedRun(config, corpus, read_pretrained(workdir, step=step).params)
