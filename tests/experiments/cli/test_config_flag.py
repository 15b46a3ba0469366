"""The flag --config and its overrides: their values, and the messages of mistakes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from absl import flags
from config_files import BASE, CONFIGS, load

from data_pipeline.errors import InputError
from experiments.cli.config_dicts import differences
from experiments.cli.config_flag import define_config_flag, parse_flags, read_config_flag
from experiments.cli.dataclass_forms import flatten, to_dict
from experiments.run.config import ExperimentConfig

# ml_collections loads a config file in a way that Python wants to drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def from_flags(*overrides: str, config: str = BASE) -> ExperimentConfig:
    """Read a command line as a command does, without its process."""
    argv = ["command", *([f"--config={config}"] if config else []), *overrides]
    values = flags.FlagValues()
    flag = define_config_flag(values, argv)
    flags.DEFINE_string("workdir", None, "where the run is kept", flag_values=values)
    parse_flags(argv, values, config_kind=ExperimentConfig)
    return read_config_flag(flag, ExperimentConfig)


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ("--config.model.parameter_sharing=none", "model.parameter_sharing", "none"),
        ("--config.optimizer.weight_decay=1", "optimizer.weight_decay", 1.0),
        ("--config.optimizer.max_grad_norm=none", "optimizer.max_grad_norm", None),
        (
            "--config.optimizer.reference_batch_size=512",
            "optimizer.reference_batch_size",
            512,
        ),
        ("--config.run.evaluation_pairs=none", "run.evaluation_pairs", None),
        ("--config.run.init_from=runs/other", "run.init_from", "runs/other"),
        ("--config.run.deterministic_kernels", "run.deterministic_kernels", True),
        ("--noconfig.data.favor_shorter_ngram", "data.favor_shorter_ngram", False),
        ("--config.data.masking=span", "data.masking", "span"),
        ("--config.seed=7", "seed", 7),
    ],
)
def test_flags_override_every_kind_of_setting(override: str, name: str, value: Any) -> None:
    overridden, before = from_flags(override), flatten(to_dict(load("albert_base")))
    assert differences(load("albert_base"), overridden) == {name: (before[name], value)}
    assert type(flatten(to_dict(overridden))[name]) is type(value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["--config.model.hiden_size=3"],
            "there is no flag --config.model.hiden_size; did you mean --config.model.hidden_size?",
        ),
        (
            ["--config.log_every=3"],
            "there is no flag --config.log_every; did you mean --config.run.log_every?",
        ),
        (
            ["--config.optimizer.ngram=3"],
            "there is no flag --config.optimizer.ngram; did you mean --config.data.ngram?",
        ),
        (
            ["--config.learning_rate=3"],
            "there is no flag --config.learning_rate; "
            "did you mean --config.optimizer.learning_rate?",
        ),
        (
            ["--config.lr=3"],
            "there is no flag --config.lr; did you mean --config.optimizer.learning_rate?",
        ),
        (["--workdri=x"], "there is no flag --workdri; did you mean --workdir?"),
        (
            ["--config.model.parameter_sharing=nnoe"],
            "--config.model.parameter_sharing must be one of all, attention, ffn, none, "
            "got 'nnoe'; did you mean none?",
        ),
        (["--config.model.hidden_size=abc"], "--config.model.hidden_size=abc: must be a whole num"),
        (["--config.model.hidden_size=1.5"], "--config.model.hidden_size=1.5: must be a whole num"),
        (
            ["--config.model.hidden_size=none"],
            "--config.model.hidden_size must be a whole number in [1, 1048576], got None",
        ),
        (["--config.optimizer.epsilon=x"], "--config.optimizer.epsilon=x: must be a number"),
        (
            ["--config.run.deterministic_kernels=maybe"],
            "--config.run.deterministic_kernels=maybe: must be true or false",
        ),
        (["--config.model=3"], "--config.model=3"),
        (["--config.model.hidden_size"], "Missing value for flag --config.model.hidden_size"),
        (
            ["--config.model.num_attention_heads=7"],
            "--config.model.hidden_size must be a multiple of num_attention_heads (7), got 768",
        ),
        (
            [
                "--config.data.max_seq_length=1024",
                "--config.model.max_position_embeddings=512",
            ],
            "--config.data.max_seq_length must be at most model.max_position_embeddings (512), "
            "got 1024",
        ),
        (
            ["--config.run.accumulation_steps=3"],
            "--config.global_batch_size must be a multiple of run.accumulation_steps (3) times "
            "run.fsdp (1), got 4096",
        ),
        (
            ["--config.data.max_predictions_per_seq=600"],
            "--config.data.max_predictions_per_seq must be at most max_seq_length (512), got 600",
        ),
        (
            [
                *("--config.phases.first.num_steps=5", "--config.phases.first.max_seq_length=16"),
                "--config.phases.first.max_predictions_per_seq=20",
            ],
            "--config.phases.first.max_predictions_per_seq must be at most max_seq_length (16), "
            "got 20",
        ),
        (["--config.run.log_every=0"], "--config.run.log_every must be a whole number >= 1, got 0"),
        (["--config.model.type_vocab_size=1"], "--config.model.type_vocab_size must be at least 2"),
        (
            ["--config.global_batch_size=0"],
            "--config.global_batch_size must be a whole number in [1, 1048576], got 0",
        ),
        (["--config.seed=-1"], "--config.seed must be a whole number in [0, 4294967295], got -1"),
        (
            ["--config.run.parallelism=pmap", "--config.run.fsdp=2"],
            "--config.run.fsdp must be 1 for parallelism=pmap (pjit can shard), got 2",
        ),
        (
            ["--config.optimizer.learning_rate=-1"],
            "--config.optimizer.learning_rate must be a number > 0, got -1",
        ),
        (
            ["--config.data.masked_lm_prob=2"],
            "--config.data.masked_lm_prob must be a number in [0, 1]",
        ),
    ],
)
def test_mistakes_are_reported_in_one_line(overrides: Sequence[str], message: str) -> None:
    with pytest.raises(InputError) as raised:
        from_flags(*overrides)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import nowhere", "line 1: ModuleNotFoundError: No module named 'nowhere'"),
        ("def get_config(:", "line 1: invalid syntax"),
        ("def get_config():\n    return undefined", "line 2: NameError: name 'undefined' is not"),
        ("def get_config():\n    raise ValueError('too\\nlong')", "line 2: too long"),
    ],
)
def test_a_config_file_that_fails_is_named_with_its_line(
    tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(content)
    with pytest.raises(InputError) as raised:
        from_flags(config=str(file))
    assert str(raised.value).startswith(f"--config={file}: {message}")


def test_a_config_file_that_is_missing_or_returns_another_type_is_reported(
    tmp_path: Path,
) -> None:
    with pytest.raises(
        InputError, match=r"albert_bse\.py: there is no .* mean --config=albert_base"
    ):
        from_flags(config=str(CONFIGS / "albert_bse.py"))
    with pytest.raises(InputError, match=r"^--config is missing: the experiment"):
        from_flags(config="")
    (tmp_path / "mine.py").write_text("def get_config():\n    return {'model': 1}")
    with pytest.raises(InputError, match=r"--config: .*to_config_dict"):
        from_flags(config=str(tmp_path / "mine.py"))


@pytest.mark.parametrize("base", [[f"--config={BASE}"], ["--config", BASE]])
def test_overrides_may_stand_before_the_config(base: list[str]) -> None:
    argv = ["--config.seed=7", "--workdir=there", *base, "--config.data.ngram=2"]
    config = from_flags(*argv, config="")
    assert (config.seed, config.data.ngram) == (7, 2)


def test_flags_may_stand_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "flags"
    file.write_text("--config.seed=7\n")
    assert from_flags(f"--flagfile={file}").seed == 7
    file.write_text("--config.sed=7\n")
    with pytest.raises(InputError, match=r"there is no flag --config\.sed"):
        from_flags(f"--flagfile={file}")
    with pytest.raises(SystemExit) as ended:
        from_flags("--flagfile=nowhere")
    assert ended.value.code == 2
    assert "nowhere" in capsys.readouterr().err


def test_a_shipped_config_is_named_without_its_path(tmp_path: Path, monkeypatch) -> None:
    assert from_flags(config="albert_base") == from_flags(config=BASE)
    arguments = tmp_path / "flags"
    arguments.write_text("--config=albert_base\n--config.seed=7\n")
    assert from_flags(f"--flagfile={arguments}", config="").seed == 7
    # A file goes before a name.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "albert_base").write_text(Path(BASE).with_name("albert_large_v1.py").read_text())
    assert from_flags(config="albert_base").model.hidden_size == 1024
