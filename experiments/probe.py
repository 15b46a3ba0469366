r"""Probe a frozen encoder for sentence order and next sentences, whether trained on them or not.

    python -m experiments.probe --workdir=runs/base

For each sentence objective, a logistic regression is fitted to 4,096 pairs of the training text and
scored on held-out pairs. All runs see the same pairs. The features are the last hidden state of
[CLS], the means over both segments, and the absolute difference and the product of these means. The
penalty is the best of five on a fifth of the fitted pairs. Nothing is random. The accuracy on the
same encoder before any training is printed too, because the tokens alone predict some of the order.
`probe.json` in the workdir has the accuracies.
"""

import json

import jax
from absl import flags
from etils import epath

from albert_jax.model import AlbertModel
from data_pipeline.config import SentenceObjective
from experiments.cli.command import run
from experiments.cli.exit_codes import ExitCode
from experiments.evaluation.held_out import format_accuracy
from experiments.evaluation.probing import PROBE_FILE, make_features, probe_objective
from experiments.evaluation.trained_run import define_run_flags, open_trained_run
from experiments.run.workdir import write_text


def main() -> ExitCode:
    """Probe a checkpoint for both sentence objectives."""
    workdir, corpus_dir, step = (flags.FLAGS[n].value for n in ("workdir", "corpus_dir", "step"))
    config, corpus, trained = open_trained_run(workdir, corpus_dir=corpus_dir, step=step)
    model = AlbertModel(config.model, dtype=config.run.dtype)
    untrained = model.initialize(jax.random.key(config.seed))
    accuracies, pairs = {}, {}
    for kind, params in (("probe", trained["albert"]), ("untrained", untrained)):
        features = make_features(model, params)
        for objective in (SentenceObjective.SOP, SentenceObjective.NSP):
            name = f"{objective.metric_name}_{kind}"
            accuracies[name], pairs[name] = probe_objective(
                objective, corpus, config, features, num_pairs=flags.FLAGS.num_pairs
            )
            text = format_accuracy(accuracies[name], pairs[name])
            print(f"{name.replace('_', ' ')}: {text}")
    content = {"accuracies": accuracies, "pairs": pairs, "fitted_pairs": flags.FLAGS.num_pairs}
    write_text(epath.Path(workdir) / PROBE_FILE, json.dumps(content, indent=2) + "\n")
    return ExitCode.DONE


if __name__ == "__main__":
    define_run_flags()
    flags.DEFINE_integer("num_pairs", 4096, "pairs that a probe is fitted to", lower_bound=64)
    run(main)
