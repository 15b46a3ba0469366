"""The models of other tasks: structure, precision, and what each score depends on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import albert_jax
from albert_jax import (
    AlbertConfig,
    AlbertForConditionalSpan,
    AlbertForMaskedLM,
    AlbertForMultipleChoice,
    AlbertForPreTraining,
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
    HeadConfig,
    ProblemType,
)
from albert_jax.encoder import Execution, Remat

TINY = AlbertConfig(
    vocab_size=29,
    embedding_size=5,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=7,
    max_position_embeddings=9,
    initializer_range=0.5,
)
THREE = HeadConfig(labels=("a", "b", "c"))
IDS = np.arange(2 * 7, dtype=np.int32).reshape(2, 7)
P_MASK = np.array([[0, 1, 1, 0, 0, 0, 1], [0, 1, 0, 0, 0, 0, 0]], np.int32)

# The parameters of each beside the encoder's, and the shapes of its scores.
POOLER = {"albert/pooler/kernel": (8, 8), "albert/pooler/bias": (8,)}
PREDICTIONS = {
    "predictions/dense/kernel": (8, 5),
    "predictions/dense/bias": (5,),
    "predictions/layer_norm/scale": (5,),
    "predictions/layer_norm/bias": (5,),
    "predictions/bias": (29,),
}


def classifier(labels):
    return {"classifier/kernel": (8, labels), "classifier/bias": (labels,)}


CASES = {
    "AlbertForMaskedLM": (
        AlbertForMaskedLM(TINY),
        PREDICTIONS,
        {"logits": (2, 7, 29)},
    ),
    "AlbertForMaskedLM, untied": (
        AlbertForMaskedLM(dataclasses.replace(TINY, tie_word_embeddings=False)),
        PREDICTIONS | {"predictions/decoder": (29, 5)},
        {"logits": (2, 7, 29)},
    ),
    "AlbertForSequenceClassification": (
        AlbertForSequenceClassification(TINY, THREE),
        POOLER | classifier(3),
        {"logits": (2, 3)},
    ),
    "AlbertForTokenClassification": (
        AlbertForTokenClassification(TINY, THREE),
        classifier(3),
        {"logits": (2, 7, 3)},
    ),
    "AlbertForQuestionAnswering": (
        albert_jax.AlbertForQuestionAnswering(TINY),
        {"qa_outputs/kernel": (8, 2), "qa_outputs/bias": (2,)},
        {"start_logits": (2, 7), "end_logits": (2, 7)},
    ),
    "AlbertForMultipleChoice": (
        AlbertForMultipleChoice(TINY, THREE),
        POOLER | classifier(1),
        {"logits": (2, 3)},
    ),
    "AlbertForConditionalSpan": (
        AlbertForConditionalSpan(TINY, start_n_top=3, end_n_top=2),
        {
            "start_logits/dense/kernel": (8, 1),
            "start_logits/dense/bias": (1,),
            "end_logits/dense_0/kernel": (16, 8),
            "end_logits/dense_0/bias": (8,),
            "end_logits/layer_norm/scale": (8,),
            "end_logits/layer_norm/bias": (8,),
            "end_logits/dense_1/kernel": (8, 1),
            "end_logits/dense_1/bias": (1,),
            "answer_class/dense_0/kernel": (16, 8),
            "answer_class/dense_0/bias": (8,),
            "answer_class/dense_1/kernel": (8, 1),
        },
        {"start_log_probs": (2, 3), "end_log_probs": (2, 3, 2), "answer_logits": (2,)},
    ),
}


def inputs_of(model):
    if isinstance(model, AlbertForMultipleChoice):
        return {"input_ids": np.stack([IDS, IDS[::-1], IDS + 1], 1)}
    if isinstance(model, AlbertForConditionalSpan):
        return {"input_ids": IDS, "p_mask": P_MASK}
    return {"input_ids": IDS}


def compiled(model):
    """Compile a model's forward pass; eagerly each call would compile its scan again."""
    return jax.jit(model.apply, static_argnames=("deterministic", "output_hidden_states"))


def by_name(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.mark.parametrize("name", CASES)
def test_parameters_and_outputs_have_their_names_and_shapes(name):
    model, own, outputs = CASES[name]
    inputs = inputs_of(model)

    def shapes(model, **changes):
        key = jax.random.key(0)
        variables = jax.eval_shape(lambda key: model.init(key, **inputs), key)
        got = jax.eval_shape(lambda v: vars(model.apply(v, **inputs, **changes)), variables)
        return by_name(variables["params"]), got

    params, got = shapes(model, output_hidden_states=True)
    encoder = {n for n in params if n.startswith(("albert/embeddings", "albert/encoder"))}
    assert len(encoder) == 5 + 2 + 16
    assert {n: leaf.shape for n, leaf in params.items() if n not in encoder} == own
    rows = 6 if "Choice" in name else 2
    assert [state.shape for state in got["hidden_states"]] == [(rows, 7, 8)] * 3
    for field, shape in outputs.items():
        assert got[field].shape == shape
    half = dataclasses.replace(model, dtype=jnp.bfloat16, execution=Execution(Remat.FULL))
    _, got = shapes(half)
    assert got["hidden_states"] is None
    assert {got[field].dtype for field in outputs} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", ["SequenceClassification", "TokenClassification"])
def test_only_the_classifier_is_dropped_and_only_in_training(name):
    model, *_ = CASES[f"AlbertFor{name}"]
    model = dataclasses.replace(model, head=dataclasses.replace(THREE, classifier_dropout_prob=0.5))
    variables, apply = model.init(jax.random.key(0), IDS), compiled(model)

    def run(seed, **options):
        rngs = {"dropout": jax.random.key(seed)}
        outputs = apply(variables, IDS, rngs=rngs, output_hidden_states=True, **options)
        return outputs.logits, outputs.hidden_states[-1]

    (first, hidden), (second, same) = run(1, deterministic=False), run(2, deterministic=False)
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(hidden, same)
    np.testing.assert_array_equal(run(1)[0], run(2)[0])


def test_masked_lm_is_the_half_of_pretraining():
    variables = AlbertForPreTraining(TINY).init(jax.random.key(0), IDS)
    positions = np.array([[3, 0], [6, 6]], np.int32)
    expected = AlbertForPreTraining(TINY).apply(variables, IDS)
    got = AlbertForMaskedLM(TINY).apply(variables, IDS, masked_lm_positions=positions)
    # Not bit for bit: products of other shapes add up in another order on some CPUs.
    np.testing.assert_allclose(
        got.logits,
        np.take_along_axis(expected.prediction_logits, positions[..., None], 1),
        rtol=1e-5,
        atol=1e-6,
    )


def test_an_untied_head_does_not_read_the_word_table():
    config = dataclasses.replace(TINY, tie_word_embeddings=False)
    variables = AlbertForMaskedLM(config).init(jax.random.key(0), IDS)
    params = variables["params"]
    untied, tied = compiled(AlbertForMaskedLM(config)), compiled(AlbertForMaskedLM(TINY))
    assert not np.allclose(untied(variables, IDS).logits, tied(variables, IDS).logits)
    params["predictions"]["decoder"] = params["albert"]["embeddings"]["word_embeddings"][
        "embedding"
    ]
    np.testing.assert_array_equal(untied(variables, IDS).logits, tied(variables, IDS).logits)


def test_choices_are_scored_each_for_itself():
    model = AlbertForMultipleChoice(TINY)
    rows = np.stack([IDS, IDS[::-1], IDS + 1], 1)
    mask = np.ones_like(rows)
    mask[0, 1, 4:] = mask[1, 2, 2:] = 0
    types = (rows % 2).astype(np.int32)
    variables = model.init(jax.random.key(0), rows)
    logits = model.apply(variables, rows, mask, types).logits
    alone = compiled(AlbertForSequenceClassification(TINY, HeadConfig(labels=("right",))))
    for choice in range(3):
        np.testing.assert_allclose(
            logits[:, choice : choice + 1],
            alone(variables, rows[:, choice], mask[:, choice], types[:, choice]).logits,
            rtol=1e-5,
        )


class TestConditionalSpan:
    model = AlbertForConditionalSpan(TINY, start_n_top=3, end_n_top=2)
    mask = np.array([[1] * 7, [1] * 6 + [0]], np.int32)
    apply = staticmethod(compiled(model))

    @pytest.fixture(scope="class")
    @classmethod
    def variables(cls):
        return cls.model.init(jax.random.key(3), IDS, p_mask=P_MASK)

    def given(self, variables, start):
        starts = np.full(len(IDS), start, np.int32)
        return self.apply(variables, IDS, self.mask, p_mask=P_MASK, start_positions=starts)

    def test_the_search_finds_what_scoring_every_span_finds(self, variables):
        found = self.apply(variables, IDS, self.mask, p_mask=P_MASK)
        by_start = [self.given(variables, start) for start in range(7)]
        starts = np.asarray(by_start[0].start_log_probs)
        ends = np.stack([outputs.end_log_probs for outputs in by_start], 1)
        for row in range(2):
            best_starts = np.argsort(-starts[row], kind="stable")[:3]
            np.testing.assert_array_equal(found.start_indices[row], best_starts)
            np.testing.assert_allclose(
                found.start_log_probs[row], starts[row, best_starts], rtol=1e-5
            )
            for place, start in enumerate(best_starts):
                best_ends = np.argsort(-ends[row, start], kind="stable")[:2]
                np.testing.assert_array_equal(found.end_indices[row, place], best_ends)
                np.testing.assert_allclose(
                    found.end_log_probs[row, place], ends[row, start, best_ends], rtol=1e-4
                )
        assert len(np.unique(np.asarray(found.end_indices))) > 2, "ends do not depend on starts"

    def test_probabilities_are_over_what_may_be_an_answer(self, variables):
        outputs = self.given(variables, 3)
        for log_probs in (outputs.start_log_probs, outputs.end_log_probs):
            np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1, rtol=1e-5)
            assert (np.asarray(log_probs)[P_MASK == 1] < -1e29).all()

    def test_answerability_reads_expected_start_and_first_token(self, variables):
        params = variables["params"]
        outputs = self.apply(variables, IDS, self.mask, p_mask=P_MASK, output_hidden_states=True)
        hidden = np.asarray(outputs.hidden_states[-1], np.float64)
        starts = np.exp(np.asarray(self.given(variables, 0).start_log_probs, np.float64))
        both = np.concatenate([np.einsum("bs,bsh->bh", starts, hidden), hidden[:, 0]], -1)
        first, last = params["answer_class"]["dense_0"], params["answer_class"]["dense_1"]
        expected = np.tanh(both @ first["kernel"] + first["bias"]) @ last["kernel"]
        np.testing.assert_allclose(outputs.answer_logits, expected[:, 0], rtol=1e-4, atol=1e-6)

    def test_a_short_row_has_fewer_spans(self, variables):
        outputs = self.apply(variables, IDS[:, :2], p_mask=P_MASK[:, :2])
        assert outputs.start_indices.shape == (2, 2)
        assert outputs.end_indices.shape == (2, 2, 2)


def test_heads_reject_impossible_configurations():
    assert HeadConfig().num_labels == 2
    assert HeadConfig(problem_type="regression").problem_type is ProblemType.REGRESSION
    with pytest.raises(ValueError, match=r"problem_type.*regression.*'ranking'"):
        HeadConfig(problem_type="ranking")
    with pytest.raises(ValueError, match=r"labels.*all different.*'a', 'a'"):
        HeadConfig(labels=("a", "a"))
    with pytest.raises(ValueError, match=r"labels.*at least one"):
        HeadConfig(labels=())
    with pytest.raises(ValueError, match=r"classifier_dropout_prob.*\[0, 1\).*1\.5"):
        HeadConfig(classifier_dropout_prob=1.5)
