"""Evaluate a run on held-out text, by a rule that no training option changes.

python -m experiments.evaluate --workdir=runs/base [--corpus_dir=OTHER] [--step=N] [--every_depth]
"""

import json

from absl import flags
from etils import epath

from albert_jax.devices.mesh import make_mesh
from data_pipeline.terminal import suggest
from experiments.cli.command import run
from experiments.cli.exit_codes import ExitCode
from experiments.evaluation.held_out import HeldOutEvaluator, format_metrics
from experiments.evaluation.layers import DEPTH_FILE, evaluate_layers, format_layers, plot_layers
from experiments.evaluation.trained_run import define_run_flags, open_trained_run


def main() -> ExitCode:
    """Evaluate a checkpoint and print a table."""
    workdir, corpus_dir, step = (flags.FLAGS[n].value for n in ("workdir", "corpus_dir", "step"))
    config, corpus, params = open_trained_run(workdir, corpus_dir=corpus_dir, step=step)
    evaluator = HeldOutEvaluator(corpus, config, make_mesh())
    metrics, baselines = evaluator.evaluate(params), evaluator.baselines()
    layers = []
    if flags.FLAGS.every_depth:
        layers = evaluate_layers(evaluator.measure, evaluator.model, params)
        path = epath.Path(workdir) / DEPTH_FILE
        plot_layers(layers, path, title=f"{workdir}: masked LM by layers applied")
    if flags.FLAGS.json:
        every_depth = {"every_depth": [layer._asdict() for layer in layers]} if layers else {}
        print(json.dumps(metrics | baselines._asdict() | every_depth))
    else:
        print(f"{corpus.path}, held-out text\n{format_metrics(metrics, baselines)}")
        if layers:
            print(f"{format_layers(layers)}\nplotted in {path}")
        text = "--text=Paris is the [MASK] of France."
        suggest("experiments.predict", "--task=fill-mask", f"--model={workdir}", text)
    return ExitCode.DONE


if __name__ == "__main__":
    define_run_flags()
    flags.DEFINE_boolean("every_depth", False, "masked LM after each layer too, and a plot of it")
    flags.DEFINE_boolean("json", False, "print one JSON object instead of a table")
    run(main)
