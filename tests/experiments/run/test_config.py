"""Configurations: what the files say, what flags make of it, and what mistakes are told."""

import dataclasses
import errno
import json
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from absl import flags

from albert_jax.config import AlbertConfig, ParameterSharing
from albert_jax.training.checkpoint import NonFiniteStateError
from albert_jax.training.config import OptimizerConfig
from albert_jax.training.integrity import CheckpointError
from albert_jax.training.parallel import Parallelism
from data_pipeline.config import DataConfig
from data_pipeline.errors import InputError
from experiments.cli.command import call, define_config_flag, parse_flags, read_config_flag
from experiments.cli.config_dicts import (
    differences,
    from_config_dict,
    from_json,
    to_config_dict,
    to_json,
)
from experiments.cli.dataclass_forms import field_names, flatten, to_dict
from experiments.run.config import ExperimentConfig, RunConfig
from experiments.run.workdir import check_resumable

# ml_collections loads a config file in a way that Python wants to drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "experiments" / "configs"
BASE = str(CONFIGS / "albert_base.py")

# Every value of base v1; the other files follow as what they change.
BASE_V1 = {
    "model.vocab_size": 30000,
    "model.embedding_size": 128,
    "model.hidden_size": 768,
    "model.num_hidden_layers": 12,
    "model.num_hidden_groups": 1,
    "model.inner_group_num": 1,
    "model.num_attention_heads": 12,
    "model.intermediate_size": 3072,
    "model.hidden_act": "gelu",
    "model.hidden_dropout_prob": 0.1,
    "model.attention_probs_dropout_prob": 0.1,
    "model.max_position_embeddings": 512,
    "model.type_vocab_size": 2,
    "model.initializer_range": 0.02,
    "model.layer_norm_eps": 1e-12,
    "model.parameter_sharing": "all",
    "model.embedding_mapping": "when_needed",
    "model.position_encoding": "absolute",
    "model.max_relative_distance": 16,
    "model.norm": "post",
    "model.initialization": "fixed",
    "model.tie_word_embeddings": True,
    "data.corpus_dir": "",
    "data.records_dir": "",
    "data.plan_dir": "",
    "data.max_seq_length": 512,
    "data.packing": "unpacked",
    "data.max_pairs_per_row": 16,
    "data.short_seq_prob": 0.1,
    "data.sentence_objective": "sop",
    "data.single_sentence": "split",
    "data.num_plan_variants": 1,
    "data.masking": "ngram",
    "data.masked_lm_prob": 0.15,
    "data.max_predictions_per_seq": 20,
    "data.ngram": 3,
    "data.favor_shorter_ngram": True,
    "data.corruption": "per_piece",
    "data.mask_reach": "segment",
    "data.random_replacement": "ordinary",
    "data.word_start_rule": "space",
    "optimizer.name": "lamb",
    "optimizer.learning_rate": 0.00176,
    "optimizer.schedule": "legacy_poly",
    "optimizer.poly_power": 1.0,
    "optimizer.decay_share": 0.1,
    "optimizer.num_train_steps": 125_000,
    "optimizer.num_warmup_steps": 3125,
    "optimizer.start_warmup_step": 0,
    "optimizer.weight_decay": 0.01,
    "optimizer.beta_1": 0.9,
    "optimizer.beta_2": 0.999,
    "optimizer.epsilon": 1e-6,
    "optimizer.bias_correction": False,
    "optimizer.max_grad_norm": 1.0,
    "optimizer.reference_batch_size": None,
    "run.parallelism": "pjit",
    "run.fsdp": 1,
    "run.tensor": 1,
    "run.accumulation_steps": 1,
    "run.dtype": "float32",
    "run.reduction_dtype": "float32",
    "run.attention": "auto",
    "run.unroll": 0,
    "run.remat": "none",
    "run.deterministic_kernels": False,
    "run.log_every": 100,
    "run.evaluate_every": 5000,
    "run.checkpoint_every": 5000,
    "run.keep_checkpoints": 5,
    "run.evaluation_batch_size": 64,
    "run.evaluation_pairs": 6400,
    "run.evaluation_seq_length": None,
    "run.init_from": None,
    "run.init_groups": "same",
    "run.compile_cache_dir": None,
    "run.change_num_train_steps": False,
    **{
        f"phases.{name}.{field}": value
        for name in ("first", "second")
        for field, value in {
            "num_steps": 0,
            "max_seq_length": 128,
            "max_predictions_per_seq": 20,
            "global_batch_size": None,
        }.items()
    },
    "global_batch_size": 4096,
    "seed": 12345,
}


def size(layers: int, hidden: int, heads: int) -> dict[str, Any]:
    return {
        "model.num_hidden_layers": layers,
        "model.hidden_size": hidden,
        "model.num_attention_heads": heads,
        "model.intermediate_size": 4 * hidden,
    }


NO_DROPOUT = {"model.hidden_dropout_prob": 0.0, "model.attention_probs_dropout_prob": 0.0}
LARGE, XXLARGE = size(24, 1024, 16), size(12, 4096, 64) | NO_DROPOUT
PACKED = {"data.packing": "packed", "data.max_predictions_per_seq": 77, "global_batch_size": 2048}
SMALL = NO_DROPOUT | {
    "model.max_position_embeddings": 128,
    "data.max_seq_length": 64,
    "data.packing": "packed",
    "data.max_predictions_per_seq": 10,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-3,
    "optimizer.schedule": "poly",
    "optimizer.bias_correction": True,
}


def steps(number: int) -> dict[str, Any]:
    return {"optimizer.num_train_steps": number}


CHANGES: dict[str, dict[str, Any]] = {
    "albert_base": {},
    "albert_base_v1": {},
    "albert_large_v1": LARGE,
    "albert_xlarge_v1": size(24, 2048, 16),
    "albert_xxlarge_v1": XXLARGE | steps(1_500_000),
    "albert_base_v2": NO_DROPOUT | steps(10_000_000),
    "albert_large_v2": LARGE | NO_DROPOUT | steps(3_000_000),
    "albert_xlarge_v2": size(24, 2048, 32) | NO_DROPOUT | steps(3_000_000),
    "albert_xxlarge_v2": XXLARGE | steps(3_000_000),
    "albert_base_packed": PACKED,
    "albert_large_packed": LARGE | PACKED,
    "albert_xlarge_packed": size(24, 2048, 16) | PACKED,
    "albert_xxlarge_packed": XXLARGE | PACKED,
    "albert_tiny_cpu": SMALL
    | size(3, 128, 4)
    | {
        "model.vocab_size": 8000,
        "optimizer.num_train_steps": 1600,
        "optimizer.num_warmup_steps": 100,
        "run.log_every": 20,
        "run.evaluate_every": 400,
        "run.checkpoint_every": 400,
        "run.evaluation_pairs": 512,
        "global_batch_size": 64,
    },
    "albert_small_wiki": SMALL
    | size(3, 128, 4)
    | {
        "model.max_position_embeddings": 512,
        "optimizer.learning_rate": 1.5e-3,
        "optimizer.num_train_steps": 5000,
        "optimizer.num_warmup_steps": 300,
        "run.log_every": 50,
        "run.evaluate_every": 500,
        "run.checkpoint_every": 500,
        "run.evaluation_pairs": 2048,
        "global_batch_size": 128,
    },
}


def load(name: str) -> ExperimentConfig:
    return from_config_dict(
        runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](), ExperimentConfig
    )


def from_flags(*overrides: str, config: str = BASE) -> ExperimentConfig:
    """What a command makes of a command line, without the process."""
    argv = ["command", *([f"--config={config}"] if config else []), *overrides]
    values = flags.FlagValues()
    flag = define_config_flag(values, argv)
    flags.DEFINE_string("workdir", None, "where the run is kept", flag_values=values)
    parse_flags(argv, values, config_kind=ExperimentConfig)
    return read_config_flag(flag, ExperimentConfig)


def test_every_config_file_resolves_to_the_values_that_are_pinned_here() -> None:
    files = {path.stem for path in CONFIGS.glob("albert_*.py")}
    assert files == set(CHANGES)
    for name, changes in CHANGES.items():
        values = flatten(to_dict(load(name)))
        assert values == BASE_V1 | changes, name
        assert all(type(values[key]) is type((BASE_V1 | changes)[key]) for key in values), name


def test_every_config_file_says_what_it_costs_and_how_it_is_run() -> None:
    for path in set(CONFIGS.glob("albert_*.py")) - {CONFIGS / "albert_base.py"}:
        text = path.read_text(encoding="utf-8")
        for row in ("Model", "Data", "Steps", "Command", "Expected"):
            assert f"\n{row} " in text, (path, row)
        assert f"--config=experiments/configs/{path.name}" in text


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
def test_flags_override_every_kind_of_knob(override: str, name: str, value: Any) -> None:
    overridden = from_flags(override)
    assert differences(load("albert_base"), overridden) == {name: (BASE_V1[name], value)}
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
        (["--workdri=x"], "there is no flag --workdri; did you mean --workdir?"),
        (
            ["--config.model.parameter_sharing=nnoe"],
            "--config.model.parameter_sharing must be one of all, attention, ffn, none; "
            "got 'nnoe'; did you mean none?",
        ),
        (["--config.model.hidden_size=abc"], "--config.model.hidden_size=abc: must be a whole num"),
        (["--config.model.hidden_size=1.5"], "--config.model.hidden_size=1.5: must be a whole num"),
        (["--config.model.hidden_size=none"], "--config.model.hidden_size cannot be none"),
        (["--config.optimizer.epsilon=x"], "--config.optimizer.epsilon=x: must be a number"),
        (
            ["--config.run.deterministic_kernels=maybe"],
            "--config.run.deterministic_kernels=maybe: must be true or false",
        ),
        (["--config.model=3"], "--config.model=3"),
        (["--config.model.hidden_size"], "Missing value for flag --config.model.hidden_size"),
        (
            ["--config.model.num_attention_heads=7"],
            "--config.model.hidden_size (768) must be a multiple of model.num_attention_heads (7)",
        ),
        (
            ["--config.data.max_seq_length=1024"],
            "--config.data.max_seq_length (1024) must be at most "
            "--config.model.max_position_embeddings (512)",
        ),
        (
            ["--config.run.accumulation_steps=3"],
            "--config.global_batch_size (4096) must be a multiple of "
            "--config.run.accumulation_steps (3) times --config.run.fsdp (1)",
        ),
        (["--config.run.log_every=0"], "--config.run.log_every must be at least 1, got 0"),
        (["--config.model.type_vocab_size=1"], "--config.model.type_vocab_size must be at least 2"),
        (["--config.global_batch_size=0"], "--config.global_batch_size must be at least 1, got 0"),
        (["--config.seed=-1"], "--config.seed must be from 0 to 2**32 - 1, got -1"),
        (
            ["--config.run.parallelism=pmap", "--config.run.fsdp=2"],
            "--config.run.parallelism=pmap needs --config.run.fsdp and --config.run.tensor to be 1",
        ),
        (["--config.optimizer.learning_rate=-1"], "--config.optimizer.learning_rate must be"),
        (["--config.data.masked_lm_prob=2"], "--config.data.masked_lm_prob must be"),
    ],
)
def test_mistakes_are_told_in_one_line(overrides: Sequence[str], message: str) -> None:
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


def test_a_config_file_that_is_missing_or_gives_something_else_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"albert_bse\.py: there is no .* mean .*albert_base\.py"):
        from_flags(config=str(CONFIGS / "albert_bse.py"))
    with pytest.raises(InputError, match=r"^--config is missing: file of the experiment"):
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


def test_a_whole_number_is_no_other_type_where_a_number_is_wanted() -> None:
    """Else a flag could not override it with a fraction."""
    config = dataclasses.replace(load("albert_base"), data=DataConfig(short_seq_prob=0))
    assert type(to_config_dict(config).data.short_seq_prob) is float


def test_the_resolved_config_survives_json() -> None:
    config = dataclasses.replace(
        load("albert_base"),
        model=AlbertConfig(
            hidden_size=64,
            num_attention_heads=4,
            parameter_sharing=ParameterSharing.FFN,
            extra={"down_scale_factor": 1, "layers_to_keep": []},
        ),
        optimizer=OptimizerConfig(max_grad_norm=None, learning_rate=1.0),
        run=RunConfig(init_from="gs://bucket/run", parallelism=Parallelism.PMAP),
    )
    for form in (
        from_json(to_json(config), ExperimentConfig, source="x"),
        from_config_dict(to_config_dict(config), ExperimentConfig),
    ):
        assert form == config
        assert form.model.extra == config.model.extra
        assert form.run.parallelism is Parallelism.PMAP
    assert json.loads(to_json(config))["optimizer"]["max_grad_norm"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "runs/x/config.json: Expecting property name"),
        ("[]", "runs/x/config.json: --config must be a group of values"),
        ('{"seeed": 1}', "runs/x/config.json: there is no --config.seeed; did you mean seed?"),
        ('{"seed": 1.5}', "runs/x/config.json: --config.seed must be a whole number, got 1.5"),
        ('{"seed": true}', "runs/x/config.json: --config.seed must be a whole number, got True"),
        ('{"data": 3}', "runs/x/config.json: --config.data must be a group of values, got 3"),
    ],
)
def test_a_bad_config_json_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        from_json(text, ExperimentConfig, source="runs/x/config.json")
    assert str(raised.value).startswith(message)


def test_a_config_json_from_before_a_knob_existed_has_the_knob_s_default() -> None:
    values = json.loads(to_json(load("albert_base")))
    del values["run"]["deterministic_kernels"]
    assert from_json(json.dumps(values), ExperimentConfig, source="x") == load("albert_base")


def test_a_workdir_takes_other_run_values_but_no_other_experiment() -> None:
    old = load("albert_base")

    def changed(**parts: Any) -> ExperimentConfig:
        return dataclasses.replace(old, **parts)

    assert check_resumable(old, old, workdir="w") == {}
    run = RunConfig(log_every=10, accumulation_steps=2)
    moved = dataclasses.replace(old.data, corpus_dir="elsewhere")
    assert check_resumable(old, changed(run=run, data=moved), workdir="w") == {
        "data.corpus_dir": ("", "elsewhere"),
        "run.accumulation_steps": (1, 2),
        "run.log_every": (100, 10),
    }
    for parts in (
        {"model": AlbertConfig.from_name("large_v1")},
        {"data": DataConfig(ngram=2)},
        {"optimizer": OptimizerConfig(learning_rate=1e-3)},
        {"global_batch_size": 512},
        {"seed": 1},
    ):
        with pytest.raises(InputError, match=r"--workdir=w holds another .* --workdir$"):
            check_resumable(old, changed(**parts), workdir="w")

    longer = changed(optimizer=OptimizerConfig(num_train_steps=200_000))
    with pytest.raises(InputError, match=r"was 125000 and is 200000; add .*change_num_train_steps"):
        check_resumable(old, longer, workdir="w")
    asked = dataclasses.replace(longer, run=RunConfig(change_num_train_steps=True))
    assert "optimizer.num_train_steps" in check_resumable(old, asked, workdir="w")


def test_every_knob_has_a_name_on_the_command_line() -> None:
    assert set(field_names(ExperimentConfig)) == {*BASE_V1, "model.extra"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("a mistake\nof two lines"), 2),
        (CheckpointError("every checkpoint is damaged"), 2),
        (OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl"), 2),
        (NonFiniteStateError("step 7 is not finite"), 3),
    ],
)
def test_what_a_user_can_mend_becomes_one_line_and_a_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise error

    assert call(main) == code
    assert capsys.readouterr().err == f"error: {error}\n".replace("\nof", " of")


def test_a_fault_of_the_program_stays_one() -> None:
    for fault in (RuntimeError("a fault"), ValueError("a fault"), OSError(errno.EIO, "a fault")):

        def main(fault: Exception = fault) -> None:
            raise fault

        with pytest.raises(type(fault), match="a fault"):
            call(main)


COMMAND = """
from absl import flags
from experiments.cli.command import define_config_flag, read_config_flag, run
from experiments.cli.exit_codes import ExitCode
from experiments.run.config import ExperimentConfig

CONFIG = define_config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "where the run is kept", required=True)

def main():
    print(read_config_flag(CONFIG, ExperimentConfig).model.hidden_size)
    return ExitCode.PREEMPTED

run(main, ExperimentConfig)
"""


@pytest.mark.parametrize(
    ("arguments", "code", "output", "errors"),
    [
        (["--workdir=x", "--config.model.hidden_size=1536"], 75, "1536\n", ""),
        (
            ["--workdir=x", "--config.sed=1"],
            2,
            "",
            "error: there is no flag --config.sed; did you mean --config.seed?\n",
        ),
        (["--workdir=x", "y"], 2, "", "error: 'y' is no flag; a flag is written --name=value\n"),
    ],
)
def test_a_command_ends_with_one_line_and_its_code(
    tmp_path: Path, arguments: Sequence[str], code: int, output: str, errors: str
) -> None:
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    done = subprocess.run(
        [sys.executable, str(script), f"--config={BASE}", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, output, errors)
