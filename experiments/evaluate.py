"""Evaluate a run on held-out text, in the same way for all runs.

python -m experiments.evaluate --workdir=runs/base [--corpus_dir=OTHER] [--step=N] [--every_depth]
python -m experiments.evaluate --workdir=runs/base --halting_entropy=0.5,1,2
python -m experiments.evaluate --model=albert-base-v2 --corpus_dir=corpora/wiki_en

`--model` takes any model that `from_pretrained` reads. The corpus must have its vocabulary.

python -m experiments.evaluate --model=runs/base-nli --mteb=STSBenchmark --stsb_dir=glue/STS-B

This scores the vectors of a model on tasks of MTEB, the Massive Text Embedding Benchmark. MTEB
downloads their data, except that `--stsb_dir` names local files for the dev split of STSBenchmark.
"""

import json
from pathlib import Path
from typing import Any

from absl import flags
from etils import epath

from albert_jax.devices.mesh import make_mesh
from data_pipeline.errors import InputError
from experiments.cli.command import run
from experiments.cli.exit_codes import ExitCode
from experiments.evaluation.held_out import HeldOutEvaluator, format_metrics
from experiments.evaluation.layers import (
    DEPTH_FILE,
    evaluate_layers,
    format_layers,
    parse_entropies,
    plot_layers,
)
from experiments.evaluation.trained_run import (
    TrainedRun,
    define_run_flags,
    open_model,
    open_trained_run,
)
from experiments.prediction.examples import suggest_fill_mask
from experiments.prediction.mteb import evaluate_on_mteb, format_results


def open_evaluated(
    workdir: str | None, model: str | None, corpus_dir: str | None, step: int | None
) -> TrainedRun:
    """Open the run or the model that the flags name.

    Raises:
        InputError: both or neither are named, or no corpus is named for the model.
    """
    if workdir is not None and model is None:
        return open_trained_run(workdir, corpus_dir=corpus_dir, step=step)
    if model is None or workdir is not None:
        raise InputError("give either --workdir=, a run, or --model=, any other model")
    if corpus_dir is None:
        raise InputError("--model needs --corpus_dir: held-out text in the model's vocabulary")
    return open_model(model, corpus_dir=corpus_dir, step=step)


def evaluate_vectors(model: str | None, names: list[str]) -> ExitCode:
    """Evaluate a model's text vectors on tasks of MTEB, and print the scores."""
    if model is None:
        raise InputError("--mteb needs --model: a workdir, or any other model")
    directory = flags.FLAGS.stsb_dir
    results = evaluate_on_mteb(model, names, None if directory is None else Path(directory))
    if flags.FLAGS.json:
        print(json.dumps(results))
    else:
        print("\n".join(format_results(results)))
    return ExitCode.DONE


def main() -> ExitCode:
    """Evaluate a checkpoint and print a table."""
    if flags.FLAGS.mteb:
        return evaluate_vectors(flags.FLAGS.model, flags.FLAGS.mteb)
    names = ("workdir", "model", "corpus_dir", "step")
    workdir, model, corpus_dir, step = (flags.FLAGS[name].value for name in names)
    entropies = parse_entropies(flags.FLAGS.halting_entropy)
    config, corpus, params = open_evaluated(workdir, model, corpus_dir, step)
    evaluator = HeldOutEvaluator(corpus, config, make_mesh())
    metrics, baselines = evaluator.evaluate(params), evaluator.baselines()
    depths = None
    if flags.FLAGS.every_depth or entropies:
        depths = evaluate_layers(evaluator.measure, evaluator.model, params, entropies)
        if workdir is not None:
            path = epath.Path(workdir) / DEPTH_FILE
            plot_layers(depths, path, title=f"{workdir}: masked LM by layers applied")
    if flags.FLAGS.json:
        more: dict[str, Any] = {}
        if depths is not None:
            more["every_depth"] = [layer._asdict() for layer in depths.layers]
        if entropies and depths is not None:
            more["halting"] = [one._asdict() for one in depths.halting]
        print(json.dumps(metrics | baselines._asdict() | more))
    else:
        print(f"{corpus.path}, held-out text\n{format_metrics(metrics, baselines)}")
        if depths is not None:
            print(format_layers(depths))
        if depths is not None and workdir is not None:
            print(f"plotted in {path}")
        suggest_fill_mask(workdir or model)
    return ExitCode.DONE


if __name__ == "__main__":
    define_run_flags(required=False)
    flags.DEFINE_string("model", None, "instead of a run: a path that `from_pretrained` reads")
    flags.DEFINE_list("mteb", None, "tasks of MTEB for the vectors of --model, by their names")
    flags.DEFINE_string("stsb_dir", None, "STS-B's official files, for --mteb=STSBenchmark")
    flags.DEFINE_boolean(
        "every_depth", False, "also evaluate masked LM after each layer; for a run, plot it"
    )
    flags.DEFINE_list(
        "halting_entropy",
        [],
        "masked LM by the first layer whose entropy is below a threshold in nats, such as 0.5,1,2",
    )
    flags.DEFINE_boolean("json", False, "print one JSON object instead of a table")
    run(main)
