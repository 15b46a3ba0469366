"""Names of parameters in other formats, and their shapes in the tables."""

import dataclasses

import numpy as np
import pytest
from random_inputs import parameter_shapes
from tensor_names import HEADS, HUGGINGFACE_PRETRAINING, TENSORFLOW_PRETRAINING
from tiny_models import MODELS, TINY, UNTIED, make_model

from albert_jax import AlbertForConditionalSpan, AlbertForPreTraining
from albert_jax.config import ParameterSharing
from albert_jax.interop.names import (
    WeightsError,
    export_tensors,
    huggingface_mapping,
    native_mapping,
    tensorflow_mapping,
)
from albert_jax.interop.parameter_fitting import fit_parameters
from albert_jax.interop.stored_weights import StoredWeights


def arrays(shapes):
    return {
        path: np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        for path, shape in shapes.items()
    }


def shapes_of(name):
    return make_model(*MODELS[name]).parameter_shapes()


def test_pretraining_has_the_published_names():
    params = arrays(shapes_of("pre-training"))
    theirs = export_tensors(params, huggingface_mapping(TINY))
    assert sorted(theirs) == sorted(HUGGINGFACE_PRETRAINING)
    theirs = export_tensors(params, tensorflow_mapping(TINY))
    assert sorted(theirs) == sorted(TENSORFLOW_PRETRAINING)


@pytest.mark.parametrize("name", HEADS)
def test_heads_have_the_published_names(name):
    params = {
        path: array
        for path, array in arrays(shapes_of(name)).items()
        if not path.startswith("albert")
    }
    huggingface, tensorflow = HEADS[name]
    assert list(export_tensors(params, huggingface_mapping(TINY))) == huggingface
    assert list(export_tensors(params, tensorflow_mapping(TINY))) == tensorflow


def test_unanswerable_questions_have_the_released_names_and_no_others():
    shapes = AlbertForConditionalSpan(TINY).parameter_shapes()
    params = {
        path: array for path, array in arrays(shapes).items() if not path.startswith("albert")
    }
    theirs = export_tensors(params, tensorflow_mapping(TINY))
    assert {name: tensor.shape for name, tensor in theirs.items()} == {
        "start_logits/dense/kernel": (4, 1),
        "start_logits/dense/bias": (1,),
        "end_logits/dense_0/kernel": (8, 4),
        "end_logits/dense_0/bias": (4,),
        "end_logits/LayerNorm/gamma": (4,),
        "end_logits/LayerNorm/beta": (4,),
        "end_logits/dense_1/kernel": (4, 1),
        "end_logits/dense_1/bias": (1,),
        "answer_class/dense_0/kernel": (8, 4),
        "answer_class/dense_0/bias": (4,),
        "answer_class/dense_1/kernel": (4, 1),
    }
    with pytest.raises(WeightsError, match=r"no name for answer_class/dense_0/bias, .*start_l"):
        export_tensors(params, huggingface_mapping(TINY))


@pytest.mark.parametrize(
    "changes",
    [
        {"position_encoding": "relative_local", "max_relative_distance": 2},
        {"position_encoding": "rotary", "norm": "pre"},
        {"feed_forward": "geglu", "norm": "sandwich", "intermediate_size": 17},
        {"depth_rank": 2, "inner_group_num": 2, "norm_kind": "rms"},
        {"dense_biases": False, "depth_signal": "scale", "num_experts": 3, "expert_layers": "2"},
    ],
)
def test_parameters_that_other_formats_lack_have_shapes_in_workdirs(changes):
    config = dataclasses.replace(TINY, **changes)
    shapes = AlbertForPreTraining(config).parameter_shapes()
    mapping = native_mapping(config)
    assert {path: mapping[path].shape for path in shapes} == shapes
    heads = ("classifier", "qa_outputs", "start_logits", "end_logits", "answer_class")
    heads += ("discriminator_predictions",)
    assert {path for path in mapping if not path.startswith(heads)} == set(shapes)


def test_tensors_are_transposed_and_unstacked_where_the_formats_differ():
    config = dataclasses.replace(TINY, num_hidden_layers=6, num_hidden_groups=3, inner_group_num=2)
    params = arrays(
        {
            path: target.shape
            for path, target in native_mapping(config).items()
            if path != "classifier/kernel" and path != "classifier/bias"
            if not path.startswith("discriminator_predictions/")
        }
    )
    query = params["albert/encoder/layers/attention/query/kernel"]
    order = params["sop_classifier/kernel"]
    theirs = export_tensors(params | {}, tensorflow_mapping(config))
    layer = "bert/encoder/transformer/group_2/inner_group_1/attention_1/self/query/kernel"
    np.testing.assert_array_equal(theirs[layer], query[2, 1])
    np.testing.assert_array_equal(theirs["cls/seq_relationship/output_weights"], order.T)
    for name in [
        name
        for name in params
        if name.split("/")[0] in ("start_logits", "end_logits", "answer_class")
    ]:
        del params[name]
    theirs = export_tensors(params, huggingface_mapping(config))
    layer = "albert.encoder.albert_layer_groups.2.albert_layers.1.attention.query.weight"
    np.testing.assert_array_equal(theirs[layer], query[2, 1].T)
    np.testing.assert_array_equal(theirs["sop_classifier.classifier.weight"], order.T)
    table = "albert.embeddings.word_embeddings.weight"
    np.testing.assert_array_equal(
        theirs[table], params["albert/embeddings/word_embeddings/embedding"]
    )


@pytest.mark.parametrize("sharing", ParameterSharing)
def test_the_native_mapping_has_every_parameter_and_its_shape(sharing):
    config = dataclasses.replace(
        TINY, num_hidden_layers=4, num_hidden_groups=2, inner_group_num=2, parameter_sharing=sharing
    )
    mapping = native_mapping(config)
    for path, shape in parameter_shapes(config).items():
        assert mapping["/".join(path)].shape == shape


@pytest.mark.parametrize("name", MODELS)
def test_the_native_mapping_has_every_head(name):
    model = make_model(*MODELS[name])
    mapping = native_mapping(model.config)
    for path, shape in model.parameter_shapes().items():
        assert mapping[path].fits(np.zeros(shape)), path


def test_an_untied_head_has_a_table_and_a_renamed_bias():
    config = dataclasses.replace(TINY, **UNTIED)
    mapping = huggingface_mapping(config)
    assert mapping["predictions.decoder.weight"].path == "predictions/decoder"
    assert mapping["predictions.decoder.bias"].path == "predictions/bias"
    assert "predictions.bias" not in mapping


@pytest.mark.parametrize("sharing", ["attention", "ffn"])
def test_sharing_one_half_alone_is_rejected_by_other_formats(sharing):
    config = dataclasses.replace(TINY, parameter_sharing=sharing)
    for mapping in (huggingface_mapping, tensorflow_mapping):
        with pytest.raises(WeightsError, match=f"parameter_sharing={sharing}.*all and none"):
            mapping(config)


@pytest.mark.parametrize(
    ("name", "there", "here"),
    [
        ("feed_forward", "geglu", "swiglu"),
        ("position_encoding", "rotary", "none"),
    ],
)
def test_the_same_parameters_do_not_fit_a_model_that_computes_something_else(name, there, here):
    stored, other = (make_model("ForMaskedLM", {name: kind}, None) for kind in (there, here))
    tensors = arrays(stored.parameter_shapes())
    assert tensors.keys() == other.parameter_shapes().keys()
    mapping = native_mapping(stored.config)
    weights = StoredWeights("runs/a", stored.config, None, None, None, tensors, mapping)
    fit_parameters(weights, stored, seed=0, required=("",))
    with pytest.raises(WeightsError, match=f"runs/a: {name} is {there} there, model.{name} is"):
        fit_parameters(weights, other, seed=0, required=("",))
