r"""Measure speed.

    python -m experiments.benchmark --what=data --corpus_dir=corpora/wiki_en
    python -m experiments.benchmark --what=step --config=experiments/configs/albert_base_v2.py \
        --corpus_dir=corpora/wiki_en --batch=8 --length=128 --against=torch
    python -m experiments.benchmark --what=encode --model=runs/base --texts=texts.txt \
        --against=torch
    python -m experiments.benchmark --what=finetune \
        --config=experiments/configs/finetune/sst2.py --config.data.dir=glue/SST-2 \
        --config.run.init_from=runs/base --against=torch
    python -m experiments.benchmark --what=generate --batch=8 --length=32 --against=torch
    python -m experiments.benchmark --what=record_all --corpus_dir=corpora/wiki_en --output=rec
    python -m experiments.benchmark --what=accelerator --replay=rec --output=h100 --minutes=7

`--what=all` runs those of data, step and encode whose flags are given. Each measurement is a row of
a Markdown table and, below it, a JSON object with devices, versions, commit, command and date. A
recording (`--record`, `--replay`) carries batches to a machine without corpus and TensorFlow.
"""

import dataclasses
import importlib.util
import itertools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags

from data_pipeline.errors import InputError
from experiments.benchmarks.batches import Batches, record, replay, with_shape
from experiments.benchmarks.flags import define_flags, read_shapes, read_value, read_windows
from experiments.benchmarks.report import environment, print_rows, processor_name
from experiments.benchmarks.timing import StepKind, Windows
from experiments.benchmarks.torch import TorchVariant, load_triton
from experiments.cli.command import run
from experiments.cli.config_flag import (
    GivenConfig,
    define_config_flag,
    read_config_flag,
    read_given_config,
)
from experiments.cli.exit_codes import ExitCode
from experiments.run.config import ExperimentConfig
from experiments.tasks.config import FinetuneConfig

_DATA_LENGTHS = (512, 128)


def benchmark_data() -> None:
    """Measure the data pipeline at each length, packed and unpacked."""
    from experiments.benchmarks.data import measure_corpus  # imports TensorFlow

    if not flags.FLAGS.corpus_dir:
        raise InputError("--what=data needs --corpus_dir, a corpus of data_pipeline.build_corpus")
    lengths = flags.FLAGS.length or _DATA_LENGTHS
    rows = measure_corpus(flags.FLAGS.corpus_dir, lengths, read_windows())
    print_rows(rows, environment(processor_name()))


def benchmark_step() -> None:
    """Measure training step and forward pass on each shape of rows."""
    from experiments.benchmarks.step import device_name, measure_step

    rows = []
    for shape in read_shapes():
        config, batches = _config_and_batches(*shape)
        if flags.FLAGS.record:
            record(batches, Path(flags.FLAGS.record))
            print(f"{flags.FLAGS.record}: {len(batches.batches)} batches of {batches.source}")
            continue
        rows += measure_step(
            config,
            batches,
            [StepKind(kind) for kind in flags.FLAGS.work],
            read_windows(),
            torch_variants=[TorchVariant(v) for v in flags.FLAGS.torch if flags.FLAGS.against],
            profile_dir=flags.FLAGS.profile,
        )
    if rows:
        print_rows(rows, environment(device_name()))


def benchmark_encode() -> None:
    """Measure encoding, in texts per second."""
    from experiments.benchmarks.encode import measure_encoding
    from experiments.benchmarks.step import device_name

    if not flags.FLAGS.model or not flags.FLAGS.texts:
        raise InputError("--what=encode needs --model and --texts, a file with a text a line")
    rows = measure_encoding(
        flags.FLAGS.model,
        Path(flags.FLAGS.texts),
        max_texts=flags.FLAGS.max_texts,
        against_torch=flags.FLAGS.against == "torch",
        windows=read_windows(),
    )
    print_rows(rows, environment(device_name()))


def benchmark_finetune() -> None:
    """Measure fine-tuning of a classifier, in examples per second."""
    from experiments.benchmarks.finetune import measure_finetuning
    from experiments.benchmarks.step import device_name

    if flags.FLAGS.config is None:
        raise InputError("--what=finetune needs --config, a file of experiments/configs/finetune")
    rows = measure_finetuning(
        read_config_flag(_CONFIG, FinetuneConfig),
        num_batches=flags.FLAGS.num_batches,
        against_torch=flags.FLAGS.against == "torch",
        windows=read_windows(),
    )
    print_rows(rows, environment(device_name()))


def benchmark_generate() -> None:
    """Measure generation, in tokens per second, for each shape of sources."""
    from albert_jax import AlbertForConditionalGeneration
    from experiments.benchmarks.generate import Case, measure_generation, random_translator
    from experiments.benchmarks.step import device_name

    given = flags.FLAGS
    if given.model:
        model, params = AlbertForConditionalGeneration.from_pretrained(given.model)
    else:
        model, params = random_translator(given.vocab_size)
    sizes = itertools.product(read_shapes(), given.num_beams, given.new_tokens)
    cases = [Case(batch or 8, source or 32, *rest) for (batch, source), *rest in sizes]
    torch = given.against == "torch"
    rows = measure_generation(model, params, cases, against_torch=torch, windows=read_windows())
    print_rows(rows, environment(device_name()))


def write_recordings() -> None:
    """Write the recordings that `benchmark_accelerator` replays."""
    from experiments.benchmarks.accelerator.recordings import record_all

    given = flags.FLAGS
    if not given.corpus_dir or not given.output:
        raise InputError("--what=record_all needs --corpus_dir, a corpus, and --output")
    shapes = read_shapes() if given.batch or given.length else None
    config = None if given.config is None else _given().config
    output, num_batches = Path(given.output), read_value("num_batches", 4)
    record_all(config, given.corpus_dir, output, shapes=shapes, num_batches=num_batches)


def benchmark_accelerator() -> None:
    """Measure ceilings, steps, kernels, attention and transformers, as far as the time allows."""
    from experiments.benchmarks.accelerator.measurement import measure_accelerator
    from experiments.benchmarks.accelerator.steps import choose_sizes

    given = flags.FLAGS
    if not given.replay or not given.output:
        raise InputError("--what=accelerator needs --replay, of --what=record_all, and --output")
    sizes = choose_sizes(given.sizes, None if given.config is None else _given().config)
    windows = Windows(read_value("num_windows", 3), read_value("window_seconds", 0.6))
    replay, output = Path(given.replay), Path(given.output)
    measure_accelerator(sizes, replay, output, minutes=given.minutes, windows=windows)


def benchmark_all() -> None:
    """Run those of data, step and encode whose flags are given, and list the others."""
    given = flags.FLAGS
    sufficient = {
        "data": bool(given.corpus_dir),
        "step": given.config is not None and bool(given.corpus_dir or given.replay),
        "encode": bool(given.model and given.texts),
    }
    for name, suffices in sufficient.items():
        print(f"== {name}{'' if suffices else ': not measured, see --help for what it needs'}\n")
        if suffices:
            _BENCHMARKS[name]()


def _config_and_batches(batch: int | None, length: int | None) -> tuple[ExperimentConfig, Batches]:
    """Return the experiment, with other rows if asked for, and its batches."""
    given = _given()
    config = given.config
    if flags.FLAGS.replay:
        if batch or length or flags.FLAGS.record:
            raise InputError("--replay has its own rows: leave --batch, --length, --record out")
        return replay(Path(flags.FLAGS.replay), config)
    if flags.FLAGS.corpus_dir:
        data = dataclasses.replace(config.data, corpus_dir=flags.FLAGS.corpus_dir)
        config = dataclasses.replace(config, data=data)
    if not config.data.corpus_dir:
        raise InputError("--what=step needs --corpus_dir, a corpus, or --replay, a recording")
    from experiments.benchmarks.data import read_batches  # imports TensorFlow
    from experiments.run.workdir import with_corpus_vocabulary

    config = with_corpus_vocabulary(given._replace(config=config)).config
    config = with_shape(config, batch=batch, length=length)
    return config, read_batches(config, flags.FLAGS.num_batches)


def _given() -> GivenConfig[ExperimentConfig]:
    if flags.FLAGS.config is None:
        raise InputError(f"--what={flags.FLAGS.what} needs --config, the experiment's file")
    return read_given_config(_CONFIG, ExperimentConfig)


_BENCHMARKS: dict[str, Callable[[], None]] = {
    "data": benchmark_data,
    "step": benchmark_step,
    "encode": benchmark_encode,
    "finetune": benchmark_finetune,
    "generate": benchmark_generate,
    "record_all": write_recordings,
    "accelerator": benchmark_accelerator,
    "all": benchmark_all,
}


def main() -> ExitCode:
    """Run the benchmark that `--what` names."""
    if flags.FLAGS.profile:  # captured graphs would hide a GPU's kernels
        xla_flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{xla_flags} --xla_gpu_enable_command_buffer="
    beside = flags.FLAGS.what == "accelerator" and importlib.util.find_spec("torch")
    if flags.FLAGS.against or beside:  # or JAX would reserve most of a GPU's memory
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        load_triton()
    _BENCHMARKS[flags.FLAGS.what]()
    return ExitCode.DONE


if __name__ == "__main__":
    _CONFIG = define_config_flag(required=False)
    define_flags(list(_BENCHMARKS))
    # Overrides are parsed before the other flags, so the class they belong to must be known.
    is_finetuning = re.search(r"--?what[= ]finetune\b", " ".join(sys.argv))
    run(main, FinetuneConfig if is_finetuning else ExperimentConfig)
