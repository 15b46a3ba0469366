r"""Asks a frozen encoder for the order of sentences and for the next one, trained for it or not.

    python -m experiments.probe --workdir=runs/base

A logistic regression is fitted to 4,096 pairs of the training text and scored on the ruler's held-
out pairs, once for each question; all runs are asked the same pairs. It sees the last hidden state
of [CLS], the means of it over both segments, and the absolute difference and the product of these
means. Its penalty is the one of five that does best on a fifth of the fitted pairs; nothing in it
is random. What it gets out of the same encoder before any training is told beside it: some of
the order can be told from the pieces alone. `probe.json` in the workdir takes the accuracies.
"""

import json
from pathlib import Path

import jax
from absl import flags

from albert_jax.durable_files import write_atomically
from albert_jax.model import AlbertModel
from albert_jax.training.checkpoint import restore_params
from data_pipeline.config import SentenceObjective
from data_pipeline.corpus.reader import open_corpus
from experiments.cli.command import run
from experiments.cli.exit_codes import ExitCode
from experiments.evaluation.held_out import wilson_interval
from experiments.evaluation.probing import PROBE_FILE, make_features, probe_objective
from experiments.evaluation.sentence_objectives import stem
from experiments.run.config import ExperimentConfig
from experiments.run.workdir import CHECKPOINTS, check_tokenizer, read_config


def main() -> ExitCode:
    """Probes a workdir's newest checkpoint for both questions."""
    workdir = flags.FLAGS.workdir
    config = read_config(workdir, ExperimentConfig)
    corpus = open_corpus(flags.FLAGS.corpus_dir or config.data.corpus_dir)
    check_tokenizer(workdir, corpus)
    trained = restore_params(f"{workdir}/{CHECKPOINTS}", flags.FLAGS.step)["albert"]
    model = AlbertModel(config.model, dtype=config.run.dtype)
    untrained = jax.jit(model.initialize)(jax.random.key(config.seed))
    accuracies, pairs = {}, {}
    for kind, params in (("probe", trained), ("untrained", untrained)):
        features = make_features(model, params)
        for objective in (SentenceObjective.SOP, SentenceObjective.NSP):
            name = f"{stem(objective)}_{kind}"
            accuracies[name], pairs[name] = probe_objective(
                objective, corpus, config, features, num_pairs=flags.FLAGS.num_pairs
            )
            low, high = wilson_interval(accuracies[name], pairs[name])
            print(
                f"{name.replace('_', ' ')}: {accuracies[name]:.1%} of {pairs[name]} pairs "
                f"(95 % interval {low:.1%} to {high:.1%})"
            )
    content = {"accuracies": accuracies, "pairs": pairs, "fitted_pairs": flags.FLAGS.num_pairs}
    write_atomically(Path(workdir) / PROBE_FILE, json.dumps(content, indent=2) + "\n")
    return ExitCode.DONE


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "the run whose encoder is probed", required=True)
    flags.DEFINE_string("corpus_dir", None, "another corpus than the run's own")
    flags.DEFINE_integer("step", None, "which checkpoint; by default the newest")
    flags.DEFINE_integer("num_pairs", 4096, "pairs that a probe is fitted to", lower_bound=64)
    run(main)
