"""Hugging Face directories: exact round trips, every kind of file, every error."""

import dataclasses
import json
import logging
import pickle
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_models import (
    EQUAL,
    MODELS,
    THREE,
    TINY,
    UNTIED,
    assert_same,
    make_model,
    random_params,
)
from torch_files import pickled_table, write_legacy, write_zip

import albert_jax
from albert_jax import (
    AlbertForMaskedLM,
    AlbertForPreTraining,
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
    AlbertModel,
    HeadConfig,
    ProblemType,
    read_pretrained,
)
from albert_jax.config import AlbertConfig, HiddenAct
from albert_jax.interop.huggingface_config import config_from_json, head_from_json, to_json
from albert_jax.interop.names import WeightsError
from albert_jax.interop.parameter_fitting import fit_parameters
from albert_jax.interop.stored_weights import flatten
from albert_jax.pretrained import open_weights

CONFIG, WEIGHTS = "config.json", "model.safetensors"
EXACT = {
    **MODELS,
    "untied": ("ForPreTraining", UNTIED, None),
    "untied masked LM": ("ForMaskedLM", UNTIED, None),
    "equal sizes": ("ForMaskedLM", EQUAL, None),
    "equal sizes, no mapping": ("ForMaskedLM", {"embedding_size": 4}, None),
    "erf": ("ForPreTraining", {"hidden_act": "gelu_erf", "layer_norm_eps": 1e-3}, None),
}


@pytest.fixture
def pretraining(tmp_path):
    """A directory of the pre-training model, to be read or damaged."""
    model = make_model(*MODELS["pre-training"])
    model.save_pretrained(tmp_path / "model", random_params(model))
    return tmp_path / "model"


def change(file: Path, **changes) -> None:
    """Replace values of a JSON file; None removes one."""
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def add(directory: Path, **tensors) -> None:
    """Add tensors to a file; None removes one."""
    stored = load_file(directory / WEIGHTS) | {n.replace("__", "."): t for n, t in tensors.items()}
    save_file({n: t for n, t in stored.items() if t is not None}, directory / WEIGHTS)


@pytest.mark.parametrize("name", EXACT)
def test_a_round_trip_is_exact(name, tmp_path):
    model = make_model(*EXACT[name])
    params = random_params(model)
    model.save_pretrained(tmp_path / "first", params)
    again, back = type(model).from_pretrained(tmp_path / "first")
    assert again == model
    assert_same(back, params)

    again.save_pretrained(tmp_path / "second", back)
    for file in (CONFIG, WEIGHTS):
        first, second = ((tmp_path / d / file).read_bytes() for d in ("first", "second"))
        assert first == second
    everything = read_pretrained(tmp_path / "first")
    assert everything.config == model.config
    assert everything.architecture == type(model).__name__
    in_full = {"albert": params} if isinstance(model, AlbertModel) else params
    assert_same(everything.params, in_full)


def test_null_counts_as_absent(pretraining):
    expected = open_weights(pretraining).config
    file = pretraining / CONFIG
    values = json.loads(file.read_text())
    nulls = ("hidden_act", "num_labels", "classifier_dropout_prob", "id2label", "layer_norm_eps")
    assert set(values) >= {"hidden_act", "layer_norm_eps"}
    file.write_text(json.dumps(values | dict.fromkeys((*nulls, "architectures", "gap_size"))))
    found = open_weights(pretraining)
    assert found.config == expected
    assert found.config.extra == {}
    file.write_text(json.dumps({"hidden_act": None, "gap_size": None, "vocab_size": 7}))
    config = AlbertConfig.from_json_file(file)
    assert (config.hidden_act, config.vocab_size, config.extra) == (HiddenAct.GELU, 7, {})


def test_a_mapping_that_is_not_the_model_s_names_the_setting(tmp_path):
    for mapping, other, fault in (
        ("always", "when_needed", "bias is not a parameter of the model"),
        ("when_needed", "always", "bias is missing"),
    ):
        changes = {"embedding_size": 4, "embedding_mapping": mapping}
        stored = make_model("ForMaskedLM", changes, None)
        stored.save_pretrained(tmp_path / mapping, random_params(stored))
        model = make_model("ForMaskedLM", changes | {"embedding_mapping": other}, None)
        hint = rf"embedding_hidden_mapping_in/{fault} \(set model\.embedding_mapping={mapping}\)"
        with pytest.raises(WeightsError, match=hint):
            fit_parameters(open_weights(tmp_path / mapping), model, seed=0, required=("",))


def test_only_what_is_used_must_be_there(tmp_path):
    stored = make_model("ForMaskedLM", {}, None)
    params = random_params(stored)
    stored.save_pretrained(tmp_path / "model", params)
    model, found = AlbertModel.from_pretrained(tmp_path / "model", add_pooling_layer=False)
    assert_same(found, jax.tree.map(jnp.asarray, params["albert"]))
    assert not model.add_pooling_layer
    with pytest.raises(WeightsError, match=r"albert\.pooler\.weight is missing"):
        AlbertModel.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("kept", [(), ("albert.pooler.weight", "albert.pooler.bias")])
def test_a_directory_without_an_encoder_is_no_model(kept, pretraining):
    tensors = load_file(pretraining / WEIGHTS)
    save_file({name: tensors[name] for name in kept}, pretraining / WEIGHTS)
    fault = r"word_embeddings\.weight is missing" if kept else "holds no weights"
    with pytest.raises(WeightsError, match=fault):
        read_pretrained(pretraining)


def test_layers_that_share_nothing_become_groups(tmp_path):
    changes = {"num_hidden_layers": 3, "parameter_sharing": "none"}
    model = make_model("ForPreTraining", changes, None)
    params = random_params(model)
    model.save_pretrained(tmp_path / "model", params)
    assert json.loads((tmp_path / "model" / CONFIG).read_text())["num_hidden_groups"] == 3
    again, back = AlbertForPreTraining.from_pretrained(tmp_path / "model")
    assert again.config.attention_copies == again.config.num_hidden_groups == 3
    assert_same(back, params)


def test_the_configuration_is_complete_for_strict_readers(tmp_path):
    config = dataclasses.replace(TINY, hidden_dropout_prob=0, extra={"gap_size": 0, "mine": 1})
    model = AlbertForTokenClassification(config, THREE)
    model.save_pretrained(tmp_path / "model", random_params(model))
    text = (tmp_path / "model" / CONFIG).read_text()
    assert json.loads(text) == {
        "architectures": ["AlbertForTokenClassification"],
        "model_type": "albert",
        "vocab_size": 11,
        "embedding_size": 3,
        "hidden_size": 4,
        "num_hidden_layers": 2,
        "num_hidden_groups": 1,
        "inner_group_num": 1,
        "num_attention_heads": 2,
        "intermediate_size": 5,
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "classifier_dropout_prob": 0.25,
        "max_position_embeddings": 6,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "dtype": "float32",
        "id2label": {"0": "one", "1": "two", "2": "three"},
        "label2id": {"one": 0, "two": 1, "three": 2},
        "problem_type": "single_label_classification",
        "gap_size": 0,
    }
    assert '"hidden_dropout_prob": 0.0' in text


def test_head_configurations_are_read():
    def head(**values):
        return head_from_json({"model_type": "albert", **values})

    assert head() == HeadConfig()
    assert head(num_labels=3).labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    names = {str(i): f"n{i}" for i in reversed(range(11))}
    assert head(id2label=names).labels == tuple(f"n{i}" for i in range(11))
    assert head(id2label={"0": "score"}).problem_type is ProblemType.REGRESSION
    several = "multi_label_classification"
    assert head(problem_type=several, classifier_dropout_prob=0) == HeadConfig(
        problem_type=ProblemType.MULTI_LABEL, classifier_dropout_prob=0
    )


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("gelu", HiddenAct.GELU_ERF),
        ("gelu_new", HiddenAct.GELU),
        ("gelu_pytorch_tanh", HiddenAct.GELU),
        ("relu", HiddenAct.RELU),
    ],
)
def test_gelu_of_transformers_is_the_erf_form(theirs, ours):
    sizes = {"hidden_size": 12, "num_attention_heads": 3}
    values = {"model_type": "albert", "hidden_act": theirs, **sizes}
    config = config_from_json(values)
    assert config.hidden_act is ours
    written = to_json(config, None, architecture="AlbertModel", dtype="float32")
    assert written["hidden_act"] == theirs.replace("pytorch_tanh", "new")
    assert config_from_json({"model_type": "albert"}).hidden_act is HiddenAct.GELU


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64])
def test_files_of_other_dtypes_are_read_as_float32(dtype, tmp_path):
    model = make_model(*MODELS["masked LM"])
    params = random_params(model)
    cast = {path: x.astype(dtype) for path, x in flatten(params).items()}
    model.save_pretrained(tmp_path / "model", albert_jax.interop.stored_weights.unflatten(cast))
    name = np.dtype(dtype).name
    assert json.loads((tmp_path / "model" / CONFIG).read_text())["dtype"] == name
    _, back = AlbertForMaskedLM.from_pretrained(tmp_path / "model")
    for path, value in flatten(back).items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, cast[path].astype(np.float32))


def test_entries_of_old_files_that_are_no_parameters_are_ignored(pretraining):
    stored = load_file(pretraining / WEIGHTS)
    expected = read_pretrained(pretraining).params
    add(
        pretraining,
        albert__embeddings__position_ids=np.arange(6)[None],
        predictions__decoder__weight=stored["albert.embeddings.word_embeddings.weight"],
        predictions__decoder__bias=stored["predictions.bias"],
    )
    assert_same(read_pretrained(pretraining).params, expected)
    assert_same(
        AlbertForPreTraining.from_pretrained(pretraining)[1],
        AlbertForPreTraining.from_pretrained(pretraining, strict=False)[1],
    )


def test_shards_are_read_like_one_file(pretraining):
    expected = read_pretrained(pretraining).params
    tensors = load_file(pretraining / WEIGHTS)
    (pretraining / WEIGHTS).unlink()
    places = {}
    for number in range(3):
        names = sorted(tensors)[number::3]
        file = f"model-0000{number}.safetensors"
        save_file({name: tensors[name] for name in names}, pretraining / file)
        places |= dict.fromkeys(names, file)
    index = pretraining / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert_same(read_pretrained(pretraining).params, expected)

    index.write_text(json.dumps({"weight_map": places | {"extra": "model-00000.safetensors"}}))
    with pytest.raises(WeightsError, match=r"index\.json names extra, which no shard contains"):
        read_pretrained(pretraining)
    index.write_text(json.dumps({"weight_map": places | {"extra": "../other.safetensors"}}))
    with pytest.raises(WeightsError, match=r"other\.safetensors', which is no file"):
        read_pretrained(pretraining)
    index.write_text("{}")
    with pytest.raises(WeightsError, match=r"index\.json: weight_map is missing"):
        read_pretrained(pretraining)


class TestStrictness:
    def test_everything_wrong_is_listed_at_once(self, pretraining):
        add(
            pretraining,
            albert__pooler__bias=None,
            predictions__LayerNorm__weight=None,
            sop_classifier__classifier__bias=np.zeros(3, np.float32),
            albert__encoder__extra=np.zeros(1, np.float32),
        )
        with pytest.raises(WeightsError) as error:
            AlbertForPreTraining.from_pretrained(pretraining)
        message = str(error.value)
        assert "\n" not in message
        assert message.startswith(str(pretraining))
        for fault in (
            "albert.pooler.bias is missing",
            "predictions.LayerNorm.weight is missing",
            "sop_classifier.classifier.bias has shape (3,), its configuration requires (2)",
            "albert.encoder.extra is unknown",
        ):
            assert fault in message
        with pytest.raises(WeightsError) as everything:
            read_pretrained(pretraining)
        assert "extra is unknown" in str(everything.value)
        assert "sop_classifier" in str(everything.value)

    def test_a_missing_block_of_a_group_is_reported(self, tmp_path):
        model = make_model(*MODELS["groups"])
        model.save_pretrained(tmp_path / "model", random_params(model))
        layer = "albert__encoder__albert_layer_groups__2__albert_layers__1"
        add(tmp_path / "model", **{f"{layer}__ffn__bias": None})
        for read in (AlbertForPreTraining.from_pretrained, read_pretrained):
            with pytest.raises(WeightsError, match=r"groups\.2\.albert_layers\.1\.ffn\.bias is mi"):
                read(tmp_path / "model")

    def test_heads_of_other_tasks_are_ignored(self, pretraining):
        model, params = AlbertModel.from_pretrained(pretraining)
        assert model.config == TINY
        assert_same({"albert": params}, {"albert": read_pretrained(pretraining).params["albert"]})
        with pytest.raises(WeightsError, match=r"classifier\.weight is missing"):
            AlbertForSequenceClassification.from_pretrained(pretraining)

    def test_missing_parameters_are_initialized_and_logged(self, pretraining, caplog):
        with caplog.at_level(logging.WARNING):
            model, params = AlbertForSequenceClassification.from_pretrained(
                pretraining, strict=False, head=THREE
            )
        assert model.head == THREE
        (record,) = caplog.records
        for words in (
            "classifier.weight is missing; classifier.bias is missing",
            "initialized at random from seed 0: classifier/bias, classifier/kernel",
        ):
            assert words in record.getMessage()
        fresh = model.initialize(albert_jax.pretrained.jax.random.key(0))
        assert_same(params["classifier"], fresh["classifier"])
        assert_same(params["albert"], read_pretrained(pretraining).params["albert"])

    def test_heads_with_other_labels_are_rejected_or_initialized(self, tmp_path, caplog):
        model = make_model(*MODELS["classes"])
        model.save_pretrained(tmp_path / "model", random_params(model))
        two = HeadConfig(labels=("no", "yes"))
        load = AlbertForSequenceClassification.from_pretrained
        with pytest.raises(WeightsError, match=r"classifier/kernel has shape \(4, 3\), .*\(4, 2\)"):
            load(tmp_path / "model", head=two)
        _, params = load(tmp_path / "model", head=two, strict=False)
        assert params["classifier"]["kernel"].shape == (4, 2)
        assert "initialized at random" in caplog.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 6}, ["query.weight has shape (4, 4), its configuration requires (6, 6)"]),
        ({"num_hidden_groups": 2}, ["groups.1.albert_layers.0.attention.query.weight is missing"]),
        ({"vocab_size": 12}, ["word_embeddings.weight", "(11, 3)", "(12, 3)"]),
        ({"model_type": "bert"}, ["config.json", "model_type must be albert, got 'bert'"]),
        ({"hidden_act": "swish"}, ["hidden_act must be one of gelu_new", "'swish'"]),
        ({"num_attention_heads": 3}, ["config.json", "multiple of", "(3)"]),
        ({"hidden_size": "4"}, ["config.json", "hidden_size must be a whole number"]),
        (
            {"num_hidden_layers": 18, "num_hidden_groups": 14},
            ["18 layers in 14 groups", "transformers' rounding"],
        ),
    ],
    ids=str,
)
def test_an_impossible_configuration_is_rejected(changes, words, pretraining):
    change(pretraining / CONFIG, **changes)
    with pytest.raises(WeightsError) as error:
        AlbertForPreTraining.from_pretrained(pretraining)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def test_invalid_labels_are_rejected(tmp_path):
    model = make_model(*MODELS["classes"])
    model.save_pretrained(tmp_path / "model", random_params(model))
    change(tmp_path / "model" / CONFIG, id2label={"0": "a", "1": "a", "2": "b"})
    with pytest.raises(WeightsError, match=r"config\.json: labels.*all different"):
        read_pretrained(tmp_path / "model")
    change(tmp_path / "model" / CONFIG, id2label={"0": "a", "1": "b"})
    with pytest.raises(WeightsError, match=r"classifier/kernel has shape"):
        AlbertForSequenceClassification.from_pretrained(tmp_path / "model")


class TestBadDirectories:
    def test_a_path_without_weights(self, tmp_path):
        with pytest.raises(WeightsError, match=r"there is no .*nowhere"):
            read_pretrained(tmp_path / "nowhere")
        with pytest.raises(WeightsError, match=r"there is no store ://, only gs:// and s3://"):
            read_pretrained("://")
        with pytest.raises(WeightsError, match=r"holds no weights: .*Hugging Face.*workdir"):
            read_pretrained(tmp_path)

    def test_no_weights(self, pretraining):
        (pretraining / WEIGHTS).unlink()
        with pytest.raises(WeightsError, match=r"no weights: none of model\.safetensors, .*bin"):
            read_pretrained(pretraining)

    def test_broken_configuration(self, pretraining):
        (pretraining / CONFIG).write_text("{")
        with pytest.raises(WeightsError, match=r"config\.json: this is not JSON"):
            read_pretrained(pretraining)

    @pytest.mark.parametrize("kept", [0, 7, 100, -1], ids="{} bytes".format)
    def test_truncated_files(self, kept, pretraining):
        content = (pretraining / WEIGHTS).read_bytes()
        (pretraining / WEIGHTS).write_bytes(content[:kept])
        with pytest.raises(WeightsError, match=r"model\.safetensors is not a complete safetensors"):
            read_pretrained(pretraining)

    def test_unsupported_dtypes(self, pretraining):
        add(pretraining, albert__pooler__bias=np.zeros(4, np.int8))
        with pytest.raises(
            WeightsError, match=r"albert\.pooler\.bias has dtype I8, supported are F64"
        ):
            read_pretrained(pretraining)

    def test_only_workdirs_have_steps(self, pretraining):
        with pytest.raises(WeightsError, match="is no workdir, so it has no checkpoint of step 5"):
            read_pretrained(pretraining, step=5)


class TestWriting:
    model = make_model(*MODELS["masked LM"])

    def test_existing_files_are_not_overwritten(self, tmp_path):
        (tmp_path / "model").mkdir()
        (tmp_path / "model/mine").write_text("")
        with pytest.raises(WeightsError, match="exists already"):
            self.model.save_pretrained(tmp_path / "model", random_params(self.model))
        assert [file.name for file in tmp_path.rglob("*")] == ["model", "mine"]
        (tmp_path / "model/mine").unlink()
        self.model.save_pretrained(tmp_path / "model", random_params(self.model))
        assert {file.name for file in tmp_path.rglob("*")} == {"model", CONFIG, WEIGHTS}

    @pytest.mark.parametrize(
        ("changes", "copies"),
        [
            ({"depth_rank": 2, "depth_signal": "scale", "inner_group_num": 2}, 3),
            ({"depth_signal": "embedding", "dense_biases": False}, 3),
            ({"dense_biases": False}, 2),
        ],
    )
    def test_what_tells_layers_apart_is_merged_into_kernels_and_biases(
        self, changes, copies, tmp_path
    ):
        groups = {"num_hidden_layers": 3, "num_hidden_groups": 2}
        model = make_model("ForPreTraining", groups | changes, None)
        params = random_params(model)
        model.save_pretrained(tmp_path / "model", params)
        read, read_params = AlbertForPreTraining.from_pretrained(tmp_path / "model")
        assert set(changes) & set(read.config.to_dict()) <= {"inner_group_num"}
        assert read.config.attention_copies == copies
        ids = np.arange(6, dtype=np.int32)[None]
        ours, theirs = (
            each.apply({"params": weights}, ids)
            for each, weights in ((model, params), (read, read_params))
        )
        for name in ("prediction_logits", "sop_logits"):
            found, expected = getattr(theirs, name), getattr(ours, name)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    def test_an_interrupted_export_leaves_nothing(self, tmp_path):
        class Tokenizer:
            vocab_size, pad_id, cls_id, sep_id = 11, 0, 7, 8

            def save_pretrained(self, directory, *, model_max_length):
                assert (directory / WEIGHTS).exists()
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.model.save_pretrained(tmp_path / "model", random_params(self.model), Tokenizer())
        assert list(tmp_path.iterdir()) == []

    def test_the_tokenizer_is_written_and_its_special_ids_named(self, tmp_path):
        class Tokenizer:
            vocab_size, pad_id, cls_id, sep_id = 11, 5, 7, 8

            def save_pretrained(self, directory, *, model_max_length):
                (directory / "tokenizer.json").write_text(str(model_max_length))

        self.model.save_pretrained(tmp_path / "model", random_params(self.model), Tokenizer())
        assert (tmp_path / "model/tokenizer.json").read_text() == "6"
        values = json.loads((tmp_path / "model" / CONFIG).read_text())
        assert [values[f"{n}_token_id"] for n in ("pad", "bos", "eos")] == [5, 7, 8]
        Tokenizer.vocab_size = 12
        with pytest.raises(WeightsError, match="tokenizer has 12 tokens, vocab_size is 11"):
            self.model.save_pretrained(tmp_path / "other", random_params(self.model), Tokenizer())

    def test_parameters_of_other_models_are_rejected(self, tmp_path):
        params = random_params(make_model(*MODELS["pre-training"]))
        with pytest.raises(
            WeightsError, match=r"not the parameters of AlbertForMaskedLM: albert/p"
        ):
            self.model.save_pretrained(tmp_path / "model", params)
        params = random_params(self.model)
        params["predictions"]["bias"] = params["predictions"]["bias"].astype(np.float16)
        with pytest.raises(WeightsError, match="several dtypes: float16, float32"):
            self.model.save_pretrained(tmp_path / "model", params)

    @pytest.mark.parametrize(
        ("name", "changes", "words"),
        [
            ("ForPreTraining", {"parameter_sharing": "ffn"}, "shares one half"),
            ("ForPreTraining", {"norm": "pre"}, "norm=pre: other formats support only post"),
            ("ForPreTraining", {"norm_kind": "rms"}, "norm_kind=rms: .* only layer"),
            ("ForPreTraining", {"feed_forward": "geglu"}, "feed_forward=geglu: .* only mlp"),
            (
                "ForPreTraining",
                {"position_encoding": "rotary"},
                "encoding=rotary: .* only absol",
            ),
            (
                "ForPreTraining",
                {"num_experts": 2},
                "experts=2: no other format .* --average_experts",
            ),
            ("ForPreTraining", {"depth_signal": "embedding", "norm": "pre"}, "only post"),
            ("ForPreTraining", {"position_encoding": "none"}, "encoding=none: .* only absolute"),
            ("ForPreTraining", {"attention_window": 4}, "window=4: other formats support only 0"),
            (
                "ForPreTraining",
                {"num_hidden_layers": 18, "num_hidden_groups": 14},
                "transformers' rounding",
            ),
            ("ForConditionalSpan", {}, "no name for answer_class"),
        ],
    )
    def test_models_that_transformers_lacks_are_rejected(self, name, changes, words, tmp_path):
        model = make_model(name, changes, None)
        with pytest.raises(WeightsError, match=words):
            model.save_pretrained(tmp_path / "model", random_params(model))
        assert list(tmp_path.iterdir()) == []


class TestTorchFiles:
    @pytest.fixture
    def tensors(self, pretraining):
        tensors = load_file(pretraining / WEIGHTS)
        (pretraining / WEIGHTS).unlink()
        transposed = "predictions.dense.weight"  # stored transposed in memory
        return tensors | {transposed: np.asfortranarray(tensors[transposed])}

    @pytest.mark.parametrize("write", [write_zip, write_legacy])
    def test_both_formats_are_read(self, write, tensors, pretraining):
        write(pretraining / "pytorch_model.bin", tensors)
        params = read_pretrained(pretraining).params
        contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        save_file(contiguous, pretraining / WEIGHTS)
        assert_same(params, read_pretrained(pretraining).params)

    @pytest.mark.parametrize("write", [write_zip, write_legacy])
    @pytest.mark.parametrize(
        "call", ["os system", "builtins eval", "torch._utils _rebuild_sparse_tensor", "torch load"]
    )
    def test_no_other_function_is_called(self, write, call, tensors, pretraining):
        write(pretraining / "pytorch_model.bin", tensors, call=call)
        with pytest.raises(WeightsError, match=rf"{call.replace(' ', '.')}, which is not allowed"):
            read_pretrained(pretraining)

    @pytest.mark.parametrize("kept", [0, 10, 200, -500], ids="{} bytes".format)
    @pytest.mark.parametrize("write", [write_zip, write_legacy])
    def test_truncated_files(self, write, kept, tensors, pretraining):
        file = pretraining / "pytorch_model.bin"
        write(file, tensors)
        file.write_bytes(file.read_bytes()[:kept])
        with pytest.raises(WeightsError, match=r"pytorch_model\.bin cannot be read as a file of"):
            read_pretrained(pretraining)

    def test_pickles_of_anything_else_are_rejected(self, tensors, pretraining):
        file = pretraining / "pytorch_model.bin"
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("model/data.pkl", pickle.dumps([1], protocol=2))
        with pytest.raises(WeightsError, match="contains a list, not a table of tensors"):
            read_pretrained(pretraining)
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("model/data.pkl", pickle.dumps({"a": 1}, protocol=2))
        with pytest.raises(WeightsError, match="a is a int, not a tensor"):
            read_pretrained(pretraining)
        write_zip(file, {"a": np.zeros(3, np.float32)}, storage="BoolStorage")
        with pytest.raises(WeightsError, match=r"torch\.BoolStorage, which is not allowed"):
            read_pretrained(pretraining)
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("model/data.pkl", pickled_table({"a": np.zeros(3, np.float32)}))
            archive.writestr("model/data/0", b"\0" * 8)
        with pytest.raises(WeightsError, match="a reaches beyond the end of its 2 elements"):
            read_pretrained(pretraining)

    @pytest.mark.parametrize(
        ("pickled", "message"),
        [
            (
                b"\x80\x04\x8e" + (1 << 42).to_bytes(8, "little") + b".",
                "expected 4398046511104 byt",
            ),
            (
                b"\x80\x05\x96" + (1 << 42).to_bytes(8, "little") + b".",
                "expected 4398046511104 byt",
            ),
            (b"\x80\x02}r\xff\xff\xff\xff.", "its memory has 4294967295 slots in 9 bytes"),
        ],
    )
    def test_no_memory_is_asked_for_that_the_file_does_not_have(
        self, pickled, message, tensors, pretraining
    ):
        file = pretraining / "pytorch_model.bin"
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("model/data.pkl", pickled)
        with pytest.raises(WeightsError, match=message):
            read_pretrained(pretraining)

    @pytest.mark.parametrize("write", [write_zip, write_legacy])
    def test_elements_are_not_repeated(self, write, tensors, pretraining):
        """Strides of 0 would make gigabytes of one element."""
        repeated = np.broadcast_to(np.float32(1), (1 << 15, 1 << 15))
        sizes = (size.to_bytes(4, "little") for size in (repeated.size, 1))
        table = pickled_table({"a": repeated}).replace(*sizes)
        file = pretraining / "pytorch_model.bin"
        write(file, {"a": np.ones(1, np.float32)})
        ours = pickled_table({"a": np.ones(1, np.float32)})
        content = file.read_bytes()
        if write is write_legacy:
            file.write_bytes(content.replace(ours, table))
        else:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("model/data.pkl", table)
                archive.writestr("model/data/0", b"\0" * 4)
        with pytest.raises(WeightsError, match="a repeats the 1 elements that are stored"):
            read_pretrained(pretraining)

    def test_entries_are_neither_encrypted_nor_compressed(self, tensors, pretraining):
        file = pretraining / "pytorch_model.bin"
        write_zip(file, tensors)
        content = bytearray(file.read_bytes())
        content[content.rindex(b"PK\x01\x02") + 8] |= 1  # of the last entry
        file.write_bytes(bytes(content))
        with pytest.raises(WeightsError, match="is encrypted"):
            read_pretrained(pretraining)
        content[content.rindex(b"PK\x01\x02") + 6] = 84  # the version of zip that it needs
        file.write_bytes(bytes(content))
        with pytest.raises(WeightsError, match=r"zip file version 8\.4"):
            read_pretrained(pretraining)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("model/data.pkl", b"\0" * 100_000)
        with pytest.raises(WeightsError, match="is compressed"):
            read_pretrained(pretraining)
