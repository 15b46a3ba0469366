r"""Measures speed.

    python -m experiments.benchmark --what=data --corpus_dir=corpora/wiki_en
    python -m experiments.benchmark --what=step --config=experiments/configs/albert_base_v2.py \
        --corpus_dir=corpora/wiki_en --batch=8 --length=128 --against=torch
    python -m experiments.benchmark --what=encode --model=runs/base --texts=texts.txt \
        --against=torch
    python -m experiments.benchmark --what=finetune \
        --config=experiments/configs/finetune/sst2.py --config.data.dir=glue/SST-2 \
        --config.run.init_from=runs/base --against=torch
    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m experiments.benchmark \
        --what=scaling --config=experiments/configs/albert_base_v2.py --batch=2

`--what=all` does all that the flags suffice for. Each measurement is printed as a row of a Markdown
table and, after the table, as one JSON object a line, with the devices, versions, commit, command
and date.

A recording takes batches to a machine that has neither corpus nor TensorFlow: `--record=FILE.npz`
writes one and measures nothing, `--replay=FILE.npz` measures on it.
"""

import dataclasses
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from data_pipeline.errors import InputError
from experiments.benchmarks.batches import Batches, record, replay, with_shape
from experiments.benchmarks.profile import profile
from experiments.benchmarks.report import environment, print_rows, processor_name
from experiments.benchmarks.timing import StepKind, measurement_rows, time_candidates
from experiments.benchmarks.torch import TorchVariant, torch_candidates
from experiments.cli.command import run
from experiments.cli.config_flag import define_config_flag, read_config_flag
from experiments.cli.exit_codes import ExitCode
from experiments.run.config import ExperimentConfig
from experiments.tasks.config import FinetuneConfig

_DATA_LENGTHS = (512, 128)


def benchmark_data() -> None:
    """Measures the data pipeline at each length, packed and unpacked, and prints it."""
    from experiments.benchmarks.data import measure_corpus  # brings TensorFlow along

    if not flags.FLAGS.corpus_dir:
        raise InputError("--what=data needs --corpus_dir, a corpus of data_pipeline.build_corpus")
    rows = measure_corpus(
        flags.FLAGS.corpus_dir,
        flags.FLAGS.length or _DATA_LENGTHS,
        num_windows=flags.FLAGS.num_windows,
        window_seconds=flags.FLAGS.window_seconds,
    )
    print_rows(rows, environment(processor_name()))


def benchmark_step() -> None:
    """Measures training step and forward pass on each shape of rows, and prints them."""
    from experiments.benchmarks.step import device_name

    rows = [row for shape in _shapes() for row in _measure_step(*shape)]
    if rows:
        print_rows(rows, environment(device_name()))


def benchmark_encode() -> None:
    """Measures how many texts a second become vectors, and prints it."""
    from experiments.benchmarks.encode import measure_encoding
    from experiments.benchmarks.step import device_name

    if not flags.FLAGS.model or not flags.FLAGS.texts:
        raise InputError("--what=encode needs --model and --texts, a file with a text a line")
    rows = measure_encoding(
        flags.FLAGS.model,
        Path(flags.FLAGS.texts),
        max_texts=flags.FLAGS.max_texts,
        against_torch=flags.FLAGS.against == "torch",
        num_windows=flags.FLAGS.num_windows,
        window_seconds=flags.FLAGS.window_seconds,
    )
    print_rows(rows, environment(device_name()))


def benchmark_finetune() -> None:
    """Measures how many examples a second a classifier is fine-tuned on, and prints it."""
    from experiments.benchmarks.finetune import measure_finetuning
    from experiments.benchmarks.step import device_name

    if flags.FLAGS.config is None:
        raise InputError("--what=finetune needs --config, a file of experiments/configs/finetune")
    rows = measure_finetuning(
        read_config_flag(_CONFIG, FinetuneConfig),
        num_batches=flags.FLAGS.num_batches,
        against_torch=flags.FLAGS.against == "torch",
        num_windows=flags.FLAGS.num_windows,
        window_seconds=flags.FLAGS.window_seconds,
    )
    print_rows(rows, environment(device_name()))


def benchmark_scaling() -> None:
    """Compiles the step for 1, 2, 4, ... devices, and prints what it would say between them."""
    import jax

    from experiments.benchmarks.scaling import measure_scaling
    from experiments.benchmarks.step import device_name

    for batch, length in _shapes():
        config = with_shape(_config(), batch=batch, length=length)
        print_rows(measure_scaling(config, jax.devices()), environment(device_name()))


def benchmark_all() -> None:
    """Does every benchmark that the flags suffice for, and names the others."""
    given = flags.FLAGS
    needed = {
        "data": bool(given.corpus_dir),
        "step": given.config is not None and bool(given.corpus_dir or given.replay),
        "encode": bool(given.model and given.texts),
        "scaling": given.config is not None,
    }
    for name, suffices in needed.items():
        print(f"== {name}{'' if suffices else ': not measured, see --help for what it needs'}\n")
        if suffices:
            _BENCHMARKS[name]()


def _shapes() -> list[tuple[int | None, int | None]]:
    """What `--batch` and `--length` say; None where the experiment has it."""
    sizes, lengths = flags.FLAGS.batch or [], flags.FLAGS.length or []
    if sizes and lengths and len(sizes) != len(lengths):
        raise InputError(
            f"--batch and --length go in pairs, got {len(sizes)} and {len(lengths)} of them"
        )
    count = max(len(sizes), len(lengths), 1)
    return list(zip(sizes or [None] * count, lengths or [None] * count, strict=True))


def _measure_step(batch: int | None, length: int | None) -> list[dict[str, Any]]:
    from experiments.benchmarks.step import step_candidates, total_peak_flops

    config, batches = _read(batch, length)
    if flags.FLAGS.record:
        record(batches, Path(flags.FLAGS.record))
        print(f"{flags.FLAGS.record}: {len(batches.batches)} batches of {batches.source}")
        return []
    works = [StepKind(work) for work in flags.FLAGS.work]
    ours = step_candidates(config, batches, works)
    theirs = []
    if flags.FLAGS.against:
        theirs = torch_candidates(
            config, batches, [TorchVariant(r) for r in flags.FLAGS.torch], works
        )
    candidates = ours + theirs
    samples = time_candidates(
        candidates,
        num_windows=flags.FLAGS.num_windows,
        window_seconds=flags.FLAGS.window_seconds,
    )
    for candidate in ours if flags.FLAGS.profile else []:
        directory = str(Path(flags.FLAGS.profile) / candidate.work)
        table = profile(candidate.run, candidate.program() or "", directory)
        print(f"{candidate.work}, trace in {directory}:\n{table}\n")
    return measurement_rows(
        candidates,
        samples,
        config,
        batches,
        peak_flops=total_peak_flops(),
        alternatives=[False] * len(ours) + [True] * len(theirs),
    )


def _read(batch: int | None, length: int | None) -> tuple[ExperimentConfig, Batches]:
    """The experiment, with rows of another shape if one is named, and its batches."""
    config = _config()
    if flags.FLAGS.replay:
        if batch or length or flags.FLAGS.record:
            raise InputError("--replay has rows of its own: leave --batch, --length, --record out")
        return replay(Path(flags.FLAGS.replay), config)
    if flags.FLAGS.corpus_dir:
        data = dataclasses.replace(config.data, corpus_dir=flags.FLAGS.corpus_dir)
        config = dataclasses.replace(config, data=data)
    if not config.data.corpus_dir:
        raise InputError("--what=step needs --corpus_dir, a corpus, or --replay, a recording")
    from experiments.benchmarks.data import read_batches  # brings TensorFlow along

    config = with_shape(config, batch=batch, length=length)
    return config, read_batches(config, flags.FLAGS.num_batches)


def _config() -> ExperimentConfig:
    if flags.FLAGS.config is None:
        raise InputError(f"--what={flags.FLAGS.what} needs --config, the experiment's file")
    return read_config_flag(_CONFIG, ExperimentConfig)


_BENCHMARKS: dict[str, Callable[[], None]] = {
    "data": benchmark_data,
    "step": benchmark_step,
    "encode": benchmark_encode,
    "finetune": benchmark_finetune,
    "scaling": benchmark_scaling,
    "all": benchmark_all,
}


def main() -> ExitCode:
    """Runs the benchmark that `--what` names."""
    if flags.FLAGS.profile:  # a GPU's captured graphs would hide the kernels in them
        xla_flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{xla_flags} --xla_gpu_enable_command_buffer="
    if flags.FLAGS.against:  # JAX would take most of a GPU's memory beforehand
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    _BENCHMARKS[flags.FLAGS.what]()
    return ExitCode.DONE


def _define_flags() -> None:
    flags.DEFINE_enum("what", "all", list(_BENCHMARKS), "what to measure")
    flags.DEFINE_string("corpus_dir", "", "the corpus whose batches are read")
    flags.DEFINE_multi_integer(
        "batch", None, "rows of a batch, if not the experiment's; may be repeated", lower_bound=1
    )
    flags.DEFINE_multi_integer(
        "length", None, "positions of a row; may be repeated, along with --batch", lower_bound=8
    )
    flags.DEFINE_string("record", None, "write the batches to this .npz file and measure nothing")
    flags.DEFINE_string("replay", None, "take the batches from this .npz file")
    flags.DEFINE_integer("num_batches", 8, "batches that the steps go round", lower_bound=1)
    flags.DEFINE_multi_enum(
        "work", list(StepKind), list(StepKind), "what a step does; may be repeated"
    )
    flags.DEFINE_string(
        "profile",
        None,
        "write a trace of some steps to this directory; timings then lack graph capture on a GPU",
    )
    flags.DEFINE_string("model", None, "what `from_pretrained` reads (--what=encode)")
    flags.DEFINE_string("texts", None, "a file with a text a line (--what=encode)")
    flags.DEFINE_integer("max_texts", 2000, "how many texts are taken", lower_bound=1)
    flags.DEFINE_enum("against", None, ["torch"], "another system to measure in the same call")
    flags.DEFINE_multi_enum(
        "torch", ["eager", "gathered"], list(TorchVariant), "how to run it; may be repeated"
    )
    flags.DEFINE_integer("num_windows", 5, "how many windows are timed", lower_bound=1)
    flags.DEFINE_float("window_seconds", 3.0, "how long a window lasts", lower_bound=0.1)


if __name__ == "__main__":
    _CONFIG = define_config_flag(required=False)
    _define_flags()
    # Overrides are read before any flag is: what they override must be known beforehand.
    is_finetuning = re.search(r"--?what[= ]finetune\b", " ".join(sys.argv))
    run(main, FinetuneConfig if is_finetuning else ExperimentConfig)
