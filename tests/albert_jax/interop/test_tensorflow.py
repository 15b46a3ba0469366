"""Checkpoints of the released code: names, exact round trips, what is skipped or rejected."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tensor_names import HEADS, TENSORFLOW_PRETRAINING
from tiny_models import EQUAL, GROUPS, MODELS, TINY, assert_same, make_model, random_params

from albert_jax import (
    AlbertConfig,
    AlbertForPreTraining,
    AlbertForSequenceClassification,
    AlbertModel,
    ProblemType,
    read_pretrained,
)
from albert_jax.interop.names import WeightsError
from albert_jax.interop.stored_weights import flatten
from albert_jax.interop.tensorflow_checkpoint import CHECKPOINT, write_tensorflow
from albert_jax.interop.workdir import ALBERT_CONFIG_FILE

RELEASED = Path(__file__).parents[4] / "shared/data/albert_checkpoint_names"

EXACT = {
    "pre-training": MODELS["pre-training"],
    "groups": ("ForPreTraining", GROUPS, None),
    "equal sizes": ("ForPreTraining", EQUAL | {"embedding_mapping": "when_needed"}, None),
    "relu": ("ForPreTraining", {"hidden_act": "relu"}, None),
    "masked LM": MODELS["masked LM"],
    "spans": MODELS["spans"],
    "unanswerable": ("ForConditionalSpan", {}, None),
}


def write(model, params, directory: Path, **options) -> None:
    directory.mkdir()
    write_tensorflow(directory, flatten(params), model.config, **options)


def read_bundle(prefix: Path) -> dict[str, np.ndarray]:
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def write_bundle(prefix: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write a bundle with TensorFlow 1's own Saver."""
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {name: tf.compat.v1.Variable(tensor) for name, tensor in tensors.items()}
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(variables).save(session, str(prefix), write_meta_graph=False)


@pytest.fixture
def released(tmp_path):
    """A pre-training checkpoint of the released code, with optimizer slots."""
    model = make_model(*MODELS["pre-training"])
    params = random_params(model)
    write(model, params, tmp_path / "ours")
    tensors = read_bundle(tmp_path / "ours" / CHECKPOINT)
    slots = {
        f"{name}/{slot}": np.full_like(tensor, np.nan)
        for name, tensor in tensors.items()
        for slot in ("adam_m", "adam_v")
        if name != "global_step"
    }
    (tmp_path / "released").mkdir()
    shutil.copy(tmp_path / "ours" / ALBERT_CONFIG_FILE, tmp_path / "released")
    write_bundle(tmp_path / "released/model.ckpt-20", tensors | slots)
    return tmp_path / "released", params, tensors


@pytest.mark.parametrize("name", EXACT)
def test_a_round_trip_is_exact(name, tmp_path):
    model = make_model(*EXACT[name])
    params = random_params(model)
    write(model, params, tmp_path / "first", step=70_000)
    again, back = type(model).from_pretrained(tmp_path / "first")
    assert again == model
    assert_same(back, params)

    stored = read_pretrained(tmp_path / "first")
    assert stored.step == 70_000
    (tmp_path / "second").mkdir()
    write_tensorflow(tmp_path / "second", flatten(stored.params), stored.config, step=stored.step)
    for file in (ALBERT_CONFIG_FILE, f"{CHECKPOINT}.data-00000-of-00001", f"{CHECKPOINT}.index"):
        first, second = ((tmp_path / d / file).read_bytes() for d in ("first", "second"))
        assert first == second


def test_the_names_are_the_released_ones(tmp_path):
    model = make_model(*MODELS["pre-training"])
    write(model, random_params(model), tmp_path / "model")
    tensors = read_bundle(tmp_path / "model" / CHECKPOINT)
    assert sorted(tensors) == sorted([*TENSORFLOW_PRETRAINING, "global_step"])
    assert tensors["global_step"].dtype == np.int64
    assert {t.dtype.name for name, t in tensors.items() if name != "global_step"} == {"float32"}
    assert json.loads((tmp_path / "model" / ALBERT_CONFIG_FILE).read_text()) == TINY.to_dict()


@pytest.mark.slow
def test_the_released_base_checkpoint_has_our_names_and_shapes(tmp_path):
    if not RELEASED.exists():
        pytest.skip(f"needs {RELEASED}")
    config = AlbertConfig.from_json_file(RELEASED / "albert_config.json")
    shapes = AlbertForPreTraining(config).parameter_shapes()
    params = {path: np.zeros(shape, np.float32) for path, shape in shapes.items()}
    write_tensorflow(tmp_path, params, config, step=1)
    written = {
        name: (tensor.dtype.name, list(tensor.shape))
        for name, tensor in read_bundle(tmp_path / CHECKPOINT).items()
    }
    published = json.loads((RELEASED / "model.ckpt-best.index.json").read_text())
    assert written == {entry["name"]: (entry["dtype"], entry["shape"]) for entry in published}
    released, ours = (
        json.loads((directory / "albert_config.json").read_text())
        for directory in (RELEASED, tmp_path)
    )
    assert ours == released


def test_optimizer_slots_are_skipped(released):
    directory, params, _ = released
    _, back = AlbertForPreTraining.from_pretrained(directory)
    assert_same(back, params)
    _, back = AlbertForPreTraining.from_pretrained(directory / "model.ckpt-20")
    assert_same(back, params)


def test_a_hub_module_is_read(released, tmp_path):
    directory, params, tensors = released
    hub = tmp_path / "hub"
    for name in ("assets", "variables"):
        (hub / name).mkdir(parents=True)
    shutil.copy(directory / ALBERT_CONFIG_FILE, hub / "assets")
    named = {f"module/{name}": x for name, x in tensors.items() if "seq_rel" not in name}
    del named["module/global_step"]
    write_bundle(hub / "variables/variables", named)
    _, back = AlbertModel.from_pretrained(hub)
    assert_same(back, params["albert"])
    with pytest.raises(WeightsError, match=r"cls/seq_relationship/output_weights is missing"):
        AlbertForPreTraining.from_pretrained(hub)


def test_the_best_checkpoint_is_read_or_the_last(released):
    directory, params, tensors = released
    other = {name: tensor * 2 for name, tensor in tensors.items()}

    def table():
        everything = read_pretrained(directory).params
        return everything["albert"]["embeddings"]["word_embeddings"]["embedding"]

    expected = params["albert"]["embeddings"]["word_embeddings"]["embedding"]
    write_bundle(directory / "model.ckpt-3", other)
    np.testing.assert_array_equal(table(), expected)
    write_bundle(directory / "model.ckpt-100", other)
    np.testing.assert_array_equal(table(), 2 * expected)
    write_bundle(directory / "model.ckpt-best", tensors)
    np.testing.assert_array_equal(table(), expected)


def test_a_fine_tuned_head_has_as_many_labels_as_rows(released):
    directory, params, tensors = released
    head = np.arange(12, dtype=np.float32).reshape(3, 4)
    fine_tuned = {name: x for name, x in tensors.items() if not name.startswith("cls/")}
    fine_tuned |= {"output_weights": head, "output_bias": np.arange(3, dtype=np.float32)}
    write_bundle(directory / "model.ckpt-best", fine_tuned)
    model, back = AlbertForSequenceClassification.from_pretrained(directory)
    assert model.head.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    np.testing.assert_array_equal(back["classifier"]["kernel"], head.T)
    assert HEADS["classes"][1] == ["output_weights", "output_bias"]
    assert_same(back["albert"], params["albert"])
    assert model.head.problem_type is ProblemType.SINGLE_LABEL
    fine_tuned |= {"output_weights": head[:1], "output_bias": np.zeros(1, np.float32)}
    write_bundle(directory / "model.ckpt-best", fine_tuned)
    model, _ = AlbertForSequenceClassification.from_pretrained(directory)
    assert model.head.problem_type is ProblemType.REGRESSION  # the only label of STS-B is a score


def test_everything_wrong_is_listed_at_once(released):
    directory, _, tensors = released
    del tensors["bert/pooler/dense/bias"]
    tensors["cls/predictions/output_bias"] = np.zeros(12, np.float32)
    tensors["bert/encoder/layer_0/kernel"] = np.zeros(1, np.float32)
    write_bundle(directory / "model.ckpt-best", tensors)
    with pytest.raises(WeightsError) as error:
        AlbertForPreTraining.from_pretrained(directory)
    for fault in (
        "bert/pooler/dense/bias is missing",
        "cls/predictions/output_bias has shape (12,), its configuration requires (11)",
        "bert/encoder/layer_0/kernel is unknown",
    ):
        assert fault in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_checkpoint_is_rejected(released):
    directory, _, _ = released
    data = directory / "model.ckpt-20.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    data.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match=r"checkpoint .*model\.ckpt-20 cannot be read: "):
        read_pretrained(directory)
    content[len(content) // 3] ^= 1
    data.write_bytes(content)
    with pytest.raises(WeightsError, match=r"cannot be read: .*[Cc]hecksum"):
        read_pretrained(directory)
    data.unlink()
    with pytest.raises(WeightsError, match=r"cannot be read: "):
        read_pretrained(directory)


def test_an_unreadable_configuration_is_rejected(released):
    directory, _, _ = released
    file = directory / ALBERT_CONFIG_FILE
    file.write_text(json.dumps(TINY.to_dict() | {"hidden_act": "swish"}))
    with pytest.raises(WeightsError, match=r"albert_config\.json: hidden_act must be"):
        read_pretrained(directory)
    file.write_text("[")
    with pytest.raises(WeightsError, match=r"albert_config\.json: "):
        read_pretrained(directory)
    file.unlink()
    with pytest.raises(WeightsError, match="holds no weights"):
        read_pretrained(directory)
    with pytest.raises(WeightsError, match=r"albert_config\.json does not exist"):
        read_pretrained(directory / "model.ckpt-20")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "gelu_erf"}, "hidden_act=gelu_erf: .* only the tanh form of gelu"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False: .* only true"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps=1e-05: .* only 1e-12"),
        (EQUAL, "embedding_mapping=always: .* only when_needed"),
        ({"parameter_sharing": "attention"}, "shares one half of a layer alone"),
        ({"position_encoding": "relative_local"}, "relative_local: .* only absolute"),
        (
            {"num_hidden_layers": 22, "num_hidden_groups": 22},
            "22 layers in 22 groups, .*released code's rounding",
        ),
    ],
    ids=str,
)
def test_models_that_the_released_code_lacks_are_rejected(changes, words, tmp_path):
    model = make_model("ForPreTraining", changes, None)
    with pytest.raises(WeightsError, match=words):
        write(model, random_params(model), tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


def test_layers_that_share_nothing_become_groups(tmp_path):
    model = make_model("ForPreTraining", {"parameter_sharing": "none"}, None)
    params = random_params(model)
    write(model, params, tmp_path / "model")
    again, back = AlbertForPreTraining.from_pretrained(tmp_path / "model")
    assert again.config == dataclasses.replace(TINY, num_hidden_groups=2)
    assert_same(back, params)
