"""Count the files that a reader walks through, by running the code.

    python tests/docs/file_walks.py

Run in the root of a checkout. For a tiny model on the CPU it prints the project's files whose
functions are called, and the calls from one file into another: while a corpus is built, from the
flags of `experiments.pretrain` to its loop, and in the loop for one step and its checkpoint. Then
it prints the files on the stacks where a batch is made, computed and saved (what a reader has to
know to follow it), and where a layer reads a setting. What runs while modules are imported is left
out.
"""

import contextlib
import inspect
import itertools
import os
import re
import runpy
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = os.getcwd()
PACKAGES = ("albert_jax", "data_pipeline", "experiments")
SETTING = "parameter_sharing"
CONFIG = (
    "--config=experiments/configs/albert_tiny_cpu.py",
    *("--config.model.vocab_size=120", "--config.model.hidden_size=16"),
    *("--config.model.intermediate_size=32", "--config.optimizer.num_train_steps=1"),
    *("--config.optimizer.num_warmup_steps=0", "--config.global_batch_size=4"),
    *("--config.run.evaluate_every=1", "--config.run.evaluation_pairs=8"),
)


def project_file(frame: FrameType) -> str | None:
    """Return the project's file that contains a frame's code, relative to the root."""
    name = os.path.relpath(frame.f_code.co_filename, ROOT)
    return name if name.split(os.sep)[0] in PACKAGES else None


def project_stack(frame: FrameType | None) -> list[FrameType]:
    """Return the frames of the project's code, the innermost first."""
    found = []
    while frame is not None:
        if project_file(frame):
            found.append(frame)
        frame = frame.f_back
    return found


# The way of a batch: functions that a reader has to find from the command. Earlier checkouts have
# another name for one of them.
WAYPOINTS = {
    *("Source.read", "SplitWriter.append", "sample_segments", "draw_segments", "lay_out_rows"),
    *("mask_rows", "PretrainingBatch.from_numpy", "place_batch", "SelfAttention.__call__"),
    *("cross_entropy", "scale_by_moments.<locals>.update", "Checkpoints.save"),
    "make_train_step.<locals>.train_step",
}


def files_of(stack: list[FrameType]) -> list[str]:
    """Return the distinct files of a stack, the outermost first."""
    return list(dict.fromkeys(str(project_file(one)) for one in stack[::-1]))


class Walk:
    """Files whose functions are called, and functions that other files call, by stage."""

    def __init__(self, stage: str) -> None:
        self.files: dict[str, set[str]] = {}
        self.calls: dict[str, set[tuple[str | None, str]]] = {}
        self.ways: dict[str, list[str]] = {}  # the shortest one to each waypoint
        self.begin(stage)

    def begin(self, stage: str) -> None:
        self.stage = stage
        self.files.setdefault(stage, set())
        self.calls.setdefault(stage, set())

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        is_function = frame.f_code.co_flags & inspect.CO_OPTIMIZED
        if event != "call" or not is_function or project_file(frame) is None:
            return
        called, *callers = project_stack(frame)
        if any(one.f_code.co_name == "<module>" for one in callers[:-1]):
            return  # an import
        name, function = str(project_file(called)), called.f_code.co_qualname
        if function in WAYPOINTS:
            way = files_of([called, *callers])
            self.ways[function] = min(way, self.ways.get(function, way), key=len)
        if name.endswith("loop.py") and function == "train":
            self.begin("loop")
        self.files[self.stage].add(name)
        if callers and (origin := project_file(callers[0])) != name:
            self.calls[self.stage].add((origin, f"{name}:{function}"))

    def show(self) -> None:
        for stage, files in self.files.items():
            calls = self.calls[stage]
            print(f"\n{stage}: {len(files)} files, {len(calls)} calls from file to file")
            print("\n".join(f"    {name}" for name in sorted(files)))
        way = list(dict.fromkeys(name for one in self.ways.values() for name in one))
        print(f"\nthe way from document to checkpoint: {len(way)} files")
        for function, files in self.ways.items():
            print(f"    {function}: {' > '.join(files)}")
        everything = set().union(*self.files.values())
        in_cli = [name for name in everything if "/cli/" in name or "command_line" in name]
        print(f"\nin all: {len(everything)} files, {len(in_cli)} of them for the command line")


@contextlib.contextmanager
def profiled(walk: Walk) -> Iterator[None]:
    threading.setprofile(walk)
    sys.setprofile(walk)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def profile_numpy_functions(walk: Walk) -> None:
    """Profile the functions that TensorFlow calls in threads of its own."""
    import tensorflow as tf

    numpy_function = tf.numpy_function

    def profiled_function(function: Any, *args: Any, **kwargs: Any) -> Any:
        def call(*values: Any) -> Any:
            sys.setprofile(walk)
            return function(*values)

        return numpy_function(call, *args, **kwargs)

    tf.numpy_function = profiled_function


def run_command(module: str, *flags: str) -> None:
    sys.argv = [module, *flags]
    with contextlib.suppress(SystemExit):
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def record_readings() -> list[list[str]]:
    """Let the configuration record who reads the setting; return the files on the stacks."""
    from albert_jax.config import AlbertConfig

    readings: list[list[str]] = []

    def read(config: Any, name: str) -> Any:
        if name == SETTING:
            readings.append(files_of(project_stack(sys._getframe(1))))
        return object.__getattribute__(config, name)

    AlbertConfig.__getattribute__ = read  # type: ignore[method-assign]
    return readings


def main() -> None:
    """Build a corpus and train one step on it."""
    os.environ |= {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}
    sys.path.insert(0, ROOT)
    words = sorted(set(re.findall("[a-z]+", Path("README.md").read_text().lower())))
    texts = [f"{' '.join(words[i : i + 7])}.\n" for i in range(0, len(words) - 7, 2)]
    with tempfile.TemporaryDirectory() as directory:
        text, corpus = Path(directory, "text.txt"), f"{directory}/corpus"
        text.write_text("\n".join(one + two for one, two in itertools.pairwise(texts)))
        walk = Walk("documents to a corpus")
        with profiled(walk):
            run_command(
                "data_pipeline.build_corpus",
                *(f"--input={text}", "--format=text", f"--output_dir={corpus}"),
                *("--vocab_size=120", "--num_processes=1", "--held_out=0.2"),
            )
            walk.begin("flags to the loop")
            profile_numpy_functions(walk)
            readings = record_readings()
            run_command(
                "experiments.pretrain",
                *(*CONFIG, f"--config.data.corpus_dir={corpus}", f"--workdir={directory}/run"),
            )
    walk.show()
    layer = min((one for one in readings if "albert_jax/encoder/encoder.py" in one), key=len)
    print(f"\n{SETTING}: {len(layer)} files from the flag to the layer")
    print("\n".join(f"    {name}" for name in layer))


if __name__ == "__main__":
    main()
