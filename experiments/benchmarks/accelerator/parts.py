"""The parts of a training step: which part a kernel belongs to, and how fast each could be."""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from albert_jax.config import AlbertConfig
from albert_jax.devices.flops import dense_flops, masked_lm_flops, pairs_in_window, skipped_flops
from experiments.benchmarks.batches import Batches


class Part(StrEnum):
    """A part of a step, forward and backward."""

    MATMULS = "matmuls"  # of layers and embeddings
    ATTENTION = "attention"
    LAYER_NORM = "layer norm"
    GELU = "GELU"
    BIASES = "biases and sums"
    HEAD = "head and loss"
    OPTIMIZER = "optimizer"
    REST = "the rest"


class Kernel(NamedTuple):
    """A kernel, or an operation of a CPU, summed over its launches.

    Attributes:
        operation: its instruction in the compiled program, such as ``input_reduce_fusion.6``.
        name: its name on the device, such as ``nvjet_sm90_tst_128x160_64x5_2x1_v_bz_NNT``.
        origin: the name that JAX gives the instruction, such as
            ``jit(train_step)/jvp(AlbertForPreTraining)/albert/encoder/FeedForward/mul``.
        milliseconds: milliseconds a step.
    """

    operation: str
    name: str
    origin: str
    milliseconds: float


_HEAD = re.compile(r"predict|sop_classifier|pooler|jvp\(\)|take_along_axis")
_ATTENTION = re.compile(r"flash|sdpa|fmha|\bmha_|splash", re.I)
_MATMUL_KERNEL = re.compile(r"nvjet|gemm|xmma|cutlass|cublas|splitKreduce", re.I)
_DENSE = ("query", "key", "value", "dense", "intermediate", "output", "embedding_hidden_mapping_in")
# The halves of a layer, and operations directly in them that are sums of gradients, and so neither
# attention nor GELU.
_SUMS = {"SelfAttention": ("add_any",), "FeedForward": ("add_any", "reduce_sum")}


def part_of(kernel: Kernel) -> Part:
    """Return the part of a kernel, by the module and the operation in its origin.

    Example: ``.../SelfAttention/query/dot_general`` is a matmul, as is ``.../SelfAttention/
    dot_general`` of a fused layer; ``.../SelfAttention/query/add`` is a bias,
    ``.../SelfAttention/reduce_max`` attention, ``.../FeedForward/mul`` GELU. A kernel whose origin
    names neither a forward or backward pass nor a module belongs to the optimizer.
    """
    origin = re.sub(r"eval_jaxpr/|while/|body/|closed_call/|checkpoint/", "", kernel.origin)
    *path, operation = origin.split("/")
    path = [name.removesuffix(".parameters") for name in path]  # a method of a dense layer
    module = next((name for name in reversed(path) if name in (*_DENSE, "layer_norm")), None)
    half = next((name for name in path if name in _SUMS), None)
    if _HEAD.search(origin):
        return Part.HEAD
    if _ATTENTION.search(kernel.name) or "dot_product_attention" in origin:
        return Part.ATTENTION
    if "add_and_norm" in f"{kernel.name} {origin}":  # before modules: a fused one names none
        return Part.LAYER_NORM
    if "gelu_backward" in f"{kernel.name} {origin}":
        return Part.GELU
    if half is not None and module is None and operation in _SUMS[half]:
        return Part.BIASES
    is_product = operation.startswith("dot_general") or _MATMUL_KERNEL.search(kernel.name)
    if half == "SelfAttention" and module is None and not (is_product and path[-1] == half):
        return Part.ATTENTION
    if is_product:
        return Part.MATMULS
    if module == "layer_norm":
        return Part.LAYER_NORM
    if half == "FeedForward" and module is None:
        return Part.GELU
    if module is not None and operation != "convert_element_type":
        return Part.BIASES
    if "jvp(" not in origin and origin.startswith("jit(") and half is None and module is None:
        return Part.OPTIMIZER
    return Part.REST


def sum_by_part(kernels: Iterable[Kernel]) -> dict[Part, float]:
    """Return the milliseconds of every part, zero if it has no kernel."""
    sums = dict.fromkeys(Part, 0.0)
    for kernel in kernels:
        sums[part_of(kernel)] += kernel.milliseconds
    return sums


class Work(NamedTuple):
    """The least that a part must do in a step."""

    flops: float = 0.0
    bytes: float = 0.0

    def bound(self, flops: float | None, copied: float | None) -> tuple[float, str] | None:
        """Return the fewest seconds and what limits them; None without work or known rates.

        Args:
            flops: FLOP/s of matmuls.
            copied: bytes read and written per second.
        """
        bounds = []
        if self.flops and flops:
            bounds.append((self.flops / flops, "operations"))
        if self.bytes and copied:
            bounds.append((self.bytes / copied, "memory"))
        return max(bounds, default=None)


def work_of_parts(config: AlbertConfig, batches: Batches, itemsize: int) -> dict[Part, Work]:
    """Return the work of each part of a step on the first batch, each array read and written once.

    Matmuls are counted three times, for forward and backward pass; their operations hide all that
    they read and write. Attention has the operations of pairs of positions inside a sequence, and
    12 passes: forward it reads query, key and value and writes the context; backward it reads these
    four and the cotangent and writes three gradients. Layer norm has 3 passes forward and 3
    backward for each half, GELU 2 and 3. Biases need one pass over the gradient of each dense
    layer's result; the three gradients of attention's input need one sum. The logits take four
    passes in float32; parameters, with gradient and two moments, take seven.

    Args:
        config: the model.
        batches: the rows.
        itemsize: bytes of a number in the layers.
    """
    hidden, wide = config.hidden_size, config.intermediate_size
    layers = config.num_hidden_layers * config.inner_group_num
    batch = batches.batches[0]
    positions, predictions = batch["sequence_ids"].size, batch["masked_lm_ids"].size
    rows, length = batch["sequence_ids"].shape
    chosen = batch["masked_lm_ids"].shape[1] + batch["sentence_order_labels"].shape[1]
    skipped = rows * skipped_flops(config, length=length, chosen=chosen)
    # The fraction of all layers' positions for which the part after attention is computed.
    computed = 1 - (1 - chosen / length) / layers if skipped else 1
    passes = layers * positions * itemsize  # bytes of one number a position in each layer
    pairs = sum(
        _pairs_in_sequences(
            batch["sequence_ids"], None if config.is_global(number) else config.attention_reach
        )
        for number in range(layers)
    )
    return {
        Part.MATMULS: Work(3 * (dense_flops(config, positions) - skipped)),
        Part.ATTENTION: Work(3 * 4 * pairs * hidden, 12 * passes * hidden),
        Part.LAYER_NORM: Work(bytes=2 * 6 * passes * computed * hidden),
        Part.GELU: Work(bytes=5 * passes * computed * wide),
        Part.BIASES: Work(bytes=passes * (7 * hidden + computed * (2 * hidden + wide))),
        Part.HEAD: Work(
            3 * masked_lm_flops(config, predictions), 4 * 4 * predictions * config.vocab_size
        ),
        Part.OPTIMIZER: Work(bytes=7 * 4 * _parameters(config)),
        Part.REST: Work(),
    }


def _pairs_in_sequences(sequence_ids: np.ndarray, reach: int | None) -> int:
    """Return the number of pairs of positions that attend to each other, without padding.

    Example: the row ``[1, 1, 2, 0]`` has 4 + 1.
    """
    most = int(sequence_ids.max())
    lengths = [np.count_nonzero(sequence_ids == number, axis=1) for number in range(1, most + 1)]
    return sum(pairs_in_window(int(length), reach) for length in np.concatenate(lengths))


def _parameters(config: AlbertConfig) -> int:
    """Return the number of parameters of layers and embeddings, accurate to a percent."""
    hidden, wide = config.hidden_size, config.intermediate_size
    attention = config.attention_copies * 4 * hidden**2
    feed_forward = config.feed_forward_copies * 2 * hidden * wide
    tokens = (config.vocab_size + config.max_position_embeddings) * config.embedding_size
    layers = config.inner_group_num * (attention + feed_forward)
    return layers + tokens + hidden * config.embedding_size
