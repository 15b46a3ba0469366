"""Configurations as ConfigDicts and as JSON, and back."""

import dataclasses
import json

import pytest
from config_files import load

from albert_jax.config import AlbertConfig, ParameterSharing
from albert_jax.training.config import OptimizerConfig
from albert_jax.training.parallel import Parallelism
from data_pipeline.config import DataConfig
from data_pipeline.errors import InputError
from experiments.cli.config_dicts import from_config_dict, from_json, to_config_dict, to_json
from experiments.run.config import ExperimentConfig, RunConfig


def test_a_whole_number_is_no_other_type_where_a_number_is_wanted() -> None:
    """Otherwise a flag could not override it with a fraction."""
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
        ("{", "runs/x/config.json: this is not JSON: Expecting property name"),
        ("[]", "runs/x/config.json: --config must be a group of values"),
        ('{"seeed": 1}', "runs/x/config.json: there is no --config.seeed; did you mean seed?"),
        (
            '{"seed": 1.5}',
            "runs/x/config.json: --config.seed must be a whole number in [0, 4294967295], got 1.5",
        ),
        (
            '{"seed": true}',
            "runs/x/config.json: --config.seed must be a whole number in [0, 4294967295], got True",
        ),
        ('{"data": 3}', "runs/x/config.json: --config.data must be a group of values, got 3"),
    ],
)
def test_a_bad_config_json_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        from_json(text, ExperimentConfig, source="runs/x/config.json")
    assert str(raised.value).startswith(message)


def test_a_config_json_from_before_a_setting_existed_has_its_default() -> None:
    values = json.loads(to_json(load("albert_base")))
    del values["run"]["deterministic_kernels"]
    assert from_json(json.dumps(values), ExperimentConfig, source="x") == load("albert_base")
