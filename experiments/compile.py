r"""Compile a run for machines you do not have: memory, communication, and a predicted time.

    python -m experiments.compile --config=experiments/configs/albert_base_packed.py \
        --topology=v5e:8x8 --num_slices=1,2,4 --config.run.accumulation_steps=0

The training step of each phase is compiled as the run would compile it on such devices, including
attention and fused layers. Nothing is computed. No corpus is needed; if you name one with
``--config.data.corpus_dir``, it determines the pairs of a row and the sequence slots.
"""

from pathlib import Path

from absl import flags

from albert_jax.durable_files import new_file
from data_pipeline.errors import InputError
from data_pipeline.terminal import say
from experiments.benchmarks.report import environment
from experiments.cli.command import run
from experiments.cli.config_flag import define_config_flag, read_given_config
from experiments.cli.exit_codes import ExitCode
from experiments.compiling.compiled_run import compile_run
from experiments.compiling.report import format_json, format_report, report_row
from experiments.compiling.topologies import ALLOWED, parse_topologies, prepare_process
from experiments.run.config import ExperimentConfig
from experiments.run.workdir import with_corpus_vocabulary

_FORMATS = (".md", ".json")


def main() -> ExitCode:
    """Read the flags, compile for each topology, and report."""
    output = flags.FLAGS.output
    if output is not None and Path(output).suffix not in _FORMATS:
        raise InputError(f"--output must end in {' or '.join(_FORMATS)}, got {output!r}")
    given = with_corpus_vocabulary(read_given_config(_CONFIG, ExperimentConfig))
    topologies = parse_topologies(flags.FLAGS.topology, flags.FLAGS.num_slices)
    prepare_process(topologies)
    for line in given.lines:
        say(line)
    compiled = [
        phase for topology in topologies for phase in compile_run(given.config, topology, say)
    ]
    rows = [report_row(phase, given.config) for phase in compiled]
    made = environment("compiled, not run", "experiments.compile")
    text = format_report(compiled, rows, made)
    print(text)
    if output is not None:
        content = text if output.endswith(".md") else format_json(rows, made)
        with new_file(Path(output)) as partial:
            partial.write_text(content)
    return ExitCode.DONE


if __name__ == "__main__":
    _CONFIG = define_config_flag()
    flags.DEFINE_list("topology", ["v5e:8x8"], f"machines, separated by commas: {ALLOWED}")
    flags.DEFINE_list(
        "num_slices", ["1"], "slices of TPUs or hosts of GPUs; several, separated by commas"
    )
    flags.DEFINE_string("output", None, "write the report to this file too: .md or .json")
    run(main, ExperimentConfig)
