"""Workdirs of generation: written, read, and started from."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from tiny_decoders import DECODER, TIED, draw_params, make_decoder
from tiny_models import TINY, assert_same

from albert_jax import AlbertForConditionalGeneration, AlbertModel, GenerationOptions
from albert_jax.decoder.decoder import Gpt2Decoder
from albert_jax.encoder import Execution, Remat
from albert_jax.generation import (
    EarlyStopping,
    open_decoder,
    options_bytes,
    options_to_json,
    read_generation_options,
    read_options,
)
from albert_jax.interop.encoder_decoder import join_weights
from albert_jax.interop.names import WeightsError
from albert_jax.interop.workdir import read_decoder_config, write_decoder_config
from albert_jax.matmuls.dense_matmul import Matmuls
from albert_jax.pretrained import open_weights
from albert_jax.training.checkpoint import Checkpoints

Class = AlbertForConditionalGeneration
SHARED, UNSHARED = {"parameter_sharing": "all"}, {"n_inner": 5, "n_embd": 4, "n_head": 1}


def make_workdir(path: Path, model: Class, params: Any) -> Path:
    path.mkdir()
    model.config.to_json_file(path / "albert_config.json")
    write_decoder_config(epath.Path(path / "decoder_config.json"), model.decoder_config)
    with Checkpoints(path / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(5, {"params": params, "opt_state": np.zeros(2)}, finite=True)
    return path


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Class, Any]]:
    """Workdirs whose decoder has another width, the same width, or the encoder's own layers."""
    root = tmp_path_factory.mktemp("workdirs")
    found: dict[str, tuple[Path, Class, Any]] = {}
    for name, changes in {"shared": SHARED, "unshared": UNSHARED, "tied": TIED}.items():
        model = make_decoder(**changes)
        params = draw_params(model)
        found[name] = make_workdir(root / name, model, params), model, params
    return found


@pytest.mark.parametrize("kind", ["shared", "unshared", "tied"])
def test_a_workdir_holds_a_model_and_its_encoder(kind: str, workdirs: Any) -> None:
    path, model, params = workdirs[kind]
    back, again = Class.from_pretrained(path)
    assert (back.config, back.decoder_config) == (model.config, model.decoder_config)
    assert_same(again, params)
    _, encoder = AlbertModel.from_pretrained(path / "checkpoints/5")
    assert_same(encoder, params["albert"])


def test_an_encoder_alone_is_no_such_model(workdirs: Any, tmp_path: Path) -> None:
    _, model, params = workdirs["shared"]
    AlbertModel(model.config).save_pretrained(tmp_path / "encoder", params["albert"])
    with pytest.raises(WeightsError, match="encoder has an encoder and no decoder"):
        Class.from_pretrained(tmp_path / "encoder")
    assert_same(AlbertModel.from_pretrained(tmp_path / "encoder")[1], params["albert"])
    model.save_pretrained(tmp_path / "both", params)
    assert_same(AlbertModel.from_pretrained(tmp_path / "both")[1], params["albert"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layer": "2"}, "n_layer must be a whole number in .*, got '2'"),
        ({"n_head": 4}, r"n_embd must be a multiple of n_head \(4\), got 6"),
        ({"n_layers": 2}, "n_layers is unknown; did you mean n_layer"),
    ],
)
def test_a_damaged_configuration_is_one_line(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = epath.Path(tmp_path / "decoder_config.json")
    write_decoder_config(file, DECODER)
    assert read_decoder_config(file) == DECODER
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(WeightsError, match=f"decoder_config.json: {message}"):
        read_decoder_config(file)


def names_to_initialize(stored: Any, model: Any) -> set[str]:
    """The parameters of a model that are not stored in their shape."""
    shapes = model.parameter_shapes()
    found = stored.read(shapes)
    return {name for name in shapes if name not in found or found[name].shape != shapes[name]}


@pytest.mark.parametrize("place", ["workdir", "transformers"])
def test_a_decoder_starts_from_a_model_with_cross_attention(
    place: str, workdirs: Any, tmp_path: Path
) -> None:
    path, model, params = workdirs["shared"]
    if place == "transformers":
        model.save_pretrained(tmp_path / "saved", params)
        path = tmp_path / "saved"
    encoder = AlbertModel(dataclasses.replace(TINY, hidden_size=8, intermediate_size=3))
    of_encoder = draw_params(encoder)
    encoder.save_pretrained(tmp_path / "encoder", of_encoder)
    deeper = {"pad_token_id": 3, "n_layer": 3, "parameter_sharing": "none"}
    weights, config = open_decoder(path, deeper)
    assert config == dataclasses.replace(model.decoder_config, **deeper)
    # If the encoder has another width, the stored projection is not taken.
    stored = join_weights(open_weights(tmp_path / "encoder"), weights)
    started = Class(stored.config, config)
    projection = {"enc_to_dec_proj/kernel", "enc_to_dec_proj/bias"}
    assert names_to_initialize(stored, started) == projection
    again = started.fit(stored, required=started.pretrained_names())
    assert_same(again["albert"], of_encoder)
    layers = jax.tree.map(
        lambda x: np.broadcast_to(x, (config.n_layer, *x.shape[1:])), params["decoder"]["layers"]
    )
    assert_same(again["decoder"], {**params["decoder"], "layers": layers})
    # If it has the same width, the projection is taken; the decoder in its workdir is not.
    other = workdirs["unshared"][0]
    stored = join_weights(open_weights(other), open_decoder(path, {})[0])
    started = Class(stored.config, model.decoder_config)
    assert not names_to_initialize(stored, started)
    assert_same(started.fit(stored)["enc_to_dec_proj"], params["enc_to_dec_proj"])


def test_what_cannot_be_a_start_is_named(workdirs: Any) -> None:
    tied, model, params = workdirs["tied"]
    with pytest.raises(WeightsError, match="tie_to_encoder is true there, so it cannot be false"):
        open_decoder(tied, {"tie_to_encoder": False})
    with pytest.raises(WeightsError, match="layers differ, so parameter_sharing cannot be all"):
        open_decoder(workdirs["unshared"][0], {"parameter_sharing": "all"})
    back, again = Class.from_encoder_decoder_pretrained(tied, tied, eos_token_id=4)
    assert back.decoder_config == dataclasses.replace(model.decoder_config, eos_token_id=4)
    assert_same(again["decoder"], params["decoder"])


BEAMS = GenerationOptions(
    max_new_tokens=9,
    num_beams=3,
    length_penalty=2,
    early_stopping=EarlyStopping.NEVER,
    no_repeat_ngram_size=2,
)
DRAWS = GenerationOptions(min_new_tokens=2, temperature=0.5, top_k=7, top_p=0.75)


@pytest.mark.parametrize(
    "options", [BEAMS, DRAWS, GenerationOptions(early_stopping=EarlyStopping.TRUE)]
)
def test_options_come_back(options: GenerationOptions, tmp_path: Path) -> None:
    file = epath.Path(tmp_path / "generation_config.json")
    assert read_options(file) == GenerationOptions()
    assert read_generation_options(tmp_path) is None
    file.write_bytes(options_bytes(options))
    assert read_options(file) == options
    tokens = {"pad_token_id": 0, "num_beam_groups": 1, "transformers_version": "5"}
    file.write_text(json.dumps(tokens))
    assert read_generation_options(tmp_path) is None
    file.write_text(json.dumps(options_to_json(options) | tokens))
    assert read_generation_options(tmp_path) == options


def test_lengths_of_transformers_count_the_start_token(tmp_path: Path) -> None:
    file = tmp_path / "generation_config.json"
    file.write_text('{"max_length": 20, "min_length": 5, "top_k": 3, "early_stopping": true}')
    at_once = EarlyStopping.TRUE
    expected = GenerationOptions(max_new_tokens=19, min_new_tokens=4, early_stopping=at_once)
    assert read_generation_options(tmp_path) == expected
    for values, message in (
        ({"num_beams": "4"}, "num_beams must be a whole number"),
        ({"max_length": 2.5}, "max_length must be a whole number, got 2.5"),
        ({"do_sample": 1}, "do_sample must be true or false, got 1"),
        ({"do_sample": True, "num_beams": 2}, "num_beams must be 1 where temperature is above 0"),
        ({"early_stopping": 1}, "early_stopping must be one of true, false, never, got 1"),
    ):
        file.write_text(json.dumps(values))
        with pytest.raises(WeightsError, match=f"generation_config.json: {message}"):
            read_generation_options(tmp_path)


@pytest.mark.parametrize("tied", [False, True])
def test_of_execution_remat_and_unroll_alone_reach_the_decoder(tied: bool) -> None:
    config = dataclasses.replace(DECODER, **(TIED if tied else {"n_embd": 4, "n_head": 2}))
    encoder = dataclasses.replace(TINY, num_hidden_layers=2) if tied else None
    params = draw_params(make_decoder(**dataclasses.asdict(config)))

    def trace(**options: Any) -> str:
        decoder = Gpt2Decoder(config, execution=Execution(**options), encoder_config=encoder)
        layers = params["albert"]["encoder"]["layers"] if tied else None

        def score(of_decoder: Any) -> Any:
            ids, memory = np.zeros((1, 3), np.int32), jnp.zeros((1, 2, 4))
            variables = {"params": of_decoder}
            return decoder.apply(variables, ids, memory, None, layers, deterministic=True)

        jaxpr = str(jax.make_jaxpr(score)(params["decoder"]))
        return re.sub("0x[0-9a-f]+", "", jaxpr)  # of functions

    usual = trace()
    assert trace(fused=True, matmuls=Matmuls.FLOAT8) == usual
    assert "unroll=2" in trace(unroll=2) and "unroll=2" not in usual
    assert "remat" in trace(remat=Remat.FULL) and "remat" not in usual
