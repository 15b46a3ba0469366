"""The listing of settings, and the names that it and the flags suggest."""

import dataclasses
from enum import StrEnum

import pytest
from config_files import BASE

from albert_jax.settings import all_settings, setting
from data_pipeline.errors import InputError
from experiments.cli import synonyms
from experiments.cli.listing import format_settings, requested_listing
from experiments.cli.synonyms import meant_setting
from experiments.run.config import ExperimentConfig
from experiments.tasks.config import FinetuneConfig

# ml_collections loads a config file in a way that Python wants to drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass(frozen=True)
class Paint:
    """Paint of a house. It may peel."""

    color: Color = setting(Color.RED, "color of the paint")
    layers: int | None = setting(2, "layers of paint", at_least=1)


@dataclasses.dataclass(frozen=True)
class House:
    """A house."""

    paint: Paint = dataclasses.field(default_factory=Paint)
    heated: bool = setting(False, "whether it has a stove")
    heated_floor: bool = setting(False, "whether the floor is warm")


def test_a_listing_shows_values_defaults_help_and_allowed_values() -> None:
    house = House(Paint(Color.BLUE, layers=None))
    assert (
        format_settings(house)
        == """\
config: A house.
  --config.heated=false
      whether it has a stove (true or false)
  --config.heated_floor=false
      whether the floor is warm (true or false)

paint: Paint of a house.
  --config.paint.color=blue  (default red)
      color of the paint (one of red, blue)
  --config.paint.layers=none  (default 2)
      layers of paint (a whole number >= 1 or none)"""
    )


def test_a_part_is_a_group_or_a_setting() -> None:
    assert format_settings(House(), "paint").count("--config.") == 2
    assert format_settings(House(), "paint.color").count("--config.") == 1
    assert format_settings(House(), "heated") == (
        "config: A house.\n  --config.heated=false\n      whether it has a stove (true or false)"
    )
    phases = format_settings(ExperimentConfig(), "phases")
    assert phases.count("num_steps") == 2 and "--config.run" not in phases


@pytest.mark.parametrize(
    ("part", "meant"),
    [
        ("optimzer", "optimizer"),
        ("lr", "optimizer.learning_rate"),
        ("phase.first", "phases.first"),
        ("model.heads", "model.num_attention_heads"),
    ],
)
def test_a_misspelled_part_is_corrected(part: str, meant: str) -> None:
    with pytest.raises(InputError) as raised:
        format_settings(ExperimentConfig(), part)
    assert str(raised.value) == (
        f"--list_config={part}: there is no such part of --config; "
        f"did you mean --list_config={meant}?"
    )


@pytest.mark.parametrize("kind", [ExperimentConfig, FinetuneConfig])
def test_every_setting_is_listed_with_a_line_of_help(kind: type) -> None:
    listing = format_settings(kind())
    assert max(map(len, listing.splitlines())) <= 100
    for one in all_settings(kind):
        if one.name != "model.extra":  # no flag sets it
            assert f"\n  --config.{one.name}=" in listing
            assert one.help and "\n" not in one.help, one.name


def test_the_command_line_asks_for_a_listing() -> None:
    argv = ["pretrain", f"--config={BASE}", "--config.data.ngram=2", "--workdir=x"]
    assert requested_listing(argv, ExperimentConfig) is None
    listing = requested_listing([*argv, "--list_config=data"], ExperimentConfig)
    assert listing is not None and "--config.data.ngram=2  (default 3)\n" in listing
    whole = requested_listing(["pretrain", "--list_config"], ExperimentConfig)
    assert whole == format_settings(ExperimentConfig())
    with pytest.raises(InputError, match=r"no flag --config\.data\.ngrm; did you mean"):
        requested_listing([*argv, "--config.data.ngrm=2", "--list_config"], ExperimentConfig)


@pytest.mark.parametrize(
    ("kind", "written", "meant"),
    [
        (ExperimentConfig, "lr", "optimizer.learning_rate"),
        (ExperimentConfig, "learning_rate", "optimizer.learning_rate"),
        (ExperimentConfig, "model.learning-rate", "optimizer.learning_rate"),
        (ExperimentConfig, "batch_size", "global_batch_size"),
        (ExperimentConfig, "phases.first.batch_size", "phases.first.global_batch_size"),
        (ExperimentConfig, "epochs", "optimizer.num_train_steps"),
        (FinetuneConfig, "epochs", "data.num_epochs"),
        (ExperimentConfig, "warmup", "optimizer.num_warmup_steps"),
        (ExperimentConfig, "seq_len", "data.max_seq_length"),
        (FinetuneConfig, "max_len", "data.max_seq_length"),
        (ExperimentConfig, "num_layers", "model.num_hidden_layers"),
        (ExperimentConfig, "heads", "model.num_attention_heads"),
        (ExperimentConfig, "dropout", "model.hidden_dropout_prob"),
        (ExperimentConfig, "wd", "optimizer.weight_decay"),
        (ExperimentConfig, "steps", "optimizer.num_train_steps"),
        (ExperimentConfig, "optimizer.learnin_rate", "optimizer.learning_rate"),
    ],
)
def test_misspelled_settings_and_synonyms_are_corrected(
    kind: type, written: str, meant: str
) -> None:
    names = [one.name for one in all_settings(kind)]
    assert meant_setting(written, names, "--config.") == f"; did you mean --config.{meant}?"
    assert not meant_setting("xyzzy", names)


def test_synonyms_stand_beside_settings_that_there_are() -> None:
    settings = [*all_settings(ExperimentConfig), *all_settings(FinetuneConfig)]
    assert set(synonyms._SYNONYMS) <= {one.name.rpartition(".")[2] for one in settings}
