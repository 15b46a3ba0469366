"""What the files of a workdir record about its training and a checkpoint's measurements."""

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from etils import epath

from albert_jax.input_files import read_json_object
from albert_jax.interop.workdir import is_workdir
from albert_jax.pretrained import directory_of
from data_pipeline.config import DataConfig, Packing
from data_pipeline.errors import InputError
from experiments.finetuning.glue.jobs import Start
from experiments.metrics.metrics_file import metrics_of, read_metrics
from experiments.run.config import ExperimentConfig
from experiments.run.curriculum import phases_of
from experiments.run.resumption import DECAY_KIND
from experiments.run.workdir import CONFIG_FILE, REPORT_FILE, read_config
from experiments.tasks.config import FinetuneConfig

_DATA_FILES = ("corpus.json", "records.json")
_TRAINING_SPLITS = ("train", "optimizer", "goodput")

Json = Mapping[str, Any]
Config = ExperimentConfig | FinetuneConfig


class Measurement(NamedTuple):
    """Metrics on a data set.

    Attributes:
        data: the name of the data.
        split: the part of it.
        metrics: values by name.
        baseline: values of the best constant answer, where they are known.
    """

    data: str
    split: str
    metrics: Mapping[str, float]
    baseline: Mapping[str, float]


class Provenance(NamedTuple):
    """What is known about a source. What is not recorded is empty or None.

    Attributes:
        training: the settings and the data of the training, name -> text.
        trained_length: tokens of the longest rows that it was trained on.
        measurements: those of the converted checkpoint.
        failed: why the run counts as failed.
    """

    training: Mapping[str, str]
    trained_length: int | None
    measurements: tuple[Measurement, ...]
    failed: str | None


def read_provenance(source: epath.PathLike, step: int | None) -> Provenance:
    """Read what is known about a source.

    Args:
        source: a path that `from_pretrained` reads; only a workdir has records.
        step: the checkpoint's step, if the source is one.

    Raises:
        InputError: a file is damaged.
    """
    root = epath.Path(directory_of(source))
    if not is_workdir(root) or not (root / CONFIG_FILE).exists():
        return Provenance({}, None, (), None)
    config: Config
    if "task" in _read(root / CONFIG_FILE):
        config = read_config(root, FinetuneConfig)
        lengths = [config.data.max_seq_length]
    else:
        config = read_config(root, ExperimentConfig)
        lengths = [phase.data.max_seq_length for phase in phases_of(config)]
    report = _read(root / REPORT_FILE)
    if report.get("step") != step:  # it is about another checkpoint
        report = {}
    data = _name_of_data(root, config)
    found = tuple(
        _read_measurement(data, entry)
        for entry in read_metrics(root)
        if entry["step"] == step and entry["split"] not in _TRAINING_SPLITS
    )
    splits = report.get("splits", {})
    if splits:
        found = tuple(
            Measurement(data, split, _numbers(scores["figures"]), scores["baseline"])
            for split, scores in splits.items()
        )
    return Provenance(
        training=dict(_describe_training(root, config, report, data, step)),
        trained_length=max(lengths),
        measurements=(*found, *_read_glue(root)),
        failed=report.get("failed"),
    )


def _read_measurement(data: str, entry: Json) -> Measurement:
    metrics = {name: value for name, value in metrics_of(entry).items() if name != "pairs"}
    pairs = f", {entry['pairs']:g} pairs" if "pairs" in entry else ""
    return Measurement(data, f"{entry['split']}{pairs}", _numbers(metrics), {})


def _numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics without NaNs."""
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def _read(file: epath.Path) -> dict[str, Any]:
    return read_json_object(file, error=InputError) if file.exists() else {}


def _name_of_data(root: epath.Path, config: Config) -> str:
    """Return the task, or the corpus's directory name without its path, which may be private.

    Example: ``wiki_en`` for a corpus ``/home/somebody/wiki_en``.
    """
    if isinstance(config, FinetuneConfig):
        return str(config.task)
    return _last_part(_data_identity(root).get("path") or config.data.corpus_dir)


def _last_part(path: str) -> str:
    return os.path.basename(path.rstrip("/"))


def _data_identity(root: epath.Path) -> Json:
    """Return the path, fingerprint and weights of the data that a pre-training run reads."""
    return next((_read(root / name) for name in _DATA_FILES if (root / name).exists()), {})


def _describe_training(
    root: epath.Path, config: Config, report: Json, data: str, step: int | None
) -> Iterator[tuple[str, str]]:
    """Yield the rows of the training table."""
    optimizer, run = config.optimizer, config.run
    steps = "" if step is None else f"{step:,} of "
    yield "steps", f"{steps}{optimizer.num_train_steps:,}"
    yield "rows of a step", "; ".join(_describe_rows(config))
    if isinstance(config, FinetuneConfig):
        yield "task", data
        if "training_examples" in report:
            yield "training examples", f"{report['training_examples']:,}"
    else:
        yield "corpus", _describe_corpus(_data_identity(root), data)
        if decay := config.data.decay_corpus_dir:
            identity = _read(root / f"{DECAY_KIND}.json")
            yield "corpus of the decay", _describe_corpus(identity, _last_part(decay))
        yield "objectives", _describe_objectives(config.data)
    yield (
        "optimizer",
        f"{optimizer.name}, learning rate {optimizer.learning_rate:g}, "
        f"{optimizer.num_warmup_steps:,} steps of warm-up",
    )
    if (start := run.init_from) is not None:
        start = os.path.basename(start.rstrip("/")) if os.path.isabs(start) else start
        only = "" if getattr(run, "init_weights", True) else ", its sizes only"
        yield "started from", f"{start}{only}"
    yield "seed", str(config.seed)


def _describe_rows(config: Config) -> Iterator[str]:
    """Yield the rows and lengths of each phase, with its steps if there are several phases."""
    if isinstance(config, FinetuneConfig):
        yield f"{config.global_batch_size:,} of up to {config.data.max_seq_length} tokens"
        return
    phases = phases_of(config)
    packed = config.data.packing is not Packing.UNPACKED
    for phase in phases:
        steps = f" for {phase.end - phase.begin:,} steps" if len(phases) > 1 else ""
        filled = ", several pairs packed into each" if packed else ""
        length = phase.data.max_seq_length
        decay = ", the decay, of a corpus of its own" if phase.decays else ""
        yield f"{phase.global_batch_size:,} of up to {length} tokens{filled}{steps}{decay}"


def _describe_corpus(identity: Json, data: str) -> str:
    weights = identity.get("weights", {})
    sources = ", ".join(
        name if len(weights) == 1 else f"{name} (weight {weight:g})"
        for name, weight in weights.items()
    )
    fingerprint = identity.get("fingerprint", "")[:16]
    details = [f"sources {sources}"] if sources else []
    details += [f"fingerprint {fingerprint}"] if fingerprint else []
    return "; ".join([data, *details])


def _describe_objectives(data: DataConfig) -> str:
    masked = f"masked LM ({data.masking} masks, {data.masked_lm_prob:.0%} of the tokens)"
    sentence = data.sentence_objective.metric_name
    return masked if sentence is None else f"{masked}, {sentence.replace('_', ' ')}"


def _read_glue(root: epath.Path) -> Iterator[Measurement]:
    """Yield the results of the GLUE reports in directories of the workdir."""
    for file in sorted(root.glob(f"*/{REPORT_FILE}")):
        for result in _read(file).get("results", []):
            if result.get("start") == Start.PRETRAINED and result.get("median") is not None:
                name, baseline = f"median {result['metric']}, percent", result["baseline"]
                constant = {} if baseline is None else {name: baseline}
                data = f"{result['task']}, fine-tuned"
                yield Measurement(data, "dev", {name: result["median"]}, constant)
