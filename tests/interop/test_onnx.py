"""ONNX files, run by onnxruntime: the same outputs as ours, at any batch and length."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny_models import (
    EQUAL,
    GROUPS,
    MODELS,
    UNTIED,
    input_rows,
    make_model,
    padded_rows,
    random_params,
)

from albert_jax import AlbertConfig
from albert_jax.config import HeadConfig, HiddenAct
from albert_jax.exporting import write_onnx
from albert_jax.exporting.inference import infer, prepare_export
from albert_jax.interop.names import WeightsError

pytestmark = pytest.mark.interop

Case = tuple[str, dict[str, Any], HeadConfig | None]

LAYERS = {"num_hidden_layers": 6, "num_hidden_groups": 2}
CASES: dict[str, Case] = {
    **MODELS,
    "spans of a beam": ("ForConditionalSpan", {}, None),
    **{str(act): ("ForMaskedLM", {"hidden_act": act}, None) for act in HiddenAct},
    "untied": ("ForMaskedLM", UNTIED, None),
    "mapped": ("Model", EQUAL, None),
    "not mapped": ("Model", {"embedding_size": 4}, None),
    "pre": ("ForPreTraining", GROUPS | {"norm": "pre"}, None),
    "no positions": ("ForPreTraining", {"position_encoding": "none"}, None),
    "unshared": ("Model", LAYERS | {"parameter_sharing": "none"}, None),
    "shared attention": ("Model", LAYERS | {"parameter_sharing": "attention"}, None),
    "epsilon": ("Model", {"layer_norm_eps": 0.5}, None),
}


def export(case: Case, directory: Path) -> tuple[Any, Any]:
    """The exported model, and an onnxruntime session of its file."""
    import onnxruntime

    name, changes, head = case
    model = make_model(name, changes, head)
    params = random_params(model)
    whole = {"albert": params} if name == "Model" else params
    exported = prepare_export(f"Albert{name}", model.config, head, whole)
    write_onnx(directory, exported)
    return exported, onnxruntime.InferenceSession(directory / "model.onnx")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_onnxruntime_computes_the_same(case: Case, tmp_path: Path) -> None:
    exported, session = export(case, tmp_path)
    params = exported.params["albert"] if case[0] == "Model" else exported.params
    names = [output.name for output in session.get_outputs()]
    assert names == list(exported.output_shapes())
    compute = jax.jit(infer, static_argnums=0)
    for batch, length in ((1, exported.shortest_row), (4, 6)):
        rows = input_rows(exported, batch, length)
        wide = {name: row.astype(np.int64) for name, row in rows.items()}
        expected = compute(exported.model, params, **rows)
        assert set(expected) == set(names)
        for name, output in zip(names, session.run(None, wide), strict=True):
            np.testing.assert_allclose(output, expected[name], rtol=1e-4, atol=1e-4)


def test_padding_moves_nothing(tmp_path: Path) -> None:
    exported, session = export(CASES["classes"], tmp_path)
    rows = {k: v.astype(np.int64) for k, v in padded_rows(exported.config, 3, 6).items()}
    (before,) = session.run(["logits"], rows)
    rows["input_ids"] = np.where(rows["attention_mask"], rows["input_ids"], 7)
    assert np.array_equal(session.run(["logits"], rows)[0], before)
    rows["input_ids"][:, 1] += 1
    rows["input_ids"] %= exported.config.vocab_size
    assert not np.allclose(session.run(["logits"], rows)[0], before)


def test_layers_share_what_is_stored(tmp_path: Path) -> None:
    import onnx

    sizes = {}
    for layers in (1, 4):
        directory = tmp_path / str(layers)
        directory.mkdir()
        changes = {"num_hidden_layers": layers, "intermediate_size": 500}
        export(("Model", changes, None), directory)
        model = onnx.load(directory / "model.onnx")
        sizes[layers] = sum(len(array.raw_data) for array in model.graph.initializer)
    assert sizes[1] == sizes[4]
    signature = json.loads((tmp_path / "4/signature.json").read_text())
    assert signature["inputs"][0] == {
        "name": "input_ids",
        "dtype": "int64",
        "shape": ["batch", "length"],
    }


def test_what_it_cannot_express_is_refused_by_name(tmp_path: Path) -> None:
    for encoding in ("rotary", "relative_local"):
        changes = {"position_encoding": encoding}
        with pytest.raises(WeightsError, match=f"position_encoding={encoding} has no onnx export"):
            export(("Model", changes, None), tmp_path)
    with pytest.raises(WeightsError, match="attention_window=2 has no onnx export"):
        export(("Model", {"attention_window": 2}, None), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_real_size_with_its_small_epsilon(tmp_path: Path) -> None:
    config = dataclasses.replace(AlbertConfig.from_name("base_v2"), vocab_size=50)
    changes = dataclasses.asdict(config) | {"num_hidden_layers": 2}
    exported, session = export(("ForMaskedLM", changes, None), tmp_path)
    rows = padded_rows(config, 2, 40)
    scaled = {name: row.astype(np.int64) for name, row in rows.items()}
    (output,) = session.run(["logits"], scaled)
    expected = infer(exported.model, exported.params, **rows)["logits"]
    np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-3)
