"""Points that fine-tune: how they are planned, and their results read from their reports."""

import operator
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from albert_jax.generation.encoder_decoder import AlbertForConditionalGeneration
from albert_jax.input_files import is_remote, read_json_object, require_fields
from albert_jax.model import AlbertModel
from albert_jax.settings import FieldError
from data_pipeline.errors import InputError
from experiments.cli.config_flag import GivenConfig
from experiments.finetuning.resumption import check_same_finetuning
from experiments.finetuning.starting_point import open_starting_point
from experiments.launching.job import Command, module_command
from experiments.metrics.metrics_file import read_metrics
from experiments.run.workdir import CONFIG_FILE, REPORT_FILE, read_config
from experiments.sweeping.finetuning_report import FINETUNING_REPORT
from experiments.sweeping.point_kind import ModelSize, PlannedPoint, PointKind, PointResult
from experiments.sweeping.points import Point
from experiments.sweeping.sweep import Sweep
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.generation import complete_decoder

_UNUSABLE = "the points of this sweep are fine-tunings, and"
_REPORT_FIELDS = {
    "task": str,
    "metric": str,
    "splits": dict,
    "steps": int,
    "training_seconds": float,
}


def _check_sweep(sweep: Sweep, tasks: Iterable[str]) -> None:
    """Reject tasks, probes and starting rows, which only points that pre-train have."""
    if sweep.tasks or sweep.probes or [*tasks]:
        raise InputError(f"--sweep: {_UNUSABLE} have neither tasks nor probes of their own")
    for row in sweep.rows:
        if row.starts_from is not None:
            raise InputError(
                f"--sweep: {_UNUSABLE} row {row.name!r} cannot start from row {row.starts_from!r}: "
                "its encoder is what run.init_from names"
            )


def _resolve(given: GivenConfig[FinetuneConfig], workdir: Path) -> GivenConfig[FinetuneConfig]:
    del workdir
    run = given.config.run
    for name, only in (("seeds", 1), ("learning_rates", None)):
        if (value := getattr(run, name)) != only:
            allowed = f"{'none' if only is None else only} in a sweep, whose rows and seeds vary it"
            raise InputError(str(FieldError(f"--config.run.{name}", allowed, value)))
    return given


def _check_workdir(given: GivenConfig[FinetuneConfig], workdir: Path) -> None:
    before = read_config(workdir, FinetuneConfig)
    changes = check_same_finetuning(
        before, given, workdir=str(workdir), init_flag="--config.run.init_from"
    )
    if not (workdir / REPORT_FILE).exists():  # the run itself compares its data
        return
    for name in sorted(FinetuneConfig.LOCATIONS & changes.keys()):
        old, new = changes[name]
        if Path(old or "").resolve() != Path(new or "").resolve():
            raise InputError(
                f"--workdir={workdir} is done, with {old} as --config.{name}, not {new}: choose "
                "another --workdir"
            )


def _size(config: FinetuneConfig, workdir: Path) -> ModelSize:
    """Return the size of encoder and decoder. Heads are left out: their labels are in the data.

    A vocabulary to be trained on the data counts with the largest size that it may have.
    """
    start = open_starting_point(config, workdir)
    if start.decoder is None:
        encoder, _ = _count_parameters(AlbertModel(start.model))
        return ModelSize(encoder, encoder, None)
    tokenizer, decoder = start.decoder.tokenizer, start.decoder.config
    if decoder is None:
        vocab_size = config.targets.vocab_size if tokenizer is None else tokenizer.vocab_size
        # Arbitrary special tokens, since sizes do not depend on them.
        decoder = complete_decoder(config, start.model, vocab_size, (0, 1, 2))
    model = AlbertForConditionalGeneration(start.model, decoder)
    return ModelSize(*_count_parameters(model), None)


def _count_parameters(model: Any) -> tuple[int, int]:
    """Count the parameters of a model, and of its encoder with the pooler."""
    shapes = jax.eval_shape(model.initialize, jax.random.key(0))
    total, backbone = (
        sum(leaf.size for leaf in jax.tree.leaves(tree))
        for tree in (shapes, shapes.get("albert", shapes))
    )
    return total, backbone


def _describe_work(planned: PlannedPoint) -> str:
    epochs = planned.config.data.num_epochs
    return f"{planned.steps:,} steps" if epochs is None else f"{epochs:g} epochs"


def _commands(
    point: Point,
    config: FinetuneConfig,
    sweep: Sweep,
    task_dirs: Mapping[str, str],
    task_overrides: Mapping[str, str],
) -> list[Command]:
    del config, sweep, task_dirs, task_overrides
    return [module_command("finetune", point.flags, point.workdir, REPORT_FILE)]


def _check_inputs(configs: Iterable[FinetuneConfig]) -> None:
    for config in configs:
        data = config.data
        if data.source == "files" and not data.dir and data.train_file is None:
            raise InputError(
                "--override=data.train_file=FILE is missing (or data.dir=DIR): what the points of "
                "this sweep are fine-tuned on"
            )
        for name in sorted(FinetuneConfig.LOCATIONS):
            path = operator.attrgetter(name)(config)
            named = name.endswith("_file") and path is not None and not is_remote(path)
            if named and not Path(path).is_file():
                raise InputError(f"--override={name}={path}: there is no such file")


def _read(planned: PlannedPoint) -> PointResult:
    workdir = planned.point.workdir
    entries = read_metrics(workdir)
    path = workdir / REPORT_FILE
    if not path.exists():
        step = max((one["step"] for one in entries if one["split"] == "validation"), default=0)
        begun = (workdir / CONFIG_FILE).exists()  # the steps of its epochs are then known
        config = read_config(workdir, FinetuneConfig) if begun else planned.config
        return PointResult(planned, step, config.optimizer.num_train_steps, False, {}, entries)
    report = read_json_object(path, error=InputError)
    require_fields(report, _REPORT_FIELDS, str(path), error=InputError)
    steps = report["steps"]
    metrics = _read_scores(report, str(path))
    metrics |= {"steps": steps, "training_seconds": report["training_seconds"]}
    metrics |= {"seconds_per_step": report["training_seconds"] / max(1, steps)}
    return PointResult(planned, steps, steps, True, metrics, entries, report.get("failed"))


def _read_scores(report: Mapping[str, Any], place: str) -> dict[str, float]:
    """Return the metrics of all splits, the deciding metric first, named as in `metrics.jsonl`."""
    scores: dict[str, float] = {}
    for number, (split, content) in enumerate(report["splits"].items()):
        where = f"{place}: splits: {split}"
        require_fields(content, {"figures": dict}, where, error=InputError)
        figures = content["figures"]
        require_fields(figures, dict.fromkeys(figures, float), where, error=InputError)
        scores |= {(f"{split}/{name}" if number else name): figures[name] for name in figures}
    decisive = report["metric"]
    require_fields(scores, {decisive: float}, f"{place}: splits", error=InputError)
    return {decisive: scores[decisive], **scores}


FINETUNING = PointKind(
    config=FinetuneConfig,
    unusable_flags={
        "corpus_dir": f"{_UNUSABLE} read no corpus: name their data by --override, such as "
        "--override=data.train_file=FILE",
        "task_dir": f"{_UNUSABLE} are not fine-tuned again: name their data by --override, such as "
        "--override=data.dir=DIR",
        "task_override": f"{_UNUSABLE} --override sets what all of them share",
    },
    check_sweep=_check_sweep,
    resolve=_resolve,
    check_workdir=_check_workdir,
    size=_size,
    describe_work=_describe_work,
    commands=_commands,
    check_inputs=_check_inputs,
    read=_read,
    report=FINETUNING_REPORT,
)
