"""The model against Hugging Face transformers: outputs, losses and every entry of the gradients.

Where the two define ALBERT differently, the comparison stays where they agree:

- Their piece 0 passes no gradient to its row on the way in (`padding_idx`), so pieces here are 1
  and up, and 0 stands in the padding alone, which no loss reads.
- They drop out in front of the sentence-order classifier and not behind the feed-forward layer, so
  both models run without dropout.
- They always map the embeddings to the hidden size, so equal sizes are compared with the mapping.
- They know no packed rows: there they get the attention mask that follows from the sequence ids,
  and the order of the first pair alone is scored.
"""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from albert_jax import AlbertConfig, AlbertForPreTraining
from albert_jax.losses import cross_entropy

pytestmark = pytest.mark.interop

Tree = dict[str, Any]
Batch = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]  # inputs, labels, order

# Their module -> our path of its weight; a bias stands beside it. Weights called kernel are
# transposed. The second table is for what stands in group g and inner block i of the layers.
MODULES = {
    "albert.embeddings.word_embeddings": "albert/embeddings/word_embeddings/embedding",
    "albert.embeddings.position_embeddings": "albert/embeddings/position_embeddings/embedding",
    "albert.embeddings.token_type_embeddings": "albert/embeddings/token_type_embeddings/embedding",
    "albert.embeddings.LayerNorm": "albert/embeddings/layer_norm/scale",
    "albert.encoder.embedding_hidden_mapping_in": (
        "albert/encoder/embedding_hidden_mapping_in/kernel"
    ),
    "albert.pooler": "albert/pooler/kernel",
    "predictions.dense": "predictions/dense/kernel",
    "predictions.LayerNorm": "predictions/layer_norm/scale",
    "predictions": "predictions/",  # has a bias alone, over the vocabulary
    "sop_classifier.classifier": "sop_classifier/kernel",
}
LAYER = re.compile(r"albert\.encoder\.albert_layer_groups\.(\d+)\.albert_layers\.(\d+)\.")
LAYER_MODULES = {
    "attention.query": "albert/encoder/layers/attention/query/kernel",
    "attention.key": "albert/encoder/layers/attention/key/kernel",
    "attention.value": "albert/encoder/layers/attention/value/kernel",
    "attention.dense": "albert/encoder/layers/attention/dense/kernel",
    "attention.LayerNorm": "albert/encoder/layers/attention/layer_norm/scale",
    "ffn": "albert/encoder/layers/feed_forward/intermediate/kernel",
    "ffn_output": "albert/encoder/layers/feed_forward/output/kernel",
    "full_layer_layer_norm": "albert/encoder/layers/feed_forward/layer_norm/scale",
}
ACTIVATIONS = {"gelu": "gelu_new", "gelu_erf": "gelu"}

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
CASES: dict[str, tuple[list[list[int]], str, dict[str, Any]]] = {
    "plain": (WHOLE, "sdpa", {}),
    "padding": (PADDED, "sdpa", {"num_attention_heads": 4}),
    "padding, eager": (PADDED, "eager", {"num_hidden_layers": 3}),
    "packed rows": (PACKED, "sdpa", {}),
    "groups of unequal size": (PADDED, "sdpa", {"num_hidden_layers": 5, "num_hidden_groups": 3}),
    "groups of inner blocks": (
        PACKED,
        "eager",
        {"num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2},
    ),
    "equal sizes": (PADDED, "sdpa", {"embedding_size": 12, "embedding_mapping": "always"}),
    "nothing shared": (PADDED, "sdpa", {"num_hidden_layers": 3, "parameter_sharing": "none"}),
    "erf": (PADDED, "sdpa", {"hidden_act": "gelu_erf"}),
    "relu": (PADDED, "sdpa", {"hidden_act": "relu"}),
    "tanh": (WHOLE, "sdpa", {"hidden_act": "tanh"}),
    "linear": (WHOLE, "sdpa", {"hidden_act": "linear"}),
}


def make_theirs(config: AlbertConfig, attention: str, seed: int) -> Any:
    """Their model with our configuration, in float64, every parameter drawn at random."""
    import torch
    import transformers

    torch.set_num_threads(1)  # more only get into each other's way on matrices this small
    fields: dict[str, Any] = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in ("parameter_sharing", "embedding_mapping", "extra")
    }
    fields["hidden_act"] = ACTIVATIONS.get(str(config.hidden_act), str(config.hidden_act))
    fields["num_hidden_groups"] = config.attention_copies  # where nothing is shared, all layers
    fields["attn_implementation"] = attention
    theirs = transformers.AlbertForPreTraining(transformers.AlbertConfig(**fields))
    theirs = theirs.double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            is_scale = name.endswith(("LayerNorm.weight", "layer_norm.weight"))
            parameter.copy_(1 + 0.2 * noise if is_scale else 0.4 * noise)
    return theirs


def move_tree(tensors: dict[str, np.ndarray], config: AlbertConfig) -> Tree:
    """Their tensors, by name, as our tree."""
    leaves: dict[tuple[str, ...], np.ndarray] = {}
    for name, tensor in tensors.items():
        module, leaf = name.rsplit(".", 1)
        layer = LAYER.match(module)
        table = LAYER_MODULES if layer else MODULES
        *path, weight = table[module[layer.end() :] if layer else module].split("/")
        key = (*path, weight if leaf == "weight" else leaf)
        if key[-1] == "kernel":
            tensor = tensor.T
        if layer:
            shape = (config.attention_copies, config.inner_group_num, *tensor.shape)
            stack = leaves.setdefault(key, np.full(shape, np.nan))
            stack[int(layer[1]), int(layer[2])] = tensor
        else:
            leaves[key] = tensor
    return unflatten_dict(leaves)


def draw_inputs(config: AlbertConfig, rows: list[list[int]], rng: np.random.Generator) -> Batch:
    """Pieces, types, positions and sequence ids; labels with -100 where nothing is predicted."""
    size = (len(rows), LENGTH)
    inputs = {
        "input_ids": rng.integers(1, config.vocab_size, size=size),
        "token_type_ids": rng.integers(config.type_vocab_size, size=size),
        "position_ids": np.zeros(size, int),
        "sequence_ids": np.zeros(size, int),
    }
    for row, lengths in enumerate(rows):
        positions = [np.arange(length) for length in lengths]
        ids = [np.full(length, pair) for pair, length in enumerate(lengths, start=1)]
        filled = slice(sum(lengths))
        inputs["position_ids"][row, filled] = np.concatenate(positions)
        inputs["sequence_ids"][row, filled] = np.concatenate(ids)
    padding = inputs["sequence_ids"] == 0
    inputs["input_ids"][padding] = 0
    labels = rng.integers(config.vocab_size, size=size)
    labels[(rng.random(size) < 0.5) | padding] = -100
    order = rng.integers(2, size=len(rows))
    return {name: array.astype(np.int32) for name, array in inputs.items()}, labels, order


def run_theirs(theirs: Any, batch: Batch, *, packed: bool) -> tuple[Tree, Tree]:
    """Loss, logits, hidden states and gradients by their names, as NumPy."""
    import torch

    inputs, labels, order = batch
    ids = torch.tensor(inputs["sequence_ids"])
    mask = (ids > 0).long()
    if packed:  # theirs takes a mask of four axes as what to add to the scores
        same = ids[:, None, :, None] == ids[:, None, None, :]
        mask = (~same).double() * -1e30
    outputs = theirs(
        attention_mask=mask,
        labels=torch.tensor(labels),
        sentence_order_label=torch.tensor(order),
        output_hidden_states=True,
        **{
            name: torch.tensor(inputs[name]).long()
            for name in ("input_ids", "token_type_ids", *(["position_ids"] if packed else []))
        },
    )
    outputs.loss.backward()
    gradients = {name: leaf.grad.numpy() for name, leaf in theirs.named_parameters()}
    values = {
        "loss": outputs.loss,
        "prediction_logits": outputs.prediction_logits,
        "sop_logits": outputs.sop_logits,
        **{f"hidden state {i}": state for i, state in enumerate(outputs.hidden_states)},
    }
    return {name: value.detach().numpy() for name, value in values.items()}, gradients


def run_ours(
    config: AlbertConfig, dtype: type, params: Tree, batch: Batch, *, packed: bool
) -> tuple[Tree, Tree]:
    """The same of our model, computed in the given type."""
    inputs, labels, order = batch
    model = AlbertForPreTraining(config, dtype=dtype)
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (len(labels), 1))
    predicted = labels >= 0
    ids = inputs["sequence_ids"]
    masks: dict[str, Any] = {"attention_mask": (ids > 0).astype(np.int32)}
    if packed:
        masks = {"sequence_ids": ids, "position_ids": inputs["position_ids"]}

    # Runs once on few numbers: compiling costs more than it saves.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def compute(params: Tree) -> Any:
        def score(params: Tree) -> tuple[Any, Any]:
            outputs: Any = model.apply(
                {"params": params},
                inputs["input_ids"],
                token_type_ids=inputs["token_type_ids"],
                masked_lm_positions=positions,
                output_hidden_states=True,
                **masks,
            )
            masked_lm, _ = cross_entropy(
                outputs.prediction_logits,
                jnp.asarray(np.where(predicted, labels, 0)),
                jnp.asarray(predicted, jnp.float32),
            )
            sentence_order, _ = cross_entropy(
                outputs.sop_logits, jnp.asarray(order), jnp.ones(len(order), jnp.float32)
            )
            loss = masked_lm.sum / masked_lm.weight + sentence_order.sum / sentence_order.weight
            return loss, outputs

        return jax.value_and_grad(score, has_aux=True)(params)

    (loss, outputs), gradients = compute(params)
    values = {
        "loss": loss,
        "prediction_logits": outputs.prediction_logits,
        "sop_logits": outputs.sop_logits,
        **{f"hidden state {i}": state for i, state in enumerate(outputs.hidden_states)},
    }
    return values, gradients


@pytest.mark.parametrize("name", CASES)
def test_outputs_losses_and_gradients_equal_those_of_transformers(name: str) -> None:
    rows, attention, changes = CASES[name]
    config = dataclasses.replace(SMALL, **changes)
    seed = list(CASES).index(name)
    theirs = make_theirs(config, attention, seed)
    params = move_tree({n: p.detach().numpy() for n, p in theirs.named_parameters()}, config)
    batch = draw_inputs(config, rows, np.random.default_rng(seed))
    packed = rows is PACKED
    expected, gradients = run_theirs(theirs, batch, packed=packed)
    expected_gradients = flatten_dict(move_tree(gradients, config), sep="/")

    for dtype, tolerance in ((np.float64, 1e-9), (np.float32, 2e-4)):
        with jax.enable_x64(dtype is np.float64):
            cast = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), params)
            actual, gradients = run_ours(config, dtype, cast, batch, packed=packed)
        actual |= flatten_dict(gradients, sep="/")
        assert set(actual) == set(expected | expected_gradients)
        for key, value in (expected | expected_gradients).items():
            assert actual[key].dtype == dtype
            np.testing.assert_allclose(
                actual[key], value, rtol=tolerance, atol=tolerance, err_msg=f"{key}, {dtype}"
            )
