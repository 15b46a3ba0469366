"""The model's configuration: released JSONs, released sizes, and values that are rejected."""

import importlib.metadata
import json

import pytest

import albert_jax
from albert_jax import AlbertConfig
from albert_jax.config import (
    EmbeddingMapping,
    HiddenAct,
    Initialization,
    Norm,
    ParameterSharing,
    PositionEncoding,
)
from albert_jax.settings import FieldError

RELEASED_JSON = {
    "attention_probs_dropout_prob": 0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0,
    "embedding_size": 128,
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 16384,
    "max_position_embeddings": 512,
    "num_attention_heads": 64,
    "num_hidden_layers": 12,
    "num_hidden_groups": 1,
    "net_structure_type": 0,
    "layers_to_keep": [],
    "gap_size": 0,
    "num_memory_blocks": 0,
    "inner_group_num": 1,
    "down_scale_factor": 1,
    "type_vocab_size": 2,
    "vocab_size": 30000,
}


def test_released_json_comes_back_whole(tmp_path):
    (tmp_path / "in.json").write_text(json.dumps(RELEASED_JSON))
    config = AlbertConfig.from_json_file(tmp_path / "in.json")
    config.to_json_file(tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == RELEASED_JSON
    assert config.extra["layers_to_keep"] == []
    assert config == AlbertConfig.from_name("xxlarge_v2")
    hash(config)  # jit and flax need it


def test_a_dropout_of_0_may_be_written_as_a_whole_number():
    assert type(AlbertConfig.from_dict({"hidden_dropout_prob": 0}).hidden_dropout_prob) is float


def test_ablations_come_back_too(tmp_path):
    config = AlbertConfig(
        parameter_sharing=ParameterSharing.FFN,
        embedding_mapping=EmbeddingMapping.ALWAYS,
        layer_norm_eps=1e-6,
        hidden_act=HiddenAct.GELU_ERF,
        position_encoding=PositionEncoding.RELATIVE_LOCAL,
        max_relative_distance=4,
        rotary_base=160_000.0,
        attention_window=128,
        global_every=2,
        norm=Norm.PRE,
        initialization=Initialization.FAN_IN,
        dense_biases=False,
        depth_signal="embedding",
        num_experts=4,
        expert_layers="2, 4",
    )
    config.to_json_file(tmp_path / "config.json")
    assert AlbertConfig.from_json_file(tmp_path / "config.json") == config


def test_global_attention_comes_first_of_every_few_applications():
    local = AlbertConfig(attention_window=8, global_every=3, inner_group_num=2)
    assert [number for number in range(10) if local.is_global(number)] == [0, 3, 6, 9]
    periods = {
        (every, inner): AlbertConfig(
            attention_window=8, global_every=every, inner_group_num=inner
        ).attention_period
        for every in (1, 3, 4)
        for inner in (1, 2)
    }
    assert periods == {(1, 1): 1, (1, 2): 1, (3, 1): 3, (3, 2): 3, (4, 1): 4, (4, 2): 2}
    everywhere = AlbertConfig()
    assert everywhere.is_global(1) and everywhere.attention_period == 1


def test_empty_activation_is_linear():
    assert AlbertConfig(hidden_act="").hidden_act is HiddenAct.LINEAR


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "swish"}, ["hidden_act", "gelu_erf", "swish"]),
        ({"parameter_sharing": "some"}, ["parameter_sharing", "attention", "some"]),
        (
            {"hidden_size": 100, "num_attention_heads": 12},
            ["hidden_size must", "num_attention_heads (12)", "100"],
        ),
        ({"num_hidden_layers": 10**12}, ["num_hidden_layers", "in [1, 1000]", "1000000000000"]),
        ({"hidden_size": 10**400}, ["hidden_size", "…"]),
        ({"layer_norm_eps": 10**400}, ["layer_norm_eps", "…"]),
        ({"vocab_size": 0}, ["vocab_size", "in [1, 10000000]", "0"]),
        ({"num_hidden_layers": 12.0}, ["num_hidden_layers", "whole number", "12.0"]),
        ({"hidden_dropout_prob": 1.0}, ["hidden_dropout_prob", "[0, 1)"]),
        ({"hidden_dropout_prob": "0.1"}, ["hidden_dropout_prob", "a number", "'0.1'"]),
        ({"initializer_range": 0.0}, ["initializer_range", "> 0"]),
        ({"attention_window": 7}, ["attention_window must be an even number, got 7"]),
        ({"rotary_base": 1.0}, ["rotary_base", "> 1"]),
        ({"num_experts": 3, "experts_per_token": 4}, ["experts_per_token must", "(3)", "4"]),
        ({"experts_per_token": 1}, ["experts_per_token", "in [2, 1024]", "1"]),
        ({"num_experts": 2, "expert_layers": "4;8"}, ["expert_layers", "all, or", "4;8"]),
        ({"num_experts": 2, "expert_layers": "0,13"}, ["expert_layers", "(12)", "0,13"]),
        ({"depth_signal": "sinusoid"}, ["depth_signal", "none, scale, embedding", "sinusoid"]),
        ({"num_hidden_groups": 13}, ["num_hidden_groups must", "num_hidden_layers (12)", "13"]),
    ],
    ids=str,
)
def test_values_that_no_model_can_have_are_rejected(changes, words):
    with pytest.raises(FieldError) as error:
        AlbertConfig(**changes)
    assert all(word in str(error.value) for word in words), error.value
    assert "config" not in str(error.value)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"base_v3.*base_v1.*xxlarge_zh"):
        AlbertConfig.from_name("base_v3")


def test_the_package_has_the_version_of_its_distribution():
    assert albert_jax.__version__ == importlib.metadata.version("albert-jax")
