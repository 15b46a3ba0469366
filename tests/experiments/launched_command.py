"""The pre-training command of a launch file, read as the command itself reads its flags."""

from collections.abc import Sequence

from absl import flags

from experiments.cli.config_flag import define_config_flag, parse_flags, read_config_flag
from experiments.hosts import define_host_flags
from experiments.run.config import ExperimentConfig


def read_command(command: Sequence[str]) -> tuple[ExperimentConfig, flags.FlagValues]:
    """Return the experiment and the other flags of ``python -m experiments.pretrain ...``."""
    python, module, name, *arguments = command
    assert (python, module, name) == ("python", "-m", "experiments.pretrain")
    values, argv = flags.FlagValues(), ["pretrain", *arguments]
    config = define_config_flag(values, argv)
    flags.DEFINE_string("workdir", None, "", required=True, flag_values=values)
    before = set(flags.FLAGS)
    define_host_flags()
    for flag in set(flags.FLAGS) - before:
        values[flag] = flags.FLAGS[flag]
        delattr(flags.FLAGS, flag)
    assert parse_flags(argv, values, config_kind=ExperimentConfig) == ["pretrain"]
    return read_config_flag(config, ExperimentConfig), values
