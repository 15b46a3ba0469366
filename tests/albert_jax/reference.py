"""ALBERT in plain NumPy loops and float64, which the fast model has to equal.

It is written from the paper and the released format alone, not from `albert_jax`, so that the two
share no mistake. Every function is analytic: it takes complex arrays and follows the real branch.
The imaginary part of f(x + ihd) / h is therefore the derivative of f along d. It is exact to
rounding, since nothing is subtracted (Squire and Trapp 1998, "Using complex variables to estimate
derivatives of real functions").
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Bool, Inexact, Int, Shaped

from albert_jax import AlbertConfig

Tree = dict[str, Any]  # nested dicts with arrays at the leaves
Path = tuple[str, ...]

STEP = 1e-30  # so small that its square vanishes beside 1


class Encoding(NamedTuple):
    """The encoder's outputs for B rows of S positions."""

    hidden_states: list[Inexact[np.ndarray, "batch length hidden"]]  # input, then every block's
    pooler_output: Inexact[np.ndarray, "batch hidden"]

    @property
    def last_hidden_state(self) -> Inexact[np.ndarray, "batch length hidden"]:
        return self.hidden_states[-1]


class PreTraining(NamedTuple):
    """The two pre-training heads' outputs; the last axis of `sop_logits` is in order, swapped."""

    prediction_logits: Inexact[np.ndarray, "batch predictions vocabulary"]
    sop_logits: Inexact[np.ndarray, "batch *pairs 2"]
    hidden_states: list[Inexact[np.ndarray, "batch length hidden"]]


def encode(
    parameters: Tree,
    config: AlbertConfig,
    input_ids: Int[np.ndarray, "batch length"],
    *,
    attention_mask: Int[np.ndarray, "batch length"] | None = None,
    sequence_ids: Int[np.ndarray, "batch length"] | None = None,
    token_type_ids: Int[np.ndarray, "batch length"] | None = None,
    position_ids: Int[np.ndarray, "batch length"] | None = None,
) -> Encoding:
    """Apply encoder and pooler (ALBERT §3.1) with the part of the tree called ``albert``.

    Under `attention_mask` every query, a padded one too, attends to the keys whose mask is 1. Under
    `sequence_ids` a query attends to the keys of its own id, and padding (id 0) to padding.
    """
    batch, length = input_ids.shape
    if token_type_ids is None:
        token_type_ids = np.zeros((batch, length), int)
    if position_ids is None:
        position_ids = np.tile(np.arange(length), (batch, 1))
    rows = []
    for row in range(batch):
        visible = np.ones((length, length), bool)  # [query, key]
        if attention_mask is not None:
            visible &= attention_mask[row][None, :] == 1
        if sequence_ids is not None:
            visible &= sequence_ids[row][:, None] == sequence_ids[row][None, :]
        x = _embed(parameters, config, input_ids[row], token_type_ids[row], position_ids[row])
        rows.append(_run_layers(parameters["encoder"], config, x, visible))
    hidden_states = [np.stack(states) for states in zip(*rows, strict=True)]
    return Encoding(hidden_states, _pool(parameters, hidden_states[-1][:, 0]))


def score_pretraining(
    parameters: Tree,
    config: AlbertConfig,
    input_ids: Int[np.ndarray, "batch length"],
    *,
    masked_lm_positions: Int[np.ndarray, "batch predictions"] | None = None,
    sentence_order_positions: Int[np.ndarray, "batch pairs"] | None = None,
    **inputs: Int[np.ndarray, "batch length"] | None,
) -> PreTraining:
    """Compute the masked-LM head, tied to the word table, and the sentence-order head.

    Without `masked_lm_positions` every position is scored; without `sentence_order_positions` the
    first position of a row stands for its only pair.
    """
    states = encode(parameters["albert"], config, input_ids, **inputs)
    last = states.last_hidden_state
    rows = np.arange(len(input_ids))[:, None]

    x = last if masked_lm_positions is None else last[rows, masked_lm_positions]
    words = parameters["albert"]["embeddings"]["word_embeddings"]["embedding"]
    prediction_logits = score_tokens(parameters["predictions"], config, words, x)

    pooled = states.pooler_output
    if sentence_order_positions is not None:
        pooled = _pool(parameters["albert"], last[rows, sentence_order_positions])
    sop_logits = _dense(parameters["sop_classifier"], pooled)
    return PreTraining(prediction_logits, sop_logits, states.hidden_states)


def score_tokens(
    head: Tree,
    config: AlbertConfig,
    words: Inexact[np.ndarray, "vocabulary embedding"],
    x: Inexact[np.ndarray, "... hidden"],
) -> Inexact[np.ndarray, "... vocabulary"]:
    """Compute the masked-LM head, tied to the word table."""
    x = _activate(config.hidden_act, _dense(head["dense"], x))
    return _normalize(head["layer_norm"], config, x) @ words.T + head["bias"]


def score_replacements(
    head: Tree, config: AlbertConfig, x: Inexact[np.ndarray, "... hidden"]
) -> Inexact[np.ndarray, "..."]:
    """Compute the head of a discriminator (Clark et al. 2020): positive where it finds a fake."""
    x = _activate(config.hidden_act, _dense(head["dense"], x))
    return _dense(head["dense_prediction"], x)[..., 0]


def sum_binary_cross_entropy(
    logits: Inexact[np.ndarray, "*targets"],
    labels: Bool[np.ndarray, "*targets"],
    weights: Shaped[np.ndarray, "*targets"],
) -> complex:
    """Compute the weighted sum of -log p(label), where p(True) is the logistic function."""
    total = 0.0 + 0.0j
    for target in np.ndindex(labels.shape):
        sign = 1 if labels[target] else -1
        total += float(weights[target]) * np.log(1 + np.exp(-sign * logits[target]))
    return total


def sum_cross_entropy(
    logits: Inexact[np.ndarray, "*targets classes"],
    labels: Int[np.ndarray, "*targets"],
    weights: Shaped[np.ndarray, "*targets"],
) -> tuple[complex, float]:
    """Compute the weighted sum of -log p(label) in nats, and the sum of the weights."""
    total = 0.0 + 0.0j
    for target in np.ndindex(labels.shape):
        score = logits[target]
        shifted = score - score.real.max()
        log_probability = shifted[labels[target]] - np.log(np.exp(shifted).sum())
        total -= float(weights[target]) * log_probability
    return total, float(weights.astype(float).sum())


def differentiate_along(
    function: Callable[[Tree], complex],
    parameters: Tree,
    path: Path,
    direction: Inexact[np.ndarray, "..."],
) -> float:
    """Differentiate an analytic function along a direction in one tensor of its tree."""
    leaves = flatten_dict(parameters)
    moved = unflatten_dict({**leaves, path: leaves[path] + 1j * STEP * direction})
    return complex(function(moved)).imag / STEP


def _embed(
    parameters: Tree,
    config: AlbertConfig,
    input_ids: Int[np.ndarray, " length"],
    token_type_ids: Int[np.ndarray, " length"],
    position_ids: Int[np.ndarray, " length"],
) -> Inexact[np.ndarray, "length hidden"]:
    tables = parameters["embeddings"]
    x = tables["word_embeddings"]["embedding"][input_ids]
    x = x + tables["token_type_embeddings"]["embedding"][token_type_ids]
    if config.position_encoding == "absolute":
        x = x + tables["position_embeddings"]["embedding"][position_ids]
    x = _normalize(tables["layer_norm"], config, x)
    if "embedding_hidden_mapping_in" in parameters["encoder"]:
        x = _dense(parameters["encoder"]["embedding_hidden_mapping_in"], x)
    return x


def _run_layers(
    encoder: Tree,
    config: AlbertConfig,
    x: Inexact[np.ndarray, "length hidden"],
    visible: Bool[np.ndarray, "query key"],
) -> list[Inexact[np.ndarray, "length hidden"]]:
    def attend(half: Tree, x: np.ndarray) -> np.ndarray:
        # len(states) - 1 applications came before this one: each has added a state to the first.
        local = config.attention_window > 0 and (len(states) - 1) % config.global_every > 0
        if not local:
            return _attend(half, encoder, x, visible, config, config.rotary_base)
        positions = np.arange(len(x))
        distance = np.abs(positions[:, None] - positions[None, :])
        near = visible & (distance <= config.attention_window / 2)
        return _attend(half, encoder, x, near, config, 10_000)

    def feed_forward(half: Tree, x: np.ndarray) -> np.ndarray:
        if "router" in half:
            return np.stack([_mix(half, config, feed_forward, token) for token in x])
        wide = _dense(half["intermediate"], x)
        match str(config.feed_forward):
            case "mlp":
                wide = _activate(config.hidden_act, wide)
            case "geglu":
                wide = _activate("gelu", wide) * _dense(half["gate"], x)
            case "swiglu":
                wide = wide / (1 + np.exp(-wide)) * _dense(half["gate"], x)
        return _dense(half["output"], wide)

    states = [x]
    for layer in range(config.num_hidden_layers):
        for inner in range(config.inner_group_num):
            for name, transform in (("attention", attend), ("feed_forward", feed_forward)):
                half = _take_copy(encoder["layers"][name], layer, inner, config)
                for dense, factors in encoder["layers"].get(f"{name}_changes", {}).items():
                    change = factors["down"][layer, inner] @ factors["up"][layer, inner]
                    half[dense] = half[dense] | {"kernel": half[dense]["kernel"] + change}
                if name == "feed_forward" and not _has_experts(config, layer):
                    half.pop("router", None)
                if config.depth_signal == "embedding" and name == "attention":
                    x = x + encoder["layers"]["depth_signal"]["embedding"][layer, inner]
                scale: Any = 1
                if config.depth_signal == "scale":
                    scale = encoder["layers"]["depth_signal"][name][layer, inner]
                if config.norm != "post":
                    added = transform(half, _normalize(half["layer_norm"], config, x))
                    if config.norm == "sandwich":
                        added = _normalize(half["output_layer_norm"], config, added)
                    x = x + scale * added
                else:
                    x = _normalize(half["layer_norm"], config, x + scale * transform(half, x))
            states.append(x)
    if config.norm != "post":
        states = [_normalize(encoder["layer_norm"], config, state) for state in states]
    return states


def _has_experts(config: AlbertConfig, layer: int) -> bool:
    chosen = config.expert_layers
    return chosen == "all" or layer + 1 in [int(number) for number in chosen.split(",")]


def _mix(
    half: Tree,
    config: AlbertConfig,
    feed_forward: Callable[[Tree, np.ndarray], np.ndarray],
    token: Inexact[np.ndarray, " hidden"],
) -> Inexact[np.ndarray, " hidden"]:
    """Apply the layer with the kernels that a token gets from its experts."""
    scores = token @ half["router"]["kernel"]
    probabilities = np.exp(scores - scores.real.max())
    probabilities = probabilities / probabilities.sum()
    ranking = np.argsort(-(probabilities + half["router"]["bias"]).real)
    best = ranking[: config.experts_per_token]
    own = {}
    for name in ("intermediate", "gate", "output"):
        if name in half:
            experts, kernel = half[f"{name}_experts"], half[name]["kernel"]
            for expert in best:
                gate = probabilities[expert] / probabilities[best].sum()
                kernel = kernel + gate * (experts["down"][expert] @ experts["up"][expert])
            own[name] = half[name] | {"kernel": kernel}
    return feed_forward(own, token)


def _take_copy(half: Tree, layer: int, inner: int, config: AlbertConfig) -> Tree:
    """Select a layer's parameters: with c copies for L layers, copy floor(layer · c / L)."""
    leaves = flatten_dict(half)
    used = {path: layer * len(leaf) // config.num_hidden_layers for path, leaf in leaves.items()}
    return unflatten_dict({path: leaf[used[path], inner] for path, leaf in leaves.items()})


def _attend(
    parameters: Tree,
    encoder: Tree,
    x: Inexact[np.ndarray, "length hidden"],
    visible: Bool[np.ndarray, "query key"],
    config: AlbertConfig,
    base: float,
) -> Inexact[np.ndarray, "length hidden"]:
    query, key, value = (_dense(parameters[name], x) for name in ("query", "key", "value"))
    size = config.hidden_size // config.num_attention_heads
    contexts = []
    for head in range(config.num_attention_heads):
        part = slice(head * size, (head + 1) * size)
        q, k, v = query[:, part], key[:, part], value[:, part]
        if config.position_encoding == "rotary":
            q, k = _rotate(q, base), _rotate(k, base)
        rows = range(len(x))
        if config.position_encoding == "relative_local":
            # Each query has its own keys and values: those of the tokens and of the distances.
            far = [[_distance(i, j, config) for j in rows] for i in rows]
            keys = [k + encoder["relative_keys"][far[i]] for i in rows]
            values = [v + encoder["relative_values"][far[i]] for i in rows]
        else:
            keys, values = [k] * len(x), [v] * len(x)
        scores = np.stack([keys[i] @ q[i] for i in rows]) / math.sqrt(size)
        probabilities = _softmax(scores, visible)
        contexts.append(np.stack([probabilities[i] @ values[i] for i in rows]))
    return _dense(parameters["dense"], np.concatenate(contexts, axis=-1))


def _distance(query: int, key: int, config: AlbertConfig) -> int:
    """Return the row of the tables for the distance from a query to a key."""
    limit = config.max_relative_distance
    return max(-limit, min(limit, key - query)) + limit


def _rotate(
    x: Inexact[np.ndarray, "length width"], base: float
) -> Inexact[np.ndarray, "length width"]:
    """Entry pairs (i, width/2 + i) rotated by position · base^(-2i/width)."""
    length, width = x.shape
    rotated = np.zeros_like(x)
    for position in range(length):
        for i in range(width // 2):
            angle = position * base ** (-2 * i / width)
            a, b = x[position, i], x[position, width // 2 + i]
            rotated[position, i] = a * math.cos(angle) - b * math.sin(angle)
            rotated[position, width // 2 + i] = a * math.sin(angle) + b * math.cos(angle)
    return rotated


def _softmax(
    scores: Inexact[np.ndarray, "query key"], visible: Bool[np.ndarray, "query key"]
) -> Inexact[np.ndarray, "query key"]:
    """Probabilities of the visible keys; a query that sees none has equal ones for all keys."""
    sees = visible.any(axis=-1, keepdims=True)
    scores, visible = np.where(sees, scores, 0), visible | ~sees
    largest = np.where(visible, scores.real, -np.inf).max(axis=-1, keepdims=True)
    weights = np.exp(np.where(visible, scores - largest, 0)) * visible
    return weights / weights.sum(axis=-1, keepdims=True)


def _pool(
    parameters: Tree, first: Inexact[np.ndarray, "... hidden"]
) -> Inexact[np.ndarray, "... hidden"]:
    return np.tanh(_dense(parameters["pooler"], first))


def _dense(
    parameters: Tree, x: Inexact[np.ndarray, "... inputs"]
) -> Inexact[np.ndarray, "... outputs"]:
    return x @ parameters["kernel"] + parameters.get("bias", 0)


def _normalize(
    parameters: Tree, config: AlbertConfig, x: Inexact[np.ndarray, "... size"]
) -> Inexact[np.ndarray, "... size"]:
    if config.norm_kind == "rms":
        mean_square = (x * x).mean(axis=-1, keepdims=True)
        return x / np.sqrt(mean_square + config.layer_norm_eps) * parameters["scale"]
    centered = x - x.mean(axis=-1, keepdims=True)
    variance = (centered * centered).mean(axis=-1, keepdims=True)
    x = centered / np.sqrt(variance + config.layer_norm_eps)
    return x * parameters["scale"] + parameters["bias"]


def _activate(name: str, x: Inexact[np.ndarray, "*shape"]) -> Inexact[np.ndarray, "*shape"]:
    match str(name):
        case "gelu":
            return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
        case "gelu_erf":
            return x / 2 * (1 + _erf(x / math.sqrt(2)))
        case "relu":
            return x * (x.real > 0)
        case "tanh":
            return np.tanh(x)
        case "linear":
            return x
    raise ValueError(f"the reference knows no activation {name!r}")


def _erf(x: Inexact[np.ndarray, "*shape"]) -> Inexact[np.ndarray, "*shape"]:
    """The error function; off the real line its first-order expansion, exact for a tiny step."""
    derivative = 2 / math.sqrt(math.pi) * np.exp(-x.real * x.real)
    value = np.vectorize(math.erf, otypes=[float])(x.real)
    return value + 1j * derivative * x.imag if np.iscomplexobj(x) else value
