"""StableHLO files, read back in a process that has only JAX, at any batch size and length."""

import dataclasses
import json
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
from tiny_models import THREE, TINY, input_rows, make_model, padded_rows, random_params

from albert_jax.exporting import write_stablehlo
from albert_jax.exporting.inference import infer, prepare_export
from albert_jax.interop.names import WeightsError

CONFIG = dataclasses.replace(TINY, max_position_embeddings=9)
# What somebody else runs: neither this project nor Flax.
READER = """
import sys
import numpy as np
from jax import export
exported = export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
rows = dict(np.load("rows.npz"))
outputs = exported.call(rows["input_ids"], rows["attention_mask"], rows["token_type_ids"])
np.savez("outputs.npz", **outputs)
assert not {"albert_jax", "flax"} & set(sys.modules)
try:
    exported.call(*[np.ones((1, 10), np.int32)] * 3)
except ValueError:
    print("10 tokens are too many")
"""


def test_a_process_with_jax_alone_reads_it(tmp_path: Any) -> None:
    model = make_model("ForSequenceClassification", {"max_position_embeddings": 9}, THREE)
    params = random_params(model)
    exported = prepare_export("AlbertForSequenceClassification", CONFIG, THREE, params)
    write_stablehlo(tmp_path, exported)
    rows = padded_rows(CONFIG, 3, 7)
    np.savez(tmp_path / "rows.npz", **rows)
    done = subprocess.run(
        [sys.executable, "-I", "-c", READER], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "10 tokens are too many\n"
    with np.load(tmp_path / "outputs.npz") as stored:
        outputs = dict(stored)
    expected = infer(exported.model, params, **rows)
    assert set(outputs) == {"last_hidden_state", "pooler_output", "logits"}
    for name in outputs:
        np.testing.assert_allclose(outputs[name], expected[name], atol=1e-5)
    logits = model.apply({"params": params}, **rows).logits
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-5)

    signature = json.loads((tmp_path / "signature.json").read_text())
    assert signature["labels"] == ["one", "two", "three"]
    assert signature["longest_length"] == 9
    assert [one["name"] for one in signature["inputs"]] == list(rows)
    shapes = {one["name"]: one["shape"] for one in signature["outputs"]}
    assert shapes == {
        "last_hidden_state": ["batch", "length", 4],
        "pooler_output": ["batch", 4],
        "logits": ["batch", 3],
    }


def test_models_of_another_kind_are_refused_by_name() -> None:
    with pytest.raises(WeightsError, match=r"AlbertForPoetry is not known here .*ConditionalSpan$"):
        prepare_export("AlbertForPoetry", TINY, None, {})
    with pytest.raises(WeightsError, match=r"of AlbertForMaskedLM are missing: predictions/bias, "):
        encoder = random_params(make_model("Model", {}, None))
        prepare_export("AlbertForMaskedLM", TINY, None, {"albert": encoder})


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("ForMultipleChoice", {"logits": (2, 3)}),
        (
            "ForConditionalSpan",
            {
                "last_hidden_state": (2, 6, 4),
                **dict.fromkeys(("start_log_probs", "start_indices"), (2, 5)),
                **dict.fromkeys(("end_log_probs", "end_indices"), (2, 5, 5)),
                "answer_logits": (2,),
            },
        ),
    ],
)
def test_choices_and_beams_are_exported(
    name: str, outputs: dict[str, tuple[int, ...]], tmp_path: Any
) -> None:
    """A row has at least the tokens of a beam: 5."""
    model = make_model(name, {}, None)
    params = random_params(model)
    exported = prepare_export(f"Albert{name}", model.config, None, params)
    write_stablehlo(tmp_path, exported)
    graph = jax.export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes()))
    rows = input_rows(exported, 2, 6)
    computed = graph.call(*rows.values())
    assert {name: output.shape for name, output in computed.items()} == outputs
    expected = vars(model.apply({"params": params}, **rows))
    for name in outputs.keys() - {"last_hidden_state"}:
        np.testing.assert_allclose(computed[name], expected[name], rtol=1e-5, atol=1e-5)
    signature = json.loads((tmp_path / "signature.json").read_text())
    assert [one["name"] for one in signature["inputs"]] == list(rows)
    assert "labels" not in signature
    shortest = signature["shortest_length"]
    assert shortest == exported.shortest_row
    if shortest > 1:
        with pytest.raises(ValueError, match="refining shapes"):  # of a top-k that is too long
            graph.call(*input_rows(exported, 1, 4).values())
        kinds = {one["name"]: one["dtype"] for one in signature["outputs"]}
        assert kinds["end_indices"] == "int32" and kinds["end_log_probs"] == "float32"


def test_what_transformers_cannot_hold_is_exported(tmp_path: Any) -> None:
    changes = {"position_encoding": "rotary", "norm": "pre", "attention_window": 2}
    model = make_model("ForPreTraining", changes, None)
    exported = prepare_export("AlbertForPreTraining", model.config, None, random_params(model))
    write_stablehlo(tmp_path, exported)
    graph = jax.export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes()))
    rows = padded_rows(model.config, 2, 5)
    expected = infer(model, exported.params, **rows)
    for name, output in graph.call(*rows.values()).items():
        np.testing.assert_allclose(output, expected[name], atol=1e-5)
