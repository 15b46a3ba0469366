"""Malformed command lines of every command: one line, status 2, no hang.

The commands run in this process; what their flags name does not exist, so none gets far.
"""

import importlib
import runpy
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from absl import flags
from doors import Hang, end_of, limited_memory
from mutations import mutate_arguments

# ml_collections loads a config file in a way that Python wants to drop.
pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "experiments/configs"
CASES = 50  # of each command
COMMANDS = {
    "pretrain": (
        f"--config={CONFIGS}/albert_tiny_cpu.py",
        *("--config.data.corpus_dir=nowhere", "--config.seed=3", "--workdir=run"),
        *("--config.model.hidden_size=32", "--config.optimizer.learning_rate=0.001"),
        *("--config.data.masking=word", "--config.run.init_from=none"),
    ),
    "finetune": (
        f"--config={CONFIGS}/finetune/squad_v2.py",
        *("--config.data.train_file=a.json", "--config.data.dev_file=b.json", "--workdir=run"),
        *("--config.run.init_from=nowhere", "--config.span.n_best=3"),
    ),
    "evaluate": ("--workdir=nowhere", "--step=3", "--json", "--corpus_dir=nowhere"),
    "probe": ("--workdir=nowhere", "--step=3", "--num_pairs=64"),
    "predict": (
        *("--task=encode", "--model=nowhere", "--text=a", "--text_pair=b", "--top_k=3"),
        *("--pooling=mean", "--dtype=bfloat16", "--null_threshold=0.5", "--output=a.npy"),
    ),
    "convert": ("--from=nowhere", "--to=huggingface", "--output=converted", "--step=5"),
    "benchmark": (
        *("--what=step", f"--config={CONFIGS}/albert_tiny_cpu.py", "--replay=nowhere.npz"),
        *("--num_batches=2", "--batch=8", "--length=32"),
    ),
    "compile": (
        *(f"--config={CONFIGS}/albert_tiny_cpu.py", "--topology=nowhere", "--num_slices=2"),
        *("--config.run.fsdp=2", "--output=report.md"),
    ),
    "sweep": (
        *(f"--sweep={ROOT}/experiments/sweeps/norm.py", "--workdir=sweep", "--size=small"),
        *("--override=data.corpus_dir=nowhere", "--points=0", "--dry_run"),
    ),
    "glue": (
        *("--init_from=nowhere", "--data_dir=nowhere", "--workdir=glue", "--seeds=2"),
        *("--override=optimizer.num_train_steps=5", "--tasks=RTE", "--dry_run"),
    ),
    "export_records": (
        *(f"--config={CONFIGS}/albert_tiny_cpu.py", "--config.data.corpus_dir=nowhere"),
        *("--output_file=a.tfrecord,b.tfrecord", "--num_epochs=1"),
    ),
    "import_records": ("--input_file=nowhere*", "--output_dir=imported"),
    "build_corpus": (
        *("--input=nowhere*", "--format=text", "--output_dir=corpus", "--vocab_size=100"),
        *("--source=a:2:text:b", "--held_out=0.1", "--seed=1"),
        *("--plan=max_seq_length=64,packing=packed", "--plan_shards=0/2"),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run in an empty directory, without the memory to do much, everything being imported."""
    for command in COMMANDS:
        importlib.import_module(f"{_package_of(command)}.{command}")
    with pytest.MonkeyPatch.context() as patch, limited_memory():
        patch.chdir(tmp_path_factory.mktemp("commands"))
        yield


def _package_of(command: str) -> str:
    return "data_pipeline" if command == "build_corpus" else "experiments"


def run_case(command: str, number: int) -> None:
    """Mutate a command line and run it as `python -m` does, on flags that are then taken back."""
    arguments = mutate_arguments(COMMANDS[command], Random(f"{command} {number}"))
    program = str(ROOT / _package_of(command) / f"{command}.py")
    before, argv, verbosity = set(flags.FLAGS), sys.argv, flags.FLAGS["verbosity"].value
    shown = f"{command}, case {number}: {[argument[:200] for argument in arguments]}"
    sys.argv = [program, *arguments]
    try:
        status, errors = end_of(lambda: runpy.run_path(program, run_name="__main__"))
    except (Exception, Hang):
        pytest.fail(f"{shown}\n{traceback.format_exc(limit=-6)[-3000:]}")
    finally:
        sys.argv = argv
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()
        flags.FLAGS["verbosity"].value = verbosity
    assert status in (0, 2), f"{shown}\n{errors}"
    if status:
        last = errors.rstrip("\n").rpartition("\n")[2]
        assert last.startswith("error: "), f"{shown}\n{errors}"
        assert len(last) < 5_000, shown


@pytest.mark.parametrize("cases", [CASES, pytest.param(20 * CASES, marks=pytest.mark.slow)])
def test_no_malformed_command_line_ends_otherwise_than_with_one_line(cases: int) -> None:
    assert CASES * len(COMMANDS) >= 500
    for command in COMMANDS:
        for number in range(cases):
            run_case(command, number)
