"""The configurations of fine-tuning: what the files say, and the messages of mistakes."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from absl import flags

from data_pipeline.errors import InputError
from data_pipeline.finetuning.glue_tasks import GLUE_TASKS
from experiments.cli.config_dicts import (
    differences,
    from_config_dict,
    from_json,
    to_config_dict,
    to_json,
)
from experiments.cli.config_flag import define_config_flag, parse_flags, read_config_flag
from experiments.cli.dataclass_forms import flatten, to_dict
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.task_settings import GENERATION_TASKS, TaskName

# ml_collections loads a config file in a way that Python wants to drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

CONFIGS = Path(__file__).parents[3] / "experiments" / "configs" / "finetune"

# ALBERT Table 14: rate, batch, dropout in the encoder, steps, warm-up, row length.
TABLE_14 = {
    "cola": ("cola", 1e-5, 16, 0.0, 5336, 320, 512),
    "stsb": ("sts-b", 2e-5, 16, 0.0, 3598, 214, 512),
    "sst2": ("sst-2", 1e-5, 32, 0.0, 20935, 1256, 512),
    "mnli": ("mnli", 3e-5, 128, 0.0, 10000, 1000, 512),
    "qnli": ("qnli", 1e-5, 32, 0.0, 33112, 1986, 512),
    "qqp": ("qqp", 5e-5, 128, 0.1, 14000, 1000, 512),
    "rte": ("rte", 3e-5, 32, 0.1, 800, 200, 512),
    "mrpc": ("mrpc", 2e-5, 32, 0.0, 800, 200, 512),
    "wnli": ("wnli", 2e-5, 16, 0.1, 2000, 250, 512),
    "squad_v1": ("squad", 5e-5, 48, 0.0, 3649, 365, 384),
    "squad_v2": ("squad", 3e-5, 48, 0.0, 8144, 814, 512),
    "race": ("race", 2e-5, 32, 0.1, 12000, 1000, 512),
    "race_v2": ("race", 1e-5, 32, 0.0, 12000, 1000, 512),  # the released README
}
OTHERS = {
    "text": "text",
    "tagging": "tagging",
    **dict.fromkeys(("embedding", "embedding_nli", "embedding_stsb"), "embedding"),
}
WRITTEN = {"translation": "translation", "summarization": "summarization"}


def load(name: str) -> FinetuneConfig:
    module = runpy.run_path(str(CONFIGS / f"{name}.py"))
    return from_config_dict(module["get_config"](), FinetuneConfig)


def load_by_flags(*overrides: str) -> FinetuneConfig:
    values = flags.FlagValues()
    argv = ["finetune", f"--config={CONFIGS}/sst2.py", *overrides]
    flag = define_config_flag(values, argv)
    parse_flags(argv, values, config_kind=FinetuneConfig)
    return read_config_flag(flag, FinetuneConfig)


def test_every_file_has_the_settings_of_the_table() -> None:
    names = {path.stem for path in CONFIGS.glob("[a-z]*.py")}
    assert names == TABLE_14.keys() | OTHERS.keys() | WRITTEN.keys()
    for name, (task, rate, batch, dropout, steps, warmup, length) in TABLE_14.items():
        config = load(name)
        optimizer = config.optimizer
        assert (config.task, config.global_batch_size) == (task, batch), name
        assert (config.dropout.encoder, config.dropout.classifier) == (dropout, 0.1), name
        assert (optimizer.learning_rate, optimizer.num_train_steps) == (rate, steps), name
        assert (optimizer.num_warmup_steps, config.data.max_seq_length) == (warmup, length), name
        assert f"experiments/configs/finetune/{name}.py" in (CONFIGS / f"{name}.py").read_text()
    heads = {name: str(load(name).span.head) for name in ("squad_v1", "squad_v2")}
    assert heads == {"squad_v1": "plain", "squad_v2": "conditional"}


def test_every_file_has_the_optimizer_of_fine_tuning() -> None:
    for name in TABLE_14.keys() | OTHERS.keys():
        optimizer = load(name).optimizer
        assert (str(optimizer.name), optimizer.bias_correction) == ("adamw", True)
        assert (str(optimizer.schedule), optimizer.weight_decay) == ("legacy_poly", 0.01)
        assert (optimizer.epsilon, optimizer.max_grad_norm) == (1e-6, 1.0)
    assert all(load(name).task == task for name, task in (OTHERS | WRITTEN).items())


def test_every_task_of_glue_with_a_training_set_has_a_name() -> None:
    trained = {name for name, task in GLUE_TASKS.items() if "train" in task.splits}
    others = {TaskName.TEXT, TaskName.SQUAD, TaskName.RACE, TaskName.TAGGING}
    others.add(TaskName.EMBEDDING)
    assert trained == set(TaskName) - others - set(GENERATION_TASKS)


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ("--config.run.seeds=5", "run.seeds", 5),
        ("--config.run.learning_rates=1e-5,2e-5", "run.learning_rates", "1e-5,2e-5"),
        ("--config.run.init_from=runs/base", "run.init_from", "runs/base"),
        ("--config.run.init_weights=false", "run.init_weights", False),
        ("--config.data.source=tfds", "data.source", "tfds"),
        ("--config.dropout.encoder=none", "dropout.encoder", None),
        ("--config.optimizer.bias_correction=false", "optimizer.bias_correction", False),
        ("--config.span.null_threshold=-1.5", "span.null_threshold", -1.5),
    ],
)
def test_flags_override_one_value(override: str, name: str, value: Any) -> None:
    (changed,) = differences(load("sst2"), load_by_flags(override)).items()
    assert (changed[0], changed[1][1]) == (name, value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.data.sorce=tfds", "no flag --config.data.sorce; did you mean .*data.source"),
        ("--config.data.source=web", "config.data.source must be one of files, tfds, got 'web'"),
        ("--config.run.learning_rates=1e-5,x", "config.run.learning_rates must be .*'1e-5,x'"),
        ("--config.run.learning_rates=1,1", "learning_rates must be different numbers"),
        ("--config.run.learning_rates=1,1.0000001", "learning_rates must be different numbers"),
        ("--config.run.learning_rates=-1", "learning_rates must be different numbers greater"),
        ("--config.optimizer.name=sophia", "config.optimizer.name must be another one in fine-"),
        ("--config.run.seeds=0", r"config.run.seeds must be a whole number in \[1, 1000\], got 0"),
        (
            "--config.run.patience=0",
            "config.run.patience must be a whole number >= 1 or none, got 0",
        ),
        (
            "--config.run.checkpoint_every=700",
            r"config.run.evaluate_every must be a multiple of checkpoint_every .*, got 1000",
        ),
        (
            "--config.data.max_seq_length=4",
            r"config.data.max_seq_length must be a whole number in \[8, 65536\], got 4",
        ),
        (
            "--config.data.num_epochs=0.0",
            "config.data.num_epochs must be a number > 0 or none, got 0.0",
        ),
        (
            "--config.data.problem_type=multi_label_classification",
            "config.data.problem_type must be single",
        ),
        ("--config.data.labels=yes", "config.data.labels must be at least two .*, got 'yes'"),
        ("--config.data.labels=no,yes, no", "config.data.labels must be at least two different"),
        ("--config.data.labels=no,,yes", "config.data.labels must be at least two different"),
        ("--config.span.doc_stride=0", "config.span.doc_stride must be a whole number >= 1, got 0"),
        (
            "--config.choice.max_qa_length=0",
            "config.choice.max_qa_length must be a whole number >= 1, got 0",
        ),
        (
            "--config.dropout.classifier=1.0",
            r"config.dropout.classifier must be a number in \[0, 1\), got 1.0",
        ),
        (
            "--config.global_batch_size=0",
            r"config.global_batch_size must be a whole number in \[1, 1048576\], got 0",
        ),
        ("--config.seed=-1", r"config.seed must be a whole number in \[0, 4294967295\], got -1"),
        (
            "--config.run.accumulation_steps=3",
            r"config.global_batch_size must be a multiple of .*, got 32",
        ),
    ],
)
def test_a_mistake_names_the_flag(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_by_flags(override)


def test_scores_have_no_labels() -> None:
    with pytest.raises(InputError, match=r"config.data.labels must be none with .*, got 'no,yes'"):
        load_by_flags("--config.data.problem_type=regression", "--config.data.labels=no,yes")


def test_forms_can_be_turned_back() -> None:
    config = load_by_flags("--config.run.learning_rates=1e-5,3e-5", "--config.dropout.encoder=0.2")
    assert from_json(to_json(config), FinetuneConfig, source="x") == config
    assert from_config_dict(to_config_dict(config), FinetuneConfig) == config
    assert config.run.rates == (1e-5, 3e-5)
    assert flatten(to_dict(config))["data.malformed"] == "refuse"
