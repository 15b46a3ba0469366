"""Scores a run on held-out text, by the one ruler that no training option moves.

python -m experiments.evaluate --workdir=runs/base [--corpus_dir=OTHER] [--step=N] [--every_depth]
"""

import json
from collections.abc import Mapping

from absl import flags
from etils import epath

from albert_jax.training.checkpoint import restore_params
from albert_jax.training.parallel import make_mesh
from data_pipeline.corpus.reader import open_corpus
from experiments.cli.command import run
from experiments.cli.exit_codes import ExitCode
from experiments.evaluation.held_out import Baselines, HeldOutEvaluator, wilson_interval
from experiments.evaluation.layers import DEPTH_FILE, evaluate_layers, format_layers, plot_layers
from experiments.run.config import ExperimentConfig
from experiments.run.workdir import CHECKPOINTS, check_tokenizer, read_config


def main() -> ExitCode:
    """Evaluates a workdir's checkpoint and prints a table."""
    workdir, step = flags.FLAGS.workdir, flags.FLAGS.step
    config = read_config(workdir, ExperimentConfig)
    corpus = open_corpus(flags.FLAGS.corpus_dir or config.data.corpus_dir)
    check_tokenizer(workdir, corpus)
    params = restore_params(f"{workdir}/{CHECKPOINTS}", step)
    ruler = HeldOutEvaluator(corpus, config, make_mesh())
    figures, baselines = ruler.evaluate(params), ruler.baselines()
    depths = []
    if flags.FLAGS.every_depth:
        depths = evaluate_layers(ruler.measure, ruler.model, params)
        path = epath.Path(workdir) / DEPTH_FILE
        plot_layers(depths, path, title=f"{workdir}: masked LM by blocks applied")
    if flags.FLAGS.json:
        every_depth = {"every_depth": [one._asdict() for one in depths]} if depths else {}
        print(json.dumps(figures | baselines._asdict() | every_depth))
    else:
        print(f"{corpus.path}, held-out text\n{describe(figures, baselines)}")
        if depths:
            print(f"{format_layers(depths)}\n{path} shows it")
    return ExitCode.DONE


def describe(figures: Mapping[str, float], baselines: Baselines) -> str:
    """A table of held-out metrics and baselines."""
    lines = [
        f"masked LM       accuracy {figures['masked_lm_accuracy']:.1%} (the most frequent piece "
        f"alone: {baselines.most_frequent_accuracy:.1%})",
        f"                loss {figures['masked_lm_loss']:.3f} nats (entropy of single pieces: "
        f"{baselines.unigram_entropy:.3f})",
        f"context gap     {figures['context_gap']:.3f} nats lost when visible words are shuffled",
    ]
    for name in ("sentence_order", "next_sentence"):
        if f"{name}_accuracy" in figures:
            accuracy, pairs = figures[f"{name}_accuracy"], figures["pairs"]
            low, high = wilson_interval(accuracy, pairs)
            lines.append(
                f"{name.replace('_', ' '):15s} accuracy {accuracy:.1%} of {pairs:.0f} pairs (95 % "
                f"interval {low:.1%} to {high:.1%}), loss {figures[f'{name}_loss']:.3f}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "the run to evaluate", required=True)
    flags.DEFINE_string("corpus_dir", None, "held-out text of another corpus than the run's own")
    flags.DEFINE_integer("step", None, "which checkpoint; by default the newest")
    flags.DEFINE_boolean("every_depth", False, "masked LM after each block too, and a plot of it")
    flags.DEFINE_boolean("json", False, "print one JSON object instead of a table")
    run(main)
