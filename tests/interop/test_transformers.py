"""Models against Hugging Face transformers: outputs, losses and every entry of the gradients.

Our model writes a directory that transformers' Auto class loads; transformers writes it back, with
its gradients beside it, and our model reads both. So every value passes through files in both
directions, and the two implementations are compared by values alone.

Where the two define ALBERT differently, the comparison is restricted to what they share:

- In transformers the embedding of token 0 has no gradient (`padding_idx`), so token ids here are at
  least 1, and 0 is used for padding only, which no loss reads.
- transformers applies dropout before the sentence-order classifier and not after the feed-forward
  layer, so both models run without dropout.
- transformers always maps the embeddings to the hidden size, so equal sizes are compared with the
  mapping.
- transformers has no packed rows: it gets the attention mask that follows from the sequence ids,
  and only the order of the first pair is scored.
"""

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import albert_jax
from albert_jax import AlbertConfig, AlbertForPreTraining, HeadConfig, ProblemType

pytestmark = pytest.mark.interop

Tree = dict[str, Any]

SMALL = AlbertConfig(
    vocab_size=23,
    embedding_size=6,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=10,
    max_position_embeddings=13,
)
LENGTH = 11
# Lengths of the pairs of each row.
WHOLE, PADDED, PACKED = [[11], [11]], [[11], [6], [1]], [[5, 6], [3, 2, 6]]
THREE = HeadConfig(labels=("one", "two", "three"))
SEVERAL = dataclasses.replace(THREE, problem_type=ProblemType.MULTI_LABEL)
NUMBER = HeadConfig(labels=("score",), problem_type=ProblemType.REGRESSION)
UNTIED = {"tie_word_embeddings": False}


@dataclasses.dataclass(frozen=True)
class Case:
    """Our model, its input rows, and transformers' attention implementation."""

    architecture: str = "PreTraining"
    rows: list[list[int]] = dataclasses.field(default_factory=lambda: PADDED)
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    head: HeadConfig | None = None
    attention: str = "sdpa"

    @property
    def config(self) -> AlbertConfig:
        return dataclasses.replace(SMALL, **self.changes)

    def model(self, dtype: Any) -> Any:
        fields: dict[str, Any] = {"config": self.config, "dtype": dtype}
        if self.head is not None:
            fields["head"] = self.head
        return our_class(self.architecture)(**fields)

    @property
    def packed(self) -> bool:
        return self.rows is PACKED


CASES = {
    "plain": Case(rows=WHOLE),
    "padding": Case(changes={"num_attention_heads": 4}),
    "padding, eager": Case(changes={"num_hidden_layers": 3}, attention="eager"),
    "packed rows": Case(rows=PACKED),
    "groups of unequal size": Case(changes={"num_hidden_layers": 5, "num_hidden_groups": 3}),
    "groups of inner blocks": Case(
        rows=PACKED,
        changes={"num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2},
        attention="eager",
    ),
    "equal sizes": Case(changes={"embedding_size": 12, "embedding_mapping": "always"}),
    "nothing shared": Case(changes={"num_hidden_layers": 3, "parameter_sharing": "none"}),
    "erf": Case(changes={"hidden_act": "gelu_erf"}),
    "relu": Case(changes={"hidden_act": "relu"}),
    "tanh": Case(rows=WHOLE, changes={"hidden_act": "tanh", "layer_norm_eps": 1e-3}),
    "linear": Case(rows=WHOLE, changes={"hidden_act": "linear", "type_vocab_size": 3}),
    "untied": Case(changes=UNTIED),
    "encoder": Case("Model", changes={"inner_group_num": 2}),
    "masked LM": Case("MaskedLM"),
    "masked LM, untied": Case("MaskedLM", changes=UNTIED),
    "one class": Case("SequenceClassification", head=THREE),
    "several classes": Case("SequenceClassification", head=SEVERAL),
    "a number": Case("SequenceClassification", head=NUMBER),
    "tags": Case("TokenClassification", head=THREE, attention="eager"),
    "spans": Case(
        "QuestionAnswering", rows=WHOLE, changes={"num_hidden_layers": 3, "num_hidden_groups": 3}
    ),
    "choices": Case("MultipleChoice", rows=[*PADDED, *PADDED]),
}


def our_class(architecture: str) -> Any:
    return getattr(albert_jax, f"Albert{'' if architecture == 'Model' else 'For'}{architecture}")


def their_class(architecture: str) -> Any:
    import transformers

    name = "" if architecture == "Model" else "For"
    return getattr(transformers, f"AutoModel{name}{architecture.removeprefix('Model')}")


def draw_parameters(case: Case, rng: np.random.Generator) -> Tree:
    """Random float64 parameters, biases and scales included."""

    def draw(path: Any, shape: Any) -> np.ndarray:
        noise = rng.normal(size=shape.shape)
        return 1 + 0.2 * noise if path[-1].key == "scale" else 0.4 * noise

    shapes = jax.eval_shape(case.model(jnp.float32).initialize, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def draw_inputs(case: Case, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Token ids, segment ids, positions and sequence ids."""
    config, size = case.config, (len(case.rows), LENGTH)
    inputs = {
        "input_ids": rng.integers(1, config.vocab_size, size=size),
        "token_type_ids": rng.integers(config.type_vocab_size, size=size),
        "position_ids": np.zeros(size, int),
        "sequence_ids": np.zeros(size, int),
    }
    for row, lengths in enumerate(case.rows):
        positions = [np.arange(length) for length in lengths]
        ids = [np.full(length, pair) for pair, length in enumerate(lengths, start=1)]
        filled = slice(sum(lengths))
        inputs["position_ids"][row, filled] = np.concatenate(positions)
        inputs["sequence_ids"][row, filled] = np.concatenate(ids)
    inputs["input_ids"][inputs["sequence_ids"] == 0] = 0
    return {name: array.astype(np.int32) for name, array in inputs.items()}


def draw_labels(
    case: Case, inputs: dict[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Labels by name; -100 where a token has none."""
    rows = len(case.rows)
    unlabeled = (rng.random((rows, LENGTH)) < 0.5) | (inputs["sequence_ids"] == 0)
    unlabeled[0, :2] = False
    if case.architecture in ("PreTraining", "MaskedLM", "TokenClassification"):
        classes = case.head.num_labels if case.head else case.config.vocab_size
        labels = rng.integers(classes, size=(rows, LENGTH))
        labels[unlabeled] = -100
        order = rng.integers(2, size=rows)
        return {"labels": labels} | (
            {"sentence_order_label": order} if case.architecture == "PreTraining" else {}
        )
    if case.architecture == "QuestionAnswering":
        return {name: rng.integers(6, size=rows) for name in ("start_positions", "end_positions")}
    if case.head is NUMBER:
        return {"labels": rng.normal(size=rows)}
    if case.head is SEVERAL:
        return {"labels": rng.integers(2, size=(rows, 3)).astype(float)}
    if case.architecture == "MultipleChoice":
        return {"labels": rng.integers(2, size=rows // 2)}
    return {"labels": rng.integers(3, size=rows)} if case.head else {}


def to_choices(case: Case, array: Any) -> Any:
    """Reshape pairs of rows to the choices of an example, for a multiple-choice model."""
    if case.architecture != "MultipleChoice":
        return array
    return array.reshape(-1, 2, LENGTH)


def whole_row_loss(outputs: Any) -> Any:
    """Return a loss that depends on the first row, which has no padding, and on all pooled rows."""
    return (outputs.last_hidden_state[0] ** 3).sum() + outputs.pooler_output.sum()


def run_theirs(
    case: Case, theirs: Any, inputs: dict[str, np.ndarray], labels: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return loss, logits and hidden states; the gradients are left in the parameters."""
    import torch

    ids = torch.tensor(inputs["sequence_ids"])
    mask = (ids > 0).long()
    if case.packed:  # transformers adds a mask of rank 4 to the attention scores
        same = ids[:, None, :, None] == ids[:, None, None, :]
        mask = (~same).double() * -1e30
    names = ("input_ids", "token_type_ids", *(["position_ids"] if case.packed else []))
    outputs = theirs(
        attention_mask=to_choices(case, mask),
        output_hidden_states=True,
        **{name: to_choices(case, torch.tensor(inputs[name]).long()) for name in names},
        **{name: torch.tensor(value) for name, value in labels.items()},
    )
    loss = outputs.loss if labels else whole_row_loss(outputs)
    loss.backward()
    values = {
        name: value
        for name, value in outputs.items()
        if name.endswith(("logits", "state", "pooler_output"))
    }
    values |= {f"hidden state {i}": state for i, state in enumerate(outputs.hidden_states)}
    values["loss"] = loss
    return {name: value.detach().numpy() for name, value in values.items()}


def our_loss(case: Case, outputs: Any, labels: dict[str, np.ndarray]) -> Any:
    """Compute the loss of transformers from logits and labels."""

    def cross_entropy(logits: Any, classes: np.ndarray) -> Any:
        chosen = np.flatnonzero(classes.reshape(-1) >= 0)
        flat = jax.nn.log_softmax(logits.reshape(-1, logits.shape[-1]))
        return -flat[chosen, classes.reshape(-1)[chosen]].mean()

    if case.architecture == "Model":
        return whole_row_loss(outputs)
    if case.architecture == "PreTraining":
        masked_lm = cross_entropy(outputs.prediction_logits, labels["labels"])
        return masked_lm + cross_entropy(outputs.sop_logits, labels["sentence_order_label"])
    if case.architecture == "QuestionAnswering":
        start = cross_entropy(outputs.start_logits, labels["start_positions"])
        return (start + cross_entropy(outputs.end_logits, labels["end_positions"])) / 2
    if case.head is NUMBER:
        return jnp.square(outputs.logits[:, 0] - labels["labels"]).mean()
    if case.head is SEVERAL:
        return -jax.nn.log_sigmoid(outputs.logits * (2 * labels["labels"] - 1)).mean()
    return cross_entropy(outputs.logits, labels["labels"])


def run_ours(
    case: Case,
    dtype: type,
    params: Tree,
    inputs: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
) -> tuple[Tree, Tree]:
    """Return the same of our model, computed in the given dtype, and the gradients."""
    model = case.model(dtype)
    ids = inputs["sequence_ids"]
    masks: dict[str, Any] = {"attention_mask": to_choices(case, (ids > 0).astype(np.int32))}
    if case.packed:
        masks = {"sequence_ids": ids, "position_ids": inputs["position_ids"]}

    # Runs once on small arrays: optimization costs more time than it saves.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def compute(params: Tree) -> Any:
        def score(params: Tree) -> tuple[Any, Any]:
            outputs: Any = model.apply(
                {"params": params},
                to_choices(case, inputs["input_ids"]),
                token_type_ids=to_choices(case, inputs["token_type_ids"]),
                output_hidden_states=True,
                **masks,
            )
            return our_loss(case, outputs, labels), vars(outputs)

        return jax.value_and_grad(score, has_aux=True)(params)

    (loss, values), gradients = compute(params)
    states = values.pop("hidden_states")
    values |= {f"hidden state {i}": state for i, state in enumerate(states)}
    return {**values, "loss": loss}, gradients


def read_gradients(case: Case, theirs: Any, directory: Path) -> Tree:
    """Return transformers' gradients as our tree: written and read like a model's weights."""
    from safetensors.torch import save_file

    directory.mkdir()
    shutil.copy(directory.parent / "back/config.json", directory)
    gradients = {name: leaf.grad for name, leaf in theirs.named_parameters()}
    unused = {name for name, gradient in gradients.items() if gradient is None}
    assert unused <= ({"predictions.bias"} if case.changes == UNTIED else set())
    save_file(
        {n: g.contiguous() for n, g in gradients.items() if g is not None},
        directory / "model.safetensors",
    )
    _, tree = our_class(case.architecture).from_pretrained(directory, dtype=np.float64)
    return tree


@pytest.mark.parametrize("name", CASES)
def test_outputs_losses_and_gradients_equal_those_of_transformers(
    name: str, tmp_path: Path
) -> None:
    import torch

    torch.set_num_threads(1)  # more threads are slower on matrices this small
    case, rng = CASES[name], np.random.default_rng(list(CASES).index(name))
    params, inputs = draw_parameters(case, rng), draw_inputs(case, rng)
    labels = draw_labels(case, inputs, rng)

    with jax.enable_x64(True):
        case.model(np.float64).save_pretrained(tmp_path / "there", params)
        theirs, report = their_class(case.architecture).from_pretrained(
            tmp_path / "there",
            dtype=torch.float64,
            attn_implementation=case.attention,
            output_loading_info=True,
        )
        assert not any(report.values()), report
        theirs.save_pretrained(tmp_path / "back")
        model, back = our_class(case.architecture).from_pretrained(
            tmp_path / "back", dtype=np.float64
        )
        jax.tree.map(np.testing.assert_array_equal, back, params)
        if case.changes.get("parameter_sharing") is None:  # transformers has groups instead
            assert model.config == case.config
        if case.head is not None:
            assert model.head == case.head
        expected = run_theirs(case, theirs.eval(), inputs, labels)
        expected_gradients = read_gradients(case, theirs, tmp_path / "gradients")

    for dtype, tolerance in ((np.float64, 1e-9), (np.float32, 2e-4)):
        with jax.enable_x64(dtype is np.float64):
            cast = jax.tree.map(lambda leaf, dtype=dtype: jnp.asarray(leaf, dtype), params)
            actual, gradients = run_ours(case, dtype, cast, inputs, labels)
        assert set(actual) == set(expected)
        compared = {key: (actual[key], value) for key, value in expected.items()}
        pairs = jax.tree.map(lambda *both: both, gradients, expected_gradients)
        is_pair = {"is_leaf": lambda node: isinstance(node, tuple)}
        for path, both in jax.tree_util.tree_leaves_with_path(pairs, **is_pair):
            compared[jax.tree_util.keystr(path)] = both
        for key, (value, wanted) in compared.items():
            assert value.dtype == dtype
            np.testing.assert_allclose(
                value, wanted, rtol=tolerance, atol=tolerance, err_msg=f"{key}, {dtype}"
            )


def test_equal_sizes_without_a_mapping_are_mapped_by_the_identity(tmp_path: Path) -> None:
    import torch

    case = Case(changes={"embedding_size": 12})
    rng = np.random.default_rng(0)
    params, inputs = draw_parameters(case, rng), draw_inputs(case, rng)
    assert "embedding_hidden_mapping_in" not in params["albert"]["encoder"]
    params = jax.tree.map(lambda x: x.astype(np.float32), params)
    case.model(jnp.float32).save_pretrained(tmp_path / "there", params)
    theirs = their_class("PreTraining").from_pretrained(tmp_path / "there").eval()
    with torch.no_grad():
        expected = theirs(torch.tensor(inputs["input_ids"]).long()).prediction_logits
    outputs = case.model(jnp.float32).apply({"params": params}, inputs["input_ids"])
    np.testing.assert_allclose(outputs.prediction_logits, expected, rtol=2e-4, atol=2e-4)
    model, back = AlbertForPreTraining.from_pretrained(tmp_path / "there")
    again = model.apply({"params": back}, inputs["input_ids"])
    np.testing.assert_array_equal(again.prediction_logits, outputs.prediction_logits)


@pytest.fixture
def theirs() -> Any:
    import torch
    import transformers

    torch.manual_seed(1)
    config = transformers.AlbertConfig(
        **{
            **{name: getattr(SMALL, name) for name in ("vocab_size", "embedding_size")},
            "hidden_size": 12,
            "num_attention_heads": 3,
            "intermediate_size": 10,
            "num_hidden_layers": 4,
            "num_hidden_groups": 2,
            "max_position_embeddings": 13,
        }
    )
    return transformers.AlbertForPreTraining(config)


def save_torch(theirs: Any, directory: Path, **options: Any) -> None:
    """Write torch's format, as releases before the fifth did: everything in the state dict."""
    import torch

    theirs.config.save_pretrained(directory)
    state = dict(theirs.state_dict())
    assert "predictions.decoder.weight" in state
    state["albert.embeddings.position_ids"] = torch.arange(13)[None]
    torch.save(state, directory / "pytorch_model.bin", **options)


def in_shards(theirs: Any, directory: Path) -> None:
    theirs.save_pretrained(directory, max_shard_size="2KB")
    assert len(list(directory.glob("*.safetensors"))) > 2


@pytest.mark.parametrize(
    ("save", "dtype"),
    [
        (in_shards, "float32"),
        (save_torch, "float32"),
        (functools.partial(save_torch, _use_new_zipfile_serialization=False), "float32"),
        (save_torch, "bfloat16"),
        (lambda theirs, directory: theirs.save_pretrained(directory), "bfloat16"),
        (lambda theirs, directory: theirs.save_pretrained(directory), "float16"),
    ],
    ids=["shards", "torch", "torch before 1.6", "torch, bfloat16", "bfloat16", "float16"],
)
def test_every_kind_of_file_is_read_alike(
    theirs: Any, save: Any, dtype: str, tmp_path: Path
) -> None:
    import torch

    theirs = theirs.to(getattr(torch, dtype))
    save(theirs, tmp_path)
    model, params = AlbertForPreTraining.from_pretrained(tmp_path)
    inputs = np.arange(1, 12, dtype=np.int32)[None]
    outputs = model.apply({"params": params}, inputs)
    with torch.no_grad():
        expected = theirs.float().eval()(torch.tensor(inputs).long())
    np.testing.assert_allclose(
        outputs.prediction_logits, expected.prediction_logits, rtol=2e-4, atol=2e-5
    )
    np.testing.assert_allclose(outputs.sop_logits, expected.sop_logits, rtol=2e-4, atol=2e-5)


def test_transformers_reads_our_configuration(tmp_path: Path) -> None:
    """The fifth release rejects integers for floats and the like."""
    import transformers

    config = AlbertConfig.from_dict(
        SMALL.to_dict() | {"hidden_dropout_prob": 0, "initializer_range": 1, "gap_size": 0}
    )
    model = albert_jax.AlbertForTokenClassification(config, THREE)
    params = model.initialize(jax.random.key(0))
    model.save_pretrained(tmp_path / "there", params)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path / "there")
    assert theirs.id2label == {0: "one", 1: "two", 2: "three"}
    assert theirs.architectures == ["AlbertForTokenClassification"]
    written = json.loads((tmp_path / "there/config.json").read_text())
    for name, value in written.items():
        if name not in ("dtype", "id2label"):
            assert getattr(theirs, name) == value, name
    assert written["gap_size"] == 0
