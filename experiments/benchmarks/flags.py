"""The flags of the benchmark."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from data_pipeline.errors import InputError
from experiments.benchmarks.timing import StepKind, Windows
from experiments.benchmarks.torch import TorchVariant

flags.disclaim_key_flags()  # they belong to the command


def define_flags(benchmarks: Sequence[str]) -> None:
    """Define all flags but ``--config``.

    Args:
        benchmarks: the values of ``--what``.
    """
    flags.DEFINE_enum("what", "all", benchmarks, "what to measure")
    flags.DEFINE_string("corpus_dir", "", "corpus that batches are read from")
    flags.DEFINE_multi_integer(
        "batch",
        None,
        "rows of a batch, by default the experiment's (generate: 8); may be repeated",
        lower_bound=1,
    )
    flags.DEFINE_multi_integer(
        "length",
        None,
        "positions of a row (generate: of sources, 32); may be repeated, in pairs with --batch",
        lower_bound=8,
    )
    flags.DEFINE_string("record", None, "write the batches to this .npz file, and measure nothing")
    flags.DEFINE_string(
        "replay",
        None,
        "read the batches from this .npz file (--what=accelerator: from this directory)",
    )
    flags.DEFINE_list(
        "sizes",
        [],
        "released sizes, such as base,xxlarge; by default all, on a CPU base (--what=accelerator)",
    )
    flags.DEFINE_float(
        "minutes", 7.0, "after which the process ends, compiling included (--what=accelerator)"
    )
    flags.DEFINE_string(
        "output", None, "directory of the results (--what=accelerator, --what=record_all)"
    )
    flags.DEFINE_integer(
        "num_batches", 8, "batches that the steps cycle through (record_all: 4)", lower_bound=1
    )
    flags.DEFINE_multi_enum(
        "work", list(StepKind), list(StepKind), "what a step computes; may be repeated"
    )
    flags.DEFINE_string(
        "profile",
        None,
        "directory for a trace of some steps; timings on a GPU then lack graph capture",
    )
    flags.DEFINE_string(
        "model",
        None,
        "path for `from_pretrained` (--what=encode, --what=generate; there by default random "
        "parameters, 6 layers of 512 each)",
    )
    flags.DEFINE_integer(
        "vocab_size", 8000, "tokens that random parameters know (--what=generate)", lower_bound=8
    )
    flags.DEFINE_multi_integer(
        "num_beams", [1, 4], "beams (--what=generate); may be repeated", lower_bound=1
    )
    flags.DEFINE_multi_integer(
        "new_tokens", [32], "tokens of a text (--what=generate); may be repeated", lower_bound=1
    )
    flags.DEFINE_string("texts", None, "a file with a text a line (--what=encode)")
    flags.DEFINE_integer("max_texts", 2000, "number of texts", lower_bound=1)
    flags.DEFINE_enum("against", None, ["torch"], "another system to measure too")
    flags.DEFINE_multi_enum(
        "torch", ["eager", "gathered"], list(TorchVariant), "ways to run it; may be repeated"
    )
    flags.DEFINE_integer(
        "num_windows", 5, "number of timed windows (accelerator: 3)", lower_bound=1
    )
    flags.DEFINE_float(
        "window_seconds", 3.0, "seconds of a window (accelerator: 0.6)", lower_bound=0.1
    )


def read_value(name: str, default: Any) -> Any:
    """Return a flag's value if it is given, else a benchmark's own default."""
    return flags.FLAGS[name].value if flags.FLAGS[name].present else default


def read_windows() -> Windows:
    """Return the windows that the flags ask for."""
    return Windows(flags.FLAGS.num_windows, flags.FLAGS.window_seconds)


def read_shapes() -> list[tuple[int | None, int | None]]:
    """Return the pairs of `--batch` and `--length`; None stands for the experiment's.

    Raises:
        InputError: they do not form pairs.
    """
    sizes, lengths = flags.FLAGS.batch or [], flags.FLAGS.length or []
    if sizes and lengths and len(sizes) != len(lengths):
        raise InputError(
            f"--batch and --length go in pairs, got {len(sizes)} and {len(lengths)} of them"
        )
    count = max(len(sizes), len(lengths), 1)
    return list(zip(sizes or [None] * count, lengths or [None] * count, strict=True))
