"""Random float64 parameters in the layout of checkpoints, and random batches."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from albert_jax import AlbertConfig
from albert_jax.batch import PretrainingBatch

Path = tuple[str, ...]


def parameter_shapes(config: AlbertConfig) -> dict[Path, tuple[int, ...]]:
    """Every parameter of the pre-training model; those of layers are [copies, inner, ...]."""
    vocabulary, embedding = config.vocab_size, config.embedding_size
    hidden, intermediate = config.hidden_size, config.intermediate_size
    if config.feed_forward != "mlp":
        intermediate = round(intermediate / 12) * 8  # two thirds, in eights
        assert intermediate
    all_layers, groups = config.num_hidden_layers, config.num_hidden_groups
    shared = {"all": (True, True), "attention": (True, False), "ffn": (False, True)}
    share_attention, share_ffn = shared.get(config.parameter_sharing, (False, False))
    attention = (groups if share_attention else all_layers, config.inner_group_num)
    ffn = (groups if share_ffn else all_layers, config.inner_group_num)

    shapes: dict[Path, tuple[int, ...]] = {}

    def add_dense(path: str, inputs: int, outputs: int, stack: tuple[int, ...] = ()) -> None:
        shapes[*path.split("/"), "kernel"] = (*stack, inputs, outputs)
        if config.dense_biases or not stack:
            shapes[*path.split("/"), "bias"] = (*stack, outputs)

    def add_norm(path: str, size: int, stack: tuple[int, ...] = ()) -> None:
        sandwiched = config.norm == "sandwich" and "layers" in path
        for name in ("layer_norm", "output_layer_norm")[: 1 + sandwiched]:
            shapes[*path.split("/"), name, "scale"] = (*stack, size)
            if config.norm_kind == "layer":
                shapes[*path.split("/"), name, "bias"] = (*stack, size)

    tables = {
        "word": vocabulary,
        "token_type": config.type_vocab_size,
        "position": config.max_position_embeddings,
    }
    if config.position_encoding != "absolute":
        del tables["position"]
    if config.position_encoding == "relative_local":
        distances = 2 * config.max_relative_distance + 1
        for name in ("keys", "values"):
            shapes["albert", "encoder", f"relative_{name}"] = (
                distances,
                hidden // config.num_attention_heads,
            )
    if config.norm != "post":
        add_norm("albert/encoder", hidden)
    for name, rows in tables.items():
        shapes["albert", "embeddings", f"{name}_embeddings", "embedding"] = (rows, embedding)
    add_norm("albert/embeddings", embedding)
    if embedding != hidden or config.embedding_mapping == "always":
        add_dense("albert/encoder/embedding_hidden_mapping_in", embedding, hidden)
    for name in ("query", "key", "value", "dense"):
        add_dense(f"albert/encoder/layers/attention/{name}", hidden, hidden, attention)
    add_norm("albert/encoder/layers/attention", hidden, attention)
    add_dense("albert/encoder/layers/feed_forward/intermediate", hidden, intermediate, ffn)
    if config.feed_forward != "mlp":
        add_dense("albert/encoder/layers/feed_forward/gate", hidden, intermediate, ffn)
    add_dense("albert/encoder/layers/feed_forward/output", intermediate, hidden, ffn)
    add_norm("albert/encoder/layers/feed_forward", hidden, ffn)
    if config.depth_rank:
        blocks = (all_layers, config.inner_group_num)
        for path, shape in list(shapes.items()):
            if "layers" in path and path[-1] == "kernel":
                *above, half, name, _ = path
                change = (*above, f"{half}_changes", name)
                shapes[*change, "down"] = (*blocks, shape[-2], config.depth_rank)
                shapes[*change, "up"] = (*blocks, config.depth_rank, shape[-1])
    layers = ("albert", "encoder", "layers")
    if config.num_experts:
        experts, rank = config.num_experts, config.expert_rank
        half = (*layers, "feed_forward")
        for name in ("intermediate", "gate", "output"):
            if kernel := shapes.get((*half, name, "kernel")):
                shapes[*half, f"{name}_experts", "down"] = (*ffn, experts, kernel[-2], rank)
                shapes[*half, f"{name}_experts", "up"] = (*ffn, experts, rank, kernel[-1])
        shapes[*half, "router", "kernel"] = (*ffn, hidden, experts)
        shapes[*half, "router", "bias"] = (*ffn, experts)
    signals = {"scale": ("attention", "feed_forward"), "embedding": ("embedding",)}
    for name in signals.get(config.depth_signal, ()):
        shapes[*layers, "depth_signal", name] = (all_layers, config.inner_group_num, hidden)
    add_dense("albert/pooler", hidden, hidden)
    add_dense("predictions/dense", hidden, embedding)
    add_norm("predictions", embedding)
    shapes["predictions", "bias"] = (vocabulary,)
    add_dense("sop_classifier", hidden, 2)
    return shapes


def replaced_tokens_shapes(
    config: AlbertConfig, generator: AlbertConfig, *, own: bool
) -> dict[Path, tuple[int, ...]]:
    """The shapes of a discriminator and its generator, which is the discriminator's encoder unless
    it has layers of its `own`."""
    shapes, of_generator = parameter_shapes(config), parameter_shapes(generator)
    hidden, head = config.hidden_size, "discriminator_predictions"
    for name, outputs in (("dense", hidden), ("dense_prediction", 1)):
        shapes[head, name, "kernel"] = (hidden, outputs)
        shapes[head, name, "bias"] = (outputs,)
    if not own and generator.num_hidden_layers == config.num_hidden_layers:
        return shapes
    shapes = {path: shape for path, shape in shapes.items() if path[0] != "predictions"}
    for path, shape in of_generator.items():
        if path[0] == "predictions":
            shapes["generator", *path] = shape
        elif own and path[:2] == ("albert", "encoder"):
            shapes["generator", *path[1:]] = shape
    return shapes


def random_parameters(
    config: AlbertConfig,
    rng: np.random.Generator,
    shapes: Mapping[Path, tuple[int, ...]] | None = None,
) -> dict[str, Any]:
    """A random float64 tree, biases and scales included, so that no term of the model vanishes.

    The shapes are those of the model of pre-training, unless others are given.
    """
    leaves = {}
    for path, shape in (shapes or parameter_shapes(config)).items():
        noise = rng.normal(size=shape)
        leaves[path] = 1 + 0.2 * noise if path[-1] == "scale" else 0.5 * noise
    return unflatten_dict(leaves)


def random_batch(
    config: AlbertConfig, rows: list[list[int]], length: int, rng: np.random.Generator
) -> PretrainingBatch:
    """Random tokens in pairs of the given lengths, row by row, and in the padding after them too.

    Three prediction slots a pair, weighted 1, 0.5 and 0; slots of missing pairs weigh 0.
    Example: rows ``[[4, 5], [3]]`` at length 9 have the sequence ids ``111122222`` and
    ``111000000``.
    """
    pairs = max(map(len, rows))
    arrays: dict[str, np.ndarray] = {
        name: np.zeros((len(rows), length), np.int32)
        for name in ("input_ids", "token_type_ids", "position_ids", "sequence_ids")
    }
    arrays["input_ids"][:] = rng.integers(config.vocab_size, size=(len(rows), length))
    arrays["token_type_ids"][:] = rng.integers(config.type_vocab_size, size=(len(rows), length))
    for name, size in (("masked_lm", 3 * pairs), ("sentence_order", pairs)):
        arrays[f"{name}_positions"] = np.zeros((len(rows), size), np.int32)
        arrays[f"{name}_weights"] = np.zeros((len(rows), size), np.float32)
    arrays["masked_lm_ids"] = rng.integers(config.vocab_size, size=(len(rows), 3 * pairs))
    arrays["sentence_order_labels"] = rng.integers(2, size=(len(rows), pairs))
    for row, lengths in enumerate(rows):
        starts = np.cumsum([0, *lengths])
        for pair, size in enumerate(lengths):
            start, stop = starts[pair : pair + 2]
            slots = slice(3 * pair, 3 * pair + 3)
            arrays["position_ids"][row, start:stop] = np.arange(size)
            arrays["sequence_ids"][row, start:stop] = pair + 1
            arrays["masked_lm_positions"][row, slots] = rng.integers(start, stop, size=3)
            arrays["masked_lm_weights"][row, slots] = 1, 0.5, 0
            arrays["sentence_order_positions"][row, pair] = start
            arrays["sentence_order_weights"][row, pair] = 1
    for name in ("masked_lm_ids", "sentence_order_labels"):
        arrays[name] = arrays[name].astype(np.int32)
    return PretrainingBatch.from_numpy(arrays)
